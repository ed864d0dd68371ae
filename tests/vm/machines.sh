#!/bin/sh
# Two machines, each a host of its own: the mobile one here, with a card in each
# of two networks; its peer (machines-peer.sh) is the router of both. An NFS
# mount and a stream survive moves, daemons doing all.
# vm: seconds=600 machines=2
. "$(dirname "$0")/lib.sh"
in_mobile() { "$@"; }
jexec() { shift; "$@"; }
for card in vtnet0 vtnet1; do
	ifconfig $card >/dev/null 2>&1 || skip_all "this machine has no two cards"
done
join() { # N: in network N and nowhere else
	other=$((2 - $1))
	ifconfig vtnet$other inet "10.$((3 - $1)).0.2" delete 2>/dev/null
	route -q delete default >/dev/null 2>&1
	ifconfig vtnet$other down
	ifconfig vtnet$(($1 - 1)) inet "10.$1.0.2/24" up
	route -q add default "10.$1.0.1" >/dev/null
}
undo() {
	umount -f "$work/mnt" 2>/dev/null
	echo enough | nc -N -w 5 10.2.0.1 9998
	route -q delete default >/dev/null 2>&1
	# What waits in a card to be filled.
	for card in vtnet0 vtnet1; do ifconfig $card down; done
}
load
join 1
# The peer is ready when it hands out the group's key.
limit=120
while ! nc -d -w 3 10.1.0.1 9999 >"$work/group.key" 2>/dev/null || ! [ -s "$work/group.key" ]; do
	sleep 2
	limit=$((limit - 2))
	[ $limit -gt 0 ] || { check "the peer answers" 1; finish; }
done
chmod 600 "$work/group.key"
cat >"$work/mobile.conf" <<END
mobile = true
automatic = false
peers = ["10.9.0.0/24"]
group_key = "$work/group.key"
host_key = "$work/mobile.key"
claims = "$work/mobile.claims"
log_level = "debug"
END
mobctl_in mobile keygen host >/dev/null
"$mobctl" --config "$work/mobile.conf" --control "$work/mobile.sock" daemon -f --pidfile "$work/mobile.pid" >"$work/mobile.log" 2>&1 &
background="$background $!"
sleep 2
talk stream mobile tcp 10.1.0.2 6000 $far4 500 100 1000 &
mkdir "$work/mnt"
mounted=1
if mount -t nfs -o nfsv3,tcp,nolockd,retrycnt=1 $far4:/export "$work/mnt" 2>"$work/mount"; then
	mounted=0
	check "the peer's file system is mounted" 0
else
	skip "NFS: $(cat "$work/mount")"
fi
claimed $((2 - mounted))
check "the connections are claimed" $?
dd if=/dev/urandom of="$work/data" bs=64k count=100 2>/dev/null
sum=$(sha256 -q "$work/data")
if [ $mounted = 0 ]; then
	(for block in $(jot 100 0); do dd if="$work/data" bs=64k skip="$block" count=1 2>/dev/null; sleep 0.2; done) >"$work/mnt/copy" &
	copy=$!
fi
sleep 3
for n in 2 1 2; do
	join $n
	mobctl_in mobile move 10.$((3 - n)).0.2 10.$n.0.2 >"$work/move" 2>&1
	check "moves to network $n: $(tail -n 1 "$work/move")" $?
	flows_on stream "the stream goes on"
done
if [ $mounted = 0 ]; then
	wait $copy
	check "the copy to NFS ends" $?
	sync
	[ "$(sha256 -q "$work/mnt/copy")" = "$sum" ]
	check "and is whole" $?
	netstat -an -p tcp | grep '\.2049 ' | head -n 2
	umount "$work/mnt"
	check "and is unmounted" $?
fi
[ "$(sysctl -n net.inet.mobconn.stats.translated_out)" -gt 0 ]
check "packets were translated ($(sysctl -n net.inet.mobconn.stats.translated_out))" $?
finished stream "the stream is whole"
[ $failed = 0 ] || tail -n 60 "$work/mobile.log"
kill "$(cat "$work/mobile.pid")"
sleep 1
unload
finish

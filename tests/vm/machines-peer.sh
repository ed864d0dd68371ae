#!/bin/sh
# The other machine of machines.sh: router of two networks, and the peer at
# 10.9.0.9 behind itself; an NFS server; ends when it is told to.
# vm: seconds=600
. "$(dirname "$0")/lib.sh"
jexec() { shift; "$@"; }
for card in vtnet0 vtnet1; do
	ifconfig $card >/dev/null 2>&1 || skip_all "this machine has no two cards"
done
load
ifconfig vtnet0 inet 10.1.0.1/24 up
ifconfig vtnet1 inet 10.2.0.1/24 up
ifconfig lo1 create 2>/dev/null
ifconfig lo1 inet $far4/32 up
undo() {
	# What hands out the key outlives the loop around it.
	pkill -f 'nc -N -l 10.1.0.1 9999'
	# nfsd(8) ignores SIGTERM. First, while what it is registered with still answers.
	pkill -USR1 nfsd
	limit=10
	while pgrep -q nfsd && [ $limit -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
	pkill -x mountd
	pkill -x rpcbind
	sleep 1
	umount -f /export 2>/dev/null
	ifconfig lo1 destroy
	for card in vtnet0 vtnet1; do ifconfig $card down; done
}
if command -v nfsd >/dev/null && command -v mountd >/dev/null && command -v rpcbind >/dev/null; then
	mkdir -p /export /var/db /var/run
	mount -t tmpfs tmpfs /export
	echo '/export -maproot=root -network 10.0.0.0/8' >"$work/exports"
	rpcbind && mountd -r "$work/exports" && nfsd -t -n 4 || skip "NFS does not start in this root"
	: >/var/db/mountdtab
fi
cat >"$work/peer.conf" <<END
mobile = false
group_key = "$work/group.key"
host_key = "$work/peer.key"
claims = "$work/peer.claims"
log_level = "debug"
END
mobctl_in peer keygen group >/dev/null && mobctl_in peer keygen host >/dev/null
check "keys are made" $?
"$mobctl" --config "$work/peer.conf" --control "$work/peer.sock" daemon -f --pidfile "$work/peer.pid" >"$work/peer.log" 2>&1 &
background="$background $!"
spawn "$tool" echo $far4 7
sleep 2
# Only now, so that whoever gets it can begin.
(while :; do nc -N -l 10.1.0.1 9999 <"$work/group.key" >/dev/null 2>&1; done) &
background="$background $!"
nc -l 10.2.0.1 9998 >"$work/enough" &
listener=$!
background="$background $listener"
limit=500
while kill -0 $listener 2>/dev/null && [ $limit -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
[ "$(cat "$work/enough")" = enough ]
check "the mobile host is done" $?
[ "$(sysctl -n net.inet.mobconn.stats.translated_in)" -gt 0 ] && [ "$(sysctl -n net.inet.mobconn.stats.translated_out)" -gt 0 ]
check "packets were translated at the peer ($(sysctl -n net.inet.mobconn.stats.translated_in), $(sysctl -n net.inet.mobconn.stats.translated_out))" $?
[ $failed = 0 ] || tail -n 60 "$work/peer.log"
kill "$(cat "$work/peer.pid")"
sleep 1
unload
finish

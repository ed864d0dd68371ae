#!/bin/sh
# Two VNET jails, two access networks and a router on one FreeBSD machine: TCP
# connections between the jails survive two moves, over the loaded module.
# Run as root on FreeBSD 14: jails.sh MODULE MOBCTL. Prints one line a check
# and ends with `N passed, N failed`; undoes what it did.
set -u
module=$1 mobctl=$2
work=$(mktemp -d /tmp/mobconn.XXXXXX)
passed=0 failed=0

check() { # NAME STATUS
	if [ "$2" = 0 ]; then
		passed=$((passed + 1)) && echo "ok $1"
	else
		failed=$((failed + 1)) && echo "FAILED $1"
	fi
}

cleanup() {
	for name in mobile peer; do
		[ -f "$work/$name.pid" ] && kill "$(cat "$work/$name.pid")" 2>/dev/null
	done
	sleep 1
	jail -r mobile 2>/dev/null
	jail -r peer 2>/dev/null
	for pair in ${pairs:-}; do ifconfig "$pair" destroy 2>/dev/null; done
	sysctl -q net.inet.ip.forwarding="$forwarding" net.inet6.ip6.forwarding="$forwarding6" >/dev/null
	rm -rf "$work"
}

# link NAME JAIL: a cable from this machine to the jail; the jail's end is em_NAME.
pairs=
link() {
	end=$(ifconfig epair create)
	pairs="$pairs $end"
	ifconfig "$end" name "rt_$1" >/dev/null
	ifconfig "${end%a}b" name "em_$1" >/dev/null
	pairs="${pairs% *} rt_$1"
	ifconfig "em_$1" vnet "$2"
}

in_mobile() { jexec mobile "$@"; }
in_peer() { jexec peer "$@"; }
mobctl_in() { # JAIL ARGUMENTS...
	jail=$1
	shift
	jexec "$jail" "$mobctl" --config "$work/$jail.conf" --control "$work/$jail.sock" "$@"
}

forwarding=$(sysctl -n net.inet.ip.forwarding)
forwarding6=$(sysctl -n net.inet6.ip6.forwarding)
trap cleanup EXIT
chmod 755 "$work"

kldload "$module"
check "the module loads" $?
for name in mobile peer; do
	jail -c name=$name vnet persist path=/ allow.raw_sockets || exit 1
done
link net1 mobile
link net2 mobile
link far peer
sysctl -q net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1 >/dev/null
ifconfig rt_net1 inet 10.1.0.1/24 up
ifconfig rt_net2 inet 10.2.0.1/24 up
ifconfig rt_far inet 10.9.0.1/24 up
ifconfig rt_net1 inet6 2001:db8:1::1/64 no_dad
ifconfig rt_net2 inet6 2001:db8:2::1/64 no_dad
ifconfig rt_far inet6 2001:db8:9::1/64 no_dad
for name in mobile peer; do jexec $name ifconfig lo0 inet 127.0.0.1/8 up; done
in_peer ifconfig em_far inet 10.9.0.9/24 up
in_peer ifconfig em_far inet6 2001:db8:9::9/64 no_dad
in_peer route -q add default 10.9.0.1
in_peer route -q add -inet6 default 2001:db8:9::1

# attach N: the mobile host is in network N and nowhere else.
attach() {
	other=$((3 - $1))
	in_mobile ifconfig em_net$other inet 10.$other.0.2 delete 2>/dev/null
	in_mobile ifconfig em_net$other inet6 2001:db8:$other::2 delete 2>/dev/null
	in_mobile route -q delete default 2>/dev/null
	in_mobile route -q delete -inet6 default 2>/dev/null
	in_mobile ifconfig em_net$other down
	in_mobile ifconfig em_net$1 inet 10.$1.0.2/24 up
	in_mobile ifconfig em_net$1 inet6 2001:db8:$1::2/64 no_dad
	in_mobile route -q add default 10.$1.0.1
	in_mobile route -q add -inet6 default 2001:db8:$1::1
}
attach 1

for name in mobile peer; do
	cat >"$work/$name.conf" <<-END
		mobile = $([ $name = mobile ] && echo true || echo false)
		automatic = false
		peers = ["10.9.0.0/24", "2001:db8:9::/64"]
		group_key = "$work/group.key"
		host_key = "$work/$name.key"
		claims = "$work/$name.claims"
		log_level = "debug"
	END
	[ $name = peer ] && sed -i '' '/^peers/d' "$work/$name.conf"
done
mobctl_in mobile keygen group >/dev/null && mobctl_in mobile keygen host >/dev/null && mobctl_in peer keygen host >/dev/null
check "keys are made" $?
mobctl_in mobile check && mobctl_in peer check
check "the configurations are right" $?
for name in mobile peer; do
	mobctl_in $name daemon -f --pidfile "$work/$name.pid" >"$work/$name.log" 2>&1 &
done
sleep 2
mobctl_in mobile status

# A source that takes about 24 seconds, so that both moves fall into it.
dd if=/dev/urandom of="$work/data" bs=64k count=60 2>/dev/null
slowly() {
	for block in $(jot 60 0); do
		dd if="$work/data" bs=64k skip="$block" count=1 2>/dev/null
		sleep 0.4
	done
}
sum=$(sha256 -q "$work/data")
# FLOW: which end sends, and over what.
in_peer nc -l 10.9.0.9 5001 >"$work/up4" &
receivers=$!
in_peer nc -6 -l 2001:db8:9::9 5002 >"$work/up6" &
receivers="$receivers $!"
slowly | in_peer nc -N -l 10.9.0.9 5003 &
receivers="$receivers $!"
in_peer nc -l 10.9.0.9 5004 >"$work/idle" &
receivers="$receivers $!"
for port in 5001 5002 5003 5004; do
	until in_peer sockstat -l -p $port | grep -q nc; do sleep 0.2; done
done
slowly | in_mobile nc -N 10.9.0.9 5001 &
senders=$!
slowly | in_mobile nc -6 -N 2001:db8:9::9 5002 &
senders="$senders $!"
in_mobile nc -d 10.9.0.9 5003 >"$work/down4" &
senders="$senders $!"
# An idle connection that speaks at the end.
(sleep 20; echo awake) | in_mobile nc -N 10.9.0.9 5004 &
senders="$senders $!"
sleep 6
mobctl_in mobile peers
mobctl_in mobile status

move() { # FROM TO
	attach "$2"
	mobctl_in mobile move "10.$1.0.2" "10.$2.0.2"
	check "IPv4 moves from network $1 to network $2" $?
	mobctl_in mobile move "2001:db8:$1::2" "2001:db8:$2::2"
	check "IPv6 moves from network $1 to network $2" $?
	echo "mobile's bindings:"
	mobctl_in mobile flows
	echo "peer's bindings:"
	mobctl_in peer flows
}
move 1 2
sleep 6
[ "$(in_mobile sysctl -n net.inet.mobconn.stats.translated_out)" -gt 0 ]
check "packets are translated" $?
kldunload mobconn 2>/dev/null
[ $? != 0 ]
check "the module refuses to go while bindings live" $?
move 2 1

alive() { for pid; do kill -0 "$pid" 2>/dev/null && return; done; false; }
limit=60
while [ $limit -gt 0 ] && alive $senders; do sleep 1; limit=$((limit - 1)); done
sleep 2
for name in up4 up6 down4; do
	[ "$(sha256 -q "$work/$name")" = "$sum" ]
	check "$name arrives complete and identical ($(stat -f %z "$work/$name") bytes)" $?
done
[ "$(cat "$work/idle")" = awake ]
check "the idle connection wakes up" $?
for pid in $senders $receivers; do kill "$pid" 2>/dev/null; done
mobctl_in mobile stats
mobctl_in peer stats
for name in mobile peer; do kill "$(cat "$work/$name.pid")"; done
sleep 1
if [ $failed != 0 ]; then
	for name in mobile peer; do echo "== $name.log"; tail -n 80 "$work/$name.log"; done
fi
sysctl -q net.inet.mobconn.force_unload=1 >/dev/null
kldunload mobconn
check "the module unloads" $?
vmstat -m | grep mobconn
[ -z "$(vmstat -m | awk '$1 == "mobconn" && $2 != 0')" ]
check "no memory is left" $?
echo "$passed passed, $failed failed"
[ $failed = 0 ]

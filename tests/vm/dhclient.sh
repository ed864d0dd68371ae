#!/bin/sh
# The addresses come from FreeBSD's own dhclient(8), as on a laptop: it is in
# network 1, then the cable is pulled and it asks in network 2; then once more by
# hand with ifconfig(8). The daemon notices, and moves the connections.
# vm: seconds=400
. "$(dirname "$0")/lib.sh"
need dhclient
load
make_jail mobile
make_jail peer
link net1 mobile
link net2 mobile
link far peer
router net1:1 net2:2 far:9
in_peer ifconfig em_far inet $far4/24 up
in_peer route -q add default 10.9.0.1 >/dev/null
spawn "$bin/dhcpd" rt_net1 10.1.0.1 10.1.0.52 rt_net2 10.2.0.1 10.2.0.52
mkdir -p /var/db /var/run
ask() { # N: dhclient gets an address in network N
	in_mobile ifconfig "em_net$1" up
	in_mobile dhclient -p "$work/dhclient.em_net$1.pid" -l "$work/leases.$1" "em_net$1" >"$work/dhclient.$1" 2>&1
	[ "$(in_mobile ifconfig "em_net$1" | awk '$1 == "inet" { print $2 }')" = "10.$1.0.52" ]
}
pull() { # N: without a word to anybody
	kill "$(cat "$work/dhclient.em_net$1.pid" 2>/dev/null)" 2>/dev/null
	in_mobile ifconfig "em_net$1" inet "10.$1.0.52" delete
	in_mobile route -q delete default >/dev/null
	in_mobile ifconfig "em_net$1" down
}
ask 1 || { cat "$work/dhclient.1"; skip_all "dhclient got no address in this root"; }
check "dhclient has 10.1.0.52" 0
in_mobile netstat -rn4 | grep -q '^default.*10\.1\.0\.1'
check "and a default route" $?
watching='automatic = true'
daemons
spawn in_peer "$tool" echo $far4 7
sleep 1
talk stream mobile tcp 10.1.0.52 6000 $far4 600 100 500 &
claimed 1
check "the connection is claimed" $?
pull 1
ask 2
check "dhclient has 10.2.0.52" $?
flows_on stream "the stream goes on from the new address"
in_mobile netstat -an -p tcp | grep -q '10\.1\.0\.52\.6000.*ESTABLISHED'
check "and TCP still has the old one" $?

echo "== by hand"
pull 2
in_mobile ifconfig em_net1 inet 10.1.0.77/24 up
in_mobile route -q add default 10.1.0.1 >/dev/null
flows_on stream "the stream goes on after ifconfig"
finished stream "the stream is whole" 200
logs
for name in mobile peer; do kill "$(cat "$work/$name.pid")"; done
sleep 1
unload
finish

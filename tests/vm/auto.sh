#!/bin/sh
# Nobody tells the daemon that the mobile host moves: it notices by itself what
# ifconfig(8) and route(8) do. Break before make, make before break with routers
# that drop foreign sources, the address that comes late, IPv6 that is tentative
# first, old addresses that are kept.
# vm: seconds=400
. "$(dirname "$0")/lib.sh"
kenv net.inet.ip.fw.default_to_accept=1 >/dev/null
load
world
serve
watching='hold_down = 2
keep_old_address = true'
daemons
sleep 1

talk one4 mobile tcp $old4 6001 $far4 1400 100 700 &
talk one6 mobile tcp $old6 6002 $far6 1400 100 700 &
claimed 2
check "two connections are claimed" $?
mobctl_in mobile networks

goes_on() { # NAME WHAT: messages come within four seconds
	since=$(now)
	sleep 4
	count=$(count_since "$1" "$since")
	[ "$count" -gt 10 ]
	check "$2 ($count messages in 4 s, longest gap $(longest_gap "$1" "$since") ms)" $?
}
wait_chosen() { # ADDRESS
	limit=60
	until mobctl_in mobile networks | grep -qF "$1/" && mobctl_in mobile networks | grep -F "$1/" | grep -Eq 'chosen|by-hand'; do
		limit=$((limit - 1))
		[ $limit -gt 0 ] || return 1
		sleep 0.2
	done
}

echo "== break before make"
began=$(now)
leave mobile 1
join mobile 2
wait_chosen $new4
check "the new IPv4 address is chosen" $?
wait_chosen $new6
check "the new IPv6 address is chosen" $?
goes_on one4 "IPv4 goes on by itself"
goes_on one6 "IPv6 goes on by itself"
echo "longest gap at this move: IPv4 $(longest_gap one4 "$began") ms, IPv6 $(longest_gap one6 "$began") ms"
in_mobile ifconfig lo0 | grep -qF "inet $old4 "
check "the old address is kept on lo0" $?
echo hello | in_mobile nc -w 2 -s $old4 -u 10.9.0.9 9 2>/dev/null
check "and a program can bind it" $?
! in_mobile ifconfig lo0 | grep -qF "inet6 $old6 "
check "but no IPv6 address: no other interface could have it again" $?

echo "== back home: the alias goes"
leave mobile 2
join mobile 1
wait_chosen $old4
check "the old address is chosen again" $?
goes_on one4 "IPv4 goes on"
goes_on one6 "IPv6 goes on"
sleep 2
! in_mobile ifconfig lo0 | grep -qF "inet $old4 "
check "it is on lo0 no more" $?

echo "== delete before add, as dhclient(8) does it"
in_mobile ifconfig em_net1 inet $old4 delete
sleep 3
in_mobile ifconfig em_net1 inet 10.1.0.77/24
in_mobile route -q delete default >/dev/null 2>&1
in_mobile route -q add default 10.1.0.1 >/dev/null
wait_chosen 10.1.0.77
check "the address that came late is chosen" $?
goes_on one4 "IPv4 goes on from there"

# Routers that drop what is not from their network: the reverse path is checked.
if command -v ipfw >/dev/null && { kldstat -q -m ipfw || kldload -n ipfw 2>/dev/null; }; then
	loaded="ipfw $loaded"
	ipfw -q flush
	ipfw -q add 100 deny ip from any to any in recv rt_net1 not verrevpath
	ipfw -q add 101 deny ip from any to any in recv rt_net2 not verrevpath
	ipfw -q add 65000 allow ip from any to any
	echo "== make before break: two networks, default routes lead to the first"
	resent() { jexec "$1" netstat -s -p tcp | awk '/data packets.*retransmitted/ { print $1 }'; }
	before=$(resent mobile) before_peer=$(resent peer)
	in_mobile ifconfig em_net2 inet $new4/24 up
	# Tentative at first, and the kernel says nothing when that is over.
	in_mobile ifconfig em_net2 inet6 $new6/64
	# Nobody but who configured it knows the router of the second network.
	mobctl_in mobile poke em_net2 10.2.0.1 2001:db8:2::1
	check "the daemon is told of its router" $?
	mobctl_in mobile prefer em_net2 >/dev/null
	check "and that it is preferred" $?
	wait_chosen $new4
	check "the preferred network is chosen" $?
	mobctl_in mobile networks
	goes_on one4 "IPv4 goes on by the second network"
	goes_on one6 "IPv6 goes on by the second network"
	[ "$(stat mobile steered)" -gt 20 ]
	check "though routes lead to the first ($(stat mobile steered) packets steered)" $?
	foreign=$(ipfw show 100-101 | awk '{ n += $2 } END { print n + 0 }')
	[ "$foreign" = 0 ]
	check "no packet had a foreign source ($foreign)" $?
	[ "$(resent mobile)" = "$before" ] && [ "$(resent peer)" = "$before_peer" ]
	check "no segment was sent twice" $?
	leave mobile 1
	in_mobile route -q add default 10.2.0.1 >/dev/null
	in_mobile route -q add -inet6 default 2001:db8:2::1 >/dev/null
	goes_on one4 "IPv4 goes on when the first network is gone"
	goes_on one6 "IPv6 goes on when the first network is gone"
else
	skip "no ipfw in this kernel"
fi
finished one4 "the IPv4 connection is whole" 200
finished one6 "the IPv6 connection is whole" 200
logs
for name in mobile peer; do kill "$(cat "$work/$name.pid")"; done
sleep 1
unload
finish

#!/bin/sh
# pf(4) and ipfw(4) with stateful rules, on both hosts: nothing passes but what
# has a state. The states of a connection must match before and after a move, and
# when pf has been switched off and on again.
# vm: seconds=600
. "$(dirname "$0")/lib.sh"
need pfctl ipfw
need_module pf
kenv net.inet.ip.fw.default_to_accept=1 >/dev/null
load
world
serve
streams() { # PREFIX PORT COUNT
	for v in 4 6; do talk $1$v mobile tcp "$(at old $v)" $2 "$(at far $v)" $3 100 1000 & done
}
goes_on() { # NAME WHAT
	for v in 4 6; do flows_on $1$v "IPv$v: $2"; done
}
away() { # PORT GENERATION N: as after an outage, so that both ends send at once at the commit
	leave mobile $((3 - $3))
	for v in 4 6; do
		prepare_move "$2" 6 "$(at old $v)" "$1" "$(at far $v)" 7 "$(if [ $v = 4 ]; then echo 10.$3.0.2; else echo 2001:db8:$3::2; fi)" 1
	done
	join mobile "$3"
	for v in 4 6; do
		commit_move "$2" 6 "$(at old $v)" "$1" "$(at far $v)" 7 x 1
		check "IPv$v: port $1 moves to network $3" $?
	done
}
echo "== pf"
cat >"$work/pf.mobile" <<'END'
set skip on lo0
block drop log all
pass quick inet6 proto icmp6
pass out proto tcp to port 7 flags S/SA keep state
END
cat >"$work/pf.peer" <<'END'
set skip on lo0
block drop log all
pass quick inet6 proto icmp6
pass in proto tcp to port 7 flags S/SA keep state
END
for name in mobile peer; do
	jexec $name pfctl -q -e -f "$work/pf.$name"
	check "pf runs at the $name" $?
done
states() { jexec "$1" pfctl -s state 2>/dev/null | grep -c ':7\b\|\[7\]'; }
blocked() { jexec "$1" pfctl -s info 2>/dev/null | awk '$1 == "state-mismatch" { print $2 }'; }
streams pf 6000 900
sleep 4
states_mobile=$(states mobile) states_peer=$(states peer)
[ "$states_mobile" -gt 0 ] && [ "$states_peer" -gt 0 ]
check "the streams have states ($states_mobile, $states_peer)" $?
away 6000 1 2
goes_on pf "the stream goes on behind pf after the move"
[ "$(states mobile)" = "$states_mobile" ] && [ "$(states peer)" = "$states_peer" ]
check "with the states it had" $?
echo "state mismatches: $(blocked mobile) and $(blocked peer)"
for name in mobile peer; do jexec $name pfctl -q -d; done
sleep 0.3
for name in mobile peer; do jexec $name pfctl -q -e; done
goes_on pf "the stream goes on after pf was switched off and on"
[ "$(states mobile)" = "$states_mobile" ] && [ "$(states peer)" = "$states_peer" ]
check "still with the states it had ($(states mobile), $(states peer))" $?
away 6000 2 1
goes_on pf "the stream goes on after it has moved home"
# A reload under traffic.
for name in mobile peer; do jexec $name pfctl -q -f "$work/pf.$name"; done
goes_on pf "and after the rules were loaded anew"
for n in 1 2 3 4 5 6 7 8 9 10; do
	for name in mobile peer; do jexec $name pfctl -q -d; jexec $name pfctl -q -e; done
done
away 6000 3 2
goes_on pf "and after ten times off and on, and a move"
in_mobile pfctl -q -d
in_peer pfctl -q -d
for v in 4 6; do finished pf$v "IPv$v: the stream is whole" 200; done
leave mobile 2
join mobile 1

echo "== ipfw"
need_module ipfw
for name in mobile peer; do
	jexec $name sh -s <<'END'
ipfw -q flush
ipfw -q add 100 allow ip from any to any via lo0
ipfw -q add 200 allow ipv6-icmp from any to any
ipfw -q add 300 check-state
ipfw -q add 400 allow tcp from any to any 7 setup keep-state
ipfw -q add 500 deny tcp from any to any
END
	check "ipfw has its rules at the $name" $?
done
streams fw 6100 600
sleep 4
dynamic=$(in_mobile ipfw -d list | grep -c STATE)
[ "$dynamic" -gt 0 ]
check "the streams have states ($dynamic)" $?
away 6100 1 2
goes_on fw "the stream goes on behind ipfw after the move"
for name in mobile peer; do jexec $name sysctl -q net.inet.ip.fw.enable=0 net.inet6.ip6.fw.enable=0 >/dev/null; done
for name in mobile peer; do jexec $name sysctl -q net.inet.ip.fw.enable=1 net.inet6.ip6.fw.enable=1 >/dev/null; done
goes_on fw "the stream goes on after ipfw was switched off and on"
away 6100 2 1
goes_on fw "the stream goes on after it has moved home"
for v in 4 6; do finished fw$v "IPv$v: the stream is whole" 200; done
in_mobile ipfw show 500
unload
finish

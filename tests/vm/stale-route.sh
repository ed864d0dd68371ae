#!/bin/sh
# The peer is on the very link whose address is left, and the flow moves home
# again. A connection remembers its route: it must not go on sending to the
# router of the network where it was, or to the neighbour that it had before.
# vm: seconds=500
. "$(dirname "$0")/lib.sh"
need_module if_bridge
load
# Both on one link, of which the router is a bridge; network 2 is elsewhere.
make_jail mobile
make_jail peer
link net1 mobile
link net2 mobile
link far peer
bridge=$(ifconfig bridge create)
pairs="$pairs $bridge"
ifconfig "$bridge" addm rt_net1 addm rt_far up
ifconfig rt_net1 up
ifconfig rt_far up
router net2:2
ifconfig "$bridge" inet 10.1.0.1/24
ifconfig "$bridge" inet6 2001:db8:1::1/64 no_dad
near4=10.1.0.9 near6=2001:db8:1::9 far4=10.1.0.9 far6=2001:db8:1::9
in_peer ifconfig em_far inet $near4/24 up
in_peer ifconfig em_far inet6 $near6/64 no_dad
in_peer route -q add default 10.1.0.1 >/dev/null
in_peer route -q add -inet6 default 2001:db8:1::1 >/dev/null
join mobile 1
serve
for v in 4 6; do spawn in_peer "$tool" push "$(at near $v)" 19; done
listening peer 19 2
for v in 4 6; do
	talk up$v mobile tcp "$(at old $v)" 6000 "$(at near $v)" 1000 100 1000 &
	(in_mobile "$tool" hear "$(at old $v)" 6001 "$(at near $v)" 19 3000 >"$work/down$v" 2>"$work/down$v.err"; echo $? >"$work/down$v.status") &
done
sleep 3
go() { # GENERATION N WHAT: as after an outage, so that both ends send at once at the commit
	leave mobile $((3 - $2))
	for v in 4 6; do
		for flow in 6000:7 6001:19; do
			prepare_move "$1" 6 "$(at old $v)" ${flow%:*} "$(at near $v)" ${flow#*:} "$(if [ $v = 4 ]; then echo 10.$2.0.2; else echo 2001:db8:$2::2; fi)" 1
			check "IPv$v: port ${flow%:*} is prepared, $3" $?
		done
	done
	join mobile "$2"
	for v in 4 6; do
		for flow in 6000:7 6001:19; do
			commit_move "$1" 6 "$(at old $v)" ${flow%:*} "$(at near $v)" ${flow#*:} x 1
			check "IPv$v: port ${flow%:*} moves, $3" $?
		done
		eval "moved$v=$(now)"
	done
	limit=$((6 * patience))
	for name in up4 down4 up6 down6; do
		eval "moved=\$moved${name#${name%?}}"
		while [ "$(count_since $name $((moved + 1)))" = 0 ] && [ $limit -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
	done
	sleep 1
	for v in 4 6; do
		eval "moved=\$moved$v"
		for name in up down; do
			first=$(awk -v at="$moved" '$1 > at { print $1 - at; exit }' "$work/$name$v")
			[ "${first:-99999}" -lt $((2000 * patience)) ]
			check "IPv$v: ${name}stream goes on $3 within ${first:-more than 6000} ms, longest gap $(longest_gap $name$v "$moved") ms" $?
		done
	done
}
go 1 2 "to the other network"
go 2 1 "home, beside its peer"
go 3 2 "away again"
go 4 1 "home again"
for v in 4 6; do
	finished up$v "IPv$v: upstream is whole"
	finished down$v "IPv$v: downstream is whole"
done
unload
finish

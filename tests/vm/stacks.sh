#!/bin/sh
# Jails with a network stack of their own come and go with bindings alive, in
# the middle of their traffic, some while packets are held for a commit.
# vm: seconds=900
. "$(dirname "$0")/lib.sh"
load
make_jail peer
link far peer
router far:9
in_peer ifconfig em_far inet $far4/24 up
in_peer ifconfig em_far inet6 $far6/64 no_dad
in_peer route -q add default 10.9.0.1 >/dev/null
in_peer route -q add -inet6 default 2001:db8:9::1 >/dev/null
serve
rounds=15 round=0 moved=0 translated=0
while [ $round -lt $rounds ]; do
	round=$((round + 1))
	make_jail mobile
	# A jail that is gone keeps its stack until its connections have given up: soon.
	in_mobile sysctl -q net.inet.tcp.retries=3 >/dev/null
	link net1 mobile
	ifconfig rt_net1 inet 10.1.0.1/24 up
	ifconfig rt_net1 inet6 2001:db8:1::1/64 no_dad
	join mobile 1
	in_mobile ifconfig em_net1 inet 10.1.0.3/32 alias
	in_mobile ifconfig em_net1 inet6 2001:db8:1::3/128 no_dad alias
	for v in 4 6; do
		talk tcp$v mobile tcp "$(at old $v)" $((6000 + round)) "$(at far $v)" 2000 20 2000 &
		talk udp$v mobile udp "$(at old $v)" $((6000 + round)) "$(at far $v)" 2000 20 3000 &
	done
	sleep 1
	hold=$((round % 2))
	for flow in 6:$old4:$far4:10.1.0.3 17:$old4:$far4:10.1.0.3; do
		IFS=: read -r protocol from to new <<-END
			$flow
		END
		prepare_move 1 "$protocol" "$from" $((6000 + round)) "$to" 7 "$new" $hold &&
		    { [ $hold = 1 ] && [ $((round % 3)) != 0 ] || commit_move 1 "$protocol" "$from" $((6000 + round)) "$to" 7 "$new"; } &&
		    moved=$((moved + 1))
	done
	prepare_move 1 6 $old6 $((6000 + round)) $far6 7 2001:db8:1::3 && commit_move 1 6 $old6 $((6000 + round)) $far6 7 2001:db8:1::3 && moved=$((moved + 1))
	in_mobile "$bin/hostile" fill $((round * 20)) >/dev/null
	sleep 0.5
	translated=$((translated + $(stat mobile translated_out)))
	# The whole jail at once, processes, sockets, bindings and all.
	case $((round % 3)) in
	0) jail -r mobile ;;
	1) ifconfig rt_net1 destroy && pairs=${pairs%rt_net1} && jail -r mobile ;;
	2) jail -r mobile & ifconfig rt_net1 destroy 2>/dev/null; pairs=${pairs%rt_net1}; wait $! ;;
	esac
	jails=${jails%mobile}
	ifconfig rt_net1 destroy 2>/dev/null
	pairs=${pairs%rt_net1}
	limit=20
	while jls -j mobile >/dev/null 2>&1 && [ $limit -gt 0 ]; do sleep 0.5; limit=$((limit - 1)); done
done
[ $round = $rounds ] && [ $moved = $((rounds * 3)) ]
check "$round stacks came and went, with $moved bindings that had moved" $?
[ $translated -gt 0 ]
check "packets were translated in between ($translated)" $?
in_peer "$bin/hostile" flush
limit=$((60 * patience))
while ! kldunload mobconn 2>/dev/null && [ $limit -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
[ $limit -gt 0 ]
check "the module unloads without being forced: no binding is counted any more" $?
# Loaded again, it must find each stack that is there.
load
make_jail late
jexec late "$bin/hostile" fill 10 >/dev/null
[ "$(flows late)" = 10 ] && [ "$(flows peer)" = 0 ]
check "stacks older and younger than the module have their table" $?
unload
finish

#!/bin/sh
# Under traffic of bound flows the interface departs, then the address goes:
# nothing breaks, packets are held or lost, and each flow goes on when it has
# moved; ten times over.
# vm: seconds=600
. "$(dirname "$0")/lib.sh"
load
world
serve
for v in 4 6; do
	talk tcp$v mobile tcp "$(at old $v)" 6000 "$(at far $v)" 900 100 3000 &
	talk udp$v mobile udp "$(at old $v)" 6001 "$(at far $v)" 900 100 3000 &
done
sleep 3
here_now=1 generation=0 times=10
while [ $generation -lt $times ]; do
	generation=$((generation + 1))
	next=$((3 - here_now))
	if [ $((generation % 2)) = 1 ]; then
		# The address first, the interface stays.
		leave mobile $here_now
	else
		# The card is pulled out, with its addresses and routes.
		in_mobile route -q delete default >/dev/null
		in_mobile route -q delete -inet6 default >/dev/null
		ifconfig rt_net$here_now destroy
	fi
	sleep 1
	for v in 4 6; do
		for flow in 6:6000 17:6001; do
			prepare_move $generation ${flow%:*} "$(at old $v)" ${flow#*:} "$(at far $v)" 7 \
			    "$(if [ $v = 4 ]; then echo 10.$next.0.2; else echo 2001:db8:$next::2; fi)" 1 || check "IPv$v: move $generation of protocol ${flow%:*} is prepared" 1
		done
	done
	sleep 0.5
	join mobile $next
	for v in 4 6; do
		for flow in 6:6000 17:6001; do
			commit_move $generation ${flow%:*} "$(at old $v)" ${flow#*:} "$(at far $v)" 7 x 1 || check "IPv$v: move $generation of protocol ${flow%:*} is committed" 1
		done
	done
	for v in 4 6; do flows_on tcp$v "IPv$v: the stream goes on after move $generation" 1; done
	if [ $((generation % 2)) = 0 ]; then
		pairs=$(echo "$pairs" | sed "s/ rt_net$here_now//")
		link net$here_now mobile
		ifconfig rt_net$here_now inet 10.$here_now.0.1/24 up
		ifconfig rt_net$here_now inet6 2001:db8:$here_now::1/64 no_dad
	fi
	here_now=$next
done
[ "$(stat mobile held)" -gt 0 ] && [ "$(stat mobile released)" -gt 0 ]
check "packets were held and sent ($(stat mobile held), $(stat mobile released))" $?
for v in 4 6; do
	finished tcp$v "IPv$v: the stream is whole"
	finished udp$v "IPv$v: no datagram is another one"
done
unload
finish

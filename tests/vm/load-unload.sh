#!/bin/sh
# The module is loaded and unloaded 200 times while packets go through it: TCP
# in IPv4 and IPv6 and a flood of UDP, some rounds with bindings that translate
# the flood. Every byte is checked, and nothing may be left of a round.
# vm: seconds=900
. "$(dirname "$0")/lib.sh"
rounds=200
world
for v in 4 6; do spawn in_peer "$bin/bulk" sink "$(at far $v)" 9; done
until in_peer sockstat -46 -l -p 9 | grep -q tcp6; do sleep 0.2; done
in_mobile ifconfig em_net1 inet 10.1.0.3/32 alias
for v in 4 6; do
	(
		# One after the other, so that there are beginnings and ends too.
		port=7000
		while [ ! -f "$work/enough" ]; do
			in_mobile "$bin/bulk" source "$(at old $v)" $port "$(at far $v)" 9 100000b >>"$work/bulk$v" 2>&1 || echo broken >>"$work/bulk$v"
			port=$((port + 1))
			# The kernel that loads and unloads is the same.
			sleep 0.3
		done
	) &
	background="$background $!"
	spawn in_mobile "$bin/bulk" flood "$(at old $v)" 5000 "$(at far $v)" 5001 300 10000
done
in_peer nc -u -l $far4 5001 >/dev/null &
background="$background $!"

round=0 translated=0
while [ $round -lt $rounds ]; do
	round=$((round + 1))
	kldload "$module" || break
	if [ $((round % 4)) = 0 ]; then
		# The flood has another address on the wire, and comes back to its own at the peer.
		in_mobile "$mobctl" flow add udp $old4:5000 $far4:5001 10.1.0.3:5000 $far4:5001 >>"$work/add" 2>&1
		in_peer "$mobctl" flow add udp $far4:5001 $old4:5000 $far4:5001 10.1.0.3:5000 >>"$work/add" 2>&1
		sleep 0.1
		translated=$((translated + $(stat mobile translated_out)))
		if kldunload mobconn 2>/dev/null; then
			echo "round $round: unloaded although bindings live"
			break
		fi
		sysctl -q net.inet.mobconn.force_unload=1 >/dev/null
	fi
	kldunload mobconn || break
	left=$(vmstat -m | awk '$1 == "mobconn" { print $2 }')
	[ "${left:-0}" = 0 ] || break
done
check "loaded and unloaded $round of $rounds times" $((rounds - round))
[ "${left:-0}" = 0 ]
check "nothing was left of any round (${left:-0})" $?
[ $translated -gt 0 ]
check "the flood was translated in between ($translated packets)" $?
touch "$work/enough"
sleep 3
for v in 4 6; do
	[ "$(grep -c . "$work/bulk$v")" -gt 5 ] && ! grep -q -v '^[0-9]* [0-9]*$' "$work/bulk$v"
	check "IPv$v: $(grep -c . "$work/bulk$v") transfers, each whole" $?
	grep -v '^[0-9]* [0-9]*$' "$work/bulk$v" | head -n 5
done
finish

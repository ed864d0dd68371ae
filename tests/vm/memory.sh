#!/bin/sh
# Short memory: a machine with few mbufs, all of them taken, while bound flows
# send; then all that malloc(9) has. Connections may wait, but not break, and
# nothing may be lost of the machine.
# vm: seconds=400 env=kern.ipc.maxmbufmem=8000000
. "$(dirname "$0")/lib.sh"
limit=$(sysctl -n kern.ipc.nmbufs)
load
world
serve
for v in 4 6; do
	talk tcp$v mobile tcp "$(at old $v)" 6000 "$(at far $v)" 300 100 4000 &
	# In fragments, so that reassembly is short of memory too.
	talk udp$v mobile udp "$(at old $v)" 6001 "$(at far $v)" 300 100 3000 &
done
sleep 3
leave mobile 1
join mobile 2
for v in 4 6; do
	for flow in 6:6000 17:6001; do
		move 1 ${flow%:*} "$(at old $v)" ${flow#*:} "$(at far $v)" 7 "$(at new $v)"
		check "IPv$v: protocol ${flow%:*} moves" $?
	done
done
sleep 2
if [ "$limit" -gt 100000 ]; then
	skip "$limit mbufs are too many to take: needs kern.ipc.maxmbufmem=8000000 from the loader (VM_KERNEL)"
else
	spent=$(netstat -m | awk -F'[/ ]' '/requests for mbufs denied/ { print $1 + $2 + $3 }')
	for round in 1 2 3; do
		"$bin/bulk" hog 6 >"$work/hog" &
		hog=$!
		sleep 5
		netstat -m | sed -n '1p;/denied/p;/delayed/p'
		wait $hog
		sleep 2
	done
	denied=$(netstat -m | awk -F'[/ ]' '/requests for mbufs denied/ { print $1 + $2 + $3 }')
	[ "$denied" -gt "${spent:-0}" ]
	check "mbufs were denied ($denied)" $?
fi
if sysctl -n debug.malloc.failure_rate >/dev/null 2>&1; then
	sysctl -q debug.malloc.failure_rate=20 >/dev/null
	for n in 1 2 3 4 5 6 7 8 9 10; do in_mobile "$bin/hostile" fill 200 $((n * 1000)) >/dev/null; done
	sysctl -q debug.malloc.failure_rate=0 >/dev/null
	check "malloc(9) failed $(sysctl -n debug.malloc.failure_count) times" $?
else
	skip "this kernel cannot make malloc(9) fail (MALLOC_MAKE_FAILURES)"
fi
# A thousand stacks' worth of table: jails, each with a binding, until memory ends or 40 live.
kept=0
for n in $(jot 40); do
	jail -c name=full$n vnet persist path=/ && jails="$jails full$n" || break
	[ "$(jexec full$n "$bin/hostile" fill 1)" = "1 0" ] && kept=$((kept + 1))
done
[ $kept -gt 0 ]
check "$kept more network stacks have a table" $?
vmstat -m | awk '$1 == "mobconn"'
for v in 4 6; do
	finished tcp$v "IPv$v: the TCP stream is whole"
	finished udp$v "IPv$v: no datagram is another one"
	[ "$(wc -l <"$work/udp$v")" -gt 100 ]
	check "IPv$v: most datagrams come back" $?
done
unload
finish

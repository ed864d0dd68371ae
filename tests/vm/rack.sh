#!/bin/sh
# Connections that use the RACK stack, which queues received segments by itself:
# both hosts, both directions, a move after an outage and one without.
# vm: seconds=500
. "$(dirname "$0")/lib.sh"
need_module tcp_rack
sysctl -n net.inet.tcp.functions_available | grep -q rack || skip_all "tcp_rack is loaded, but its stack is not there"
load
world
for name in mobile peer; do
	jexec $name sysctl -q net.inet.tcp.functions_default=rack >/dev/null
	check "$name uses RACK" $?
done
serve
for v in 4 6; do
	spawn in_peer "$bin/bulk" sink "$(at far $v)" 9
	talk rack$v mobile tcp "$(at old $v)" 6000 "$(at far $v)" 1200 100 3000 &
done
sleep 3
for v in 4 6; do
	(in_mobile "$bin/bulk" source "$(at old $v)" 6001 "$(at far $v)" 9 60 >"$work/bulk$v" 2>&1; echo $? >"$work/bulk$v.status"; : >"$work/bulk$v.err") &
done
sleep 2
in_mobile sysctl -n net.inet.tcp.functions_available
in_mobile ifconfig em_net2 inet 10.2.0.2/24 up
in_mobile ifconfig em_net2 inet6 2001:db8:2::2/64 no_dad
for v in 4 6; do
	for flow in 6000:7 6001:9; do
		move 1 6 "$(at old $v)" ${flow%:*} "$(at far $v)" ${flow#*:} "$(at new $v)"
		check "IPv$v: port ${flow%:*} moves" $?
	done
done
moved=$(now)
leave mobile 1
in_mobile route -q add default 10.2.0.1 >/dev/null
in_mobile route -q add -inet6 default 2001:db8:2::1 >/dev/null
for v in 4 6; do
	flows_on rack$v "IPv$v: goes on after the move"
	echo "IPv$v: longest gap $(longest_gap rack$v "$moved") ms"
done
# Home again, after an outage of five seconds.
leave mobile 2
for v in 4 6; do
	for flow in 6000:7 6001:9; do prepare_move 2 6 "$(at old $v)" ${flow%:*} "$(at far $v)" ${flow#*:} "$(at old $v)" 1; done
done
sleep 5
join mobile 1
for v in 4 6; do
	for flow in 6000:7 6001:9; do commit_move 2 6 "$(at old $v)" ${flow%:*} "$(at far $v)" ${flow#*:} x 1; done
done
home=$(now)
for v in 4 6; do
	flows_on rack$v "IPv$v: goes on at home"
	echo "IPv$v: $(awk -v at="$home" '$1 > at { print $1 - at; exit }' "$work/rack$v") ms after the commit"
done
for v in 4 6; do
	finished rack$v "IPv$v: the stream is whole" 200
	finished bulk$v "IPv$v: the bulk is whole ($(cat "$work/bulk$v"))"
done
for name in mobile peer; do jexec $name sysctl -q net.inet.tcp.functions_default=freebsd >/dev/null; done
unload
finish

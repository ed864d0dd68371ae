#!/bin/sh
# Connections that use the RACK stack, which queues received segments by itself:
# both hosts, a stream there and back and bulk, away, home and away again.
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
	talk rack$v mobile tcp "$(at old $v)" 6000 "$(at far $v)" $((1200 * patience)) 100 3000 &
done
sleep 3
for v in 4 6; do
	(in_mobile "$bin/bulk" source "$(at old $v)" 6001 "$(at far $v)" 9 $((120 * patience)) >"$work/bulk$v" 2>&1; echo $? >"$work/bulk$v.status"; : >"$work/bulk$v.err") &
done
sleep 2
in_mobile sysctl -n net.inet.tcp.functions_available
# Never without a route: RACK hands "no route to host" to the application, mobconn or not.
go() { # GENERATION N WHAT
	in_mobile ifconfig em_net$2 inet 10.$2.0.2/24 up
	in_mobile ifconfig em_net$2 inet6 2001:db8:$2::2/64 no_dad
	for v in 4 6; do
		for flow in 6000:7 6001:9; do
			move "$1" 6 "$(at old $v)" ${flow%:*} "$(at far $v)" ${flow#*:} "$(if [ $v = 4 ]; then echo 10.$2.0.2; else echo 2001:db8:$2::2; fi)"
			check "IPv$v: port ${flow%:*} moves $3" $?
		done
	done
	moved=$(now)
	in_mobile route -q change default 10.$2.0.1 >/dev/null
	in_mobile route -q change -inet6 default 2001:db8:$2::1 >/dev/null
	other=$((3 - $2))
	in_mobile ifconfig em_net$other inet 10.$other.0.2 delete
	in_mobile ifconfig em_net$other inet6 2001:db8:$other::2 delete
	in_mobile ifconfig em_net$other down
	before=$failed
	for v in 4 6; do
		flows_on rack$v "IPv$v: goes on $3"
		echo "IPv$v: longest gap $(longest_gap rack$v "$moved") ms"
	done
	[ $failed = "$before" ] || for name in mobile peer; do
		echo "== $name" && jexec $name "$mobctl" flows
		jexec $name netstat -rn
		jexec $name ndp -an
		jexec $name ifconfig -a
		jexec $name netstat -an -p tcp
		jexec $name sysctl net.inet.mobconn.stats | grep -v ': 0$'
	done
}
go 1 2 "in the other network"
go 2 1 "at home"
go 3 2 "in the other network again"
[ "$(stat mobile translated_out)" -gt 100 ] && [ "$(stat peer translated_in)" -gt 100 ]
check "packets were translated ($(stat mobile translated_out), $(stat peer translated_in))" $?
for v in 4 6; do
	finished rack$v "IPv$v: the stream is whole" 200
	finished bulk$v "IPv$v: the bulk is whole ($(cat "$work/bulk$v"))" 200
done
for name in mobile peer; do jexec $name sysctl -q net.inet.tcp.functions_default=freebsd >/dev/null; done
unload
finish

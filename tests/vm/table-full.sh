#!/bin/sh
# The table is full: what is refused says so and changes nothing, what is bound
# goes on, and there is room again when something ends.
# vm: seconds=300
. "$(dirname "$0")/lib.sh"
kenv net.inet.mobconn.max_flows=64 >/dev/null
undo() { kenv -u net.inet.mobconn.max_flows >/dev/null 2>&1; }
load
[ "$(sysctl -n net.inet.mobconn.max_flows)" = 64 ]
check "the tunable is taken" $?
world
serve
for v in 4 6; do talk bound$v mobile tcp "$(at old $v)" 6000 "$(at far $v)" 200 100 500 & done
talk refused mobile tcp $old4 6001 $far4 200 100 500 &
sleep 3
for v in 4 6; do
	move 1 6 "$(at old $v)" 6000 "$(at far $v)" 7 "$(if [ $v = 4 ]; then echo 10.1.0.3; else echo 2001:db8:1::3; fi)" ||
	    check "IPv$v: a binding is made before the table is full" 1
done
in_mobile ifconfig em_net1 inet 10.1.0.3/32 alias
in_mobile ifconfig em_net1 inet6 2001:db8:1::3/128 no_dad alias
[ "$(in_mobile "$bin/hostile" fill 100)" = "62 28" ]
check "64 bindings fit, the next is ENOSPC" $?
[ "$(flows mobile)" = 64 ] && [ "$(stat mobile refused_full)" = 1 ]
check "and is counted" $?
! prepare_move 1 6 $old4 6001 $far4 7 10.1.0.3 2>"$work/full"
check "a move of a flow that is not bound is refused: $(sed 's/.*: //' "$work/full" | head -n 1)" $?
sleep 4
[ "$(stat mobile translated_out)" -gt 20 ]
check "bound flows go on" $?
in_mobile "$bin/hostile" drain 62 && [ "$(flows mobile)" = 2 ]
check "room again" $?
prepare_move 1 6 $old4 6001 $far4 7 10.1.0.3 && commit_move 1 6 $old4 6001 $far4 7 10.1.0.3
check "the refused flow moves now" $?
[ "$(in_mobile "$bin/hostile" fill 100)" = "61 28" ] && in_mobile "$bin/hostile" drain 61
check "and 61 others fit" $?
for name in bound4 bound6 refused; do finished $name "$name is whole"; done
unload

# Sizes that are nonsense, and one that this machine has no memory for.
for size in 0 4294967295 16777216; do
	kenv net.inet.mobconn.max_flows=$size >/dev/null
	kldload "$module"
	check "max_flows=$size: loads with $(sysctl -n net.inet.mobconn.max_flows)" $?
	# One binding takes the memory of the whole table.
	[ "$("$bin/hostile" fill 1)" = "1 0" ]
	check "max_flows=$size: and that many fit into memory" $?
	vmstat -m | awk '$1 == "mobconn"'
	"$bin/hostile" flush
	kldunload mobconn
	check "max_flows=$size: unloads" $?
done
finish

#!/bin/sh
# The other machine of newcomer.sh: the host that stays, and the router on the way to it.
# vm: seconds=600
. "$(dirname "$0")/lib.sh"
. "$here/newcomer-steps.sh"
jexec() { shift; "$@"; }
undo() {
	# What hands out the key outlives the loop around it.
	pkill -f 'nc -N -l 10.1.0.1 9999'
	undo_all
	ifconfig lo1 destroy
}
ifconfig vtnet0 inet 10.1.0.1/24 up
ifconfig vtnet0 inet 10.2.0.1/24 alias
ifconfig lo1 create 2>/dev/null
ifconfig lo1 inet $far4/32 up
install_all
follow "the keys and the configuration" 1
follow "the start" 3
spawn "$tool" echo $far4 7
(while :; do nc -N -l 10.1.0.1 9999 <"$etc/group.key" >/dev/null 2>&1; done) &
background="$background $!"
nc -l 10.1.0.1 9998 >"$work/enough" &
listener=$!
background="$background $listener"
limit=500
while kill -0 $listener 2>/dev/null && [ $limit -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
[ "$(cat "$work/enough")" = enough ]
check "the mobile host is done" $?
[ "$(sysctl -n net.inet.mobconn.stats.translated_in)" -gt 0 ]
check "packets were translated at the peer" $?
manage
[ $failed = 0 ] || grep mobc /var/log/messages
finish

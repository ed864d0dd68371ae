#!/bin/sh
# What an administrator sees: what a daemon may, events, status, doctor, sysctls, dtrace's probes; unloading under an open monitor.
# vm: seconds=400
. "$(dirname "$0")/lib.sh"
load
world
daemons
serve
spawn talk told mobile tcp $old4 6000 $far4 $((400 * patience)) 100 500
claimed 1
check "the flow is claimed" $?

for name in mobile peer; do
	"$tool" confined "$(cat "$work/$name.pid")"
	check "$name: the daemon cannot be traced, and gains no privileges" $?
	spawn mobctl_in $name monitor --json >"$work/$name.events"
done
events() { grep -c "\"kind\":\"$2\"" "$work/$1.events"; } # JAIL KIND
wait_for() { # JAIL KIND: at most 20 seconds
	limit=40
	while [ "$(events "$1" "$2")" = 0 ] && [ $limit -gt 0 ]; do sleep 0.5; limit=$((limit - 1)); done
	[ "$(events "$1" "$2")" != 0 ]
}
for name in mobile peer; do
	wait_for $name watched
	check "$name: the monitor watches" $?
done
dtrace=
if command -v dtrace >/dev/null && { kldload -n dtraceall || kldload -n dtrace sdt profile; } 2>/dev/null; then
	dtrace -q -n 'mobconn:::rebind { printf("rebind %s %s\n", stringof(arg0), stringof(arg1)); }
	    mobconn:::translate-in,mobconn:::translate-out { @[probename] = count(); } tick-20s { exit(0); }' >"$work/dtrace" 2>&1 &
	dtrace=$!
	sleep 3
else
	skip "this root has no dtrace"
fi

in_mobile ifconfig em_net2 inet $new4/24 up
in_mobile route -q change default 10.2.0.1 >/dev/null
in_mobile ifconfig em_net1 inet $old4 delete
mobctl_in mobile move $old4 $new4 >"$work/move"
grep -q '^[0-9a-f].* moved ' "$work/move"
check "the flow moves" $?
for pair in mobile:prepared mobile:rebound mobile:move-committed peer:rebound peer:peer-moved; do
	wait_for "${pair%:*}" "${pair#*:}"
	check "${pair%:*} is told: ${pair#*:}" $?
done
mobctl_in mobile status >"$work/status"
grep -q "^state: .*mobile, moved to $new4" "$work/status"
check "status says where this host is: $(head -n 1 "$work/status")" $?
mobctl_in mobile doctor >"$work/doctor"
for finding in config module table daemon hooks address firewall route; do
	grep -q "^ok *$finding " "$work/doctor"
	check "doctor: $(grep " $finding " "$work/doctor" | head -n 1)" $?
done
mobctl_in mobile top | grep -q "$new4:6000"
check "top shows the flow" $?
kill -INFO "$(cat "$work/mobile.pid")"
sleep 1
grep -q 'mobile, moved to .* troubles' "$work/mobile.log"
check "SIGINFO writes a line to the log" $?
[ -z "$(sysctl -d net.inet.mobconn | grep ': *$' | grep -v '^net.inet.mobconn')" ] && sysctl -d net.inet.mobconn.stats.held | grep -q 'kept'
check "sysctls have descriptions" $?
vmstat -m | grep -q '^ *mobconn '
check "malloc type: $(vmstat -m | grep '^ *mobconn ')" $?
finished told "the flow is whole"
if [ -n "$dtrace" ]; then
	wait "$dtrace"
	grep -q "^rebind tcp 10.1.0.2:6000 10.9.0.9:7 tcp 10.2.0.2:6000 10.9.0.9:7" "$work/dtrace" && grep -q translate-out "$work/dtrace"
	check "dtrace's probes tell of the move" $?
	[ $failed = 0 ] || cat "$work/dtrace"
fi

# The monitors have the device open, one of them asleep in a poll.
unload
for name in mobile peer; do
	wait_for $name absent
	check "$name: the monitor notices that the module has gone" $?
done
logs
[ $failed = 0 ] || { cat "$work/doctor" "$work/status"; tail -n 30 "$work/mobile.events"; }
finish

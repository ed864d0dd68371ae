#!/bin/sh
# Runs the scenarios of the file `plan` beside it, a line `NAME SECONDS` each, as
# root on this very kernel; results/NAME.log says how each went, with what it
# left behind in the kernel.
cd "$(dirname "$0")" || exit 1
results=$PWD/results
mkdir -p "$results"
say() { echo "vmtest: $*"; }
say "begins on $(uname -srm), $(sysctl -n kern.ident), $(sysctl -n hw.ncpu) processors, $(($(sysctl -n hw.physmem) >> 20)) MB"
{
	uname -v
	sysctl -n kern.ident kern.osreldate hw.ncpu kern.vm_guest
	sysctl -n kern.conftxt 2>/dev/null | grep -E '(INVARIANTS|WITNESS|KASAN|DDB)$'
} >"$results/kernel"

mbufs() { netstat -m | awk -F/ '/mbufs in use/ { print $1; exit }'; }
memory() { vmstat -m | awk '$1 == "mobconn" { print $2 }'; }

# limited SECONDS COMMAND...: 124 or 137 when it took longer.
limited() {
	if command -v timeout >/dev/null; then
		timeout -k 20 "$@"
		return
	fi
	seconds=$1
	shift
	"$@" &
	child=$!
	(sleep "$seconds"; kill $child; sleep 20; kill -9 $child) 2>/dev/null &
	watchdog=$!
	wait $child
	ended=$?
	kill $watchdog 2>/dev/null
	[ $ended != 143 ] || ended=124
	return $ended
}

# What a scenario must not leave behind. Packets may still be on their way.
leaks() { # MBUFS_BEFORE
	limit=15
	while [ $limit -gt 0 ]; do
		left=$(memory) now=$(mbufs)
		[ "${left:-0}" = 0 ] && [ "$now" -le $(($1 + 64)) ] && break
		sleep 1
		limit=$((limit - 1))
	done
	if [ "${left:-0}" = 0 ]; then echo "ok no memory of the module's is left"; else echo "FAILED $left pieces of the module's memory are left"; fi
	if [ "$now" -le $(($1 + 64)) ]; then echo "ok mbufs: $1 before, $now after"; else echo "FAILED mbufs: $1 before, $now after"; fi
	if kldstat -q -n mobconn.ko; then echo "FAILED the module is still loaded"; else echo "ok the module is gone"; fi
}

run() { # SCENARIO SECONDS
	log=$results/$1.log
	: >"$log"
	tail -f "$log" &
	tail=$!
	before=$(mbufs)
	began=$(date +%s)
	limited "$2" sh "./$1.sh" "$PWD/bin/mobconn.ko" "$PWD/bin/mobctl" "$PWD/bin/enginetool" >>"$log" 2>&1 </dev/null
	status=$?
	case $status in
	0 | 1) ;;
	124 | 137) echo "FAILED $1: not done after $2 seconds" >>"$log" ;;
	*) echo "FAILED $1: ended with status $status" >>"$log" ;;
	esac
	leaks "$before" >>"$log" 2>&1
	echo "$(($(date +%s) - began)) seconds" >>"$log"
	sleep 1
	kill $tail 2>/dev/null
	wait $tail 2>/dev/null
}

while read -r scenario seconds; do
	say "scenario $scenario"
	run "$scenario" "$seconds"
done <plan
vmstat -m >"$results/vmstat-m"
netstat -m >"$results/netstat-m"
vmstat -z >"$results/vmstat-z"
# The last word of a scenario that watches the machine from the start.
dmesg >"$results/dmesg"

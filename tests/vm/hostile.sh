#!/bin/sh
# Every ioctl(2) with hostile arguments: as root, as an ordinary user, in a jail
# that shares the machine's network stack, in one with a stack of its own; then
# random ones from several threads while packets go through the table.
# vm: seconds=600
. "$(dirname "$0")/lib.sh"
load
hostile() { # NAME COMMAND...: counts the lines of a run of bin/hostile
	what=$1
	shift
	"$@" >"$work/out" 2>&1
	status=$?
	good=$(grep -c '^ok ' "$work/out")
	passed=$((passed + good))
	grep -v '^ok ' "$work/out"
	bad=$(grep -c '^FAILED ' "$work/out")
	failed=$((failed + bad))
	[ "$good" -gt 0 ] && { [ $status = 0 ] || [ "$bad" != 0 ]; }
	check "$what ($good answers)" $?
}
hostile "root" "$bin/hostile" all
hostile "an ordinary user has no way to open the device" "$bin/hostile" as 65534 "$bin/hostile" open 13
hostile "an ordinary user with root's descriptor" "$bin/hostile" inherited 65534 1
jail -c name=shared path=/ persist ip4=inherit ip6=inherit && jails="$jails shared"
hostile "root of a jail without a network stack" jexec shared "$bin/hostile" denied 1
make_jail own
hostile "root of a jail with a network stack" jexec own "$bin/hostile" all
hostile "an ordinary user there" jexec own "$bin/hostile" inherited 65534 1
# A table of one stack is none of another's.
jexec own "$bin/hostile" fill 100 >/dev/null
[ "$(flows own)" = 100 ] && [ "$(sysctl -n net.inet.mobconn.flows)" = 0 ]
check "the jail's bindings are the jail's" $?
jail -r own && jails=${jails%own}
world
serve
for v in 4 6; do talk busy$v mobile tcp "$(at old $v)" 6000 "$(at far $v)" 400 50 2000 & done
for name in mobile peer; do
	jexec $name "$bin/hostile" random 15 4 >"$work/random.$name" 2>&1 &
	eval "random_$name=\$!"
done
wait "$random_mobile"
check "$(cat "$work/random.mobile")" $?
wait "$random_peer"
check "$(cat "$work/random.peer")" $?
for v in 4 6; do finished busy$v "IPv$v: traffic beside it is whole"; done
sysctl net.inet.mobconn >/dev/null && in_mobile sysctl net.inet.mobconn >/dev/null
check "the sysctls can be read" $?
for bad in max_flows=5 flows=1 stats.displaced=1; do
	! in_mobile sysctl "net.inet.mobconn.$bad" >/dev/null 2>&1
	check "net.inet.mobconn.$bad is refused" $?
done
! "$bin/hostile" as 65534 sysctl net.inet.mobconn.force_unload=1 >/dev/null 2>&1
check "an ordinary user sets nothing" $?
! in_mobile sysctl net.inet.mobconn.force_unload=1 >/dev/null 2>&1
check "nor does a jail" $?
unload
finish

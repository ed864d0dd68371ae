#!/bin/sh
# The harness itself, without a FreeBSD: what a console must not say is noticed;
# an image is entered by its serial console; machines that panic, hang or leave
# nothing are failures; without a machine it skips. usage: selftest.sh VMTEST
set -u
vmtest=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
check() { # NAME STATUS
	if [ "$2" = 0 ]; then passed=$((passed + 1)) && echo "ok $1"; else failed=$((failed + 1)) && echo "FAILED $1"; fi
}
. "$here/judge.sh"
while IFS= read -r line; do
	printf 'a line before\n%s\na line behind\n' "$line" >"$work/console"
	! judge_console "$work/console" >/dev/null
	check "noticed: $line" $?
done <<'END'
panic: page fault
Fatal trap 12: page fault while in kernel mode
Fatal double fault
lock order reversal: (sleepable after non-sleepable)
acquiring duplicate lock of same type: "mobconn"
Sleeping on "wait" with the following non-sleepable locks held:
malloc(M_WAITOK) with the following non-sleepable locks held:
panic: Assertion curvnet != NULL failed at /usr/src/sys/net/vnet.h:1
KASAN: Invalid access, 8-byte read at 0xfffffe0000000000
Memory modified after free 0xfffff80003e0a000(248) val=0 @ 0xfffff80003e0a010
Warning: memory type mobconn leaked memory on destroy (3 allocations, 48 bytes leaked).
Freed UMA keg (rtentry) was not empty (1 items).  Lost 1 pages of memory.
Dumping 256 out of 991 MB:..7%
spin lock 0xffffffff81e0f5c0 (sched lock 0) held by 0xfffff80003a3e740 (tid 100123) too long
panic: deadlres_td_sleep_q: possible deadlock detected for 0xfffff8000, blocked for 1800000 ticks
END
printf 'epair0a: link state changed to UP\nmobconn: 3 bindings live, so it stays loaded\nok nothing else\n' >"$work/console"
judge_console "$work/console" >/dev/null
check "an ordinary console is clean" $?
printf 'lock order reversal:\nvmtest: begins on FreeBSD\nok\n' >"$work/console"
judge_console "$work/console" >/dev/null
check "what the kernel says of itself at boot is not the module's" $?
printf 'vmtest: begins on FreeBSD\nok\nlock order reversal:\n' >"$work/console"
! judge_console "$work/console" >/dev/null
check "what it says later is" $?

# A machine that is a script: it asks for a login as an image does, and leaves results or does not.
cat >"$work/machine" <<'END'
#!/bin/sh
for argument; do
	case $argument in
	file=*.out,*) out=${argument#file=} out=${out%%,*} ;;
	esac
done
word() { # one line of the keyboard, which ends with a carriage return
	got=
	while :; do
		key=$(dd bs=1 count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
		[ "$key" != 13 ] || break
		got="$got$(printf "\\$(printf %03o "$key")")"
	done
}
printf 'FreeBSD/amd64 (vm) (ttyu0)\r\n\r\nlogin: '
word
[ "$got" = root ] || exit
printf 'vm # '
word
case $got in
*"tar xpf /dev/vtbd1"*run.sh) echo "vmtest: begins" ;;
*) exit ;;
esac
folder=$(mktemp -d)
echo kernel >"$folder/kernel"
echo "ok it was here" >"$folder/rack.log"
case $MACHINE in
good) ;;
bad) echo "FAILED something" >>"$folder/rack.log" ;;
panic) echo "panic: page fault" ;;
silent) exit ;;
hang) sleep 100 ;;
debugger) printf 'KDB: enter: panic\r\n[ thread pid 0 tid 100000 ]\r\ndb> '; sleep 100 ;;
esac
tar -cf "$out" -C "$folder" .
rm -r "$folder"
END
chmod +x "$work/machine"
: >"$work/image.raw"
start() { # MACHINE [SECONDS]
	began=$(date +%s)
	MACHINE=$1 VM_ACCEL=tcg VM_KERNEL='' VM_ROOT='' VM_QEMU=$work/machine VM_IMAGE=$work/image.raw VM_LOGS=$work/logs.$1 \
	    VM_SECONDS=${2:-60} "$vmtest" rack >"$work/said.$1" 2>&1
	echo "$? $(($(date +%s) - began))" >"$work/ended.$1"
}
# The first one has the guest's programs built. The others wait most of the time, so all at once.
start good
for machine in bad panic silent debugger; do start $machine & done
start hang 20
wait
try() { # MACHINE EXIT LINE
	read -r status seconds <"$work/ended.$1"
	[ "$status" = "$2" ] && tail -n 1 "$work/said.$1" | grep -q "$3"
	check "a machine that is $1: $(tail -n 1 "$work/said.$1"), $seconds seconds" $?
}
try good 0 '^2 passed, 0 failed'
try bad 1 '^2 passed, 1 failed'
try panic 1 '^1 passed, 1 failed'
try silent 1 '^1 passed, 1 failed'
try hang 1 '^1 passed, 2 failed'
try debugger 1 ' [1-9][0-9]* failed'
VM_KERNEL='' VM_ROOT='' VM_IMAGE='' "$vmtest" rack >"$work/said" 2>&1
[ $? = 0 ] && grep -q '^SKIPPED' "$work/said" && grep -q '^0 passed, 0 failed, 1 skipped' "$work/said"
check "no machine at all: skipped, and said so" $?
! VM_IMAGE=$work/nowhere VM_KERNEL='' VM_ROOT='' "$vmtest" rack >"$work/said" 2>&1
check "an image that is not there is a mistake, not a skip" $?
echo "$passed passed, $failed failed"
[ $failed = 0 ]

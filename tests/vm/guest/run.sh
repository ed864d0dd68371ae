#!/bin/sh
# Inside the machine, as root: has the scenarios run that the file `plan` beside
# it names (suite.sh), and puts what they said onto the third disk; then powers
# off. tests/vm/README.md says how it gets here.
PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin
LC_ALL=C HOME=/root
export PATH LC_ALL HOME
cd "$(dirname "$0")" || exit 1
touch /tmp/.mobconn 2>/dev/null || mount -t tmpfs -o mode=1777 tmpfs /tmp
[ -e /dev/bpf ] || mount -t devfs devfs /dev
# A crash must end the machine, and show itself on the console.
sysctl -q debug.debugger_on_panic=0 >/dev/null 2>&1
sysctl -q kern.panic_reboot_wait_time=0 >/dev/null 2>&1
sh ./suite.sh
sync
tar cf /dev/vtbd2 -C results . && echo "vmtest: the end"
sleep 1
halt -p -q
sleep 60

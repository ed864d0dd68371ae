#!/bin/sh
# Two machines that have never seen mobconn: what `make install` makes is put there, and then the README is followed to
# the word on both (README.md's blocks are run, but for addresses and interfaces); a stream survives the new address.
# vm: seconds=600 machines=2
. "$(dirname "$0")/lib.sh"
. "$here/newcomer-steps.sh"
in_mobile() { "$@"; }
jexec() { shift; "$@"; }
undo() {
	echo enough | nc -N -w 5 10.1.0.1 9998
	undo_all
}
ifconfig vtnet0 inet $old4/24 up
route -q add default 10.1.0.1 >/dev/null
install_all
follow "the keys and the configuration" 1 -e '/keygen group/d'
# The key of the group, as scp would bring it.
limit=120
until nc -d -w 3 10.1.0.1 9999 >"$etc/group.key" 2>/dev/null && [ -s "$etc/group.key" ]; do
	sleep 2
	limit=$((limit - 2))
	[ $limit -gt 0 ] || { check "the other host answers" 1; finish; }
done
chmod 600 "$etc/group.key"
block 2 | sed -e 's,"192.0.2.0/24","10.9.0.0/24",' >>"$etc/mobctl.conf"
follow "the start" 3
talk stream mobile tcp $old4 6000 $far4 400 100 1000 &
sleep 3
mobctl status
limit=$((30 * patience))
until mobctl status | grep -q '[1-9] claimed'; do
	sleep 1
	limit=$((limit - 1))
	[ $limit -gt 0 ] || break
done
[ $limit -gt 0 ]
check "the stream is claimed" $?
mobctl doctor >"$work/doctor"
check "the doctor finds nothing bad" $?
cat "$work/doctor"
follow "another address" 4 -e 's/em0/vtnet0/' -e "s/192.0.2.5/$old4/" -e 's,198.51.100.7,10.2.0.2,' -e 's/198.51.100.1$/10.2.0.1/'
flows_on stream "the stream goes on at the new address" 5 20
mobctl status >"$work/status"
grep -q 'mobile, moved to 10.2.0.2' "$work/status"
check "status says so: $(head -n 1 "$work/status")" $?
for command in flows peers networks stats; do
	mobctl $command >"$work/out" && [ "$(wc -l <"$work/out")" -gt 1 ]
	check "mobctl $command shows something" $?
done
finished stream "the stream is whole"
manage
[ $failed = 0 ] || grep mobc /var/log/messages
finish

# Sourced by newcomer.sh and newcomer-peer.sh: the steps of the README.
etc=/usr/local/etc/mobconn
ifconfig vtnet0 >/dev/null 2>&1 || skip_all "this machine has no card"
need service sysrc nc
[ -f "$here/installed.tar" ] || skip_all "the payload has no installed files"
syslogd=
if ! pgrep -q syslogd; then
	touch /var/log/messages
	syslogd -s 2>/dev/null && syslogd=/var/run/syslog.pid
fi
# Back to what there was: the module is the library's to unload.
undo_all() {
	service mobconn onestop >/dev/null 2>&1
	[ -z "$syslogd" ] || kill "$(cat $syslogd)"
	ifconfig vtnet0 down
}

install_all() {
	tar -xpf "$here/installed.tar" -C / && [ -f /boot/modules/mobconn.ko ] && [ -x /usr/local/etc/rc.d/mobconn ]
	check "everything is installed" $?
}
# block NUMBER: of the blocks in README.md where the first pair of hosts is set up.
block() {
	awk -v wanted="$1" '/^## / { here = /first pair of hosts/ } !here { next }
	    /^```/ { inside = !inside; blocks += inside; next } inside && blocks == wanted' "$here/README.md"
}
# follow WHAT NUMBER [SED...]: has a shell do what the block says.
follow() {
	what=$1 number=$2
	shift 2
	block "$number" | sed -e '' "$@" >"$work/step"
	[ -s "$work/step" ] && sh -e "$work/step" >"$work/said" 2>&1
	check "$what, as the README says" $?
	sed 's/^/  /' "$work/said"
}
# What an administrator does with the service afterwards.
manage() {
	service mobconn status >"$work/said"
	check "service mobconn status: $(head -n 1 "$work/said")" $?
	service mobconn reload >"$work/said" 2>&1
	check "service mobconn reload" $?
	sleep 2
	echo 'colour = "blue"' >>$etc/mobctl.conf
	if service mobconn restart >"$work/said" 2>&1; then false; else grep -q 'mobctl.conf: line [0-9]' "$work/said"; fi
	check "a wrong configuration is refused before anything is stopped: $(head -n 1 "$work/said")" $?
	sed -i '' '$d' $etc/mobctl.conf
	service mobconn status >/dev/null
	check "the daemon still runs" $?
	service mobconn stop >"$work/said" 2>&1
	check "service mobconn stop" $?
	if service mobconn status >/dev/null 2>&1; then false; else true; fi
	check "then it does not run" $?
}

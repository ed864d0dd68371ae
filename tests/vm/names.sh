#!/bin/sh
# The host's name at BIND 9: moves that nobody tells of, no path, kill -9, the end
# The server runs beside the machine; FreeBSD's own resolver says what it has.
# vm: seconds=300 cards=names
. "$(dirname "$0")/lib.sh"
need getent
for card in vtnet0 vtnet1; do
	ifconfig $card >/dev/null 2>&1 || skip_all "no name server: the harness needs Linux as root, with tap devices and BIND 9"
done
load
make_jail mobile
for card in vtnet0 vtnet1; do ifconfig $card vnet mobile; done
cp /etc/resolv.conf "$work/resolv.conf" 2>/dev/null
undo() {
	for card in vtnet0 vtnet1; do
		# A card that is up keeps hundreds of mbufs to receive into.
		in_mobile ifconfig $card down
		ifconfig $card -vnet mobile
	done
	if [ -f "$work/resolv.conf" ]; then cp "$work/resolv.conf" /etc/resolv.conf; else rm -f /etc/resolv.conf; fi
}
echo 'nameserver 10.3.0.53' >/etc/resolv.conf
come() { # N: the host is in network N, without a route to anywhere else
	in_mobile ifconfig vtnet$(($1 - 1)) inet 10.$1.0.2/24 up
	in_mobile ifconfig vtnet$(($1 - 1)) inet6 2001:db8:$1::2/64 no_dad
}
route_by() { in_mobile route -q add default 10.$1.0.1 >/dev/null; }
go() { # N
	in_mobile route -q delete default >/dev/null 2>&1
	in_mobile ifconfig vtnet$(($1 - 1)) inet 10.$1.0.2 delete
	in_mobile ifconfig vtnet$(($1 - 1)) inet6 2001:db8:$1::2 delete
	in_mobile ifconfig vtnet$(($1 - 1)) down
}
told() { # the addresses of the name, as the C library finds them
	in_mobile getent hosts laptop.example.org | awk '{ print $1 }' | sort | tr '\n' ' '
}
is() { # WHAT ADDRESS...: within a minute
	what=$1
	shift
	wanted=$(for address; do echo "$address"; done | sort | tr '\n' ' ')
	limit=$((600 * patience)) since=$(now)
	while [ "$(told)" != "$wanted" ] && [ $limit -gt 0 ]; do sleep 0.1; limit=$((limit - 1)); done
	[ "$(told)" = "$wanted" ]
	check "$what (${wanted:-nothing}, within $(($(now) - since)) ms)" $?
}
status_of_name() { # MEMBER: of what the daemon reports
	mobctl_in mobile --json status | sed -n 's/.*"ddns":{\([^}]*\)}.*/\1/p' | tr ',' '\n' | sed -n "s/^\"$1\":\"*\([^\"]*\).*/\1/p"
}
run() {
	mobctl_in mobile daemon -f --pidfile "$work/mobile.pid" >>"$work/mobile.log" 2>&1 &
	background="$background $!"
}

come 1
route_by 1
watching='automatic = true'
configure mobile
cp "$here/names.key" "$work/ddns.key"
chmod 600 "$work/ddns.key"
cat >>"$work/mobile.conf" <<END
[ddns]
name = "laptop.example.org"
zone = "example.org"
servers = ["10.3.0.53"]
key = "$work/ddns.key"
state = "$work/state"
ttl = 1
publish = ["10.0.0.0/8", "2001:db8::/32"]
END
limit=$((30 * patience))
until mobctl_in mobile check >"$work/check" 2>&1 || [ $limit = 0 ]; do sleep 1; limit=$((limit - 1)); done
grep -q '10.3.0.53:53  *ok' "$work/check"
check "mobctl check asks the name server" $?
cat "$work/check"
is "nothing is changed by that"
run
is "the name is where the host is" 10.1.0.2 2001:db8:1::2

echo "== a move that nobody tells of"
go 1
come 2
route_by 2
is "the name follows" 10.2.0.2 2001:db8:2::2
for what in took_ms round_trips bytes_sent bytes_received; do echo "  $what $(status_of_name $what)"; done

echo "== without a path for a while"
go 2
come 1
limit=$((60 * patience))
until [ -n "$(status_of_name trouble)" ] || [ $limit = 0 ]; do sleep 1; limit=$((limit - 1)); done
[ -n "$(status_of_name trouble)" ]
check "it complains: $(status_of_name trouble)" $?
route_by 1
is "the name follows once there is a path" 10.1.0.2 2001:db8:1::2

echo "== kill -9, and the host moves before the next start"
kill -9 "$(cat "$work/mobile.pid")"
sleep 1
is "the record is left" 10.1.0.2 2001:db8:1::2
go 1
come 2
route_by 2
run
is "the next start puts it right" 10.2.0.2 2001:db8:2::2

echo "== the end"
kill "$(cat "$work/mobile.pid")"
is "the name leads nowhere"
mobctl_in mobile ddns show >"$work/show" 2>&1
grep -q 'belongs to: *this host' "$work/show"
check "and stays this host's" $?
mobctl_in mobile ddns delete
check "mobctl ddns delete" $?
[ $failed = 0 ] || tail -n 60 "$work/mobile.log"
sleep 1
unload
finish

#!/bin/sh
# The demonstration on FreeBSD: a download that survives two moves, then the
# same without mobconn. `make demo` runs it there.
# vm: seconds=300
. "$(dirname "$0")/lib.sh"
size=6000000
tell() { echo "      $*"; }
download() { # NAME: in the background, some 20 seconds long
	: >"$work/$1.here"
	(for block in $(jot 100 0); do dd if="$work/data" bs=60000 skip="$block" count=1 2>/dev/null; sleep 0.15; done) | in_peer nc -N -l $far4 8000 &
	background="$background $!"
	until in_peer sockstat -4 -l -p 8000 | grep -q nc; do sleep 0.2; done
	in_mobile nc -d -w 15 $far4 8000 >"$work/$1.here" 2>/dev/null &
	getter=$!
	background="$background $getter"
}
progress() { # NAME SECONDS
	for _ in $(jot "$2"); do
		sleep 1
		tell "$(in_mobile ifconfig | awk '$1 == "inet" && $2 != "127.0.0.1" { print $2 }' | head -n 1)  $(wc -c <"$work/$1.here" | tr -d ' ') bytes"
	done
}
wait_for() { # PID SECONDS
	limit=$2
	while kill -0 "$1" 2>/dev/null && [ "$limit" -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
}
world
dd if=/dev/urandom of="$work/data" bs=60000 count=100 2>/dev/null
sum=$(sha256 -q "$work/data")
echo "==> With mobconn: a download by the mobile host, which is in network 1"
load
daemons
download with
claimed 1
progress with 4
for n in 2 1; do
	echo "==> It moves to network $n"
	leave mobile $((3 - n))
	join mobile $n
	mobctl_in mobile move 10.$((3 - n)).0.2 10.$n.0.2 >"$work/move" 2>&1
	check "$(tail -n 1 "$work/move" | tr -s ' ')" $?
	progress with 4
done
wait_for $getter 60
[ "$(sha256 -q "$work/with.here")" = "$sum" ]
check "the download is whole, after two moves" $?
logs
for name in mobile peer; do kill "$(cat "$work/$name.pid")"; done
sleep 1
unload
echo "==> The same without mobconn"
download without
progress without 4
before=$(wc -c <"$work/without.here")
echo "==> It moves to network 2"
leave mobile 1
join mobile 2
progress without 4
wait_for $getter 20
[ "$(sha256 -q "$work/without.here")" != "$sum" ]
check "the download is lost: $(wc -c <"$work/without.here" | tr -d ' ') bytes of $size, $(($(wc -c <"$work/without.here") - before)) since the move" $?
finish

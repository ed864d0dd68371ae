#!/bin/sh
# Checksums and segmentation left to the card (TXCSUM, TSO) and received that way
# (RXCSUM, LRO), each on and off: two virtio cards on one wire, one in each jail;
# bulk both ways moves in the middle, and every byte is checked.
# vm: seconds=600 cards=tap
. "$(dirname "$0")/lib.sh"
for card in vtnet0 vtnet1; do
	ifconfig $card >/dev/null 2>&1 || skip_all "no two cards with offload: the harness needs Linux as root, with tap devices"
done
ifconfig -m vtnet0 | grep -q 'capabilities=.*TSO4' || skip_all "the cards have no TSO: $(ifconfig -m vtnet0 | grep capabilities)"
load
make_jail mobile
make_jail peer
ifconfig vtnet0 vnet mobile
ifconfig vtnet1 vnet peer
undo() {
	ifconfig vtnet0 -vnet mobile
	ifconfig vtnet1 -vnet peer
	# What waits in a card to be filled.
	for card in vtnet0 vtnet1; do ifconfig $card down; done
}
far4=10.1.0.9 far6=2001:db8:1::9 new4=10.1.0.3 new6=2001:db8:1::3
in_mobile ifconfig vtnet0 inet $old4/24 up
in_mobile ifconfig vtnet0 inet $new4/32 alias
in_mobile ifconfig vtnet0 inet6 $old6/64 no_dad
in_mobile ifconfig vtnet0 inet6 $new6/128 no_dad alias
in_peer ifconfig vtnet1 inet $far4/24 up
in_peer ifconfig vtnet1 inet6 $far6/64 no_dad
for v in 4 6; do
	spawn in_peer "$bin/bulk" sink "$(at far $v)" 9
	spawn in_mobile "$bin/bulk" sink "$(at old $v)" 9
done
sleep 2
in_mobile ifconfig vtnet0 | grep options
port=7000 generation=0
try() { # WHAT: both directions and versions, moved in the middle
	port=$((port + 10))
	for v in 4 6; do
		(in_mobile "$bin/bulk" source "$(at old $v)" $((port + 1)) "$(at far $v)" 9 $((16 * patience)) >"$work/up$v$port" 2>&1; echo $? >"$work/up$v$port.status") &
		(in_peer "$bin/bulk" source "$(at far $v)" $((port + 2)) "$(at old $v)" 9 $((16 * patience)) >"$work/down$v$port" 2>&1; echo $? >"$work/down$v$port.status") &
	done
	sleep 2
	before=$(stat mobile translated_out)
	for v in 4 6; do
		echo "1 6 $(at old $v) $((port + 1)) $(at far $v) 9 $(at new $v)"
		echo "1 6 $(at old $v) 9 $(at far $v) $((port + 2)) $(at new $v)"
	done | move_all
	check "$1: all four connections move" $?
	for v in 4 6; do
		for way in up down; do
			: >"$work/$way$v$port.err"
			finished $way$v$port "$1, IPv$v, ${way}stream: $(cat "$work/$way$v$port")" 60
			sed "s|^|  $way$v bytes, us: |" "$work/$way$v$port"
		done
	done
	[ "$(stat mobile translated_out)" -gt $((before + 20)) ]
	check "$1: packets were translated ($(($(stat mobile translated_out) - before)))" $?
}
both() { # FLAGS
	in_mobile ifconfig vtnet0 "$@"
	in_peer ifconfig vtnet1 "$@"
	sleep 1
}
bad_before=$(in_peer netstat -s -p tcp | awk '/discarded for bad checksums/ { print $1 }')
try "everything on"
both -lro
try "no LRO"
both -tso
try "no TSO"
both -rxcsum -rxcsum6
try "no RXCSUM"
both -txcsum -txcsum6
try "nothing on"
both rxcsum rxcsum6
try "only RXCSUM"
both txcsum txcsum6 tso lro
try "everything on again"
bad_after=$(in_peer netstat -s -p tcp | awk '/discarded for bad checksums/ { print $1 }')
[ "$bad_after" = "$bad_before" ]
check "no bad checksum was seen ($bad_before, $bad_after)" $?
in_mobile netstat -s -p tcp | grep -i 'bad checksum'
unload
finish

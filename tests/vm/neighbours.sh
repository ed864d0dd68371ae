#!/bin/sh
# Beside ipfw NAT, a bridge and a WireGuard tunnel: bound flows move across
# them, and they work on while bindings live.
# vm: seconds=600
. "$(dirname "$0")/lib.sh"
need ipfw
kenv net.inet.ip.fw.default_to_accept=1 >/dev/null
load
world
serve
talk plain mobile tcp $old4 6000 $far4 1200 100 1000 &
talk plain6 mobile tcp $old6 6000 $far6 1200 100 1000 &
sleep 2
in_mobile ifconfig em_net1 inet 10.1.0.3/32 alias
in_mobile ifconfig em_net1 inet6 2001:db8:1::3/128 no_dad alias
move 1 6 $old4 6000 $far4 7 10.1.0.3 && move 1 6 $old6 6000 $far6 7 2001:db8:1::3
check "flows are bound" $?

echo "== a bridge"
need_module if_bridge
# The mobile host's address is on a bridge, with packet filters on bridge and member.
bridge=$(in_mobile ifconfig bridge create)
in_mobile sysctl -q net.link.bridge.pfil_member=1 net.link.bridge.pfil_bridge=1 net.link.bridge.pfil_onlyip=0 >/dev/null
in_mobile ifconfig "$bridge" up addm em_net2
in_mobile ifconfig em_net2 up
in_mobile ifconfig "$bridge" inet 10.2.0.2/24
in_mobile ifconfig "$bridge" inet6 2001:db8:2::2/64 no_dad
in_mobile route -q change default 10.2.0.1 >/dev/null
in_mobile route -q change -inet6 default 2001:db8:2::1 >/dev/null
move 2 6 $old4 6000 $far4 7 $new4 && move 2 6 $old6 6000 $far6 7 $new6
check "the flows move to the bridge" $?
for name in plain plain6; do flows_on $name "$name goes on over the bridge"; done

echo "== ipfw NAT on the mobile host, for others"
if kldload -n ipfw_nat 2>/dev/null; then
	loaded="ipfw_nat $loaded"
	in_mobile ipfw -q nat 1 config ip 10.2.0.9
	in_mobile ipfw -q add 100 nat 1 tcp from 10.2.0.2 to $far4 8
	in_mobile ipfw -q add 110 nat 1 tcp from $far4 8 to 10.2.0.9
	in_mobile ifconfig "$bridge" inet 10.2.0.9/32 alias
	in_peer "$tool" echo $far4 8 &
	background="$background $!"
	sleep 1
	in_mobile "$tool" tcp $new4 6200 $far4 8 50 20 1000 nat >"$work/nat" 2>&1
	check "a connection through NAT is whole" $?
	translated=$(in_mobile ipfw show 110 | awk '{ print $2 }')
	[ "${translated:-0}" -gt 20 ]
	check "and is translated ($translated packets came back to its address)" $?
	in_mobile ipfw -q flush
else
	skip "no ipfw_nat"
fi

echo "== WireGuard"
if kldload -n if_wg 2>/dev/null && command -v wg >/dev/null; then
	loaded="if_wg $loaded"
	key_mobile=$(wg genkey) key_peer=$(wg genkey)
	in_mobile ifconfig wg create name wgm >/dev/null
	in_peer ifconfig wg create name wgp >/dev/null
	echo "$key_mobile" >"$work/wgm.key"
	echo "$key_peer" >"$work/wgp.key"
	in_mobile wg set wgm private-key "$work/wgm.key" listen-port 51820 peer "$(echo "$key_peer" | wg pubkey)" endpoint $far4:51820 allowed-ips 10.99.0.9/32
	in_peer wg set wgp private-key "$work/wgp.key" listen-port 51820 peer "$(echo "$key_mobile" | wg pubkey)" allowed-ips 10.99.0.2/32
	in_mobile ifconfig wgm inet 10.99.0.2/24 up
	in_peer ifconfig wgp inet 10.99.0.9/24 up
	in_peer "$tool" echo 10.99.0.9 7 &
	background="$background $!"
	sleep 1
	in_mobile "$tool" tcp 10.99.0.2 6300 10.99.0.9 7 50 20 1000 wg >"$work/wg" 2>&1
	check "a connection through the tunnel is whole" $?
	# A flow inside the tunnel moves from one address there to another.
	(in_mobile "$tool" tcp 10.99.0.2 6301 10.99.0.9 7 100 50 1000 in >"$work/in" 2>&1; echo $? >"$work/in.status"; : >"$work/in.err") &
	sleep 1
	in_mobile ifconfig wgm inet 10.99.0.3/32 alias
	in_peer wg set wgp peer "$(echo "$key_mobile" | wg pubkey)" allowed-ips 10.99.0.2/32,10.99.0.3/32
	move 1 6 10.99.0.2 6301 10.99.0.9 7 10.99.0.3
	check "a flow inside the tunnel moves" $?
	finished in "and is whole"
	in_mobile ifconfig wgm destroy
	in_peer ifconfig wgp destroy
else
	skip "no if_wg or no wg(8)"
fi
for name in plain plain6; do finished $name "$name is whole, across all of it"; done
in_mobile ifconfig "$bridge" destroy
unload
finish

#!/bin/sh
# Figures: TCP between two jails through a router, over every kind of path in
# turn, ten rounds. A line `bench PATH BYTES MICROSECONDS BUSY PACKETS` for each
# run; BUSY is processor time in microseconds. Not part of the suite: make vmbench.
# vm: seconds=1800
. "$(dirname "$0")/lib.sh"
rounds=${rounds:-10} amount=${amount:-4}
need ipfw
kenv net.inet.ip.fw.default_to_accept=1 >/dev/null
world
in_mobile ifconfig em_net1 inet 10.1.0.3/32 alias
spawn in_peer "$bin/bulk" sink $far4 9
spawn in_mobile "$bin/bulk" sink $old4 9
sleep 1
tick=$(sysctl -n kern.clockrate | sed -n 's/.*stathz = \([0-9]*\).*/\1/p')
busy() { sysctl -n kern.cp_time | awk -v tick="${tick:-127}" '{ printf "%d\n", ($1 + $2 + $3 + $4) * 1000000 / tick }'; }
packets() { netstat -s -p ip | awk '/packets forwarded/ { print $1; exit }'; }
port=10000
measure() { # PATH JAIL FROM TO: one run
	from_busy=$(busy) from_packets=$(packets)
	result=$(jexec "$2" "$bin/bulk" source "$3" $port "$4" 9 "$amount") || check "$1: the transfer is whole" 1
	echo "bench $1 $result $(($(busy) - from_busy)) $(($(packets) - from_packets))"
	port=$((port + 1))
}
bind() { # what the next two runs' connections travel as
	"$mobctl" version >/dev/null
	in_mobile "$mobctl" flow add tcp $old4:$port $far4:9 10.1.0.3:$port $far4:9 &&
	    in_peer "$mobctl" flow add tcp $far4:9 $old4:$port $far4:9 10.1.0.3:$port &&
	    in_mobile "$mobctl" flow add tcp $old4:9 $far4:$((port + 1)) 10.1.0.3:9 $far4:$((port + 1)) &&
	    in_peer "$mobctl" flow add tcp $far4:$((port + 1)) $old4:9 $far4:$((port + 1)) 10.1.0.3:9
}
has_nat=0 has_wg=0
if kldload -n ipfw ipfw_nat 2>/dev/null; then has_nat=1 loaded="ipfw_nat ipfw $loaded"; else skip "no ipfw_nat"; fi
# Its hooks cost all the other paths something: they are there with NAT only.
ipfw_off() { sysctl -q net.inet.ip.fw.enable=0 net.inet6.ip6.fw.enable=0 >/dev/null; for j in mobile peer; do jexec $j sysctl -q net.inet.ip.fw.enable=0 net.inet6.ip6.fw.enable=0 >/dev/null; done; }
[ $has_nat = 0 ] || ipfw_off
if kldload -n if_wg 2>/dev/null && command -v wg >/dev/null; then
	has_wg=1 loaded="if_wg $loaded"
	wg genkey >"$work/wgm.key"
	wg genkey >"$work/wgp.key"
	in_mobile ifconfig wg create name wgm >/dev/null
	in_peer ifconfig wg create name wgp >/dev/null
	in_mobile wg set wgm private-key "$work/wgm.key" listen-port 51820 peer "$(wg pubkey <"$work/wgp.key")" endpoint $far4:51820 allowed-ips 10.99.0.9/32
	in_peer wg set wgp private-key "$work/wgp.key" listen-port 51820 peer "$(wg pubkey <"$work/wgm.key")" endpoint $old4:51820 allowed-ips 10.99.0.2/32
	in_mobile ifconfig wgm inet 10.99.0.2/24 up
	in_peer ifconfig wgp inet 10.99.0.9/24 up
	spawn in_peer "$bin/bulk" sink 10.99.0.9 9
else
	skip "no if_wg or no wg(8)"
fi
sleep 1
round=0
while [ $round -lt "$rounds" ]; do
	round=$((round + 1))
	measure none-up mobile $old4 $far4
	measure none-down peer $far4 $old4
	kldload "$module" || break
	measure idle-up mobile $old4 $far4
	measure idle-down peer $far4 $old4
	bind || check "round $round: the flows are bound" 1
	measure moved-up mobile $old4 $far4
	measure moved-down peer $far4 $old4
	[ "$(stat mobile translated_out)" -gt 100 ] && [ "$(stat peer translated_out)" -gt 100 ] || check "round $round: packets were translated" 1
	sysctl -q net.inet.mobconn.force_unload=1 >/dev/null
	kldunload mobconn || break
	if [ $has_nat = 1 ]; then
		in_mobile sysctl -q net.inet.ip.fw.enable=1 >/dev/null
		in_mobile ipfw -q nat 1 config ip 10.1.0.3
		in_mobile ipfw -q add 100 nat 1 ip from any to any via em_net1
		measure nat-up mobile $old4 $far4
		in_mobile ipfw -q flush
		in_mobile ipfw -q nat 1 delete
		in_mobile sysctl -q net.inet.ip.fw.enable=0 >/dev/null
	fi
	[ $has_wg = 0 ] || measure wg-up mobile 10.99.0.2 10.99.0.9
done
check "$round of $rounds rounds" $((rounds - round))
[ $has_wg = 0 ] || { in_mobile ifconfig wgm destroy; in_peer ifconfig wgp destroy; }
finish

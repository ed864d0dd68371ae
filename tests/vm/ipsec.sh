#!/bin/sh
# Flows under IPsec in transport mode: left alone, counted, whole; others between
# the same hosts move.
# vm: seconds=500
. "$(dirname "$0")/lib.sh"
need setkey
sysctl -n net.inet.ipsec.def_policy >/dev/null 2>&1 || need_module ipsec
load
world
cat >"$work/sa" <<END
add $old4 $far4 esp 1000 -m transport -E rijndael-cbc "abcdefghijklmnop" -A hmac-sha2-256 "abcdefghijklmnopabcdefghijklmnop";
add $far4 $old4 esp 1001 -m transport -E rijndael-cbc "abcdefghijklmnop" -A hmac-sha2-256 "abcdefghijklmnopabcdefghijklmnop";
END
(cat "$work/sa"; echo "spdadd ${old4}[any] ${far4}[5007] tcp -P out ipsec esp/transport//require; spdadd ${far4}[5007] ${old4}[any] tcp -P in ipsec esp/transport//require;") | in_mobile setkey -c &&
    (cat "$work/sa"; echo "spdadd ${far4}[5007] ${old4}[any] tcp -P out ipsec esp/transport//require; spdadd ${old4}[any] ${far4}[5007] tcp -P in ipsec esp/transport//require;") | in_peer setkey -c
check "the hosts share keys and a policy for port 5007" $?
serve
spawn in_peer "$tool" echo $far4 5007
sleep 1
sealed() { jexec "$1" netstat -s -p esp | awk '/packets? in$/ && !n++ { print $1 }'; }
talk open mobile tcp $old4 6000 $far4 1200 100 1000 &
(in_mobile "$tool" tcp $old4 6001 $far4 5007 1200 100 1000 sealed >"$work/sealed" 2>"$work/sealed.err"; echo $? >"$work/sealed.status") &
sleep 4
[ "$(sealed mobile)" -gt 10 ] && [ "$(sealed peer)" -gt 10 ]
check "its segments are sealed ($(sealed mobile), $(sealed peer) received)" $?
in_mobile ifconfig em_net1 inet 10.1.0.3/32 alias
move 1 6 $old4 6000 $far4 7 10.1.0.3
check "the open flow moves" $?
# Somebody asks for the sealed one too: it must not break.
move 1 6 $old4 6001 $far4 5007 10.1.0.3 2>"$work/asked"
echo "asked to move the sealed flow: $(cat "$work/asked")"
flows_on sealed "the sealed flow goes on untouched" 10
[ "$(stat mobile passed_ipsec 2>/dev/null || echo 0)" -gt 0 ] && [ "$(stat peer passed_ipsec 2>/dev/null || echo 0)" -gt 0 ]
check "and is counted ($(stat mobile passed_ipsec), $(stat peer passed_ipsec))" $?
finished sealed "the sealed stream is whole" 200
finished open "the open stream is whole" 200
unload
finish

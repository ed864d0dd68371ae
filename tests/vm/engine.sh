#!/bin/sh
# The module's engine on a FreeBSD kernel: displaced flows, late segments, ICMP
# errors, fragments, lifetimes, and how long a connection needs to resume after
# the commit of a move. Three VNET jails (a mobile host, its peer, a stranger
# that gets the mobile host's old address) and a router; no daemon: moves are
# made by ioctl(2). Run as root on FreeBSD 14: engine.sh MODULE [MOBCTL] ENGINETOOL,
# where ENGINETOOL is tests/vm/enginetool.c, compiled. Prints one line a check
# and ends with `N passed, N failed`; undoes what it did.
set -u
module=$1 tool=${3:-$2}
work=$(mktemp -d /tmp/engine.XXXXXX)
passed=0 failed=0 pairs='' daemons='' msl=$(sysctl -n net.inet.tcp.msl)
forwarding=$(sysctl -n net.inet.ip.forwarding) forwarding6=$(sysctl -n net.inet6.ip6.forwarding)

check() { # NAME STATUS
	if [ "$2" = 0 ]; then
		passed=$((passed + 1)) && echo "ok $1"
	else
		failed=$((failed + 1)) && echo "FAILED $1"
	fi
}

cleanup() {
	for pid in $daemons; do kill "$pid" 2>/dev/null; done
	sleep 1
	for name in mobile peer stranger; do jail -r $name 2>/dev/null; done
	for pair in $pairs; do ifconfig "$pair" destroy 2>/dev/null; done
	sysctl -q net.inet.ip.forwarding="$forwarding" net.inet6.ip6.forwarding="$forwarding6" >/dev/null
	rm -rf "$work"
}
trap cleanup EXIT

link() { # NAME JAIL: a cable from this machine to the jail
	end=$(ifconfig epair create)
	ifconfig "$end" name "rt_$1" >/dev/null
	ifconfig "${end%a}b" name "em_$1" >/dev/null
	pairs="$pairs rt_$1"
	ifconfig "em_$1" vnet "$2"
}

old4=10.1.0.2 old6=2001:db8:1::2 new4=10.2.0.2 new6=2001:db8:2::2 far4=10.9.0.9 far6=2001:db8:9::9
at() { eval echo "\$$1$2"; } # old 4

join() { # JAIL N: the jail is in network N
	jexec "$1" ifconfig "em_net$2" inet "10.$2.0.2/24" up
	jexec "$1" ifconfig "em_net$2" inet6 "2001:db8:$2::2/64" no_dad
	jexec "$1" route -q add default "10.$2.0.1"
	jexec "$1" route -q add -inet6 default "2001:db8:$2::1"
}

leave() { # the mobile host leaves network 1, and the cable goes to the stranger
	jexec mobile route -q delete default
	jexec mobile route -q delete -inet6 default
	jexec mobile ifconfig em_net1 inet "$old4" delete
	jexec mobile ifconfig em_net1 inet6 "$old6" delete
	ifconfig em_net1 -vnet mobile
	ifconfig em_net1 vnet stranger
}

stat() { jexec "$1" sysctl -n "net.inet.mobconn.stats.$2"; } # JAIL COUNTER

kldload "$module"
check "the module loads" $?
sysctl -q net.inet.mobconn.grace=3 net.inet.mobconn.udp_idle=30 net.inet.tcp.msl=1000 >/dev/null
for name in mobile peer stranger; do
	jail -c name=$name vnet persist path=/ allow.raw_sockets || exit 1
	jexec $name ifconfig lo0 inet 127.0.0.1/8 up
done
link net1 mobile
link net2 mobile
link far peer
sysctl -q net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1 >/dev/null
for net in net1:1 net2:2 far:9; do
	ifconfig "rt_${net%:*}" inet "10.${net#*:}.0.1/24" up
	ifconfig "rt_${net%:*}" inet6 "2001:db8:${net#*:}::1/64" no_dad
done
jexec peer ifconfig em_far inet $far4/24 up
jexec peer ifconfig em_far inet6 $far6/64 no_dad
jexec peer route -q add default 10.9.0.1
jexec peer route -q add -inet6 default 2001:db8:9::1
jexec peer sysctl -q net.inet.tcp.msl=1000 >/dev/null 2>&1
for name in mobile stranger; do jexec $name sysctl -q net.inet.tcp.msl=1000 >/dev/null 2>&1; done
join mobile 1
for v in 4 6; do
	jexec peer "$tool" echo "$(at far $v)" 7 & daemons="$daemons $!"
	jexec peer "$tool" push "$(at far $v)" 19 & daemons="$daemons $!"
done
tcpdump -l -n -i rt_far '(tcp and tcp[13] & 4 != 0) or (ip6 and ip6[6] = 6 and ip6[53] & 4 != 0)' >"$work/resets" 2>"$work/tcpdump" &
daemons="$daemons $!"
sleep 2

# talk NAME JAIL PROTOCOL LOCAL PORT FAR COUNT INTERVAL SIZE
talk() {
	name=$1 jail=$2 protocol=$3
	shift 3
	jexec "$jail" "$tool" "$protocol" "$1" "$2" "$3" 7 "$4" "$5" "$6" "$name" >"$work/$name" 2>"$work/$name.err"
	echo $? >"$work/$name.status"
}
finished() { # NAME WHAT
	limit=200
	while [ ! -f "$work/$1.status" ] && [ $limit -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
	check "$2 ($(wc -l <"$work/$1" | tr -d ' ') messages)" "$(cat "$work/$1.status" 2>/dev/null || echo 1)"
	cat "$work/$1.err"
}

echo "== before the move"
for v in 4 6; do
	# The owner's connections; ports 6010 to 6013 measure how long resuming takes.
	talk tcp$v mobile tcp "$(at old $v)" 6000 "$(at far $v)" 200 300 200 &
	talk udp$v mobile udp "$(at old $v)" 6001 "$(at far $v)" 200 300 3000 &
	talk silent$v mobile udp "$(at old $v)" 6004 "$(at far $v)" 2 60000 100 &
	talk late$v mobile tcp "$(at old $v)" 6002 "$(at far $v)" 4 15000 100 &
	talk big$v mobile tcp "$(at old $v)" 6003 "$(at far $v)" 110 1000 12000 &
	for kick in 1 0; do
		talk up$v$kick mobile tcp "$(at old $v)" 601$kick "$(at far $v)" 200 100 100 &
		(jexec mobile "$tool" hear "$(at old $v)" 602$kick "$(at far $v)" 19 1500 >"$work/down$v$kick" 2>&1) &
	done
done
sleep 6

echo "== the move, after an outage"
leave
# Kicked or held is what was prepared with hold; the rest sends on the dead path until the commit.
steps() { # STEP: of every flow's move, at the peer first
	rm -f "$work/list.peer" "$work/list.mobile"
	for v in 4 6; do
		o=$(at old $v) n=$(at new $v) f=$(at far $v)
		for flow in 6:6011:7:1 6:6010:7:0 6:6021:19:1 6:6020:19:0 6:6000:7:1 17:6001:7:1 17:6004:7:1 6:6002:7:1 6:6003:7:1; do
			IFS=: read -r protocol port farport hold <<-END
				$flow
			END
			echo "2 1 $hold 0 $protocol $f $farport $o $port $n" >>"$work/list.peer"
			echo "1 1 $hold 0 $protocol $o $port $f $farport $n" >>"$work/list.mobile"
		done
	done
	for name in peer mobile; do
		jexec $name "$tool" "$1" <"$work/list.$name" >"$work/$1.$name" || echo "$1 at the $name failed" >>"$work/steps"
	done
}
steps prepare
sleep 8
join mobile 2
jexec stranger ifconfig em_net1 up
sleep 1
steps commit
check "moves are prepared and committed" "$(test ! -f "$work/steps"; echo $?)"
cat "$work/steps" 2>/dev/null

resumed() { # NAME PORT VERSION: milliseconds from the commit at the mobile host to the first message
	at=$(awk -v port="$2" -v v="$3" '$1 == port { n++; if (n == (v == 4 ? 1 : 2)) print $3 }' "$work/commit.mobile")
	awk -v at="$at" '$1 > at { print $1 - at; exit }' "$work/$1"
}
sleep 12
for v in 4 6; do
	for way in up:601 down:602; do
		name=${way%:*} port=${way#*:}
		with=$(resumed "$name${v}1" "${port}1" $v) without=$(resumed "$name${v}0" "${port}0" $v)
		echo "resume IPv$v ${name}stream after the commit: ${with:-never} ms with the module's kick, ${without:-never} ms without"
		[ "${with:-99999}" -lt 1000 ]
		check "IPv$v ${name}stream resumes at the commit" $?
	done
done
[ "$(stat mobile held)" -gt 0 ] && [ "$(stat mobile resumed)" -gt 0 ] && [ "$(stat peer resumed)" -gt 0 ]
check "segments were held, timers were fired at both ends" $?

echo "== a late segment from the old address, after the grace time"
join stranger 1
jexec peer "$tool" expire
sleep 1
before=$(stat peer dropped_stray)
for v in 4 6; do
	jexec stranger "$tool" forge "$(at old $v)" 6002 "$(at far $v)" 7 0x18
	check "IPv$v: a late segment is sent" $?
done
sleep 1
after=$(stat peer dropped_stray)
[ "$((after - before))" = 2 ]
check "both are dropped and counted" $?

# A cable has a delay. Without one, an acknowledgement can be faster than what the peer's TCP does after it has answered
# a SYN, when that came by a queue: FreeBSD remembers a connection only then.
kenv net.inet.ip.fw.default_to_accept=1 >/dev/null
kldload ipfw dummynet && ipfw -q pipe 1 config delay 10ms && ipfw -q add 100 pipe 1 ip from any to any in recv rt_net1
check "the old network's cable has a delay" $?
echo "== strangers at the old address, with the same ports"
for v in 4 6; do
	talk stranger$v stranger tcp "$(at old $v)" 6000 "$(at far $v)" 40 100 200 &
	talk strangeru$v stranger udp "$(at old $v)" 6001 "$(at far $v)" 40 100 3000 &
done
for v in 4 6; do
	finished stranger$v "IPv$v: the TCP stranger is served"
	finished strangeru$v "IPv$v: the UDP stranger is served"
	[ "$(wc -l <"$work/strangeru$v")" -gt 30 ]
	check "IPv$v: the UDP stranger's datagrams come back" $?
done
[ "$(stat peer displaced)" = 4 ]
check "four flows were displaced ($(stat peer displaced))" $?
jexec peer netstat -an | grep -e '\.7 .*ESTAB' | head -n 12
# Again: the next stranger with the same ports.
sleep 3
for v in 4 6; do
	talk second$v stranger tcp "$(at old $v)" 6000 "$(at far $v)" 10 50 200
	finished second$v "IPv$v: the next stranger is served"
done

echo "== a smaller link behind the move"
ifconfig rt_far mtu 1300
sleep 8
[ "$(awk '{ t = $1 } END { print t }' "$work/big4")" -gt $(($("$tool" now) - 10000)) ]
check "IPv4: a stream goes on over a smaller link" $?
[ "$(awk '{ t = $1 } END { print t }' "$work/big6")" -gt $(($("$tool" now) - 10000)) ]
check "IPv6: a stream goes on over a smaller link" $?

echo "== and a smaller interface of the peer's own"
jexec peer ifconfig em_far mtu 1280
sleep 8
[ "$(awk '{ t = $1 } END { print t }' "$work/big4")" -gt $(($("$tool" now) - 4000)) ]
check "IPv4: a stream goes on over the peer's smaller interface" $?
[ "$(awk '{ t = $1 } END { print t }' "$work/big6")" -gt $(($("$tool" now) - 4000)) ]
check "IPv6: a stream goes on over the peer's smaller interface" $?
[ "$(stat peer dropped_too_big)" -gt 0 ]
check "TCP was told by the hook ($(stat peer dropped_too_big) packets were too big)" $?

echo "== the end"
for v in 4 6; do
	finished tcp$v "IPv$v: the owner's stream is whole"
	finished udp$v "IPv$v: the owner's datagrams are right"
	[ "$(wc -l <"$work/udp$v")" -gt 80 ]
	check "IPv$v: the owner's fragmented datagrams come back" $?
	finished late$v "IPv$v: the idle connection lives"
	finished silent$v "IPv$v: the silent socket gets nothing wrong"
	[ "$(wc -l <"$work/silent$v")" -eq 2 ]
	check "IPv$v: a UDP socket that was silent for longer than bindings live unused still speaks" $?
	finished big$v "IPv$v: the stream over the smaller link is whole"
	finished up${v}1 "IPv$v: upstream is whole"
	finished up${v}0 "IPv$v: upstream without the kick is whole"
done
[ "$(stat mobile fragments)" -gt 0 ] && [ "$(stat peer fragments)" -gt 0 ]
check "fragments were put together at both ends ($(stat mobile fragments), $(stat peer fragments))" $?
limit=120
left() { echo $(($(jexec mobile sysctl -n net.inet.mobconn.flows) + $(jexec peer sysctl -n net.inet.mobconn.flows))); }
while [ "$(left)" != 0 ] && [ $limit -gt 0 ]; do sleep 2; limit=$((limit - 2)); done
check "every binding has ended by itself, without a daemon ($(left) left)" "$(left)"
sleep 1
[ ! -s "$work/resets" ]
check "no RST was seen on the peer's link" $?
cat "$work/resets"
for name in mobile peer; do
	echo "$name: $(jexec $name sysctl net.inet.mobconn.stats | awk -F': ' '$2 != 0 { sub(/.*stats\./, "", $1); printf "%s %s, ", $1, $2 }')"
done
sysctl -q net.inet.tcp.msl="$msl" >/dev/null
ipfw -q flush
ipfw -q pipe flush
kldunload dummynet ipfw
kldunload mobconn
check "the module unloads" $?
[ -z "$(vmstat -m | awk '$1 == "mobconn" && $2 != 0')" ]
check "no memory is left" $?
echo "$passed passed, $failed failed"
[ $failed = 0 ]

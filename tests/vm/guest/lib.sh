# Sourced by the scenarios, inside the machine: two VNET jails, mobile and peer,
# two access networks and a router (the machine itself); flows that are moved as
# the daemons would, or by them; checks. A scenario ends with `finish`, and
# undoes what it did however it ends.
#
#	mobile  em_net1 10.1.0.2  -- rt_net1 10.1.0.1 \
#	        em_net2 10.2.0.2  -- rt_net2 10.2.0.1  router  rt_far 10.9.0.1 -- em_far 10.9.0.9  peer
#	        (one at a time)
#
# and the same in IPv6 with 2001:db8:N::.
set -u
here=$(cd "$(dirname "$0")" && pwd)
scenario=$(basename "$0" .sh)
module=${1:-$here/bin/mobconn.ko} mobctl=${2:-$here/bin/mobctl} tool=${3:-$here/bin/enginetool}
bin=$(dirname "$tool")
work=$(mktemp -d "/tmp/$scenario.XXXXXX")
chmod 755 "$work"
passed=0 failed=0 skipped=0 pairs='' background='' jails='' loaded='' forwarding='' forwarding6=''
# Each process and jail sees these addresses.
old4=10.1.0.2 old6=2001:db8:1::2 new4=10.2.0.2 new6=2001:db8:2::2 far4=10.9.0.9 far6=2001:db8:9::9

check() { # NAME STATUS
	if [ "$2" = 0 ]; then
		passed=$((passed + 1)) && echo "ok $1"
	else
		failed=$((failed + 1)) && echo "FAILED $1"
	fi
}
skip() { # REASON: this part cannot be tried here
	skipped=$((skipped + 1))
	echo "SKIPPED $scenario: $*"
}
skip_all() { # REASON: nothing of this scenario can
	skip "$*"
	finish
}
finish() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed = 0 ]
	exit
}
cleanup() {
	for pid in $background; do kill "$pid" 2>/dev/null; done
	command -v undo >/dev/null && undo
	sleep 1
	for name in $jails; do jail -r "$name" 2>/dev/null; done
	for pair in $pairs; do ifconfig "$pair" destroy 2>/dev/null; done
	[ -z "$forwarding" ] || sysctl -q net.inet.ip.forwarding="$forwarding" net.inet6.ip6.forwarding="$forwarding6" >/dev/null
	if kldstat -q -n mobconn.ko; then
		sysctl -q net.inet.mobconn.force_unload=1 >/dev/null
		kldunload mobconn
	fi
	for name in $loaded; do kldunload "$name" 2>/dev/null; done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' TERM INT

need() { # PROGRAM...: without it the scenario is skipped
	for program; do command -v "$program" >/dev/null || skip_all "no program $program in this root"; done
}
need_module() { # FILE [MODULE]: a kernel module of the system, loaded for this scenario
	kldstat -q -m "${2:-$1}" && return
	# Compiled into the kernel, or loadable; else not to be had.
	if kldload -n "$1" 2>"$work/kldload"; then
		loaded="$1 $loaded"
	else
		skip_all "this kernel has no $1: $(tail -n 1 "$work/kldload")"
	fi
}

in_mobile() { jexec mobile "$@"; }
in_peer() { jexec peer "$@"; }
stat() { jexec "$1" sysctl -n "net.inet.mobconn.stats.$2"; }   # JAIL COUNTER
flows() { jexec "$1" sysctl -n net.inet.mobconn.flows; }       # JAIL
at() { eval echo "\$$1$2"; }                                   # old 4

load() {
	kldload "$module"
	check "the module loads" $?
}
unload() {
	sysctl -q net.inet.mobconn.force_unload=1 >/dev/null
	kldunload mobconn
	check "the module unloads" $?
}
make_jail() { # NAME [PARAMETER...]
	name=$1
	shift
	jail -c name="$name" vnet persist path=/ allow.raw_sockets "$@" || exit 1
	jails="$jails $name"
	jexec "$name" ifconfig lo0 inet 127.0.0.1/8 up
}
link() { # NAME JAIL: a cable from the router to a jail
	end=$(ifconfig epair create)
	ifconfig "$end" name "rt_$1" >/dev/null
	ifconfig "${end%a}b" name "em_$1" >/dev/null
	pairs="$pairs rt_$1"
	ifconfig "em_$1" vnet "$2"
}
router() { # NETWORK:NUMBER...: the router's own addresses
	forwarding=$(sysctl -n net.inet.ip.forwarding) forwarding6=$(sysctl -n net.inet6.ip6.forwarding)
	sysctl -q net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1 >/dev/null
	for net; do
		ifconfig "rt_${net%:*}" inet "10.${net#*:}.0.1/24" up
		ifconfig "rt_${net%:*}" inet6 "2001:db8:${net#*:}::1/64" no_dad
	done
}
join() { # JAIL N: the jail is in network N, and its default route leads there
	jexec "$1" ifconfig "em_net$2" inet "10.$2.0.2/24" up
	jexec "$1" ifconfig "em_net$2" inet6 "2001:db8:$2::2/64" no_dad
	jexec "$1" route -q add default "10.$2.0.1" >/dev/null
	jexec "$1" route -q add -inet6 default "2001:db8:$2::1" >/dev/null
}
leave() { # JAIL N
	jexec "$1" route -q delete default >/dev/null
	jexec "$1" route -q delete -inet6 default >/dev/null
	jexec "$1" ifconfig "em_net$2" inet "10.$2.0.2" delete
	jexec "$1" ifconfig "em_net$2" inet6 "2001:db8:$2::2" delete
	jexec "$1" ifconfig "em_net$2" down
}
world() { # all of the picture; the mobile host is in network 1
	make_jail mobile
	make_jail peer
	link net1 mobile
	link net2 mobile
	link far peer
	router net1:1 net2:2 far:9
	in_peer ifconfig em_far inet $far4/24 up
	in_peer ifconfig em_far inet6 $far6/64 no_dad
	in_peer route -q add default 10.9.0.1 >/dev/null
	in_peer route -q add -inet6 default 2001:db8:9::1 >/dev/null
	join mobile 1
}
spawn() { # COMMAND...: runs beside, until the scenario ends
	"$@" &
	background="$background $!"
}
listening() { # JAIL PORT COUNT: so many sockets wait for connections there, after at most half a minute
	listening_limit=$((30 * patience))
	while [ "$(jexec "$1" sockstat -46lq -P tcp -p "$2" | wc -l)" -lt "$3" ] && [ $listening_limit -gt 0 ]; do
		sleep 1
		listening_limit=$((listening_limit - 1))
	done
}
serve() { # at the peer, port 7: what sends back what comes
	for v in 4 6; do spawn in_peer "$tool" echo "$(at far $v)" 7; done
	listening peer 7 2
}
talk() { # NAME JAIL tcp|udp LOCAL PORT FAR COUNT INTERVAL SIZE: messages there and back, each checked and timed
	name=$1 jail=$2 protocol=$3
	shift 3
	jexec "$jail" "$tool" "$protocol" "$1" "$2" "$3" 7 "$4" "$5" "$6" "$name" >"$work/$name" 2>"$work/$name.err"
	echo $? >"$work/$name.status"
}
finished() { # NAME WHAT [SECONDS]
	limit=$((${3:-120} * patience))
	while [ ! -f "$work/$1.status" ] && [ "$limit" -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
	check "$2 ($(wc -l <"$work/$1" | tr -d ' ') messages)" "$(cat "$work/$1.status" 2>/dev/null || echo 1)"
	cat "$work/$1.err"
}
now() { "$tool" now; }
# On a slow host all that takes time may take so many times as long (VM_PATIENCE).
patience=$(cat "$here/patience" 2>/dev/null || echo 1)
flows_on() { # NAME WHAT [COUNT [SECONDS]]: so many messages from now on, within so many seconds
	since=$(now) wanted=${3:-5} limit=$((${4:-6} * patience))
	while [ "$(count_since "$1" "$since")" -lt "$wanted" ] && [ $limit -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
	[ "$(count_since "$1" "$since")" -ge "$wanted" ]
	check "$2 ($(count_since "$1" "$since") messages in $((($(now) - since) / 1000)) seconds)" $?
}
longest_gap() { # NAME SINCE: milliseconds between two messages, from SINCE on
	awk -v since="$2" '$1 >= since { if (at && $1 - at > gap) gap = $1 - at; at = $1 } END { print gap + 0 }' "$work/$1"
}
count_since() { awk -v since="$2" '$1 >= since { n++ } END { print n + 0 }' "$work/$1"; } # NAME SINCE
# move GENERATION PROTOCOL STACK_LOCAL PORT FAR FARPORT NEW [HOLD]: one flow, as the two daemons
# would move it; protocol 6 or 17. With HOLD 1 nothing is sent from prepare to commit.
prepare_move() {
	echo "1 $1 ${8:-0} 0 $2 $3 $4 $5 $6 $7" | in_mobile "$tool" prepare - >/dev/null &&
	    echo "2 $1 ${8:-0} 0 $2 $5 $6 $3 $4 $7" | in_peer "$tool" prepare - >/dev/null
}
commit_move() {
	echo "2 $1 ${8:-0} 0 $2 $5 $6 $3 $4 $7" | in_peer "$tool" commit - >/dev/null &&
	    echo "1 $1 ${8:-0} 0 $2 $3 $4 $5 $6 $7" | in_mobile "$tool" commit - >/dev/null
}
move() { prepare_move "$@" && commit_move "$@"; }
move_all() { # lines GENERATION PROTOCOL STACK_LOCAL PORT FAR FARPORT NEW on standard input, in one step of each kind
	cat >"$work/moves"
	awk '{ print 1, $1, 0, 0, $2, $3, $4, $5, $6, $7 }' "$work/moves" >"$work/moves.mobile"
	awk '{ print 2, $1, 0, 0, $2, $5, $6, $3, $4, $7 }' "$work/moves" >"$work/moves.peer"
	in_mobile "$tool" prepare - <"$work/moves.mobile" >/dev/null && in_peer "$tool" prepare - <"$work/moves.peer" >/dev/null &&
	    in_peer "$tool" commit - <"$work/moves.peer" >/dev/null && in_mobile "$tool" commit - <"$work/moves.mobile" >/dev/null
}

# daemons: mobctl in both jails, with keys of this scenario's own
mobctl_in() { # JAIL ARGUMENTS...
	jail=$1
	shift
	jexec "$jail" "$mobctl" --config "$work/$jail.conf" --control "$work/$jail.sock" "$@"
}
configure() { # JAIL...: the first is the mobile one
	mobile=true
	for name; do
		{
			echo "mobile = $mobile"
			[ $mobile = false ] || echo 'peers = ["10.9.0.0/24", "2001:db8:9::/64"]'
			# Most scenarios say themselves when the host moves; others set this.
			[ $mobile = false ] || echo "${watching:-automatic = false}"
			echo "group_key = \"$work/group.key\""
			echo "host_key = \"$work/$name.key\""
			echo "claims = \"$work/$name.claims\""
			echo 'log_level = "debug"'
		} >"$work/$name.conf"
		[ $mobile = false ] || mobctl_in "$name" keygen group >/dev/null
		mobctl_in "$name" keygen host >/dev/null
		mobile=false
	done
}
daemons() {
	configure mobile peer
	for name in peer mobile; do
		mobctl_in $name daemon -f --pidfile "$work/$name.pid" >"$work/$name.log" 2>&1 &
		background="$background $!"
	done
	limit=$((30 * patience))
	while [ $limit -gt 0 ] && ! [ -S "$work/mobile.sock" ]; do sleep 1; limit=$((limit - 1)); done
	[ -S "$work/mobile.sock" ] && [ -S "$work/peer.sock" ]
	check "the daemons run" $?
}
claimed() { # COUNT: the mobile host's daemon has claimed so many flows; at most half a minute
	limit=$((60 * patience))
	while [ $limit -gt 0 ]; do
		claims=$(mobctl_in mobile --json peers | tr ',' '\n' | awk -F: '/"confirmed"/ { n += $2 } END { print n + 0 }')
		[ "$claims" -ge "$1" ] && return
		sleep 0.5
		limit=$((limit - 1))
	done
	return 1
}
logs() { # what the daemons said, when something failed
	[ $failed = 0 ] || for name in mobile peer; do echo "== $name.log" && tail -n 60 "$work/$name.log"; done
}

#!/bin/sh
# FreeBSD's own ssh and sshd: a session that writes a line every now and then, a
# forwarded port with a download in it, and a copy, all of which move twice.
# vm: seconds=400
. "$(dirname "$0")/lib.sh"
need ssh sshd ssh-keygen nc
load
world
daemons
ssh-keygen -q -t ed25519 -N '' -f "$work/host_key" && ssh-keygen -q -t ed25519 -N '' -f "$work/id"
check "keys are made" $?
cp "$work/id.pub" "$work/authorized"
chmod 600 "$work/authorized"
cat >"$work/sshd_config" <<END
Port 2222
ListenAddress $far4
ListenAddress $far6
HostKey $work/host_key
AuthorizedKeysFile $work/authorized
PermitRootLogin yes
StrictModes no
UsePAM no
UseDNS no
PidFile $work/sshd.pid
Subsystem sftp internal-sftp
END
mkdir -p /var/empty
in_peer "$(command -v sshd)" -f "$work/sshd_config" -E "$work/sshd.log" || { cat "$work/sshd.log"; skip_all "sshd does not start in this root"; }
remote() { in_mobile ssh -q -i "$work/id" -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ServerAliveInterval=5 "$@"; }
remote root@$far4 true
check "ssh gets in" $?
dd if=/dev/urandom of="$work/data" bs=64k count=80 2>/dev/null
sum=$(sha256 -q "$work/data")
# The file, slowly.
slowly() { for block in $(jot 80 0); do dd if="$work/data" bs=64k skip="$block" count=1 2>/dev/null; sleep 0.3; done; }
# What the forwarded port leads to.
slowly | in_peer nc -N -l 127.0.0.1 8080 &
background="$background $!"
until in_peer sockstat -4 -l -p 8080 | grep -q nc; do sleep 0.2; done
remote -L 127.0.0.1:8081:127.0.0.1:8080 root@$far4 'for n in $(jot 120); do echo line $n; sleep 0.25; done' >"$work/session" 2>"$work/session.err" &
session=$!
slowly | remote root@$far6 "cat >$work/copy" &
copy=$!
limit=$((30 * patience))
until in_mobile sockstat -4 -l -p 8081 | grep -q ssh || [ $limit -le 0 ]; do sleep 1; limit=$((limit - 1)); done
in_mobile nc -d 127.0.0.1 8081 >"$work/download" 2>/dev/null &
download=$!
claimed 2
check "the connections are claimed" $?
for n in 2 1; do
	leave mobile $((3 - n))
	join mobile $n
	mobctl_in mobile move 10.$((3 - n)).0.2 10.$n.0.2 >"$work/move" 2>&1
	check "IPv4 moves to network $n: $(tail -n 1 "$work/move")" $?
	mobctl_in mobile move 2001:db8:$((3 - n))::2 2001:db8:$n::2 >"$work/move" 2>&1
	check "IPv6 moves to network $n: $(tail -n 1 "$work/move")" $?
	sleep 6
done
[ "$(stat mobile translated_out)" -gt 0 ]
check "packets were translated ($(stat mobile translated_out))" $?
wait $session
check "the session ends by itself" $?
[ "$(jot 120 | sed 's/^/line /' | sha256)" = "$(sha256 <"$work/session")" ]
check "with every line ($(wc -l <"$work/session" | tr -d ' '))" $?
limit=$((60 * patience))
while kill -0 $download 2>/dev/null && [ $limit -gt 0 ]; do sleep 1; limit=$((limit - 1)); done
[ "$(sha256 -q "$work/download")" = "$sum" ]
check "the download through the forwarded port is whole ($(wc -c <"$work/download" | tr -d ' ') of $(wc -c <"$work/data" | tr -d ' ') bytes)" $?
wait $copy
[ "$(sha256 -q "$work/copy")" = "$sum" ]
check "the copy over IPv6 is whole" $?
kill "$(cat "$work/sshd.pid")"
logs
for name in mobile peer; do kill "$(cat "$work/$name.pid")"; done
sleep 1
unload
finish

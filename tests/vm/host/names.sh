#!/bin/sh
# In a network namespace of a machine: a real name server at 10.3.0.53, behind
# the routers of two networks on one bridge, until its parent ends.
# usage: names.sh BRIDGE FOLDER KEY
set -eu
bridge=$1 folder=$2 key=$3
ip link set dev lo up
ip address add 10.3.0.53/32 dev lo
for net in 1 2; do
	ip address add 10.$net.0.1/24 dev "$bridge"
	ip address add 2001:db8:$net::1/64 dev "$bridge" nodad
done
mkdir -p "$folder"
cp "$key" "$folder/key"
cat >"$folder/zone" <<END
\$TTL 300
@ IN SOA ns hostmaster 1 3600 600 86400 2
@ IN NS ns
ns IN A 10.3.0.53
END
cat >"$folder/named.conf" <<END
options { directory "$folder"; listen-on { 10.3.0.53; }; listen-on-v6 { none; }; pid-file none; session-keyfile none;
	recursion no; dnssec-validation no; notify no; };
controls { };
include "$folder/key";
zone "example.org" { type primary; file "$folder/zone"; update-policy {
	grant laptop-key name laptop.example.org. A AAAA;
	grant laptop-key name _mobconn.laptop.example.org. TXT; }; };
END
exec setpriv --pdeathsig TERM named -g -n 1 -U 1 -c "$folder/named.conf" >"$folder/log" 2>&1

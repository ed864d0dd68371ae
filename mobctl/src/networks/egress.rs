//! What the kernel module is told about this host's networks.

use super::policy::{Policy, Standing};
use super::{Address, Snapshot};
use crate::tuple;
use mobconn_abi::{EGRESS_PREFIXES_MAX, EGRESS_RULES_MAX, Egress, EgressPrefix, EgressRule};
use mobconn_dprp::Prefix;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Which addresses belong to which router, while this host is in more than one network; else nothing. `targets` and
/// `peers` are where peers are, `port` is the daemon's.
#[must_use]
pub fn egress(policy: &Policy, targets: &[Prefix], peers: &[IpAddr], port: u16) -> Egress {
    let snapshot = policy.snapshot();
    let alive = |address: &&Address| matches!(policy.standing(address), Standing::Usable | Standing::NoRoute);
    let mut rules: Vec<EgressRule> =
        snapshot.addresses.iter().filter(alive).filter_map(|address| rule(snapshot, address)).collect();
    let interfaces: BTreeSet<u32> = rules.iter().map(|rule| rule.interface).collect();
    if interfaces.len() < 2 {
        return Egress::default();
    }
    // One address may stand on two interfaces, and there is room for so many.
    let mut sources = BTreeSet::new();
    rules.retain(|rule| sources.insert((rule.version, rule.source)));
    if rules.len() > EGRESS_RULES_MAX {
        log::warn!("this host has more addresses than the module takes: {} of {}", EGRESS_RULES_MAX, rules.len());
    }
    let on_link = snapshot.addresses.iter().filter(alive).map(|address| prefix(address.ip, address.length, true));
    let peers = peers.iter().filter(|peer| !targets.iter().any(|target| target.contains(**peer)));
    let peers = peers.map(|peer| prefix(*peer, if peer.is_ipv4() { 32 } else { 128 }, false));
    let targets = targets.iter().map(|target| prefix(target.address(), target.length(), false));
    let mut prefixes: Vec<EgressPrefix> = Vec::new();
    for prefix in on_link.chain(targets).chain(peers) {
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    let mut egress = Egress { port, ..Egress::default() };
    egress.rules.iter_mut().zip(rules.iter().take(EGRESS_RULES_MAX)).for_each(|(to, from)| *to = *from);
    egress.prefixes.iter_mut().zip(&prefixes).for_each(|(to, from)| *to = *from);
    egress.rule_count = rules.len().min(EGRESS_RULES_MAX) as u32;
    egress.prefix_count = prefixes.len().min(EGRESS_PREFIXES_MAX) as u32;
    egress
}

fn rule(snapshot: &Snapshot, address: &Address) -> Option<EgressRule> {
    let gateway = snapshot.gateway(address)?;
    (gateway.address != address.ip).then(|| EgressRule {
        source: tuple::to_bytes(address.ip),
        gateway: tuple::to_bytes(gateway.address),
        interface: address.interface,
        version: tuple::version(address.ip),
        reserved: [0; 3],
    })
}

fn prefix(ip: IpAddr, length: u8, on_link: bool) -> EgressPrefix {
    let masked: IpAddr = match ip {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(v4.to_bits() & !host).into()
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(v6.to_bits() & !host).into()
        }
    };
    EgressPrefix {
        address: tuple::to_bytes(masked),
        length,
        version: tuple::version(ip),
        on_link: on_link.into(),
        reserved: [0; 5],
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::tests::{host, preference};
    use super::*;

    fn text(egress: &Egress) -> Vec<String> {
        let ip = |bytes, version| tuple::from_bytes(bytes, version).unwrap();
        let rules = egress.rules.iter().take(egress.rule_count as usize).map(|rule| {
            format!("{} via {} on {}", ip(&rule.source, rule.version), ip(&rule.gateway, rule.version), rule.interface)
        });
        let prefixes = egress
            .prefixes
            .iter()
            .take(egress.prefix_count as usize)
            .map(|prefix| format!("{}/{} {}", ip(&prefix.address, prefix.version), prefix.length, prefix.on_link));
        rules.chain(prefixes).collect()
    }

    #[test]
    fn one_network_needs_no_rule_and_two_do() {
        let targets = ["203.0.113.0/24".parse().unwrap()];
        let peers = ["203.0.113.5".parse().unwrap(), "198.18.0.1".parse().unwrap()];
        let mut policy = Policy::new(preference(&[]));
        policy.observe(mobconn_dprp::Instant::from_micros(0), host(&["em0 192.0.2.9/24 192.0.2.1"]), []);
        assert_eq!(egress(&policy, &targets, &peers, 9434), Egress::default());
        let two = host(&["em0 192.0.2.9/24 192.0.2.1", "em1 198.51.100.9/24 198.51.100.1", "em1 fe80::9/64 fe80::1"]);
        policy.observe(mobconn_dprp::Instant::from_micros(0), two, []);
        let told = egress(&policy, &targets, &peers, 9434);
        assert_eq!(
            text(&told),
            [
                "192.0.2.9 via 192.0.2.1 on 1",
                "198.51.100.9 via 198.51.100.1 on 2",
                "192.0.2.0/24 1",
                "198.51.100.0/24 1",
                "203.0.113.0/24 0",
                "198.18.0.1/32 0"
            ]
        );
        assert_eq!(told.port, 9434);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let many: Vec<String> = (1..100).map(|n| format!("em{} 10.{n}.0.9/24 10.{n}.0.1", n % 3)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut policy = Policy::new(preference(&[]));
        policy.observe(mobconn_dprp::Instant::from_micros(0), host(&many), []);
        let told = egress(&policy, &[], &[], 1);
        assert_eq!((told.rule_count as usize, told.prefix_count as usize), (EGRESS_RULES_MAX, EGRESS_PREFIXES_MAX));
    }
}

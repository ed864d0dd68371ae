//! What the kernel module is told about this host's networks.

use super::policy::{Policy, Standing};
use super::{Address, Snapshot};
use crate::tuple;
use mobconn_abi::{EGRESS_PREFIXES_MAX, EGRESS_RULES_MAX, Egress, EgressPrefix, EgressRule};
use mobconn_dprp::{Instant, Prefix};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How long an interface may have an address and no router before it counts as a network that leads nowhere else.
const ROUTERLESS: Duration = Duration::from_secs(10);

/// What the kernel module is told, and what it was told of interfaces that have no address now.
#[derive(Debug, Default)]
pub struct Steering {
    /// The last rule of an interface and IP version.
    last: BTreeMap<(u32, u8), Last>,
}

#[derive(Debug)]
struct Last {
    name: String,
    rule: EgressRule,
    /// Since when the interface has addresses, but no router.
    routerless: Option<Instant>,
}

impl Steering {
    /// Which addresses belong to which router, while this host is in more than one network; else nothing. `targets` and
    /// `peers` are where peers are, `port` is the daemon's.
    ///
    /// An interface keeps its last rule while it has none of its own. The module leaves alone what is routed to an
    /// interface without a rule; but when a network comes back, the system may send by it a moment before this program
    /// knows, and when it goes, a moment longer.
    pub fn egress(&mut self, now: Instant, policy: &Policy, targets: &[Prefix], peers: &[IpAddr], port: u16) -> Egress {
        let snapshot = policy.snapshot();
        let alive = |address: &&Address| matches!(policy.standing(address), Standing::Usable | Standing::NoRoute);
        let mut rules: Vec<EgressRule> =
            snapshot.addresses.iter().filter(alive).filter_map(|address| rule(snapshot, address)).collect();
        for rule in &rules {
            let Some(interface) = snapshot.interface(rule.interface) else { continue };
            let last = Last { name: interface.name.clone(), rule: *rule, routerless: None };
            self.last.insert((rule.interface, rule.version), last);
        }
        self.last.retain(|&(index, version), last| {
            let same = snapshot.interface(index).is_some_and(|interface| interface.name == last.name);
            if !same || policy.preference().ignore.contains(&last.name) {
                return false;
            }
            let has_rule = rules.iter().any(|rule| (rule.interface, rule.version) == (index, version));
            let here = |address: &Address| address.interface == index && tuple::version(address.ip) == version;
            if has_rule || !snapshot.addresses.iter().filter(alive).any(here) {
                last.routerless = None;
                return true;
            }
            now.since(*last.routerless.get_or_insert(now)) < ROUTERLESS
        });
        // Behind the others: of two with one source the first counts.
        rules.extend(self.last.values().map(|last| last.rule));
        told(policy, rules, targets, peers, port)
    }
}

fn told(policy: &Policy, mut rules: Vec<EgressRule>, targets: &[Prefix], peers: &[IpAddr], port: u16) -> Egress {
    let snapshot = policy.snapshot();
    let alive = |address: &&Address| matches!(policy.standing(address), Standing::Usable | Standing::NoRoute);
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

    const TARGET: &str = "203.0.113.0/24";

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    /// What is told of networks that come and go; `NUMBER SOURCE` of each rule.
    fn sources(steering: &mut Steering, policy: &mut Policy, seconds: u64, lines: &[&str]) -> Vec<String> {
        policy.observe(at(seconds), host(lines), []);
        let told = steering.egress(at(seconds), policy, &[TARGET.parse().unwrap()], &[], 9434);
        let rules = told.rules.iter().take(told.rule_count as usize);
        rules
            .map(|rule| format!("{} {}", rule.interface, tuple::from_bytes(&rule.source, rule.version).unwrap()))
            .collect()
    }

    #[test]
    fn a_network_that_went_keeps_its_rule_until_it_has_another() {
        let (mut steering, mut policy) = (Steering::default(), Policy::new(preference(&[])));
        let mut told = |seconds, lines: &[&str]| sources(&mut steering, &mut policy, seconds, lines);
        let (em0, em1) = ("em0 192.0.2.9/24 192.0.2.1", "em1 198.51.100.9/24 198.51.100.1");
        let gone = "em0 fe80::9/64 down";
        assert_eq!(told(0, &[em0]), [""; 0]);
        assert_eq!(told(1, &[em0, em1]), ["1 192.0.2.9", "2 198.51.100.9"]);
        assert_eq!(told(2, &[gone, em1]), ["2 198.51.100.9", "1 192.0.2.9"]);
        // Back, but its default route is not seen yet.
        assert_eq!(told(900, &["em0 192.0.2.9/24", em1]), ["2 198.51.100.9", "1 192.0.2.9"]);
        assert_eq!(told(901, &["em0 192.0.2.7/24 192.0.2.1", em1]), ["1 192.0.2.7", "2 198.51.100.9"]);
        // A network that leads nowhere: what is routed there is meant to go there.
        assert_eq!(told(902, &["em0 10.0.0.9/8", em1]).len(), 2);
        assert_eq!(told(913, &["em0 10.0.0.9/8", em1]), [""; 0]);
    }

    #[test]
    fn another_interface_and_one_that_is_ignored_have_no_past() {
        let (em0, em1) = ("em0 192.0.2.9/24 192.0.2.1", "em1 198.51.100.9/24 198.51.100.1");
        let (mut steering, mut policy) = (Steering::default(), Policy::new(preference(&[])));
        assert_eq!(sources(&mut steering, &mut policy, 0, &[em0, em1]).len(), 2);
        assert_eq!(sources(&mut steering, &mut policy, 1, &["tun0 fe80::9/64 down", em1]), [""; 0], "the same number");
        let ignore = vec!["em0".to_owned()];
        let mut policy = Policy::new(crate::networks::policy::Preference { ignore, ..preference(&[]) });
        let mut steering = Steering::default();
        steering.last.insert((1, 4), Last { name: "em0".into(), rule: EgressRule::default(), routerless: None });
        assert_eq!(sources(&mut steering, &mut policy, 0, &[em0, em1]), [""; 0]);
    }

    #[test]
    fn one_network_needs_no_rule_and_two_do() {
        let egress = |policy: &Policy, targets: &[Prefix], peers: &[IpAddr], port| {
            Steering::default().egress(at(0), policy, targets, peers, port)
        };
        let targets = [TARGET.parse().unwrap()];
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
        let told = Steering::default().egress(at(0), &policy, &[], &[], 1);
        assert_eq!((told.rule_count as usize, told.prefix_count as usize), (EGRESS_RULES_MAX, EGRESS_PREFIXES_MAX));
    }
}

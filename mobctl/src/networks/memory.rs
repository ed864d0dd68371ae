//! Routers that this host knows although no route names them.
//!
//! A system mostly has one default route. The router of its other networks is
//! known to whoever configured them: what `mobctl poke` was told, and what was
//! a default route before, counts as long as the network is there.

use super::{Address, Gateway, Snapshot};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Behind every route of the system: told by somebody.
const TOLD: u32 = 0xffff_0000;
/// Behind those: was a default route.
const SEEN: u32 = 0xffff_0001;
/// Routers that are remembered.
const MEMORY_MAX: usize = 64;

/// The routers that are remembered, with their interface.
#[derive(Debug, Default)]
pub struct Memory {
    routers: BTreeMap<(u32, IpAddr), u32>,
}

impl Memory {
    /// Somebody says that these are the routers of an interface: its earlier ones of the same family are forgotten.
    pub fn tell(&mut self, interface: u32, routers: &[IpAddr]) {
        for router in routers {
            self.routers.retain(|(of, other), _| *of != interface || other.is_ipv4() != router.is_ipv4());
        }
        for router in routers {
            self.insert(interface, *router, TOLD);
        }
    }

    fn insert(&mut self, interface: u32, router: IpAddr, rank: u32) {
        if self.routers.len() < MEMORY_MAX {
            let known = self.routers.entry((interface, router)).or_insert(rank);
            *known = (*known).min(rank);
        }
    }

    /// Remembers the routers of `snapshot`, forgets those whose network is gone, and adds the others to it.
    pub fn complete(&mut self, snapshot: &mut Snapshot) {
        for gateway in &snapshot.gateways {
            self.insert(gateway.interface, gateway.address, SEEN);
        }
        let there = |interface: u32, router: IpAddr| {
            let is_up = snapshot.interface(interface).is_some_and(|interface| interface.up && interface.running);
            let on_link = |address: &Address| {
                address.interface == interface
                    && address.ip.is_ipv4() == router.is_ipv4()
                    && (address.reaches(router) || is_link_local(router))
            };
            is_up && snapshot.addresses.iter().any(on_link)
        };
        self.routers.retain(|(interface, router), _| there(*interface, *router));
        for (&(interface, address), &rank) in &self.routers {
            let same = |gateway: &Gateway| gateway.interface == interface && gateway.address == address;
            if !snapshot.gateways.iter().any(same) {
                snapshot.gateways.push(Gateway { interface, address, rank });
            }
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::Interface;

    fn snapshot(running: bool, gateways: &[&str]) -> Snapshot {
        let gateway = |ip: &&str| Gateway { interface: 2, address: ip.parse().unwrap(), rank: 100 };
        Snapshot {
            interfaces: vec![Interface { index: 2, name: "em0".into(), up: true, running, loopback: false }],
            addresses: vec![Address::new("192.0.2.9".parse().unwrap(), 24, 2)],
            gateways: gateways.iter().map(gateway).collect(),
        }
    }

    #[test]
    fn a_router_is_remembered_while_its_network_is_there() {
        let mut memory = Memory::default();
        memory.complete(&mut snapshot(true, &["192.0.2.1"]));
        let mut later = snapshot(true, &[]);
        memory.complete(&mut later);
        assert_eq!(later.gateways.len(), 1);
        assert_eq!(later.gateways[0].rank, SEEN, "behind the routes that are");
        memory.complete(&mut snapshot(false, &[]));
        let mut later = snapshot(true, &[]);
        memory.complete(&mut later);
        assert_eq!(later.gateways, [], "the link was lost: it may be another network now");
    }

    #[test]
    fn what_is_told_replaces_what_was_told() {
        let mut memory = Memory::default();
        let told = |ip: &str| ip.parse::<IpAddr>().unwrap();
        memory.tell(2, &[told("192.0.2.1"), told("fe80::1")]);
        memory.tell(2, &[told("192.0.2.2")]);
        memory.tell(3, &[told("192.0.2.3")]);
        let mut now = snapshot(true, &[]);
        memory.complete(&mut now);
        let routers: Vec<_> = now.gateways.iter().map(|gateway| gateway.address.to_string()).collect();
        assert_eq!(routers, ["192.0.2.2"], "fe80::1 has no IPv6 address beside it, and there is no interface 3");
    }
}

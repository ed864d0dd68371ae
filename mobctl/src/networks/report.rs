//! What `mobctl networks` shows.

use super::Address;
use super::policy::{Policy, Standing};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The networks of this host, and what was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether connections move by themselves.
    pub automatic: bool,
    /// Why networks are not watched, possibly empty.
    pub trouble: String,
    /// Interfaces, the best first; empty: as the system's routes prefer.
    pub prefer: Vec<String>,
    /// Interfaces that are never used.
    pub ignore: Vec<String>,
    /// Seconds for which a better network must have been there.
    pub hold_down: u64,
    /// Milliseconds until a better network is used, if there is one.
    pub better_in_ms: Option<u64>,
    /// Addresses that have a rule in the kernel: they leave by their own network whatever the routes.
    pub steered: Vec<IpAddr>,
    /// Old addresses that the daemon keeps on the loopback interface.
    pub kept: Vec<IpAddr>,
    /// All addresses, by interface.
    pub addresses: Vec<One>,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct One {
    /// Interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Bits that are on the link.
    pub length: u8,
    /// The router of its network.
    pub gateway: Option<IpAddr>,
    /// Whether connections can be there.
    pub usable: bool,
    /// Why not, or `usable`.
    pub standing: String,
    /// Whether connections go there.
    pub chosen: bool,
    /// Whether somebody chose it with `mobctl move`.
    pub by_hand: bool,
    /// Whether connections that were there go to the chosen one.
    pub left: bool,
    /// Not for new connections.
    pub deprecated: bool,
    /// Made to be given up soon.
    pub temporary: bool,
}

/// The addresses as `policy` sees them.
#[must_use]
pub fn addresses(policy: &Policy) -> Vec<One> {
    let snapshot = policy.snapshot();
    let one = |address: &Address| {
        let standing = policy.standing(address);
        let chosen = policy.chosen(address.ip) == Some(address.ip);
        One {
            interface: snapshot
                .interface(address.interface)
                .map_or_else(|| format!("#{}", address.interface), |interface| interface.name.clone()),
            address: address.ip,
            length: address.length,
            gateway: snapshot.gateway(address).map(|gateway| gateway.address),
            usable: standing == Standing::Usable,
            standing: standing.text().to_owned(),
            chosen,
            by_hand: chosen && policy.is_by_hand(address.ip),
            left: policy.has_left(address.ip),
            deprecated: address.deprecated,
            temporary: address.temporary,
        }
    };
    let mut all: Vec<One> = snapshot.addresses.iter().map(one).collect();
    all.sort_by(|a, b| (&a.interface, a.address).cmp(&(&b.interface, b.address)));
    all
}

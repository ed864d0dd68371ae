//! The networks that this host is in, and when its connections move between them.
//!
//! [`Watcher`](crate::system::Watcher) tells that something changed and reads
//! the [`Snapshot`]; [`memory`] remembers routers; [`policy`] decides;
//! [`egress`] says by which network packets leave. The last three know no
//! operating system and no clock. [`rtnetlink`] and [`routesock`] decode.

pub mod egress;
pub mod memory;
pub mod policy;
pub mod report;
pub mod routesock;
pub mod rtnetlink;

use std::net::IpAddr;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it was told to be up.
    pub up: bool,
    /// Whether it has a link, as far as it can tell.
    pub running: bool,
    /// Whether it leads to this host only.
    pub loopback: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of the prefix that is on the link.
    pub length: u8,
    /// Index of the interface.
    pub interface: u32,
    /// Duplicate address detection has not ended.
    pub tentative: bool,
    /// Somebody else has it.
    pub duplicated: bool,
    /// It is kept from a link that the interface is not on any more.
    pub detached: bool,
    /// Not for new connections (RFC 4862, 5.5.4).
    pub deprecated: bool,
    /// Made to be given up soon (RFC 8981).
    pub temporary: bool,
}

impl Address {
    /// An address without any of the flags.
    #[must_use]
    pub const fn new(ip: IpAddr, length: u8, interface: u32) -> Self {
        Self {
            ip,
            length,
            interface,
            tentative: false,
            duplicated: false,
            detached: false,
            deprecated: false,
            temporary: false,
        }
    }

    /// Whether `other` is on the link that this address is on.
    #[must_use]
    pub fn reaches(&self, other: IpAddr) -> bool {
        covers(self.ip, self.length, other)
    }
}

/// A router that leads everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Index of the interface towards it.
    pub interface: u32,
    /// Its address; link-local for IPv6 mostly.
    pub address: IpAddr,
    /// The smaller, the more the system itself prefers it.
    pub rank: u32,
}

/// All of it at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// Their addresses.
    pub addresses: Vec<Address>,
    /// Default routes, and other routers that are known.
    pub gateways: Vec<Gateway>,
}

impl Snapshot {
    /// The interface with this index.
    #[must_use]
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The address as it is configured.
    #[must_use]
    pub fn address(&self, ip: IpAddr) -> Option<&Address> {
        self.addresses.iter().find(|address| address.ip == ip)
    }

    /// The router of the address's network and family that the system prefers. A route to a router that no address of
    /// the interface reaches is one that was left behind.
    #[must_use]
    pub fn gateway(&self, address: &Address) -> Option<&Gateway> {
        let is_near = |router: IpAddr| {
            let reaches = |other: &Address| other.interface == address.interface && other.reaches(router);
            router.is_ipv6() || address.length == 32 || self.addresses.iter().any(reaches)
        };
        let fits = |gateway: &&Gateway| {
            gateway.interface == address.interface
                && gateway.address.is_ipv4() == address.ip.is_ipv4()
                && is_near(gateway.address)
        };
        self.gateways.iter().filter(fits).min_by_key(|gateway| gateway.rank)
    }
}

/// Whether the first `length` bits of both addresses are the same.
#[must_use]
pub fn covers(network: IpAddr, length: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(length),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(length),
        _ => false,
    }
}

/// Whether an address means the same on every link, and one host: only such flows move.
#[must_use]
pub fn is_global(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(link_local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

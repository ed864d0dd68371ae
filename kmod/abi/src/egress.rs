//! By which network packets leave.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most rules of an [`Egress`].
pub const EGRESS_RULES_MAX: usize = 16;
/// Most prefixes of an [`Egress`].
pub const EGRESS_PREFIXES_MAX: usize = 64;

/// One address of this host and the network that it belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EgressRule {
    /// The source address; IPv4 in the first four bytes, the others zero. Each at most once.
    pub source: [u8; 16],
    /// The router of its network, likewise; a link-local one is on `interface`.
    pub gateway: [u8; 16],
    /// Index of the interface of its network.
    pub interface: u32,
    /// IP version of both.
    pub version: u8,
    /// Must be zero.
    pub reserved: [u8; 3],
}

/// Destinations.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EgressPrefix {
    /// Address; IPv4 in the first four bytes, the others zero.
    pub address: [u8; 16],
    /// How many of its bits count.
    pub length: u8,
    /// IP version.
    pub version: u8,
    /// 1: these are on a link of this host, and routed as ever; 0: here are peers.
    pub on_link: u8,
    /// Must be zero.
    pub reserved: [u8; 5],
}

/// Argument of [`EGRESS_SET`](crate::EGRESS_SET) and [`EGRESS_GET`](crate::EGRESS_GET).
///
/// Routes are chosen by destination, but a network may drop what does not come from its own addresses. So a packet of
/// this host whose source is that of a rule, and which is routed to the interface of *another* rule, goes to the rule's
/// gateway instead, if it is
/// - of a bound flow, or
/// - a UDP datagram from `port`, or
/// - TCP or UDP to one of the prefixes of peers.
///
/// Nothing else is touched, nor what goes to a prefix that is on a link.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Egress {
    /// The rules; beyond `rule_count` all zero.
    pub rules: [EgressRule; EGRESS_RULES_MAX],
    /// The prefixes; beyond `prefix_count` all zero.
    pub prefixes: [EgressPrefix; EGRESS_PREFIXES_MAX],
    /// How many rules; 0: every packet is routed as ever.
    pub rule_count: u32,
    /// How many prefixes.
    pub prefix_count: u32,
    /// The daemon's UDP port, host byte order.
    pub port: u16,
    /// Must be zero.
    pub reserved: [u8; 6],
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            rules: [EgressRule::default(); EGRESS_RULES_MAX],
            prefixes: [EgressPrefix::default(); EGRESS_PREFIXES_MAX],
            rule_count: 0,
            prefix_count: 0,
            port: 0,
            reserved: [0; 6],
        }
    }
}

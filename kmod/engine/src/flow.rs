//! The vocabulary: addresses, sides, bindings, errors.

/// IP version of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Transport protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An IPv6 address, or an IPv4 address in the first four bytes and zero in
/// the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// An IPv4 address.
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// Whether packets of a flow can carry it: a unicast address, neither
    /// loopback nor unspecified, nor (IPv6) link-local or v4-mapped, whose
    /// meaning depends on more than the address.
    #[must_use]
    pub fn is_usable(&self, version: Version) -> bool {
        match version {
            Version::V4 => {
                let [a, b, c, d, rest @ ..] = self.0;
                rest == [0; 12] && a != 0 && a != 127 && a < 224 && [a, b, c, d] != [255; 4]
            }
            Version::V6 => {
                let ip = core::net::Ipv6Addr::from(self.0);
                !(ip.is_unspecified()
                    || ip.is_loopback()
                    || ip.is_multicast()
                    || ip.is_unicast_link_local()
                    || ip.to_ipv4_mapped().is_some())
            }
        }
    }
}

/// One side, stack or wire, of a flow. Direction is the host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Side {
    /// Local address.
    pub local: Address,
    /// Remote address.
    pub remote: Address,
    /// Local port.
    pub local_port: u16,
    /// Remote port.
    pub remote_port: u16,
    /// IP version.
    pub version: Version,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl Side {
    /// Whether a flow can have this side.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.local_port != 0
            && self.remote_port != 0
            && self.local.is_usable(self.version)
            && self.remote.is_usable(self.version)
            && self.local != self.remote
    }
}

/// Which half of a wire side. Each is owned by the host at that end and has
/// its own generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// This host's address.
    Local,
    /// The peer's address.
    Remote,
}

/// The second address of a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// There is none.
    None,
    /// A prepared move: accepted on input, not used on output yet.
    Pending {
        /// The new address.
        address: Address,
        /// The move's generation.
        generation: u32,
        /// The old path is gone: nothing is sent until commit.
        hold: bool,
    },
    /// The address before the last move, still accepted on input.
    Grace {
        /// The old address.
        address: Address,
        /// Uptime in seconds of the commit.
        since: u32,
    },
}

/// One half of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfView {
    /// Generation of the address in use; 0: never moved.
    pub generation: u32,
    /// The second address, if any.
    pub other: Other,
}

/// A binding, as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Stack side.
    pub stack: Side,
    /// Wire side that output uses.
    pub wire: Side,
    /// The local half.
    pub local: HalfView,
    /// The remote half.
    pub remote: HalfView,
    /// It was made for a newcomer, see [`Control::displace`](crate::Control::displace).
    pub displaced: bool,
    /// Its wire side was taken by another binding: nothing is sent, and
    /// nothing received on it, until it moves.
    pub lost: bool,
    /// Cursor value, unique while the binding lives; never 0.
    pub id: u64,
    /// Uptime in seconds when it was made.
    pub created: u32,
    /// Uptime in seconds when a packet last used it.
    pub used: u32,
}

/// Why the table refused. The table is then as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// A side that no flow can have, or a pair that does not fit together.
    Invalid,
    /// The stack side is bound already.
    Exists,
    /// The wire side is another flow's.
    Conflict,
    /// No room: the table's capacity is used up.
    Full,
    /// No memory.
    NoMemory,
    /// No such binding, or no such pending move.
    NotFound,
    /// The generation is older than what is there.
    Stale,
}

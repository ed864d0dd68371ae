//! Flows as they cross the device: tuples, halves, records.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `Tuple::version` of an IPv4 flow.
pub const IPV4: u8 = 4;
/// `Tuple::version` of an IPv6 flow.
pub const IPV6: u8 = 6;
/// `Tuple::protocol` of TCP (IANA protocol number).
pub const TCP: u8 = 6;
/// `Tuple::protocol` of UDP (IANA protocol number).
pub const UDP: u8 = 17;

/// One side, stack or wire, of a flow. Direction is the host's own.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Tuple {
    /// Local address; IPv4 in the first four bytes, the others zero.
    pub local: [u8; 16],
    /// Remote address, likewise.
    pub remote: [u8; 16],
    /// Local port, host byte order, never 0.
    pub local_port: u16,
    /// Remote port, host byte order, never 0.
    pub remote_port: u16,
    /// IP version: [`IPV4`] or [`IPV6`].
    pub version: u8,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Must be zero.
    pub reserved: [u8; 2],
}

/// Which half of a flow's wire side a rebind changes. Each half is owned by
/// the host at that end, and has its own generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Half {
    /// This host's address.
    Local = 1,
    /// The peer's address.
    Remote = 2,
}

impl Half {
    /// The half that `value` stands for, if any.
    #[must_use]
    pub const fn from_raw(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Local),
            2 => Some(Self::Remote),
            _ => None,
        }
    }
}

/// What the second address of a half is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alternate {
    /// There is none.
    None = 0,
    /// Accepted on input, not yet used on output: a move that is prepared.
    Pending = 1,
    /// As `Pending`, and nothing is sent until commit: the old path is gone.
    PendingHold = 2,
    /// The address before the last move, still accepted on input.
    Grace = 3,
}

impl Alternate {
    /// The state that `value` stands for, if any.
    #[must_use]
    pub const fn from_raw(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::Pending),
            2 => Some(Self::PendingHold),
            3 => Some(Self::Grace),
            _ => None,
        }
    }
}

/// One half of a binding's wire side, as [`Record`] shows it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HalfState {
    /// The other address of this half, by [`HalfState::alternate`]; else zero.
    pub other: [u8; 16],
    /// Generation of the address in use. 0: never moved.
    pub generation: u32,
    /// Generation of the pending address; else zero.
    pub pending_generation: u32,
    /// An [`Alternate`].
    pub alternate: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// One binding, as [`FLOW_GET`](crate::FLOW_GET) and
/// [`FLOW_LIST`](crate::FLOW_LIST) show it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Record {
    /// Stack side.
    pub stack: Tuple,
    /// Wire side, as used on output.
    pub wire: Tuple,
    /// The local half.
    pub local: HalfState,
    /// The remote half.
    pub remote: HalfState,
    /// Cursor value of this binding: unique while it lives.
    pub id: u64,
    /// Seconds of system uptime when the binding was made.
    pub created: u64,
    /// Seconds of system uptime when a packet last used it, or `created`.
    pub used: u64,
    /// [`DISPLACED`] and [`LOST`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// `Record::flags`: made by the module for a connection that began with a side
/// of a moved flow; its ports differ between stack and wire.
pub const DISPLACED: u32 = 1;
/// `Record::flags`: its wire side was taken by another flow, whose host proved
/// that it has the address now; nothing is sent until it moves.
pub const LOST: u32 = 2;

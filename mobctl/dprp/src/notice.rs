//! What the endpoint has to tell: notices for the log, and views for status.

use crate::host::Flow;
use crate::key::PublicKey;
use crate::time::Instant;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When.
    pub at: Instant,
    /// What.
    pub news: News,
}

/// What a [`Notice`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum News {
    /// An association is up, or was made anew.
    AssociationUp {
        /// The peer's key.
        peer: PublicKey,
        /// The peer's name as it says, possibly empty.
        name: String,
        /// Where the peer is.
        address: SocketAddr,
        /// Whether this host started it.
        started: bool,
        /// From the first datagram to the last of the handshake.
        elapsed: Duration,
    },
    /// An association without claims was given up.
    AssociationDown {
        /// The peer's key.
        peer: PublicKey,
    },
    /// The peer's daemon forgot us: it is another incarnation than before.
    PeerRestarted {
        /// The peer's key.
        peer: PublicKey,
    },
    /// A host does not answer: no mobconn there, another group, or a filter.
    NoAnswer {
        /// The host.
        address: SocketAddr,
        /// When it is tried again, at the earliest.
        again: Instant,
    },
    /// A host of the group answered whose key is not among the pinned ones, or is not the expected one.
    WrongKey {
        /// The host.
        address: SocketAddr,
        /// Its key.
        key: PublicKey,
    },
    /// Address translation lies between this host and the peer: flows cannot be claimed there. It follows the notice of the
    /// association that found it; an association without it, a confirmed claim or a committed move says that it is over.
    Translated {
        /// The peer's key.
        peer: PublicKey,
        /// The address as the sender knows it.
        sent_from: IpAddr,
        /// The address as it arrives.
        seen_as: IpAddr,
    },
    /// The peer confirmed claims.
    ClaimsConfirmed {
        /// The peer's key.
        peer: PublicKey,
        /// How many.
        flows: usize,
    },
    /// The peer refused a claim. It is tried again after a while.
    ClaimRefused {
        /// The peer's key.
        peer: PublicKey,
        /// The flow.
        flow: Flow,
        /// Why.
        reason: ClaimStatus,
    },
    /// A move has begun: prepared in the kernel, asked of the peer.
    MoveStarted {
        /// The peer's key.
        peer: PublicKey,
        /// The move.
        number: u32,
        /// The address that is left.
        old: IpAddr,
        /// The new address.
        new: IpAddr,
        /// Flows that move.
        flows: usize,
    },
    /// A flow could not be prepared for a move in this host's own kernel. It stays where it is.
    FlowStays {
        /// The peer's key.
        peer: PublicKey,
        /// The flow.
        flow: Flow,
        /// Why.
        reason: Refusal,
    },
    /// The peer has not answered a move for a while. Both addresses are kept, and the peer is asked again and again.
    MoveInDoubt {
        /// The peer's key.
        peer: PublicKey,
        /// The move.
        number: u32,
        /// Since its beginning.
        elapsed: Duration,
    },
    /// A move is complete.
    MoveCommitted {
        /// The peer's key.
        peer: PublicKey,
        /// The move.
        number: u32,
        /// The new address.
        new: IpAddr,
        /// Flows that moved.
        flows: usize,
        /// Flows that the peer refused to move.
        refused: usize,
        /// From what began it, when the kernel prepared it, to the datagram on which the kernel committed it.
        elapsed: Duration,
    },
    /// The peer refused a move as a whole. The flows stay where they were.
    MoveRefused {
        /// The peer's key.
        peer: PublicKey,
        /// The move.
        number: u32,
        /// Why.
        reason: MoveRefusal,
    },
    /// A peer has moved.
    PeerMoved {
        /// The peer's key.
        peer: PublicKey,
        /// The move, as the peer numbers them.
        number: u32,
        /// The address that it left, as it says.
        old: IpAddr,
        /// Its new address.
        new: IpAddr,
        /// Flows that moved.
        flows: usize,
        /// Flows that were refused.
        refused: usize,
        /// From what began it, when the kernel prepared it, to the datagram on which the kernel committed it.
        elapsed: Duration,
    },
    /// A peer asked for a move and did not answer the challenge in time: taken back.
    PeerMoveExpired {
        /// The peer's key.
        peer: PublicKey,
        /// The move, as the peer numbers them.
        number: u32,
        /// The address that did not answer.
        new: IpAddr,
    },
    /// This host refused a peer's move as a whole.
    PeerMoveRefused {
        /// The peer's key.
        peer: PublicKey,
        /// The move, as the peer numbers them.
        number: u32,
        /// Why.
        reason: MoveRefusal,
    },
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ClaimStatus {
    /// The claim holds.
    Confirmed = 0,
    /// The peer has no such connection (yet).
    NotFound = 1,
    /// The claim did not come from the flow's wire address.
    WrongAddress = 2,
    /// The connection is another key's.
    Taken = 3,
    /// The peer takes no more claims.
    Full = 4,
    /// Not a flow that can be claimed.
    Invalid = 5,
}

impl ClaimStatus {
    /// The status that `value` stands for, if any.
    #[must_use]
    pub const fn from_raw(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Confirmed,
            1 => Self::NotFound,
            2 => Self::WrongAddress,
            3 => Self::Taken,
            4 => Self::Full,
            5 => Self::Invalid,
            _ => return None,
        })
    }
}

/// Why one flow does not take part in a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The connection is gone.
    Gone = 1,
    /// There is no such claim.
    Unknown = 2,
    /// A newer move of the flow is there already.
    Stale = 3,
    /// Another flow has the new wire side.
    Conflict = 4,
    /// The kernel's table is full.
    Full = 5,
    /// The flow has no addresses of that family.
    Family = 6,
    /// The kernel refused for another reason.
    Kernel = 7,
}

impl Refusal {
    /// Whether a kernel gave this reason, perhaps after it had prepared.
    pub(crate) const fn is_of_kernel(self) -> bool {
        matches!(self, Self::Stale | Self::Conflict | Self::Full | Self::Kernel)
    }

    /// The refusal that `value` stands for, if any.
    #[must_use]
    pub const fn from_raw(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Gone,
            2 => Self::Unknown,
            3 => Self::Stale,
            4 => Self::Conflict,
            5 => Self::Full,
            6 => Self::Family,
            7 => Self::Kernel,
            _ => return None,
        })
    }
}

/// Why a move is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MoveRefusal {
    /// The new address is not one that a host can have.
    Address = 1,
    /// The request came from another address than the new one, or the peer's own address is seen as another one: address
    /// translation, or a forgery.
    Translated = 2,
    /// The two ends disagree about which claims were selected: the mover has to list them.
    Mismatch = 3,
    /// The selection is absurd.
    Selection = 4,
}

impl MoveRefusal {
    /// The refusal that `value` stands for, if any.
    #[must_use]
    pub const fn from_raw(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Address,
            2 => Self::Translated,
            3 => Self::Mismatch,
            4 => Self::Selection,
            _ => return None,
        })
    }
}

/// One association, for `mobctl peers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// The peer's key.
    pub key: PublicKey,
    /// The peer's name as it says, possibly empty.
    pub name: String,
    /// Where the peer was last proved to be.
    pub address: SocketAddr,
    /// This host's address towards it.
    pub local: IpAddr,
    /// When the association was made, the last time.
    pub established: Instant,
    /// When the peer was last heard.
    pub heard: Instant,
    /// Smoothed round trip, once measured.
    pub round_trip: Option<Duration>,
    /// This host's claims that the peer confirmed.
    pub confirmed: usize,
    /// This host's flows to that peer that are not confirmed.
    pub unconfirmed: usize,
    /// The peer's claims.
    pub claims: usize,
    /// This host's moves in progress.
    pub moves: Vec<MoveView>,
    /// Moves of the peer that wait for the response to the challenge.
    pub pending: usize,
}

/// A move of this host in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveView {
    /// Its number.
    pub number: u32,
    /// The address that is left.
    pub old: IpAddr,
    /// The new address.
    pub new: IpAddr,
    /// Flows that move.
    pub flows: usize,
    /// When it began.
    pub started: Instant,
    /// Requests in a row that were not answered.
    pub tries: u32,
    /// Whether it is in doubt.
    pub doubt: bool,
}

/// What became of datagrams that led nowhere, and of those that did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams received.
    pub received: u64,
    /// Dropped: not of this protocol or version, too short or too long.
    pub malformed: u64,
    /// Dropped: no association or handshake with that index.
    pub unknown_index: u64,
    /// Dropped: failed authentication.
    pub forged: u64,
    /// Dropped: seen before, or too old to tell.
    pub replayed: u64,
    /// Dropped: authenticated, but not understood.
    pub nonsense: u64,
    /// Dropped: authenticated handshake of a key that is not pinned, or of this host itself.
    pub unwelcome: u64,
    /// Dropped or given up for a limit.
    pub limited: u64,
    /// Datagrams sent.
    pub sent: u64,
}

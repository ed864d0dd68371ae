//! The host's connections: which flows the transport protocols have now.
//!
//! Each comes with the number of its *instance*, which tells a connection from
//! a later one with the same addresses and ports. Decoding is apart from
//! reading: [`pcblist`] for FreeBSD, [`inet_diag`] for the user-space host's
//! kernel.

pub mod inet_diag;
pub mod pcblist;

use mobconn_abi::Tuple;
use std::fmt;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Data, acknowledgements or a FIN are still to be exchanged: such a connection is moved.
    Established,
    /// TIME_WAIT: nothing moves, but its binding must stay.
    Waiting,
}

/// One TCP connection, or one connected UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The flow, as the transport protocol knows it.
    pub tuple: Tuple,
    /// Number of the instance, unique among connections of this protocol since boot.
    pub instance: u64,
    /// How far it is.
    pub phase: Phase,
}

/// Why a list of connections makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// It ends in the middle.
    Truncated,
    /// A record's length cannot be.
    BadLength(u64),
    /// The kernel refused, with this errno of its own.
    Refused(i32),
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the list of connections ends in the middle"),
            Self::BadLength(length) => write!(f, "the list of connections has a record of {length} bytes"),
            Self::Refused(errno) => write!(f, "the kernel refused to list connections: errno {errno}"),
        }
    }
}

impl std::error::Error for ListError {}

/// Little readers for records whose bounds are checked at each access.
mod bytes {
    pub(super) fn array<const N: usize>(record: &[u8], offset: usize) -> Option<[u8; N]> {
        record.get(offset..)?.first_chunk().copied()
    }

    pub(super) fn be16(record: &[u8], offset: usize) -> Option<u16> {
        array(record, offset).map(u16::from_be_bytes)
    }

    pub(super) fn ne32(record: &[u8], offset: usize) -> Option<u32> {
        array(record, offset).map(u32::from_ne_bytes)
    }

    pub(super) fn ne64(record: &[u8], offset: usize) -> Option<u64> {
        array(record, offset).map(u64::from_ne_bytes)
    }
}

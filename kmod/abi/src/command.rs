//! The commands: one ioctl number and one argument structure each.
//!
//! Numbers are made as `sys/ioccom.h` makes them, whatever system this is
//! compiled for, because the user-space host speaks the same language.

use crate::egress::Egress;
use crate::flow::{Record, Tuple};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const IOC_VOID: u32 = 0x2000_0000;
const IOC_OUT: u32 = 0x4000_0000;
const IOC_IN: u32 = 0x8000_0000;
const GROUP: u32 = b'M' as u32;

const fn ioc(direction: u32, number: u32, length: usize) -> u32 {
    assert!(length < 8192, "an ioctl argument is at most 8191 bytes");
    direction | ((length as u32) << 16) | (GROUP << 8) | number
}

/// Length in bytes of the argument of the ioctl `command`.
#[must_use]
pub const fn argument_length(command: u32) -> usize {
    ((command >> 16) & 0x1fff) as usize
}

/// Reads [`Info`]. Any file descriptor may.
pub const INFO: u32 = ioc(IOC_OUT, 1, size_of::<Info>());
/// Makes a binding by hand: [`FlowAdd`].
/// `EINVAL` for a tuple or pair that cannot be; `EEXIST` when the stack side is bound; `EADDRINUSE` when the wire side is
/// another flow's; `ENOSPC` when the table is full; `ENOMEM`.
pub const FLOW_ADD: u32 = ioc(IOC_IN, 2, size_of::<FlowAdd>());
/// Removes a binding: [`FlowDelete`]. `ENOENT` when there is none.
pub const FLOW_DELETE: u32 = ioc(IOC_IN, 3, size_of::<FlowDelete>());
/// Reads one binding by its stack side: [`FlowGet`]. `ENOENT` when there is none.
pub const FLOW_GET: u32 = ioc(IOC_IN | IOC_OUT, 4, size_of::<FlowGet>());
/// Lists bindings from a cursor on: [`FlowList`]. `EFAULT` for a bad buffer.
pub const FLOW_LIST: u32 = ioc(IOC_IN | IOC_OUT, 5, size_of::<FlowList>());
/// Prepares a move of one half of many flows: [`MoveBatch`]. Of no flows: the table takes its memory, which otherwise the
/// first binding waits for; `ENOMEM`.
pub const MOVE_PREPARE: u32 = ioc(IOC_IN | IOC_OUT, 6, size_of::<MoveBatch>());
/// Commits a prepared move: [`MoveBatch`].
pub const MOVE_COMMIT: u32 = ioc(IOC_IN | IOC_OUT, 7, size_of::<MoveBatch>());
/// Takes a prepared move back: [`MoveBatch`].
pub const MOVE_ABORT: u32 = ioc(IOC_IN | IOC_OUT, 8, size_of::<MoveBatch>());
/// Ends grace and removes bindings whose sides are equal: [`Expire`].
pub const EXPIRE: u32 = ioc(IOC_IN | IOC_OUT, 9, size_of::<Expire>());
/// Removes every binding.
pub const FLUSH: u32 = ioc(IOC_VOID, 10, 0);
/// Reads one binding by a wire side that it accepts: [`FlowGet`]. `ENOENT` when there is none.
pub const FLOW_FIND: u32 = ioc(IOC_IN | IOC_OUT, 12, size_of::<FlowGet>());
/// Reads the counters: [`Stats`].
pub const STATS: u32 = ioc(IOC_IN | IOC_OUT, 11, size_of::<Stats>());

/// Says by which network packets leave: [`Egress`], in place of what was said before.
/// `EINVAL` for what cannot be; `E2BIG` for counts above the maxima; `ENOMEM`.
pub const EGRESS_SET: u32 = ioc(IOC_IN, 13, size_of::<Egress>());
/// Reads what [`EGRESS_SET`] said last: [`Egress`].
pub const EGRESS_GET: u32 = ioc(IOC_OUT, 14, size_of::<Egress>());

/// Argument of [`INFO`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Info {
    /// [`ABI_VERSION`](crate::ABI_VERSION) of the module.
    pub version: u32,
    /// Version of the module, `major << 16 | minor << 8 | patch`.
    pub module: u32,
    /// Bindings now.
    pub flows: u32,
    /// Most bindings that the table takes.
    pub capacity: u32,
    /// Highest generation of any local half in the table (current or pending).
    pub local_generation: u32,
    /// Zero.
    pub reserved: u32,
    /// Seconds of system uptime, for comparison with [`Record::used`].
    pub uptime: u64,
}

/// Argument of [`FLOW_ADD`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowAdd {
    /// Stack side: as the connection knows itself.
    pub stack: Tuple,
    /// Wire side: as it is to travel. Same version and protocol.
    pub wire: Tuple,
    /// Must be zero.
    pub flags: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// Argument of [`FLOW_DELETE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowDelete {
    /// Stack side of the binding.
    pub stack: Tuple,
    /// Must be zero.
    pub flags: u32,
    /// Must be zero.
    pub reserved: u32,
}

/// Argument of [`FLOW_GET`] and [`FLOW_FIND`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowGet {
    /// In: the stack side, or for [`FLOW_FIND`] the wire side. Out: the binding.
    pub record: Record,
}

/// Argument of [`FLOW_LIST`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowList {
    /// In: 0 to begin, else the last value. Out: where to go on; 0 at the end.
    pub cursor: u64,
    /// In: user address of an array of [`Record`].
    pub buffer: u64,
    /// In: length of the array in records, at most [`LIST_MAX`]. Out: records written.
    pub count: u32,
    /// In: `size_of::<Record>()`, else `EINVAL`.
    pub record_size: u32,
}

/// Most records that one [`FLOW_LIST`] returns.
pub const LIST_MAX: u32 = 4096;
/// Most entries of one [`MoveBatch`].
pub const BATCH_MAX: u32 = 65_536;

/// Argument of [`MOVE_PREPARE`], [`MOVE_COMMIT`] and [`MOVE_ABORT`].
///
/// The command as a whole fails for a bad header (`EINVAL`, `E2BIG`) or buffer
/// (`EFAULT`); otherwise it succeeds, each entry holds its own result, and an
/// entry that failed left its flow as it was.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MoveBatch {
    /// The new address of the half, IPv4 in the first four bytes. Zero for commit and abort.
    pub address: [u8; 16],
    /// User address of an array of [`MoveEntry`], read and written.
    pub entries: u64,
    /// Length of the array, at most [`BATCH_MAX`].
    pub count: u32,
    /// Out: entries that failed.
    pub failed: u32,
    /// IP version of `address`; zero for commit and abort.
    pub version: u8,
    /// A [`Half`](crate::Half).
    pub half: u8,
    /// Prepare: 1 holds the flow's output until commit, because the old path is gone; else 0.
    pub hold: u8,
    /// Prepare: 1 when the new address is proved to be the mover's: a wire side of another binding, or of a connection
    /// without one, becomes this flow's, and the other is cut off from it until it moves; else 0.
    pub take: u8,
    /// Must be zero.
    pub reserved: [u8; 4],
}

/// One flow of a [`MoveBatch`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MoveEntry {
    /// Stack side of the flow. Prepare makes a binding when there is none.
    pub stack: Tuple,
    /// Generation of the move, above every earlier one of that half.
    pub generation: u32,
    /// Out: 0, or an errno of FreeBSD's: `EINVAL` bad tuple; `ESTALE` older than what is there; `ENOENT` no such binding or
    /// pending move; `EADDRINUSE` the new wire side is another flow's; `ENOSPC`, `ENOMEM`.
    pub error: u32,
}

/// Argument of [`EXPIRE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Expire {
    /// In: grace that is at least this many seconds old ends.
    pub grace: u32,
    /// In: UDP bindings idle for this many seconds are removed; 0: none.
    pub udp_idle: u32,
    /// Out: alternates that ended.
    pub ended: u32,
    /// Out: bindings removed.
    pub removed: u32,
}

/// Argument of [`STATS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stats {
    /// In: 1 sets the counters to zero after reading them; else 0.
    pub reset: u32,
    /// Out: counters that the module has; the rest of `values` is zero.
    pub count: u32,
    /// Out: the counters, indexed by [`Counter`](crate::Counter).
    pub values: [u64; STATS_MAX],
}

impl Default for Stats {
    fn default() -> Self {
        Self { reset: 0, count: 0, values: [0; STATS_MAX] }
    }
}

/// Room for counters in [`Stats`].
pub const STATS_MAX: usize = 64;

//! Events: what read(2) on the device returns.

use crate::flow::Record;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Declares [`EventKind`], its names and descriptions from one list.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $value:literal $name:literal,)+) => {
        /// What happened to a binding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum EventKind { $($(#[doc = $doc])+ $variant = $value,)+ }

        impl EventKind {
            /// All kinds, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The kind that `value` stands for, if any.
            #[must_use]
            pub const fn from_raw(value: u32) -> Option<Self> {
                match value {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Name, as `mobctl monitor` shows it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One line that says what happened.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii_start(),)+ }
            }
        }
    };
}

kinds! {
    /// A binding was made
    Made = 1 "made",
    /// A binding was made for a connection that begins with a side of a moved flow
    Displaced = 2 "displaced",
    /// A move of one half was prepared
    Prepared = 3 "prepared",
    /// A move of one half was committed: the flow has another wire side now
    Rebound = 4 "rebound",
    /// A prepared move was taken back
    Aborted = 5 "aborted",
    /// The old address of a half is accepted no more
    GraceEnded = 6 "grace-ended",
    /// The wire side was taken by another flow
    Lost = 7 "lost",
    /// The binding ended
    Gone = 8 "gone",
    /// A binding could not be made because the table is full; told once until one ends
    Full = 9 "full",
}

/// One event, as read(2) returns it: always whole ones, oldest first.
///
/// A descriptor gets the events of the network stack in which it was opened,
/// from its first read(2), poll(2) or kevent(2) on. `EAGAIN` when there is none and the descriptor is non-blocking;
/// `EINVAL` for a buffer shorter than one event; `EMFILE` when [`READERS_MAX`] descriptors read already; `ENXIO`,
/// `EPERM`, `ENOMEM`, `EFAULT`, `EINTR`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// Number of the event in its network stack; a gap is what was lost.
    pub sequence: u64,
    /// Events that this descriptor lost right before this one, because they were not read in time.
    pub lost: u64,
    /// Microseconds of system uptime.
    pub time: u64,
    /// An [`EventKind`].
    pub kind: u32,
    /// For prepared, rebound and aborted: the [`Half`](crate::Half) that moves; else 0.
    pub half: u32,
    /// The binding after the event, or before it if it is gone. With `id` 0: the one that could not be made.
    pub record: Record,
}

/// Most descriptors of one network stack that read events.
pub const READERS_MAX: u32 = 64;

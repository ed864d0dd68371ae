//! The counters: one per outcome of the packet path and of the table.

/// Declares [`Counter`], its names and descriptions from one list.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A counter of the module; its value is its index in [`Stats::values`](crate::Stats::values).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// All counters, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Name, as in `net.inet.mobconn.stats` and `mobctl stats`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One line that says what is counted.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii_start(),)+ }
            }
        }
    };
}

counters! {
    /// Packets received and given their stack side
    TranslatedIn = "translated_in",
    /// Packets sent and given their wire side
    TranslatedOut = "translated_out",
    /// Packets sent that the hook had translated before and left alone
    Again = "again",
    /// Packets kept because their move is not committed yet
    Held = "held",
    /// Kept packets sent after all
    Released = "released",
    /// Packets dropped because their move is not committed yet and too many are kept
    DroppedHeld = "dropped_held",
    /// RST segments dropped on a wire side that is not committed yet
    DroppedPendingRst = "dropped_pending_rst",
    /// Packets with a side of a bound flow that are not of it
    DroppedStray = "dropped_stray",
    /// Beginnings of connections dropped because too many wait for a port, or none is free
    DroppedNewcomer = "dropped_newcomer",
    /// Fragments given to reassembly before the firewalls
    Fragments = "fragments",
    /// Packets of a moved flow dropped for short memory
    DroppedMemory = "dropped_memory",
    /// Packets of a moved flow dropped because the table changed too often under them
    DroppedContended = "dropped_contended",
    /// Packets of a moved flow dropped because they do not fit the interface that they leave by now; TCP is told
    DroppedTooBig = "dropped_too_big",
    /// Packets of a moved flow passed untouched because of IP options
    PassedOptions = "passed_options",
    /// Packets passed untouched because their headers are malformed
    PassedMalformed = "passed_malformed",
    /// Bindings made
    FlowAdded = "flow_added",
    /// Bindings removed
    FlowRemoved = "flow_removed",
    /// Moves prepared, counted by flow
    MovePrepared = "move_prepared",
    /// Moves committed, counted by flow
    MoveCommitted = "move_committed",
    /// Moves taken back, counted by flow
    MoveAborted = "move_aborted",
    /// Connections given another port because a moved flow has their side
    Displaced = "displaced",
    /// TCP connections made to send again at once after a move
    Resumed = "resumed",
    /// Bindings refused because the table is full
    RefusedFull = "refused_full",
    /// Bindings refused because their wire side is another flow's
    RefusedConflict = "refused_conflict",
    /// Packets sent by the network of their source and not by the route to their destination
    Steered = "steered",
    /// Packets sealed by IPsec, passed untouched while bindings live
    PassedIpsec = "passed_ipsec",
}

//! The table that the packet path reads: one record for each binding, and an
//! index that finds records by key.
//!
//! # Shape
//! A **record** is two cache lines: the stack side, and two slots for each
//! half of the wire side (the address in use, and a second one that is pending
//! or in grace). A word of state says what the slots mean. The **index** has,
//! for each binding, one entry for its stack side and one for each wire side
//! that it accepts (equal ones once). A bucket is a cache line: twelve tags of
//! eight bits and twelve numbers of records. A packet of no binding reads one
//! bucket and, nineteen times out of twenty, nothing else; a packet of a
//! binding reads its record besides.
//!
//! Who finds his bucket full goes on to the next ones, and leaves a count in
//! each that he passed, so that a look-up ends where the count is zero and
//! removal leaves no trace.
//!
//! # Why readers need no lock
//! All memory is atomics that live as long as the table. Writers exclude each
//! other (they need `&mut Control`).
//!
//! - **Nothing moves.** An entry stays in its place as long as its key is
//!   wanted, so a reader cannot miss it. A move adds entries before the state
//!   says that they count, and takes entries away afterwards.
//! - **What a reader relies on does not change under it.** The stack side
//!   never changes; an address is only written into a slot that the state
//!   calls unused. State and slots are read like a seqlock: every change of
//!   the state, also the end of a record and its next use, makes it another
//!   number, so a reader who finds the same number afterwards read one
//!   consistent record, and any other reads again. But no reader ever waits:
//!   between any two steps of a writer the record is valid, also if the writer
//!   is preempted there for good.
//! - **The index may be wrong for a moment, the record may not.** The number
//!   behind a tag can be that of a record which has ended or is another's by
//!   now; the comparison with the record's own key finds that out.
//!
//! Each repetition means that a writer got something done, and after
//! [`ATTEMPTS`] of them the packet is dropped and counted.

use crate::key::Key;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
use alloc::boxed::Box;
use spin::Once;
#[cfg(not(feature = "loom"))]
use zerocopy::FromZeros;

/// Entries of a bucket.
const ENTRIES: usize = 12;
/// Most buckets that a look-up visits.
const PROBES: usize = 16;
/// Most repetitions of a look-up that writers disturbed.
const ATTEMPTS: usize = 64;
/// Places of the index for each binding. In a move of all of them at once each
/// has three entries: then three fifths of the places are taken, and the
/// chance that sixteen buckets in a row are full is below one in a million.
const ENTRIES_EACH: usize = 5;

/// State: the record is a binding's.
const LIVE: u64 = 1;
/// State: the local address in use is that of slot 1.
pub(crate) const LOCAL_SECOND: u64 = 1 << 1;
/// State: the remote address in use is that of slot 1.
pub(crate) const REMOTE_SECOND: u64 = 1 << 2;
/// State: the other local slot is pending.
pub(crate) const LOCAL_PENDING: u64 = 1 << 3;
/// State: the other local slot is in grace.
pub(crate) const LOCAL_GRACE: u64 = 1 << 4;
/// State: the other remote slot is pending.
pub(crate) const REMOTE_PENDING: u64 = 1 << 5;
/// State: the other remote slot is in grace.
pub(crate) const REMOTE_GRACE: u64 = 1 << 6;
/// State: nothing is sent until the pending local half is committed.
pub(crate) const LOCAL_HOLD: u64 = 1 << 7;
/// State: nothing is sent until the pending remote half is committed.
pub(crate) const REMOTE_HOLD: u64 = 1 << 8;
/// State: the wire side in use is another binding's by now.
pub(crate) const LOST: u64 = 1 << 9;
/// State: made for a newcomer, see `Control::displace`.
pub(crate) const DISPLACED: u64 = 1 << 10;
/// State: made by hand.
pub(crate) const MANUAL: u64 = 1 << 11;
const FLAGS: u64 = 0xffff;
/// Each change of a state adds this.
const STEP: u64 = FLAGS + 1;

const LOCAL_OTHER: u64 = LOCAL_PENDING | LOCAL_GRACE;
const REMOTE_OTHER: u64 = REMOTE_PENDING | REMOTE_GRACE;

#[cfg_attr(not(feature = "loom"), derive(FromZeros))]
#[repr(C, align(128))]
pub(crate) struct Record {
    state: AtomicU64,
    stack: [AtomicU64; 5],
    /// Head of the wire side's key.
    wire: AtomicU64,
    /// Uptime in seconds when it last translated a packet.
    used: AtomicU32,
    _spare: u32,
    /// IPv4: the first word, where the key has it.
    locals: [[AtomicU64; 2]; 2],
    remotes: [[AtomicU64; 2]; 2],
}

#[cfg_attr(not(feature = "loom"), derive(FromZeros))]
#[repr(C, align(64))]
struct Bucket {
    /// Tags of twelve entries, 0 for a free one; in the upper half of the
    /// second word, how many entries found this bucket full and went on.
    tags: [AtomicU64; 2],
    /// Number of the record; above it, how far from home the entry lies.
    entries: [AtomicU32; ENTRIES],
}

const RECORD: u32 = 0xff_ffff;
const DISTANCE: u32 = 24;
const OVERFLOW: u32 = 32;

#[cfg(not(feature = "loom"))]
const _: () = assert!(size_of::<Record>() == 128 && size_of::<Bucket>() == 64);

/// What a look-up found.
pub(crate) enum Find<'a> {
    /// The binding for this direction.
    Hit(Hit<'a>),
    /// No binding for this direction; but there is one for the other.
    Twin,
    Miss,
    /// Writers disturbed every attempt.
    Contended,
    /// Not in the home bucket, which is not where it ends: [`Table::search`].
    Further,
}

/// Which way a packet goes: what of a record it has, and what it gets.
/// (Types and no closures: what a look-up finds must stay in registers, and so
/// all of it must be compiled into one function.)
pub(crate) trait Way {
    /// What a record is to a packet whose side is `key`.
    fn test<const V6: bool>(record: &Record, state: u64, key: &Key) -> Match;
    /// What a packet of the record gets.
    fn to<const V6: bool>(record: &Record, state: u64) -> Key;
}

/// A received packet: from a wire side to the stack side.
pub(crate) struct Input;
/// A packet to be sent: from the stack side to the wire side in use.
pub(crate) struct Output;

impl Way for Input {
    #[inline(always)]
    fn test<const V6: bool>(record: &Record, state: u64, key: &Key) -> Match {
        if record.wire.load(Ordering::Relaxed) == key.head
            && let Some(matched) = record.accepts::<V6>(state, key)
        {
            return Match::Hit(matched);
        }
        if record.is_stack::<V6>(key) { Match::Twin } else { Match::No }
    }

    #[inline(always)]
    fn to<const V6: bool>(record: &Record, _: u64) -> Key {
        record.stack::<V6>()
    }
}

impl Way for Output {
    #[inline(always)]
    fn test<const V6: bool>(record: &Record, state: u64, key: &Key) -> Match {
        if record.is_stack::<V6>(key) {
            return Match::Hit(state);
        }
        let is_wire = record.wire.load(Ordering::Relaxed) == key.head && record.accepts::<V6>(state, key).is_some();
        if is_wire { Match::Twin } else { Match::No }
    }

    #[inline(always)]
    fn to<const V6: bool>(record: &Record, state: u64) -> Key {
        record.wire_in_use::<V6>(state)
    }
}

/// A binding, for one direction.
pub(crate) struct Hit<'a> {
    pub(crate) to: Key,
    /// The slots that matched, or that are used: pending, grace, hold, lost.
    pub(crate) state: u64,
    pub(crate) flow: u32,
    pub(crate) used: &'a AtomicU32,
}

/// No entry is free where it would have to be.
pub(crate) struct NoRoom;

/// The two addresses of a half: in use, and second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) current: [u64; 2],
    pub(crate) other: [u64; 2],
}

/// All that a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) stack: Key,
    /// Head of the wire side's key.
    pub(crate) wire: u64,
    pub(crate) local: Slots,
    pub(crate) remote: Slots,
    /// Flags of the state; which slot is which is the record's own business.
    pub(crate) state: u64,
}

struct Memory {
    records: Box<[Record]>,
    buckets: Box<[Bucket]>,
}

pub(crate) struct Table {
    memory: Once<Memory>,
}

impl Table {
    pub(crate) const fn new() -> Self {
        Self { memory: Once::new() }
    }

    /// Takes the memory for `flows` bindings, once. False: memory is short.
    pub(crate) fn allocate(&self, flows: u32) -> bool {
        let flows = flows as usize;
        let take = || {
            let buckets = flows.saturating_mul(ENTRIES_EACH).div_ceil(ENTRIES).saturating_add(1);
            Ok::<_, ()>(Memory { records: records(flows)?, buckets: empty(buckets)? })
        };
        self.memory.try_call_once(take).is_ok()
    }

    /// The binding of a packet whose side is `key`, as far as the home bucket
    /// knows.
    #[inline(always)]
    pub(crate) fn find<W: Way, const V6: bool>(&self, hash: u64, key: &Key) -> Find<'_> {
        let Some(memory) = self.memory.get() else { return Find::Miss };
        let Some(bucket) = memory.home(hash) else { return Find::Miss };
        memory.look::<W, V6>(bucket, hash, key, &mut false)
    }

    /// The same to the end of the search.
    pub(crate) fn search<W: Way, const V6: bool>(&self, hash: u64, key: &Key) -> Find<'_> {
        let Some(memory) = self.memory.get() else { return Find::Miss };
        let mut twin = false;
        for bucket in chain(&memory.buckets, hash) {
            match memory.look::<W, V6>(bucket, hash, key, &mut twin) {
                Find::Further => {}
                ended => return ended,
            }
        }
        if twin { Find::Twin } else { Find::Miss }
    }

    /// Of those with an entry of this hash, the first record for which `test`
    /// says so. For writers.
    #[inline]
    pub(crate) fn first(&self, hash: u64, test: impl Fn(u32, &Content) -> bool) -> Option<(u32, Content)> {
        let memory = self.memory.get()?;
        for bucket in chain(&memory.buckets, hash) {
            let (mut lanes, full) = bucket.lanes(hash);
            while let Some(flow) = bucket.next(&mut lanes) {
                if let Some(content) = self.content(flow).filter(|content| test(flow, content)) {
                    return Some((flow, content));
                }
            }
            if !full {
                return None;
            }
        }
        None
    }

    /// Reads the home bucket of a hash, see `ahead`.
    #[inline]
    pub(crate) fn peek(&self, hash: u64) -> u64 {
        let Some(memory) = self.memory.get() else { return 0 };
        memory.home(hash).map_or(0, |Bucket { tags: [first, _], .. }| first.load(Ordering::Relaxed))
    }

    /// A record that may be the one of a hash: the first of its tag.
    #[inline]
    pub(crate) fn guess(&self, hash: u64) -> Option<u32> {
        let bucket = self.memory.get()?.home(hash)?;
        bucket.next(&mut bucket.lanes(hash).0)
    }

    /// Reads both lines of a record.
    #[inline]
    pub(crate) fn peek_record(&self, flow: u32) -> u64 {
        let Some(record) = self.record(flow) else { return 0 };
        let [[_, last], _] = &record.remotes;
        record.state.load(Ordering::Relaxed) ^ last.load(Ordering::Relaxed)
    }

    /// Adds an entry that leads to a record.
    pub(crate) fn insert(&self, hash: u64, flow: u32) -> Result<(), NoRoom> {
        let buckets = &self.memory.get().ok_or(NoRoom)?.buckets;
        for (distance, bucket) in chain(buckets, hash).enumerate() {
            if let Some(place) = (0..ENTRIES).find(|&place| bucket.tag(place) == 0) {
                for passed in chain(buckets, hash).take(distance) {
                    passed.count(1);
                }
                if let Some(entry) = bucket.entries.get(place) {
                    entry.store(flow & RECORD | (distance as u32) << DISTANCE, Ordering::Relaxed);
                }
                bucket.set_tag(place, tag(hash));
                return Ok(());
            }
        }
        Err(NoRoom)
    }

    /// Takes an entry away that leads from `hash` to a record.
    pub(crate) fn remove(&self, hash: u64, flow: u32) {
        let Some(memory) = self.memory.get() else { return };
        for (distance, bucket) in chain(&memory.buckets, hash).enumerate() {
            // Where tag, record and distance are the same, entries are
            // interchangeable: they were put there by equal hashes.
            let wanted = flow & RECORD | (distance as u32) << DISTANCE;
            let found = (0..ENTRIES).find(|&place| {
                let entry = bucket.entries.get(place).map(|entry| entry.load(Ordering::Relaxed));
                entry == Some(wanted) && bucket.tag(place) == tag(hash)
            });
            if let Some(place) = found {
                bucket.set_tag(place, 0);
                for passed in chain(&memory.buckets, hash).take(distance) {
                    passed.count(-1);
                }
                return;
            }
        }
    }

    /// Makes a record that is not a binding's one. Entries for it come after.
    pub(crate) fn fill(&self, flow: u32, content: &Content, used: u32) {
        let Some(record) = self.record(flow) else { return };
        fence(Ordering::Release);
        let [head, rest @ ..] = &record.stack;
        head.store(content.stack.head, Ordering::Relaxed);
        store(rest, &content.stack.addresses);
        record.wire.store(content.wire, Ordering::Relaxed);
        record.used.store(used, Ordering::Relaxed);
        for (slots, half) in [(&record.locals, &content.local), (&record.remotes, &content.remote)] {
            let [first, second] = slots;
            store(first, &half.current);
            store(second, &half.other);
        }
        record.change(content.state & !(LOCAL_SECOND | REMOTE_SECOND) | LIVE);
    }

    /// Changes the wire side of a binding's record.
    pub(crate) fn update(&self, flow: u32, content: &Content) {
        let Some(record) = self.record(flow) else { return };
        let old = record.state.load(Ordering::Relaxed);
        let mut state = content.state & !(LOCAL_SECOND | REMOTE_SECOND) | LIVE;
        let halves = [
            (&record.locals, &content.local, LOCAL_SECOND, LOCAL_OTHER),
            (&record.remotes, &content.remote, REMOTE_SECOND, REMOTE_OTHER),
        ];
        for (slots, half, second, other) in halves {
            let mut selected = old & second;
            let [first, last] = slots;
            let (mut current, mut rest) = if selected == 0 { (first, last) } else { (last, first) };
            // A commit: the second address becomes the one in use.
            if load(current) != half.current {
                selected ^= second;
                core::mem::swap(&mut current, &mut rest);
            }
            if state & other != 0 && load(rest) != half.other {
                // Nobody may rely on a slot while it is written.
                let now = record.state.load(Ordering::Relaxed);
                record.change(now & FLAGS & !other);
                fence(Ordering::Release);
                store(rest, &half.other);
            }
            state |= selected;
        }
        record.change(state);
    }

    /// Ends a record. Its entries are gone already.
    pub(crate) fn clear(&self, flow: u32) {
        if let Some(record) = self.record(flow) {
            record.change(0);
        }
    }

    /// What the record of a binding says. For writers.
    pub(crate) fn content(&self, flow: u32) -> Option<Content> {
        let record = self.record(flow)?;
        let state = record.state.load(Ordering::Relaxed);
        if state & LIVE == 0 {
            return None;
        }
        let slots = |[first, second]: &[[AtomicU64; 2]; 2], swapped: bool| {
            let (a, b) = (load(first), load(second));
            if swapped { Slots { current: b, other: a } } else { Slots { current: a, other: b } }
        };
        Some(Content {
            stack: record.stack::<true>(),
            wire: record.wire.load(Ordering::Relaxed),
            local: slots(&record.locals, state & LOCAL_SECOND != 0),
            remote: slots(&record.remotes, state & REMOTE_SECOND != 0),
            state: state & FLAGS & !(LIVE | LOCAL_SECOND | REMOTE_SECOND),
        })
    }

    /// Uptime in seconds when the record last translated; 0: never.
    pub(crate) fn used(&self, flow: u32) -> u32 {
        self.record(flow).map_or(0, |record| record.used.load(Ordering::Relaxed))
    }

    fn record(&self, flow: u32) -> Option<&Record> {
        self.memory.get()?.records.get(flow as usize)
    }
}

/// What a record is to a key.
pub(crate) enum Match {
    No,
    Twin,
    /// Its own; see [`Hit::state`].
    Hit(u64),
}

impl Record {
    /// Gives the state new flags and another number.
    fn change(&self, flags: u64) {
        let number = self.state.load(Ordering::Relaxed) & !FLAGS;
        self.state.store(number.wrapping_add(STEP) | flags, Ordering::Release);
    }

    #[inline(always)]
    fn is_stack<const V6: bool>(&self, key: &Key) -> bool {
        let [head, a, b, c, d] = &self.stack;
        let is = |word: &AtomicU64, value: u64| word.load(Ordering::Relaxed) == value;
        let [k0, k1, k2, k3] = key.addresses;
        is(head, key.head) && is(a, k0) && (!V6 || is(b, k1) && is(c, k2) && is(d, k3))
    }

    #[inline(always)]
    fn stack<const V6: bool>(&self) -> Key {
        let [head, a, b, c, d] = &self.stack;
        let word = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let rest = if V6 { [word(b), word(c), word(d)] } else { [0; 3] };
        let [k1, k2, k3] = rest;
        Key { head: word(head), addresses: [word(a), k1, k2, k3] }
    }

    #[inline(always)]
    fn wire_in_use<const V6: bool>(&self, state: u64) -> Key {
        let [l0, l1] = &self.locals;
        let [r0, r1] = &self.remotes;
        let local = if state & LOCAL_SECOND == 0 { l0 } else { l1 };
        let remote = if state & REMOTE_SECOND == 0 { r0 } else { r1 };
        let head = self.wire.load(Ordering::Relaxed);
        join::<V6>(head, local, remote)
    }

    /// Whether the addresses of `key` are a wire side that it accepts; then
    /// which of pending and grace its slots are.
    #[inline(always)]
    fn accepts<const V6: bool>(&self, state: u64, key: &Key) -> Option<u64> {
        let (local, remote) = key.split::<V6>();
        let local = half::<V6>(&self.locals, local, state, LOCAL_SECOND, LOCAL_OTHER)?;
        let remote = half::<V6>(&self.remotes, remote, state, REMOTE_SECOND, REMOTE_OTHER)?;
        let matched = local | remote;
        // A wire side that was lost is not accepted, its second ones are.
        (matched != 0 || state & LOST == 0).then_some(matched)
    }
}

/// Whether one of the slots that count holds `wanted`: 0 for the one in use,
/// else pending or grace.
#[inline(always)]
fn half<const V6: bool>(
    slots: &[[AtomicU64; 2]; 2],
    wanted: [u64; 2],
    state: u64,
    second: u64,
    other: u64,
) -> Option<u64> {
    let [first, last] = slots;
    let (current, rest) = if state & second == 0 { (first, last) } else { (last, first) };
    let is = |[a, b]: &[AtomicU64; 2]| {
        let [w0, w1] = wanted;
        a.load(Ordering::Relaxed) == w0 && (!V6 || b.load(Ordering::Relaxed) == w1)
    };
    if is(current) {
        return Some(0);
    }
    (state & other != 0 && is(rest)).then_some(state & other)
}

/// The key of a wire side.
#[inline(always)]
fn join<const V6: bool>(head: u64, [l0, l1]: &[AtomicU64; 2], [r0, r1]: &[AtomicU64; 2]) -> Key {
    let word = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let addresses = if V6 { [word(l0), word(l1), word(r0), word(r1)] } else { [word(l0) | word(r0), 0, 0, 0] };
    Key { head, addresses }
}

fn load([a, b]: &[AtomicU64; 2]) -> [u64; 2] {
    [a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)]
}

fn store<const N: usize>(words: &[AtomicU64; N], values: &[u64; N]) {
    for (word, value) in words.iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
}

impl Memory {
    #[inline(always)]
    fn home(&self, hash: u64) -> Option<&Bucket> {
        self.buckets.get(home(hash, self.buckets.len()))
    }

    /// What one bucket knows. `twin`: one was found, here or before.
    #[inline(always)]
    fn look<W: Way, const V6: bool>(&self, bucket: &Bucket, hash: u64, key: &Key, twin: &mut bool) -> Find<'_> {
        let (mut lanes, full) = bucket.lanes(hash);
        while let Some(flow) = bucket.next(&mut lanes) {
            let Some(record) = self.records.get(flow as usize) else { continue };
            'record: {
                for _ in 0..ATTEMPTS {
                    let state = record.state.load(Ordering::Acquire);
                    if state & LIVE == 0 {
                        break 'record;
                    }
                    match W::test::<V6>(record, state, key) {
                        Match::No => break 'record,
                        Match::Twin => {
                            *twin = true;
                            break 'record;
                        }
                        Match::Hit(matched) => {
                            let to = W::to::<V6>(record, state);
                            fence(Ordering::Acquire);
                            if record.state.load(Ordering::Relaxed) == state {
                                return Find::Hit(Hit { to, state: matched, flow, used: &record.used });
                            }
                        }
                    }
                }
                return Find::Contended;
            }
        }
        match (full, *twin) {
            (true, _) => Find::Further,
            (false, true) => Find::Twin,
            (false, false) => Find::Miss,
        }
    }
}

impl Bucket {
    /// The places that hold the tag of a hash, a bit for each, see
    /// [`Bucket::next`]; also whether the search goes on in the next bucket.
    #[inline(always)]
    fn lanes(&self, hash: u64) -> (u64, bool) {
        let [first, second] = &self.tags;
        let (first, second) = (first.load(Ordering::Acquire), second.load(Ordering::Acquire));
        let wanted = u64::from(tag(hash)).wrapping_mul(ONES);
        // Place 8 and those after it lie beside place 0 and those after it.
        let lanes = matches(first, wanted) >> 7 | (matches(second, wanted) & u64::from(u32::MAX)) >> 6;
        (lanes, second >> OVERFLOW != 0)
    }

    /// Takes the next of the places that are left; which record it leads to.
    #[inline(always)]
    fn next(&self, lanes: &mut u64) -> Option<u32> {
        if *lanes == 0 {
            return None;
        }
        let lane = lanes.trailing_zeros() as usize;
        *lanes &= lanes.wrapping_sub(1);
        let entry = self.entries.get(lane >> 3 | (lane & 7) << 3)?;
        Some(entry.load(Ordering::Relaxed) & RECORD)
    }

    fn tag(&self, place: usize) -> u8 {
        let word = self.tags.get(place / 8).map_or(0, |word| word.load(Ordering::Relaxed));
        (word >> shift(place)) as u8
    }

    fn set_tag(&self, place: usize, tag: u8) {
        if let Some(word) = self.tags.get(place / 8) {
            let others = word.load(Ordering::Relaxed) & !(0xff << shift(place));
            word.store(others | u64::from(tag) << shift(place), Ordering::Release);
        }
    }

    /// Counts an entry that went on from here, or does no more.
    fn count(&self, by: i64) {
        let [_, word] = &self.tags;
        let old = word.load(Ordering::Relaxed);
        word.store(old.wrapping_add_signed(by << OVERFLOW), Ordering::Release);
    }
}

const fn shift(place: usize) -> u32 {
    (place as u32 & 7) << 3
}

/// A tag is never 0. The bucket comes from the upper half of the hash, the tag
/// from bits below.
#[inline(always)]
fn tag(hash: u64) -> u8 {
    ((hash >> 24) as u8).max(1)
}

/// There are fewer than 2^32 buckets.
#[inline(always)]
fn home(hash: u64, buckets: usize) -> usize {
    ((hash >> 32).wrapping_mul(buckets as u64) >> 32) as usize
}

/// The buckets in which an entry of `hash` can lie, in order, each once.
fn chain(buckets: &[Bucket], hash: u64) -> impl Iterator<Item = &Bucket> {
    let (before, from) = buckets.split_at_checked(home(hash, buckets.len())).unwrap_or((&[], buckets));
    from.iter().chain(before).take(PROBES)
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// The highest bits of those lanes of a word of tags that are as in `wanted`,
/// and sometimes of one above such a lane: what is behind it is compared anyway.
#[inline(always)]
fn matches(word: u64, wanted: u64) -> u64 {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let difference = word ^ wanted;
    difference.wrapping_sub(ONES) & !difference & HIGH
}

/// Memory as it comes: zero, and zero is empty.
#[cfg(not(feature = "loom"))]
fn records(count: usize) -> Result<Box<[Record]>, ()> {
    <[Record]>::new_box_zeroed_with_elems(count).map_err(|_| ())
}

#[cfg(not(feature = "loom"))]
fn empty(count: usize) -> Result<Box<[Bucket]>, ()> {
    <[Bucket]>::new_box_zeroed_with_elems(count).map_err(|_| ())
}

#[cfg(feature = "loom")]
fn records(count: usize) -> Result<Box<[Record]>, ()> {
    use core::array::from_fn;
    let slots = || from_fn(|_| from_fn(|_| AtomicU64::new(0)));
    let record = || Record {
        state: AtomicU64::new(0),
        stack: from_fn(|_| AtomicU64::new(0)),
        wire: AtomicU64::new(0),
        used: AtomicU32::new(0),
        _spare: 0,
        locals: slots(),
        remotes: slots(),
    };
    Ok((0..count).map(|_| record()).collect())
}

#[cfg(feature = "loom")]
fn empty(count: usize) -> Result<Box<[Bucket]>, ()> {
    use core::array::from_fn;
    let bucket = || Bucket { tags: from_fn(|_| AtomicU64::new(0)), entries: from_fn(|_| AtomicU32::new(0)) };
    Ok((0..count).map(|_| bucket()).collect())
}

#[cfg(all(test, feature = "loom"))]
mod tests;

#[cfg(test)]
mod units {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_equal_lane_matches(tags in proptest::collection::vec(0..4_u8, 8), wanted in 1..4_u8) {
            let word = u64::from_le_bytes(tags.clone().try_into().unwrap());
            let lanes = matches(word, u64::from(wanted) * ONES);
            for (lane, tag) in tags.iter().enumerate() {
                prop_assert!(*tag != wanted || lanes >> (8 * lane) & 0xff == 0x80);
            }
            prop_assert_eq!(lanes != 0, tags.contains(&wanted));
        }
    }
}

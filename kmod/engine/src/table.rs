//! The table that the packet path reads: rules, found by key.
//!
//! A **rule** says what a packet's side becomes. A binding has one rule for
//! output (its stack side becomes its wire side) and one or more for input
//! (each wire side that it accepts becomes its stack side). Both kinds live in
//! one table under one hash, so that one look-up also finds out that a
//! received packet carries the *stack* side of a bound flow.
//!
//! # Shape
//! Buckets of 24 slots. A bucket begins with a cache line of 8-bit tags; a miss
//! reads that line and, thirteen times out of fourteen, nothing else. A rule holds all that a
//! translation needs, so a hit reads one or two lines more, beside the first.
//! Who finds his bucket full goes on to the next ones, and leaves a count in
//! each that he passed (`overflow`), so that a look-up ends where the count is
//! zero and removal leaves no trace.
//!
//! # Why readers need no lock
//! All memory is atomics that live as long as the table. Writers exclude each
//! other (they need `&mut Control`). A rule's words never change while its tag
//! is set, but for the one word of its flags.
//!
//! - A slot is filled like this: the bucket's `version` goes up, then the
//!   words are written, then the tag is published (release). A reader who
//!   read a word of the new rule behind an old tag sees, after its acquire
//!   fence, the higher version, and looks again.
//! - A rule is replaced by another of the same key like this: the new one is
//!   published, then `version` of the key's *home* bucket goes up (release),
//!   then the old tag is cleared. A reader who missed both saw the old tag
//!   cleared, so he sees the higher version when he checks the buckets he
//!   visited, and looks again.
//!
//! A reader never waits for a writer: a writer that is preempted halfway costs
//! readers nothing. Each repetition means that a writer got something done,
//! and after [`ATTEMPTS`] of them the packet is dropped and counted.

use crate::key::Key;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
use alloc::boxed::Box;
use spin::Once;
#[cfg(not(feature = "loom"))]
use zerocopy::FromZeros;

// Loom tries all interleavings: there, small buckets say the same.
const TAG_WORDS: usize = if cfg!(feature = "loom") { 1 } else { 3 };
/// Tags to a word.
const LANES: usize = 8;
/// Slots of a bucket.
const SLOTS: usize = TAG_WORDS * LANES;
/// Most buckets that a look-up visits.
const PROBES: usize = 8;
/// Most repetitions of a look-up that writers disturbed.
const ATTEMPTS: usize = 64;

/// Rule flag: translates received packets; without it, packets to be sent.
pub(crate) const INPUT: u64 = 1;
/// Rule flag, input: the move is not committed; RST segments are dropped.
pub(crate) const PENDING: u64 = 2;
/// Rule flag, output: nothing is sent until commit.
pub(crate) const HOLD: u64 = 4;
const FLAGS: u64 = 0xff;

const PORTS: u64 = 0xffff_ffff;

#[cfg_attr(not(feature = "loom"), derive(FromZeros))]
#[repr(C)]
struct Rule {
    /// Key and replacement. What IPv4 needs comes first: key head and
    /// addresses, flags with flow and ports, new addresses.
    words: [AtomicU64; 10],
}

#[cfg_attr(not(feature = "loom"), derive(FromZeros))]
#[repr(C, align(64))]
struct Bucket {
    /// Goes up before a slot is filled, and before a rule at home here goes.
    version: AtomicU32,
    /// Rules that found this bucket full and went on.
    overflow: AtomicU32,
    /// Eight tags to a word, 0 for a free slot.
    tags: [AtomicU64; TAG_WORDS],
    rules: [Rule; SLOTS],
    /// Uptime in seconds when a rule last translated a packet.
    used: [AtomicU32; SLOTS],
}

impl Bucket {
    fn bump(&self) {
        let next = self.version.load(Ordering::Relaxed).wrapping_add(1);
        self.version.store(next, Ordering::Release);
        fence(Ordering::Release);
    }

    fn tag(&self, slot: usize) -> u8 {
        let word = self.tags.get(slot / LANES).map_or(0, |w| w.load(Ordering::Relaxed));
        (word >> shift(slot)) as u8
    }

    fn set_tag(&self, slot: usize, tag: u8) {
        if let Some(word) = self.tags.get(slot / LANES) {
            let others = word.load(Ordering::Relaxed) & !(0xff << shift(slot));
            word.store(others | u64::from(tag) << shift(slot), Ordering::Release);
        }
    }
}

const fn shift(slot: usize) -> u32 {
    (slot as u32 & 7) << 3
}

/// Where a rule lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(u32);

/// What a look-up found.
pub(crate) enum Find<'a> {
    /// The rule for this direction.
    Rule {
        flags: u64,
        flow: u32,
        to: Key,
        used: &'a AtomicU32,
    },
    /// Only a rule of the other direction has this key.
    Twin,
    Miss,
    /// Writers disturbed every attempt.
    Contended,
}

/// No slot is free where the rule would have to be.
pub(crate) struct NoRoom;

/// What [`Table::insert`] stores.
#[derive(Clone, Copy)]
pub(crate) struct NewRule<'a> {
    pub(crate) key: &'a Key,
    pub(crate) to: &'a Key,
    pub(crate) flags: u64,
    pub(crate) flow: u32,
    pub(crate) used: u32,
}

pub(crate) struct Table {
    buckets: Once<Box<[Bucket]>>,
}

impl Table {
    pub(crate) const fn new() -> Self {
        Self { buckets: Once::new() }
    }

    /// Takes the memory for `flows` bindings, once. Each may have three rules,
    /// as in a move of all of them at once, at three quarters of the slots.
    ///
    /// Returns false when memory is short.
    pub(crate) fn allocate(&self, flows: u32) -> bool {
        self.buckets
            .try_call_once(|| {
                let count = (flows as usize / 6).saturating_add(1);
                empty(count)
            })
            .is_ok()
    }

    /// The rule of `key` for packets received (`INPUT`) or to be sent (0).
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64, key: &Key, direction: u64) -> Find<'_> {
        let Some(buckets) = self.buckets.get() else { return Find::Miss };
        for _ in 0..ATTEMPTS {
            if let Some(found) = attempt(buckets, hash, key, direction) {
                return found;
            }
        }
        Find::Contended
    }

    /// Adds a rule. The caller knows that there is none of this key and
    /// direction, but for one that he is about to replace.
    pub(crate) fn insert(&self, hash: u64, rule: &NewRule<'_>) -> Result<Position, NoRoom> {
        let NewRule { key, to, flags, flow, used: last } = *rule;
        let buckets = self.buckets.get().ok_or(NoRoom)?;
        let mut free = None;
        for (index, bucket) in chain(buckets, hash) {
            if let Some(slot) = (0..SLOTS).find(|&slot| bucket.tag(slot) == 0) {
                free = Some((index, bucket, slot));
                break;
            }
        }
        let (index, bucket, slot) = free.ok_or(NoRoom)?;
        for (passed, full) in chain(buckets, hash) {
            if passed == index {
                break;
            }
            let count = full.overflow.load(Ordering::Relaxed).saturating_add(1);
            full.overflow.store(count, Ordering::Release);
        }
        bucket.bump();
        let [a, b, c, d] = key.addresses;
        let [e, f, g, h] = to.addresses;
        let words = [key.head, a, meta(flags, flow, to), e, b, c, d, f, g, h];
        if let Some(rule) = bucket.rules.get(slot) {
            for (place, word) in rule.words.iter().zip(words) {
                place.store(word, Ordering::Relaxed);
            }
        }
        if let Some(used) = bucket.used.get(slot) {
            used.store(last, Ordering::Relaxed);
        }
        bucket.set_tag(slot, tag(hash));
        Ok(Position((index.saturating_mul(SLOTS).saturating_add(slot)) as u32))
    }

    /// Removes the rule at `position`, whose key has `hash`.
    pub(crate) fn remove(&self, position: Position, hash: u64) {
        let Some(buckets) = self.buckets.get() else { return };
        let (index, slot) = (position.0 as usize / SLOTS, position.0 as usize % SLOTS);
        if let Some((_, home)) = chain(buckets, hash).next() {
            home.bump();
        }
        if let Some(bucket) = buckets.get(index) {
            bucket.set_tag(slot, 0);
        }
        for (passed, full) in chain(buckets, hash) {
            if passed == index {
                break;
            }
            let count = full.overflow.load(Ordering::Relaxed).saturating_sub(1);
            full.overflow.store(count, Ordering::Release);
        }
    }

    /// Sets the flags of the rule at `position`.
    pub(crate) fn set_flags(&self, position: Position, flags: u64) {
        if let Some(word) = self.rule(position).and_then(|(rule, _)| rule.words.get(2)) {
            word.store(word.load(Ordering::Relaxed) & !FLAGS | flags, Ordering::Relaxed);
        }
    }

    /// Uptime in seconds when the rule at `position` last translated; 0: never.
    pub(crate) fn used(&self, position: Position) -> u32 {
        self.rule(position).map_or(0, |(_, used)| used.load(Ordering::Relaxed))
    }

    fn rule(&self, position: Position) -> Option<(&Rule, &AtomicU32)> {
        let bucket = self.buckets.get()?.get(position.0 as usize / SLOTS)?;
        let slot = position.0 as usize % SLOTS;
        Some((bucket.rules.get(slot)?, bucket.used.get(slot)?))
    }
}

/// Memory for so many buckets, all of them empty: zero, as it comes.
#[cfg(not(feature = "loom"))]
fn empty(count: usize) -> Result<Box<[Bucket]>, ()> {
    <[Bucket]>::new_box_zeroed_with_elems(count).map_err(|_| ())
}

#[cfg(feature = "loom")]
fn empty(count: usize) -> Result<Box<[Bucket]>, ()> {
    use core::array::from_fn;
    let rule = || Rule { words: from_fn(|_| AtomicU64::new(0)) };
    let bucket = || Bucket {
        version: AtomicU32::new(0),
        overflow: AtomicU32::new(0),
        tags: from_fn(|_| AtomicU64::new(0)),
        rules: from_fn(|_| rule()),
        used: from_fn(|_| AtomicU32::new(0)),
    };
    Ok((0..count).map(|_| bucket()).collect())
}

fn meta(flags: u64, flow: u32, to: &Key) -> u64 {
    (to.head & PORTS) << 32 | u64::from(flow) << 8 | flags
}

/// A tag is never 0. It comes from the low bits of the hash, the bucket from
/// the high ones.
#[inline(always)]
fn tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

#[inline(always)]
fn home(hash: u64, buckets: usize) -> usize {
    (u128::from(hash).wrapping_mul(buckets as u128) >> 64) as usize
}

/// The buckets in which a rule of `hash` can lie, in order, each once.
fn chain(buckets: &[Bucket], hash: u64) -> impl Iterator<Item = (usize, &Bucket)> {
    let first = home(hash, buckets.len());
    let from_first = buckets.iter().enumerate().skip(first);
    from_first.chain(buckets.iter().enumerate().take(first)).take(PROBES)
}

/// The lanes of a word of tags that hold `wanted`, exactly: a lane named too
/// many might be a free slot, with the words of a rule that is gone.
#[inline(always)]
fn matches(word: u64, wanted: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = ONES.wrapping_mul(0x7f);
    let difference = word ^ u64::from(wanted).wrapping_mul(ONES);
    !((difference & LOW).wrapping_add(LOW) | difference | LOW)
}

/// One look-up. `None`: a writer was busy here, look again.
#[inline(always)]
fn attempt<'a>(buckets: &'a [Bucket], hash: u64, key: &Key, direction: u64) -> Option<Find<'a>> {
    let first = home(hash, buckets.len());
    let bucket = buckets.get(first)?;
    let version = bucket.version.load(Ordering::Acquire);
    let mut twin = false;
    if let Some(found) = scan(bucket, version, hash, key, direction, &mut twin) {
        return found;
    }
    if bucket.overflow.load(Ordering::Acquire) != 0 {
        return further(buckets, hash, key, direction, twin, version);
    }
    fence(Ordering::Acquire);
    if bucket.version.load(Ordering::Relaxed) != version {
        return None;
    }
    Some(if twin { Find::Twin } else { Find::Miss })
}

/// Goes on after the home bucket, whose version was `version`.
#[cold]
fn further<'a>(
    buckets: &'a [Bucket],
    hash: u64,
    key: &Key,
    direction: u64,
    mut twin: bool,
    version: u32,
) -> Option<Find<'a>> {
    let mut versions = version;
    let mut visited = 1_usize;
    for (_, bucket) in chain(buckets, hash).skip(1) {
        let version = bucket.version.load(Ordering::Acquire);
        versions = versions.wrapping_add(version);
        visited = visited.wrapping_add(1);
        if let Some(found) = scan(bucket, version, hash, key, direction, &mut twin) {
            return found;
        }
        if bucket.overflow.load(Ordering::Acquire) == 0 {
            break;
        }
    }
    fence(Ordering::Acquire);
    let again = chain(buckets, hash)
        .take(visited)
        .fold(0_u32, |sum, (_, bucket)| sum.wrapping_add(bucket.version.load(Ordering::Relaxed)));
    if again != versions {
        return None;
    }
    Some(if twin { Find::Twin } else { Find::Miss })
}

/// Looks through one bucket. `None`: not here. `Some(None)`: look again.
#[inline(always)]
fn scan<'a>(
    bucket: &'a Bucket,
    version: u32,
    hash: u64,
    key: &Key,
    direction: u64,
    twin: &mut bool,
) -> Option<Option<Find<'a>>> {
    let wanted = tag(hash);
    for (group, word) in bucket.tags.iter().enumerate() {
        let mut lanes = matches(word.load(Ordering::Acquire), wanted);
        while lanes != 0 {
            let slot = group.wrapping_mul(LANES).wrapping_add(lanes.trailing_zeros() as usize / 8);
            lanes &= lanes.wrapping_sub(1);
            let Some((flags, flow, to)) = bucket.rules.get(slot).and_then(|rule| compare(rule, key)) else {
                continue;
            };
            if flags & INPUT != direction {
                *twin = true;
                continue;
            }
            fence(Ordering::Acquire);
            if bucket.version.load(Ordering::Relaxed) != version {
                return Some(None);
            }
            return Some(bucket.used.get(slot).map(|used| Find::Rule { flags, flow, to, used }));
        }
    }
    None
}

/// The rule's flags, flow and replacement, if its key is `key`.
#[inline(always)]
fn compare(rule: &Rule, key: &Key) -> Option<(u64, u32, Key)> {
    let [head, a, meta, e, b, c, d, f, g, h] = &rule.words;
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    if load(head) != key.head || load(a) != key.addresses[0] {
        return None;
    }
    let meta = load(meta);
    let mut to = Key { head: key.head & !PORTS | meta >> 32, addresses: [load(e), 0, 0, 0] };
    if key.is_v6() {
        let [_, k1, k2, k3] = key.addresses;
        if load(b) != k1 || load(c) != k2 || load(d) != k3 {
            return None;
        }
        to.addresses = [load(e), load(f), load(g), load(h)];
    }
    Some((meta & FLAGS, (meta >> 8) as u32 & 0xff_ffff, to))
}

#[cfg(all(test, feature = "loom"))]
mod tests;

#[cfg(test)]
mod units {
    use super::matches;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exactly_the_equal_lanes_match(tags in proptest::collection::vec(0..4_u8, 8), wanted in 1..4_u8) {
            let word = u64::from_le_bytes(tags.clone().try_into().unwrap());
            let lanes = matches(word, wanted);
            for (lane, tag) in tags.iter().enumerate() {
                prop_assert_eq!(lanes >> (8 * lane) & 0xff, if *tag == wanted { 0x80 } else { 0 });
            }
        }
    }
}

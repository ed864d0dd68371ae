//! Loom: every interleaving of a reader and a writer, weak memory included,
//! up to two preemptions (three: with `LOOM_MAX_PREEMPTIONS=3`).
//!
//! `cargo test -p mobconn-engine --lib --features loom`

use super::*;
use alloc::sync::Arc;
use loom::thread;

fn check(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(2);
    model.check(test);
}

const HEAD: u64 = 1 << 63;

/// Keys of IPv6, so that more than one word can be torn.
fn key(local: u64, remote: u64) -> Key {
    Key { head: HEAD, addresses: [local, local, remote, remote] }
}

/// A binding of `key(stack, 9)` whose local address is `current`, and `other`
/// too, as `state` says.
fn content(stack: u64, current: u64, other: u64, state: u64) -> Content {
    Content {
        stack: key(stack, 9),
        wire: HEAD,
        local: Slots { current: [current; 2], other: [other; 2] },
        remote: Slots { current: [9; 2], other: [0; 2] },
        state,
    }
}

/// Room for two bindings, in one bucket or two.
fn table() -> Table {
    let table = Table::new();
    assert!(table.allocate(2));
    table
}

/// At home in the first bucket, with the tag `tag`.
fn hash(tag: u64) -> u64 {
    tag << 24
}

fn insert(table: &Table, tag: u64, flow: u32) {
    assert!(table.insert(hash(tag), flow).is_ok());
}

/// The local address that a packet from `key(stack, 9)` gets.
fn sent(table: &Table, stack: u64) -> Option<u64> {
    match table.search::<Output, true>(hash(stack), &key(stack, 9)) {
        Find::Hit(hit) => {
            let [a, b, c, d] = hit.to.addresses;
            assert_eq!((a, c, d), (b, 9, 9), "torn");
            Some(a)
        }
        Find::Miss => None,
        Find::Twin => panic!("there are no others"),
        Find::Contended => panic!("the writer does little"),
        Find::Further => panic!("a search ends"),
    }
}

/// The local address of the stack side to which a packet to `key(wire, 9)`
/// belongs.
fn received(table: &Table, wire: u64) -> Option<u64> {
    match table.search::<Input, true>(hash(wire), &key(wire, 9)) {
        Find::Hit(hit) => {
            assert_eq!(hit.to.addresses[0], hit.to.addresses[1], "torn");
            Some(hit.to.addresses[0])
        }
        Find::Miss | Find::Twin => None,
        Find::Contended => panic!("the writer does little"),
        Find::Further => panic!("a search ends"),
    }
}

/// A move is committed: output has one or the other address.
#[test]
fn a_flow_that_moves_is_always_sent() {
    check(|| {
        let table = Arc::new(table());
        table.fill(0, &content(1, 2, 3, LOCAL_PENDING), 0);
        insert(&table, 1, 0);
        let reader = thread::spawn({
            let table = table.clone();
            move || sent(&table, 1)
        });
        table.update(0, &content(1, 3, 2, LOCAL_GRACE));
        let out = reader.join().unwrap();
        assert!(out == Some(2) || out == Some(3), "{out:?}");
        assert_eq!(sent(&table, 1), Some(3));
    });
}

/// A move is prepared and committed: input knows the old address all the time.
#[test]
fn a_flow_that_moves_is_always_received() {
    check(|| {
        let table = Arc::new(table());
        table.fill(0, &content(1, 2, 0, 0), 0);
        insert(&table, 2, 0);
        let reader = thread::spawn({
            let table = table.clone();
            move || received(&table, 2)
        });
        insert(&table, 3, 0);
        table.update(0, &content(1, 2, 3, LOCAL_PENDING));
        table.update(0, &content(1, 3, 2, LOCAL_GRACE));
        assert_eq!(reader.join().unwrap(), Some(1));
        assert_eq!(received(&table, 3), Some(1));
    });
}

/// A grace ends and the next move is prepared in the same slot: whoever
/// reads the slot meanwhile, reads again or needs it no more.
#[test]
fn a_slot_that_is_used_again_is_never_half_read() {
    check(|| {
        let table = Arc::new(table());
        table.fill(0, &content(1, 2, 3, LOCAL_PENDING), 0);
        insert(&table, 1, 0);
        let reader = thread::spawn({
            let table = table.clone();
            move || sent(&table, 1)
        });
        table.update(0, &content(1, 3, 2, 0));
        table.update(0, &content(1, 3, 4, LOCAL_PENDING));
        let out = reader.join().unwrap();
        assert!(out == Some(2) || out == Some(3), "{out:?}");
    });
}

/// A pending move is superseded by one to another address: a packet to an
/// address that is half the one and half the other is nobody's.
#[test]
fn a_pending_address_that_is_replaced_is_never_half_read() {
    check(|| {
        let table = Arc::new(table());
        table.fill(0, &content(1, 2, 3, LOCAL_PENDING), 0);
        insert(&table, 1, 0);
        let reader = thread::spawn({
            let table = table.clone();
            move || {
                let half = Key { head: HEAD, addresses: [4, 3, 9, 9] };
                matches!(table.search::<Input, true>(hash(1), &half), Find::Miss)
            }
        });
        table.update(0, &content(1, 2, 4, LOCAL_PENDING));
        assert!(reader.join().unwrap(), "torn");
    });
}

/// A record ends and becomes another binding's, whose key has the same
/// tag, so that the old entry leads to it. (One preemption: so many words change
/// that more would take hours. What a word may be read as does not depend on it.)
#[test]
fn a_record_that_is_used_again_is_never_mistaken() {
    let short = |stack: u64| Key { head: 0, addresses: [stack << 32 | 9, 0, 0, 0] };
    let content = move |stack: u64, current: u64| Content {
        stack: short(stack),
        wire: 0,
        local: Slots { current: [current << 32, 0], other: [0; 2] },
        remote: Slots { current: [9, 0], other: [0; 2] },
        state: 0,
    };
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(1);
    model.check(move || {
        let table = Arc::new(table());
        table.fill(0, &content(1, 2), 0);
        insert(&table, 1, 0);
        let reader = thread::spawn({
            let table = table.clone();
            move || match table.search::<Output, false>(hash(257), &short(257)) {
                Find::Hit(hit) => Some(hit.to),
                _ => None,
            }
        });
        table.clear(0);
        table.fill(0, &content(257, 5), 0);
        let found = reader.join().unwrap();
        assert!(found.is_none() || found == Some(short(5)), "{found:?}");
    });
}

/// An entry that lies in the second bucket is found while the first fills and
/// empties.
#[test]
fn an_entry_that_went_on_is_always_found() {
    check(|| {
        let table = Arc::new(table());
        table.fill(0, &content(1, 2, 0, 0), 0);
        for neighbour in 0..ENTRIES as u64 {
            insert(&table, 100 + neighbour, 1);
        }
        insert(&table, 1, 0);
        let reader = thread::spawn({
            let table = table.clone();
            move || sent(&table, 1)
        });
        table.remove(hash(100), 1);
        insert(&table, 120, 1);
        insert(&table, 121, 1);
        assert_eq!(reader.join().unwrap(), Some(2));
    });
}

//! Loom: every interleaving of a reader and a writer, weak memory included,
//! up to two preemptions (three: with `LOOM_MAX_PREEMPTIONS=3`).
//!
//! `cargo test -p mobconn-engine --lib --features loom`

use super::*;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use loom::thread;

fn check(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(2);
    model.check(test);
}

/// Keys of IPv6, so that more than one word can be torn.
fn key(number: u64) -> Key {
    Key { head: 1 << 63 | number, addresses: [number; 4] }
}

/// Two buckets.
fn table() -> Table {
    let table = Table::new();
    assert!(table.allocate(6));
    table
}

/// At home in the first of two buckets, with the tag `tag`.
fn hash(tag: u64) -> u64 {
    tag
}

fn insert(table: &Table, hash: u64, from: u64, to: u64) -> Position {
    let (key, to) = (key(from), key(to));
    let rule = NewRule { key: &key, to: &to, flags: 0, flow: 7, used: 0 };
    table.insert(hash, &rule).unwrap_or_else(|_| panic!("room"))
}

/// What the key `from` becomes.
fn find(table: &Table, hash: u64, from: u64) -> Option<Key> {
    match table.find(hash, &key(from), 0) {
        Find::Rule { to, flow, .. } => {
            assert_eq!(flow, 7);
            Some(to)
        }
        Find::Miss => None,
        Find::Twin => panic!("there are no others"),
        Find::Contended => panic!("the writer does little"),
    }
}

#[test]
fn a_rule_that_is_replaced_is_always_found() {
    check(|| {
        let table = Arc::new(table());
        let old = insert(&table, hash(1), 1, 10);
        let reader = thread::spawn({
            let table = table.clone();
            move || find(&table, hash(1), 1).expect("one of the two")
        });
        insert(&table, hash(1), 1, 20);
        table.remove(old, hash(1));
        let found = reader.join().unwrap();
        assert!(found == key(10) || found == key(20), "{found:?}");
        assert_eq!(find(&table, hash(1), 1), Some(key(20)));
    });
}

/// The old rule lies in the second bucket, the new one in the first, which a
/// reader has looked at before it arrives.
#[test]
fn a_rule_that_comes_home_is_always_found() {
    check(|| {
        let table = Arc::new(table());
        let neighbours: Vec<_> = (0..SLOTS as u64).map(|i| insert(&table, hash(100 + i), 100 + i, 0)).collect();
        let old = insert(&table, hash(1), 1, 10);
        table.remove(neighbours[1], hash(101));
        let reader = thread::spawn({
            let table = table.clone();
            move || find(&table, hash(1), 1).expect("one of the two")
        });
        insert(&table, hash(1), 1, 20);
        table.remove(old, hash(1));
        let found = reader.join().unwrap();
        assert!(found == key(10) || found == key(20), "{found:?}");
    });
}

/// A slot is used again, for another key with the same tag.
#[test]
fn a_slot_that_is_used_again_is_never_half_read() {
    for wanted in [1, 2] {
        check(move || {
            let table = Arc::new(table());
            let old = insert(&table, hash(1), 1, 10);
            let reader = thread::spawn({
                let table = table.clone();
                move || find(&table, hash(1), wanted)
            });
            table.remove(old, hash(1));
            insert(&table, hash(1), 2, 20);
            let allowed = vec![None, Some(key(wanted * 10))];
            let found = reader.join().unwrap();
            assert!(allowed.contains(&found), "{found:?}");
        });
    }
}

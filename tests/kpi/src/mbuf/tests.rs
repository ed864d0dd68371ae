//! Chains of every shape keep their bytes through every operation.

use super::{M, build, freem, gather, ops, verify};
use crate::kernel::kernel;
use crate::malloc::M_NOWAIT;
use crate::mbuf::flag;
use crate::{Failures, Machine, Options, Split};

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 255) as u8).collect()
}

/// Runs `f` on many chains of many lengths; it returns the chain that is left.
fn each(seed: u64, f: impl Fn(M, &[u8]) -> Option<M>) {
    let machine = Machine::boot(Options { seed, split: Split::Arbitrary, ..Options::default() });
    let entry = crate::thread::Entry::new("a test of mbufs", 0, 0);
    for round in 0..3000 {
        let data = bytes(20 + round % 400 + if round % 10 == 0 { 3000 } else { 0 });
        let built = build(&data, 20, Split::Arbitrary);
        verify(built.m, 20, "build");
        let after = f(built.m, &data);
        freem(after, "the test");
        built.settle();
        assert_eq!(machine.mbufs(), 0, "round {round}");
    }
    drop(entry);
}

#[test]
fn pullup_makes_contiguous() {
    each(1, |m, data| {
        let len = 20 + kernel().rng.below(data.len().min(160) - 19);
        let m = ops::pullup(m, len).unwrap_or_else(|| panic!("pullup of {len} of {}", data.len()));
        verify(m, len, "pullup");
        assert_eq!(gather(m), data);
        Some(m)
    });
}

#[test]
fn pullup_beyond_the_packet_frees_it() {
    each(2, |m, data| ops::pullup(m, data.len() + 1));
}

#[test]
fn copyup_makes_a_copy_in_front() {
    each(3, |m, data| {
        let len = 1 + kernel().rng.below(data.len().min(140));
        let readonly = m.flags() & flag::RDONLY;
        let m = ops::copyup(m, len, 16).expect("copyup");
        verify(m, len, "copyup");
        assert_eq!(gather(m), data);
        // The flag travels with the packet header, whatever the new storage is.
        assert_eq!((m.has(flag::EXT), m.flags() & flag::RDONLY), (false, readonly));
        Some(m)
    });
}

#[test]
fn unshare_makes_writable() {
    each(4, |m, data| {
        let m = ops::unshare(m, M_NOWAIT).expect("unshare");
        verify(m, 1, "unshare");
        assert_eq!(gather(m), data);
        assert!(m.chain().skip(1).all(M::writable));
        Some(m)
    });
}

#[test]
fn copies_are_equal() {
    each(5, |m, data| {
        let dup = ops::dup(m, M_NOWAIT).expect("dup");
        verify(dup, 1, "dup");
        let part = data.len() / 3;
        let copy = ops::copym(m, part, Some(data.len() - part), M_NOWAIT).expect("copym");
        assert_eq!(gather(copy), &data[part..]);
        freem(Some(copy), "copym");
        let whole = ops::copym(m, 0, None, M_NOWAIT).expect("copym");
        verify(whole, 1, "copym");
        freem(Some(m), "the original");
        assert_eq!(gather(whole), data);
        freem(Some(whole), "copym");
        assert_eq!(gather(dup), data);
        Some(dup)
    });
}

#[test]
fn trimming_and_growing() {
    each(6, |m, data| {
        let (front, back) = (kernel().rng.below(10), kernel().rng.below(10));
        ops::adj(m, front as i32);
        ops::adj(m, -(back as i32));
        let m = ops::prepend(m, 7, M_NOWAIT).expect("prepend");
        ops::copyback(m, 0, b"abcdefg");
        verify(m, 7, "prepend");
        let all = gather(m);
        assert_eq!(&all[..7], b"abcdefg");
        assert_eq!(&all[7..], &data[front..data.len() - back]);
        assert_eq!(ops::copydata(m, 5, 4), &all[5..9]);
        Some(m)
    });
}

#[test]
fn every_failed_allocation_leaves_nothing() {
    let machine = Machine::boot(Options { split: Split::Arbitrary, ..Options::default() });
    let entry = crate::thread::Entry::new("a test of mbufs", 0, 0);
    let operations: [fn(M) -> Option<M>; 6] = [
        |m| ops::pullup(m, 100),
        |m| ops::copyup(m, 100, 8),
        |m| ops::unshare(m, M_NOWAIT),
        |m| ops::prepend(m, 20, M_NOWAIT),
        |m| {
            ops::dup(m, M_NOWAIT)
                .or_else(|| {
                    freem(Some(m), "the original");
                    None
                })
                .inspect(|_| freem(Some(m), "the original"))
        },
        |m| {
            ops::defrag(m, M_NOWAIT).or_else(|| {
                freem(Some(m), "the original");
                None
            })
        },
    ];
    for operation in operations {
        let mut failed = 0;
        for round in 0..2000 {
            let built = build(&bytes(900), 20, Split::Arbitrary);
            machine.set_failures(Failures::After(round % 5));
            let after = operation(built.m);
            machine.set_failures(Failures::None);
            failed += u32::from(after.is_none());
            freem(after, "the test");
            built.settle();
            assert_eq!(machine.mbufs(), 0);
        }
        assert!(failed > 100, "{failed}");
    }
    drop(entry);
}

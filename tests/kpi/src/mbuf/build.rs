//! Packets become mbuf chains, by policy.

use super::{M, attach, construct, flag, freem, raw, share};
use crate::complaint::complain;
use crate::kernel::kernel;
use crate::layout::{M_DAT, M_PKTDAT, MCLBYTES, MHLEN, MLEN};
use crate::options::Split;

/// Room that drivers and the stack leave in front of a packet.
const LINK: usize = 16;

/// A chain, and what must not change in it.
#[derive(Debug)]
pub(crate) struct Packet {
    /// The chain.
    pub(crate) m: M,
    /// Second references to clusters, as a retransmission queue or bpf(4) holds them, with what the cluster holds.
    shared: Vec<(M, Vec<u8>)>,
}

impl Packet {
    /// Drops the second references, after a look whether anybody wrote to what they refer to.
    pub(crate) fn settle(self) {
        for (m, before) in self.shared {
            if cluster(m) != before {
                complain!("something wrote to a cluster that others refer to (M_WRITABLE was false)");
            }
            freem(Some(m), "the second reference");
        }
    }
}

fn cluster(m: M) -> Vec<u8> {
    // SAFETY: the live cluster of a live mbuf.
    unsafe { crate::foreign::bytes(m.ext_buf() as *const u8, MCLBYTES) }
}

/// How one mbuf of a chain is made.
#[derive(Clone, Copy)]
struct Piece {
    length: usize,
    offset: usize,
    external: bool,
    shared: bool,
    readonly: bool,
}

impl Piece {
    const fn plain(length: usize, offset: usize, room: usize) -> Self {
        Self { length, offset, external: length + offset > room, shared: false, readonly: false }
    }
}

/// Cuts `total` bytes so that the first mbuf has at least `first`.
fn plan(total: usize, first: usize, split: Split) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut left = total;
    let mut take = |length: usize, pieces: &mut Vec<Piece>| {
        let room = if pieces.is_empty() { MHLEN } else { MLEN };
        let offset = if pieces.is_empty() { LINK } else { 0 };
        let length = length.min(left).min(MCLBYTES - offset);
        left -= length;
        pieces.push(Piece::plain(length, offset, room));
        left
    };
    match split {
        Split::Whole => while take(total, &mut pieces) > 0 {},
        Split::After(at) => {
            let mut left = take(at.max(first), &mut pieces);
            while left > 0 {
                left = take(total, &mut pieces);
            }
        }
        Split::Arbitrary => {
            let rng = &kernel().rng;
            let mut left = total;
            loop {
                let begin = pieces.is_empty();
                let least = if begin { first } else { 0 };
                let most = match rng.below(4) {
                    0 => 3,
                    1 => 40,
                    2 => MLEN,
                    _ => MCLBYTES,
                };
                let room = if begin { MHLEN } else { MLEN };
                let length = (least + rng.below(most + 1)).min(left).min(MCLBYTES);
                let external = length > room || rng.percent(40);
                let capacity = if external { MCLBYTES } else { room };
                let offset =
                    if rng.percent(50) { rng.below(capacity - length + 1) } else { (capacity - length).min(LINK) };
                // Every fourth chain has what is not writable.
                let special = external && rng.percent(25);
                pieces.push(Piece {
                    length,
                    offset,
                    external,
                    // ThreadSanitizer cannot see that a count of references orders what is done to a cluster by turns:
                    // M_WRITABLE(9) reads it like any number.
                    shared: special && rng.percent(60) && !cfg!(feature = "thread"),
                    readonly: special && rng.percent(60),
                });
                left -= length;
                if left == 0 && rng.percent(80) {
                    break;
                }
            }
        }
    }
    pieces
}

/// Makes a chain of `bytes`, with a packet header, whose first mbuf holds at least `first` of them. The allocations
/// are the caller's, not the module's, and do not fail.
pub(crate) fn build(bytes: &[u8], first: usize, split: Split) -> Packet {
    let mut shared = Vec::new();
    let mut head: Option<M> = None;
    let mut last: Option<M> = None;
    let mut rest = bytes;
    for piece in plan(bytes.len(), first.min(bytes.len()), split) {
        let m = raw().unwrap_or_else(|| complain!("the machine is out of mbufs: {} are in use", kernel().mbufs.live()));
        construct(m, super::MT_DATA, if head.is_none() { flag::PKTHDR } else { 0 });
        if piece.external {
            let cluster = kernel().clusters.alloc().unwrap_or_else(|| complain!("the machine is out of clusters"));
            attach(m, cluster.as_ptr() as usize);
        }
        let begin =
            if piece.external { m.ext_buf() } else { m.address() + if head.is_none() { M_PKTDAT } else { M_DAT } };
        m.set_data(begin + piece.offset);
        let (now, later) = rest.split_at(piece.length);
        m.write(0, now);
        m.set_length(piece.length);
        rest = later;
        if piece.shared {
            let second = raw().unwrap_or_else(|| complain!("the machine is out of mbufs"));
            construct(second, super::MT_DATA, 0);
            if kernel().rng.percent(50) {
                share(second, m);
            } else {
                // The other one owns the count, as after m_copym of the original.
                attach(second, m.ext_buf());
                m.clear_flags(flag::EXT);
                share(m, second);
            }
            shared.push((second, cluster(m)));
        }
        if piece.readonly {
            m.add_flags(flag::RDONLY);
        }
        match last {
            Some(last) => last.set_next(m.address()),
            None => head = Some(m),
        }
        last = Some(m);
    }
    let Some(m) = head else { complain!("no mbuf for an empty packet") };
    m.set_total(bytes.len());
    Packet { m, shared }
}

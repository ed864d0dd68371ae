//! What mbuf(9) offers on chains, with the kernel's own habits: when data moves, what is freed, what fails.

use super::{M, flag, free, freem, get, getcl};
use crate::complaint::complain;
use crate::layout::{M_DAT, M_PKTDAT, MCLBYTES, MHLEN, MLEN, MSIZE};

/// `max_protohdr`: m_pullup takes at least this much along.
const MAX_PROTOHDR: usize = 40;
/// `MINCLSIZE`: from here on a cluster is used.
const MINCLSIZE: usize = MHLEN + 1;

/// Moves the packet header, tags included: m_move_pkthdr.
pub(super) fn move_header(to: M, from: M) {
    if to.has(flag::PKTHDR) {
        crate::tags::delete_chain(to);
    }
    copy_header(to, from);
    from.set_tags(0);
    from.clear_flags(flag::PKTHDR);
}

fn copy_header(to: M, from: M) {
    let kept = to.flags() & (flag::EXT | flag::EXTPG);
    to.set_flags((from.flags() & flag::COPY) | kept);
    if kept & flag::EXT == 0 {
        to.set_data(to.address() + M_PKTDAT);
    }
    let source = from.as_ptr().wrapping_add(32);
    let target = to.as_ptr().wrapping_add(32);
    // SAFETY: the 64 bytes of packet header of two different live mbufs.
    unsafe { std::ptr::copy_nonoverlapping(source, target, 64) };
}

/// Copies the packet header: m_dup_pkthdr. False when memory for the tags is short.
pub(super) fn dup_header(to: M, from: M, how: i32) -> bool {
    if to.has(flag::PKTHDR) {
        crate::tags::delete_chain(to);
    }
    copy_header(to, from);
    to.set_tags(0);
    crate::tags::copy_chain(to, from, how)
}

/// Moves `len` bytes (and up to `MAX_PROTOHDR`, if they fit) from the chain `n` to the end of `m`, and links what
/// is left. Frees everything and returns nothing when the chain is too short.
fn gather_into(m: M, n: M, mut len: usize, who: &str) -> Option<M> {
    let mut space = (m.address() + MSIZE).saturating_sub(m.data() + m.length());
    let mut next = Some(n);
    while let Some(n) = next {
        let count = len.max(MAX_PROTOHDR).min(space).min(n.length());
        let mut bytes = vec![0; count];
        n.read(0, &mut bytes);
        m.write(m.length(), &bytes);
        len = len.saturating_sub(count);
        m.set_length(m.length() + count);
        n.set_length(n.length() - count);
        space -= count;
        if n.length() == 0 {
            next = free(n, who);
        } else {
            n.set_data(n.data() + count);
        }
        if len == 0 {
            break;
        }
    }
    if len > 0 {
        super::discard(m, who);
        freem(next, who);
        return None;
    }
    m.set_next(next.map_or(0, |n| n.address()));
    Some(m)
}

/// m_pullup(9).
pub(crate) fn pullup(n: M, len: usize) -> Option<M> {
    let who = "m_pullup";
    if n.has(flag::EXTPG) {
        complain!("{who}: unmapped mbuf");
    }
    n.check_bounds(who);
    let rest = n.rest();
    if let (false, Some(rest)) = (n.has(flag::EXT), rest)
        && n.data() + len < n.address() + M_DAT + MLEN
    {
        if n.length() >= len {
            return Some(n);
        }
        return gather_into(n, rest, len - n.length(), who);
    }
    let m = if len > MHLEN { None } else { get(crate::malloc::M_NOWAIT, n.mtype(), 0) };
    let Some(m) = m else {
        freem(Some(n), who);
        return None;
    };
    if n.has(flag::PKTHDR) {
        move_header(m, n);
    }
    gather_into(m, n, len, who)
}

/// m_copyup(9).
pub(crate) fn copyup(n: M, len: usize, offset: usize) -> Option<M> {
    let who = "m_copyup";
    n.check_bounds(who);
    let fits = len + offset <= MHLEN;
    let Some(m) = fits.then(|| get(crate::malloc::M_NOWAIT, n.mtype(), 0)).flatten() else {
        freem(Some(n), who);
        return None;
    };
    if n.has(flag::PKTHDR) {
        move_header(m, n);
    }
    m.set_data(m.data() + offset);
    gather_into(m, n, len, who)
}

/// Calls `each` with every piece of the range: mbuf, offset in it, offset in the range, length.
fn pieces(m: M, offset: usize, length: usize, who: &str, mut each: impl FnMut(M, usize, usize, usize)) {
    let mut skip = offset;
    let mut done = 0;
    for m in m.chain() {
        if done == length {
            return;
        }
        m.check_bounds(who);
        if skip >= m.length() {
            skip -= m.length();
            continue;
        }
        let count = (m.length() - skip).min(length - done);
        each(m, skip, done, count);
        done += count;
        skip = 0;
    }
    if done < length {
        complain!("{who}: the chain ends before {length} bytes from {offset}");
    }
}

/// m_copydata(9).
pub(crate) fn copydata(m: M, offset: usize, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    pieces(m, offset, length, "m_copydata", |m, from, to, count| m.read(from, &mut out[to..to + count]));
    out
}

/// m_copyback(9). As there, a chain that is too short grows; here it must not, because nothing needs it.
pub(crate) fn copyback(m: M, offset: usize, from: &[u8]) {
    let who = "m_copyback";
    pieces(m, offset, from.len(), who, |m, at, done, count| {
        if m.is_shared() {
            complain!("{who}: writes to storage that is shared or read-only");
        }
        m.write(at, &from[done..done + count]);
    });
}

/// m_adj(9).
pub(crate) fn adj(m: M, by: i32) {
    let amount = by.unsigned_abs() as usize;
    let length: usize = m.chain().map(M::length).sum();
    let amount = amount.min(length);
    if by >= 0 {
        let mut left = amount;
        for m in m.chain() {
            let count = left.min(m.length());
            m.set_length(m.length() - count);
            m.set_data(m.data() + count);
            left -= count;
        }
    } else {
        let mut left = length - amount;
        for m in m.chain() {
            let count = left.min(m.length());
            m.set_length(count);
            left -= count;
        }
    }
    if m.has(flag::PKTHDR) {
        m.set_total(m.total() - amount);
    }
}

/// m_cat(9): appends `n` to `m`, copying it when it fits.
pub(crate) fn cat(m: M, n: M) {
    let mut last = m.last();
    let mut next = Some(n);
    while let Some(n) = next {
        if !last.writable() || last.space() < last.length() + n.length() {
            last.set_next(n.address());
            last = n.last();
            let _ = last;
            return;
        }
        let mut bytes = vec![0; n.length()];
        n.read(0, &mut bytes);
        last.write(last.length(), &bytes);
        last.set_length(last.length() + bytes.len());
        next = free(n, "m_cat");
    }
}

/// Makes a packet's first mbuf an ordinary one: m_demote_pkthdr.
pub(crate) fn demote(m: M) {
    crate::tags::delete_chain(m);
    let header = m.as_ptr().wrapping_add(32);
    // SAFETY: the packet header of a live mbuf: 64 bytes from offset 32; its data lie behind it or elsewhere.
    unsafe { std::ptr::write_bytes(header, 0, 64) };
    m.clear_flags(flag::PKTHDR);
}

/// m_prepend(9): makes room for `len` bytes in a new mbuf in front.
pub(super) fn prepend(m: M, len: usize, how: i32) -> Option<M> {
    let who = "m_prepend";
    let Some(n) = get(how, m.mtype(), m.flags() & flag::PKTHDR) else {
        freem(Some(m), who);
        return None;
    };
    if m.has(flag::PKTHDR) {
        move_header(n, m);
    }
    n.set_next(m.address());
    let room = if n.has(flag::PKTHDR) { MHLEN } else { MLEN };
    if len < room {
        n.set_data(n.data() + ((room - len) & !7));
    } else if len > room {
        complain!("{who}: {len} bytes do not fit one mbuf");
    }
    n.set_length(len);
    if n.has(flag::PKTHDR) {
        n.set_total(n.total() + len);
    }
    Some(n)
}

/// m_unshare(9): copies what is not writable.
pub(super) fn unshare(m0: M, how: i32) -> Option<M> {
    let who = "m_unshare";
    let mut head = m0;
    let mut previous: Option<M> = None;
    let mut next = Some(m0);
    while let Some(m) = next {
        let mergeable = previous.filter(|p| p.has(flag::EXT) && p.writable() && m.length() <= p.space() - p.length());
        if let Some(p) = mergeable
            && (!m.has(flag::EXT) || !m.writable())
        {
            let mut bytes = vec![0; m.length()];
            m.read(0, &mut bytes);
            p.write(p.length(), &bytes);
            p.set_length(p.length() + bytes.len());
            next = free(m, who);
            p.set_next(next.map_or(0, |n| n.address()));
            continue;
        }
        if !m.has(flag::EXT) || m.writable() {
            previous = Some(m);
            next = m.rest();
            continue;
        }
        assert!(m.length() <= MCLBYTES, "no cluster is larger");
        let Some(n) = getcl(how, m.mtype(), m.flags() & flag::COPY & !flag::RDONLY & !flag::PKTHDR) else {
            freem(Some(head), who);
            return None;
        };
        if m.has(flag::PKTHDR) {
            move_header(n, m);
        }
        let mut bytes = vec![0; m.length()];
        m.read(0, &mut bytes);
        n.write(0, &bytes);
        n.set_length(bytes.len());
        next = free(m, who);
        n.set_next(next.map_or(0, |n| n.address()));
        match previous {
            Some(p) => p.set_next(n.address()),
            None => head = n,
        }
        previous = Some(n);
    }
    Some(head)
}

/// m_dup(9): a copy that shares nothing.
pub(super) fn dup(m: M, how: i32) -> Option<M> {
    let who = "m_dup";
    if !m.has(flag::PKTHDR) {
        complain!("{who}: no packet header");
    }
    let bytes = copydata(m, 0, m.total());
    let mut rest = bytes.as_slice();
    let mut top: Option<M> = None;
    let mut last: Option<M> = None;
    while top.is_none() || !rest.is_empty() {
        let n = if rest.len() >= MINCLSIZE { getcl(how, m.mtype(), 0) } else { get(how, m.mtype(), 0) };
        let Some(n) = n else {
            freem(top, who);
            return None;
        };
        match last {
            Some(last) => last.set_next(n.address()),
            None => {
                top = Some(n);
                if !dup_header(n, m, how) {
                    freem(top, who);
                    return None;
                }
                n.clear_flags(flag::RDONLY);
            }
        }
        let count = rest.len().min(n.space());
        n.write(0, &rest[..count]);
        n.set_length(count);
        rest = &rest[count..];
        last = Some(n);
    }
    top
}

/// m_copym(9): a copy that shares clusters. `length` `None` stands for `M_COPYALL`.
pub(super) fn copym(m: M, offset: usize, length: Option<usize>, how: i32) -> Option<M> {
    let who = "m_copym";
    let with_header = offset == 0 && m.has(flag::PKTHDR);
    let all: usize = m.chain().map(M::length).sum();
    let length = length.unwrap_or(all.saturating_sub(offset));
    let mut top: Option<M> = None;
    let mut last: Option<M> = None;
    let mut failed = false;
    pieces(m, offset, length, who, |m, from, _, count| {
        if failed {
            return;
        }
        let Some(n) = get(how, m.mtype(), if with_header && top.is_none() { flag::PKTHDR } else { 0 }) else {
            failed = true;
            return;
        };
        match last {
            Some(last) => last.set_next(n.address()),
            None => top = Some(n),
        }
        if n.has(flag::PKTHDR) {
            failed = !dup_header(n, m, how);
            n.set_total(length);
        }
        if m.has(flag::EXT) {
            super::share(n, m);
            n.set_data(m.data() + from);
        } else {
            let mut bytes = vec![0; count];
            m.read(from, &mut bytes);
            n.write(0, &bytes);
        }
        n.set_length(count);
        last = Some(n);
    });
    if failed {
        freem(top, who);
        return None;
    }
    top
}

/// m_defrag(9) without its shortcuts: a copy in as few mbufs as can be; the original is freed on success.
pub(super) fn defrag(m: M, how: i32) -> Option<M> {
    let copy = dup(m, how)?;
    freem(Some(m), "m_defrag");
    Some(copy)
}

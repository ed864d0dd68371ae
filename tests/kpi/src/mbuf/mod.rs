//! mbufs: the handle, allocation and reference counts.
//!
//! Every pointer that module code passes is checked against the slab first: it is a live mbuf, or a complaint.

mod build;
mod entry;
mod ops;
#[cfg(test)]
mod tests;
mod uma;
mod verify;

pub(crate) use build::build;
pub(crate) use entry::SYMBOLS;
pub(crate) use ops::{adj, cat, copyup, demote};
pub(crate) use uma::SYMBOLS as UMA_SYMBOLS;
pub(crate) use uma::{MbArgs, data as zone_data};
pub(crate) use verify::{gather, verify};

use crate::complaint::complain;
use crate::foreign;
use crate::kernel::kernel;
use crate::layout::{M_DAT, M_PKTDAT, MCLBYTES, MHLEN, MLEN, MSIZE, MbufC};
use std::sync::atomic::{AtomicU32, Ordering};

/// `m_flags`, as sys/mbuf.h has them.
#[allow(missing_docs, reason = "names of mbuf(9)")]
pub(crate) mod flag {
    pub(crate) const EXT: u32 = 0x1;
    pub(crate) const PKTHDR: u32 = 0x2;
    pub(crate) const RDONLY: u32 = 0x8;
    pub(crate) const BCAST: u32 = 0x10;
    pub(crate) const MCAST: u32 = 0x20;
    pub(crate) const EXTPG: u32 = 0x100;
    pub(crate) const PROTO: u32 = 0x00ff_e000;
    /// `M_PROTO1`.
    pub(crate) const FASTFWD_OURS: u32 = 0x2000;
    /// `M_PROTO2`.
    pub(crate) const NEXTHOP: u32 = 0x4000;
    /// `M_PROTO3`.
    pub(crate) const SKIP_FIREWALL: u32 = 0x8000;
    /// What travels with the packet header: `M_COPYFLAGS`.
    pub(crate) const COPY: u32 = PROTO | PKTHDR | 0x4 | RDONLY | BCAST | MCAST | 0x40 | 0x80 | 0x400 | 0x800 | 0x1000;
}

/// `csum_flags`.
#[allow(missing_docs, reason = "names of mbuf(9)")]
pub(crate) mod csum {
    pub(crate) const UDP: u32 = 0x2;
    pub(crate) const TCP: u32 = 0x4;
    pub(crate) const IP_TSO: u32 = 0x10;
    pub(crate) const UDP_IPV6: u32 = 0x200;
    pub(crate) const TCP_IPV6: u32 = 0x400;
    pub(crate) const IP6_TSO: u32 = 0x1000;
    pub(crate) const TSO: u32 = IP_TSO | IP6_TSO;
    pub(crate) const DELAY_DATA: u32 = UDP | TCP;
    pub(crate) const DELAY_DATA_IPV6: u32 = UDP_IPV6 | TCP_IPV6;
    /// `if_hwassist` of an interface that does all of it.
    pub(crate) const OFFLOADED: u64 = (DELAY_DATA | DELAY_DATA_IPV6 | TSO) as u64;
    pub(crate) const IP_CHECKED: u32 = 0x0100_0000;
    pub(crate) const IP_VALID: u32 = 0x0200_0000;
    pub(crate) const PSEUDO_HDR: u32 = 0x0400_0000;
    pub(crate) const DATA_VALID: u32 = 0x0800_0000;
}

pub(crate) const MT_DATA: u32 = 1;
pub(crate) const EXT_CLUSTER: u32 = 1;
const EMBREF: u32 = 1 << 8;

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[("EXT_FLAG_EMBREF", EMBREF >> 8)];

/// A live mbuf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct M(MbufC);

impl std::ops::Deref for M {
    type Target = MbufC;
    fn deref(&self) -> &MbufC {
        &self.0
    }
}

impl M {
    /// The mbuf at `pointer`; `None` for null. `who` is for the complaint when it is no live mbuf.
    pub(crate) fn at(pointer: usize, who: &str) -> Option<Self> {
        if pointer == 0 {
            return None;
        }
        kernel().mbufs.check(pointer, who);
        // SAFETY: the slab says that a live mbuf begins here.
        unsafe { MbufC::new(pointer as *mut u8) }.map(Self)
    }

    /// Like [`M::at`], for a pointer that must not be null.
    pub(crate) fn must(pointer: *mut u8, who: &str) -> Self {
        Self::at(pointer as usize, who).unwrap_or_else(|| complain!("{who}: null mbuf"))
    }

    /// The rest of the chain.
    pub(crate) fn rest(self) -> Option<Self> {
        Self::at(self.next(), "m_next")
    }

    /// The mbufs of the chain, beginning with this one.
    pub(crate) fn chain(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |m| m.rest())
    }

    /// The last of the chain.
    pub(crate) fn last(self) -> Self {
        self.chain().last().unwrap_or(self)
    }

    pub(crate) fn flags(self) -> u32 {
        self.type_flags() >> 8
    }

    pub(crate) fn mtype(self) -> u32 {
        self.type_flags() & 0xff
    }

    pub(crate) fn set_flags(self, flags: u32) {
        self.set_type_flags(flags << 8 | self.mtype());
    }

    pub(crate) fn has(self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    pub(crate) fn add_flags(self, flags: u32) {
        self.set_flags(self.flags() | flags);
    }

    pub(crate) fn clear_flags(self, flags: u32) {
        self.set_flags(self.flags() & !flags);
    }

    /// `m_len`, complaining about a negative one.
    pub(crate) fn length(self) -> usize {
        usize::try_from(self.len()).unwrap_or_else(|_| complain!("mbuf {:#x} has m_len {}", self.address(), self.len()))
    }

    pub(crate) fn set_length(self, length: usize) {
        self.set_len(i32::try_from(length).unwrap_or_else(|_| complain!("m_len of {length}")));
    }

    /// `m_pkthdr.len`.
    pub(crate) fn total(self) -> usize {
        usize::try_from(self.pkt_len())
            .unwrap_or_else(|_| complain!("mbuf {:#x} has m_pkthdr.len {}", self.address(), self.pkt_len()))
    }

    pub(crate) fn set_total(self, length: usize) {
        self.set_pkt_len(i32::try_from(length).unwrap_or_else(|_| complain!("m_pkthdr.len of {length}")));
    }

    /// Begin and size of the memory that `m_data` points into.
    pub(crate) fn buffer(self) -> (usize, usize) {
        if self.has(flag::EXT) {
            (self.ext_buf(), self.ext_size() as usize)
        } else if self.has(flag::PKTHDR) {
            (self.address() + M_PKTDAT, MHLEN)
        } else {
            (self.address() + M_DAT, MLEN)
        }
    }

    /// Bytes from `m_data` to the end of the memory.
    pub(crate) fn space(self) -> usize {
        let (start, size) = self.buffer();
        (start + size).saturating_sub(self.data())
    }

    /// `M_WRITABLE`.
    pub(crate) fn writable(self) -> bool {
        !self.has(flag::RDONLY | flag::EXTPG)
            && (!self.has(flag::EXT) || self.references().load(Ordering::Acquire) == 1)
    }

    /// Whether the storage is somebody else's too. Unlike `M_WRITABLE` it does not ask for `M_RDONLY` of internal
    /// storage: that flag travels with the packet header to new mbufs, where it means nothing.
    pub(crate) fn is_shared(self) -> bool {
        self.has(flag::EXT) && !self.writable()
    }

    /// Complains unless `m_data` and `m_len` lie inside the mbuf's memory.
    pub(crate) fn check_bounds(self, who: &str) {
        if self.has(flag::EXT) && self.ext_type_flags() & 0xff == EXT_CLUSTER {
            kernel().clusters.check(self.ext_buf(), who);
        }
        let (start, size) = self.buffer();
        // A non-packet-header mbuf of a former packet header (m_pullup clears the flag) keeps its data anywhere inside.
        let data = self.data();
        if data < start || data + self.length() > start + size {
            complain!(
                "{who}: mbuf {:#x} has its data at {data:#x}+{}, outside {start:#x}+{size}",
                self.address(),
                self.length()
            );
        }
    }

    /// Copies `into.len()` bytes from `offset` of this mbuf's own data.
    pub(crate) fn read(self, offset: usize, into: &mut [u8]) {
        self.check_bounds("reading an mbuf");
        assert!(offset + into.len() <= self.length());
        // SAFETY: checked to lie inside live memory of the mbuf.
        unsafe { std::ptr::copy_nonoverlapping((self.data() + offset) as *const u8, into.as_mut_ptr(), into.len()) }
    }

    /// Overwrites bytes from `offset` of this mbuf's own memory, which may lie beyond `m_len`.
    pub(crate) fn write(self, offset: usize, from: &[u8]) {
        let (start, size) = self.buffer();
        let at = self.data() + offset;
        assert!(at >= start && at + from.len() <= start + size, "write outside an mbuf");
        // SAFETY: checked to lie inside live memory of the mbuf.
        unsafe { foreign::store(at as *mut u8, from) }
    }

    /// The mbuf that has the count of references to the storage: this one, unless it shares somebody else's.
    pub(crate) fn owner(self) -> usize {
        if self.has(flag::EXT) { self.references().as_ptr() as usize - 96 } else { self.address() }
    }

    /// The count of references to the external storage.
    pub(crate) fn references(self) -> &'static AtomicU32 {
        let at = if self.ext_type_flags() & EMBREF != 0 { self.address() + 96 } else { self.ext_cnt() };
        // SAFETY: the embedded count of a live mbuf, or the one its owner keeps alive as long as there are references;
        // everybody accesses it atomically.
        unsafe { AtomicU32::from_ptr(at as *mut u32) }
    }
}

/// Whether an allocation that may fail should fail now.
pub(crate) fn failing(how: i32) -> bool {
    crate::malloc::check_sleep("mbuf allocation", how);
    how & crate::malloc::M_WAITOK == 0 && kernel().failures.next()
}

fn raw() -> Option<M> {
    let pointer = kernel().mbufs.alloc()?;
    // SAFETY: a live object of the slab, of this size.
    let m = unsafe { MbufC::new(pointer.as_ptr()) }.map(M)?;
    Some(m)
}

/// Sets the fields that the allocator sets, and no others: the rest stays poison.
fn construct(m: M, mtype: u32, flags: u32) {
    m.set_next(0);
    m.set_nextpkt(0);
    m.set_len(0);
    m.set_type_flags(flags << 8 | mtype);
    if flags & flag::PKTHDR != 0 {
        let at = m.as_ptr().wrapping_add(32);
        // SAFETY: the packet header of a live mbuf: 64 bytes from offset 32.
        unsafe { std::ptr::write_bytes(at, 0, 64) };
        m.set_data(m.address() + M_PKTDAT);
    } else {
        m.set_data(m.address() + M_DAT);
    }
}

/// m_get(9) or m_gethdr(9), by `flags`.
pub(crate) fn get(how: i32, mtype: u32, flags: u32) -> Option<M> {
    if failing(how) {
        return None;
    }
    let m = raw()?;
    construct(m, mtype, flags);
    Some(m)
}

/// m_getcl(9): an mbuf with a cluster.
pub(crate) fn getcl(how: i32, mtype: u32, flags: u32) -> Option<M> {
    let m = get(how, mtype, flags)?;
    let Some(cluster) = kernel().clusters.alloc() else {
        free(m, "m_getcl");
        return None;
    };
    attach(m, cluster.as_ptr() as usize);
    Some(m)
}

/// Makes `cluster` the storage of `m`, its only reference.
pub(crate) fn attach(m: M, cluster: usize) {
    m.add_flags(flag::EXT);
    m.set_data(cluster);
    m.set_ext_cnt(0);
    m.set_ext_count(1);
    m.set_ext_size(MCLBYTES as u32);
    m.set_ext_type_flags(EXT_CLUSTER | EMBREF);
    m.set_ext_buf(cluster);
    m.set_ext_arg2(0);
    m.set_ext_free(0);
    m.set_ext_arg1(0);
}

/// Makes `n` share the storage of `m`: `mb_dupcl`.
pub(crate) fn share(n: M, m: M) {
    let counter = m.references();
    n.set_ext_size(m.ext_size());
    n.set_ext_type_flags(m.ext_type_flags() & !EMBREF);
    n.set_ext_buf(m.ext_buf());
    n.set_ext_cnt(counter.as_ptr() as usize);
    n.add_flags(m.flags() & (flag::RDONLY | flag::EXT));
    counter.fetch_add(1, Ordering::AcqRel);
}

/// Drops a reference to the storage of `m` and frees `m`: `mb_free_ext`.
pub(crate) fn free_ext(m: M, who: &str) {
    if m.ext_type_flags() & 0xff != EXT_CLUSTER {
        complain!("{who}: external storage of type {} is not emulated", m.ext_type_flags() & 0xff);
    }
    let counter = m.references();
    let owner = counter.as_ptr() as usize - 96;
    kernel().mbufs.check(owner, who);
    let cluster = m.ext_buf();
    let address = m.address();
    match counter.fetch_sub(1, Ordering::AcqRel) {
        0 => complain!("{who}: a cluster's references went below zero"),
        1 => {
            kernel().clusters.free(cluster, who);
            kernel().mbufs.free(owner, who);
            if address != owner {
                kernel().mbufs.free(address, who);
            }
        }
        // The owner keeps the count, so it stays until the last reference goes.
        _ if address != owner => kernel().mbufs.free(address, who),
        _ => {}
    }
}

/// m_free(9): frees one mbuf and returns the next.
pub(crate) fn free(m: M, who: &str) -> Option<M> {
    let next = m.next();
    discard(m, who);
    M::at(next, who)
}

/// Frees one mbuf, whatever follows it.
fn discard(m: M, who: &str) {
    if m.has(flag::PKTHDR) {
        crate::tags::delete_chain(m);
    }
    if m.has(flag::EXT) {
        free_ext(m, who);
    } else {
        kernel().mbufs.free(m.address(), who);
    }
}

/// m_freem(9): frees a chain.
pub(crate) fn freem(m: Option<M>, who: &str) {
    let mut next = m;
    while let Some(m) = next {
        next = free(m, who);
    }
}

const _: () = assert!(MSIZE == MbufC::SIZE);

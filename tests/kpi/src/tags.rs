//! Packet tags: mbuf_tags(9).

use crate::complaint::complain;
use crate::foreign::shared;
use crate::malloc::{self, Kind};
use crate::mbuf::{M, flag};
use std::net::IpAddr;

shared! {
    /// `struct m_tag`.
    Tag(24) {
        link, set_link: usize = 0;
        id, set_id: u16 = 8;
        len, set_len: u16 = 10;
        cookie, set_cookie: u32 = 12;
        free, set_free: usize = 16;
    }
}

/// Functions that modules call.
pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    m_tag_alloc,
    m_tag_delete,
    m_tag_delete_chain,
    m_tag_delete_nonpersistent,
    m_tag_locate,
    m_tag_copy,
    m_tag_free_default,
];

fn at(pointer: usize) -> Option<Tag> {
    if pointer != 0 && !malloc::is_live(pointer) {
        complain!("the list of tags holds {pointer:#x}, which is no live memory");
    }
    // SAFETY: null, or live memory of malloc(9), as tags are.
    unsafe { Tag::new(pointer as *mut u8) }
}

fn list(m: M) -> impl Iterator<Item = Tag> {
    std::iter::successors(at(m.tags()), |tag| at(tag.link()))
}

fn release(tag: Tag) {
    crate::call::one(tag.free(), tag.address());
}

/// Frees every tag of `m`.
pub(crate) fn delete_chain(m: M) {
    let mut next = at(m.tags());
    while let Some(tag) = next {
        next = at(tag.link());
        release(tag);
    }
    m.set_tags(0);
}

/// Copies every tag; false when memory is short.
pub(crate) fn copy_chain(to: M, from: M, how: i32) -> bool {
    let mut tail: Option<Tag> = None;
    for tag in list(from) {
        let Some(copy) = copy(tag, how) else {
            delete_chain(to);
            return false;
        };
        match tail {
            Some(tail) => tail.set_link(copy.address()),
            None => to.set_tags(copy.address()),
        }
        tail = Some(copy);
    }
    true
}

fn make(cookie: u32, id: u16, len: usize, how: i32) -> Option<Tag> {
    let address = malloc::allocate(Kind::Kernel("tag"), Tag::SIZE + len, how);
    // SAFETY: just allocated with this size, or null.
    let tag = unsafe { Tag::new(address) }?;
    tag.set_link(0);
    tag.set_id(id);
    tag.set_len(len as u16);
    tag.set_cookie(cookie);
    tag.set_free(crate::symbols::address("m_tag_free_default"));
    Some(tag)
}

fn copy(tag: Tag, how: i32) -> Option<Tag> {
    let copy = make(tag.cookie(), tag.id(), tag.len().into(), how)?;
    // SAFETY: a tag's bytes follow its header; both have `len` of them.
    let bytes = unsafe { crate::foreign::bytes(tag.as_ptr().wrapping_add(Tag::SIZE), tag.len().into()) };
    // SAFETY: as above.
    unsafe { crate::foreign::store(copy.as_ptr().wrapping_add(Tag::SIZE), &bytes) };
    Some(copy)
}

/// `MTAG_ABI_COMPAT` and `PACKET_TAG_IPFORWARD`.
const COMPAT: u32 = 0;
const IPFORWARD: u16 = 18;

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[("MTAG_ABI_COMPAT", COMPAT), ("PACKET_TAG_IPFORWARD", IPFORWARD as u32)];

/// Takes the next hop that a packet is forced to: the address of the first such tag, and the tag is gone.
pub(crate) fn take_next_hop(m: M) -> Option<IpAddr> {
    let tag = list(m).find(|tag| tag.cookie() == COMPAT && tag.id() == IPFORWARD)?;
    // SAFETY: a tag's bytes follow its header; there are `len` of them.
    let bytes = unsafe { crate::foreign::bytes(tag.as_ptr().wrapping_add(Tag::SIZE), tag.len().into()) };
    // struct sockaddr_in and sockaddr_in6: length, family, port; then the address, IPv6's behind the flow.
    let address = match (bytes.len(), bytes.get(..2)) {
        (16, Some([16, 2])) => bytes.get(4..8).and_then(|at| at.first_chunk::<4>()).map(|at| IpAddr::from(*at)),
        (28, Some([28, 28])) => bytes.get(8..24).and_then(|at| at.first_chunk::<16>()).map(|at| IpAddr::from(*at)),
        _ => None,
    };
    let Some(address) = address else { complain!("a next hop that is no address: {bytes:x?}") };
    m_tag_delete(m.as_ptr(), tag.address());
    Some(address)
}

extern "C" fn m_tag_alloc(cookie: u32, id: i32, len: i32, how: i32) -> *mut u8 {
    let Ok(len) = usize::try_from(len) else { return std::ptr::null_mut() };
    if crate::mbuf::failing(how) {
        return std::ptr::null_mut();
    }
    make(cookie, id as u16, len, how).map_or(std::ptr::null_mut(), Tag::as_ptr)
}

extern "C" fn m_tag_free_default(tag: *mut u8) {
    malloc::release(tag as usize, None, "m_tag_free_default");
}

extern "C" fn m_tag_delete(m: *mut u8, tag: usize) {
    let m = M::must(m, "m_tag_delete");
    let mut previous: Option<Tag> = None;
    for each in list(m) {
        if each.address() == tag {
            match previous {
                Some(previous) => previous.set_link(each.link()),
                None => m.set_tags(each.link()),
            }
            release(each);
            return;
        }
        previous = Some(each);
    }
    complain!("m_tag_delete: the mbuf has no such tag");
}

extern "C" fn m_tag_delete_chain(m: *mut u8, from: usize) {
    let m = M::must(m, "m_tag_delete_chain");
    if from != 0 {
        complain!("m_tag_delete_chain from the middle is not emulated");
    }
    delete_chain(m);
}

extern "C" fn m_tag_delete_nonpersistent(m: *mut u8) {
    // MTAG_PERSISTENT is bit 0x800 of the identity.
    let m = M::must(m, "m_tag_delete_nonpersistent");
    let doomed: Vec<usize> = list(m).filter(|tag| tag.id() & 0x800 == 0).map(Tag::address).collect();
    for tag in doomed {
        m_tag_delete(m.as_ptr(), tag);
    }
}

extern "C" fn m_tag_locate(m: *mut u8, cookie: u32, id: i32, after: usize) -> *mut u8 {
    let m = M::must(m, "m_tag_locate");
    if !m.has(flag::PKTHDR) {
        complain!("m_tag_locate: no packet header");
    }
    let mut skipping = after != 0;
    for tag in list(m) {
        if skipping {
            skipping = tag.address() != after;
            continue;
        }
        if tag.cookie() == cookie && i32::from(tag.id()) == id {
            return tag.as_ptr();
        }
    }
    std::ptr::null_mut()
}

extern "C" fn m_tag_copy(tag: usize, how: i32) -> *mut u8 {
    at(tag).and_then(|tag| copy(tag, how)).map_or(std::ptr::null_mut(), Tag::as_ptr)
}

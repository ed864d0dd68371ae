//! The mbuf functions as module code calls them.

use super::{M, ops};
use crate::complaint::complain;
use crate::foreign;
use crate::layout::{MCLBYTES, MHLEN, MLEN};
use std::ptr::null_mut;

/// Functions that modules call.
pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    m_adj,
    m_cat,
    m_copyback,
    m_copydata,
    m_copym,
    m_copypacket,
    m_copyup,
    m_defrag,
    m_dup,
    m_dup_pkthdr,
    m_freem,
    m_get2,
    m_length,
    m_move_pkthdr,
    m_prepend,
    m_pullup,
    m_unshare,
    mb_free_ext,
];

fn raw(m: Option<M>) -> *mut u8 {
    m.map_or(null_mut(), |m| m.as_ptr())
}

fn size(value: i32, who: &str) -> usize {
    usize::try_from(value).unwrap_or_else(|_| complain!("{who}: negative length or offset {value}"))
}

extern "C" fn m_pullup(m: *mut u8, len: i32) -> *mut u8 {
    raw(ops::pullup(M::must(m, "m_pullup"), size(len, "m_pullup")))
}

extern "C" fn m_copyup(m: *mut u8, len: i32, offset: i32) -> *mut u8 {
    raw(ops::copyup(M::must(m, "m_copyup"), size(len, "m_copyup"), size(offset, "m_copyup")))
}

extern "C" fn m_copydata(m: *mut u8, offset: i32, len: i32, to: *mut u8) {
    let who = "m_copydata";
    let bytes = ops::copydata(M::must(m, who), size(offset, who), size(len, who));
    // SAFETY: the caller gives a buffer of `len` bytes.
    unsafe { foreign::store(to, &bytes) };
}

extern "C" fn m_copyback(m: *mut u8, offset: i32, len: i32, from: *const u8) {
    let who = "m_copyback";
    let len = size(len, who);
    // SAFETY: the caller gives `len` bytes.
    let bytes = unsafe { foreign::bytes(from, len) };
    ops::copyback(M::must(m, who), size(offset, who), &bytes);
}

extern "C" fn m_get2(length: i32, how: i32, mtype: i16, flags: i32) -> *mut u8 {
    let who = "m_get2";
    let (length, flags) = (size(length, who), flags as u32);
    let room = if flags & super::flag::PKTHDR == 0 { MLEN } else { MHLEN };
    match length {
        0..=MCLBYTES if length <= room => raw(super::get(how, mtype as u32, flags)),
        0..=MCLBYTES => raw(super::getcl(how, mtype as u32, flags)),
        _ => complain!("{who}: {length} bytes need more than a cluster, which is not emulated"),
    }
}

extern "C" fn m_freem(m: usize) {
    super::freem(M::at(m, "m_freem"), "m_freem");
}

extern "C" fn m_adj(m: *mut u8, by: i32) {
    if let Some(m) = M::at(m as usize, "m_adj") {
        ops::adj(m, by);
    }
}

extern "C" fn m_cat(m: *mut u8, n: *mut u8) {
    ops::cat(M::must(m, "m_cat"), M::must(n, "m_cat"));
}

extern "C" fn m_prepend(m: *mut u8, len: i32, how: i32) -> *mut u8 {
    raw(ops::prepend(M::must(m, "m_prepend"), size(len, "m_prepend"), how))
}

extern "C" fn m_unshare(m: *mut u8, how: i32) -> *mut u8 {
    raw(ops::unshare(M::must(m, "m_unshare"), how))
}

extern "C" fn m_dup(m: *mut u8, how: i32) -> *mut u8 {
    raw(M::at(m as usize, "m_dup").and_then(|m| ops::dup(m, how)))
}

extern "C" fn m_copym(m: *mut u8, offset: i32, len: i32, how: i32) -> *mut u8 {
    /// `M_COPYALL`.
    const ALL: i32 = 1_000_000_000;
    let who = "m_copym";
    let length = (len != ALL).then(|| size(len, who));
    raw(ops::copym(M::must(m, who), size(offset, who), length, how))
}

extern "C" fn m_copypacket(m: *mut u8, how: i32) -> *mut u8 {
    raw(ops::copym(M::must(m, "m_copypacket"), 0, None, how))
}

extern "C" fn m_defrag(m: *mut u8, how: i32) -> *mut u8 {
    raw(ops::defrag(M::must(m, "m_defrag"), how))
}

extern "C" fn m_dup_pkthdr(to: *mut u8, from: *mut u8, how: i32) -> i32 {
    let who = "m_dup_pkthdr";
    i32::from(ops::dup_header(M::must(to, who), M::must(from, who), how))
}

extern "C" fn m_move_pkthdr(to: *mut u8, from: *mut u8) {
    let who = "m_move_pkthdr";
    ops::move_header(M::must(to, who), M::must(from, who));
}

extern "C" fn m_length(m: *mut u8, last: *mut usize) -> u32 {
    let m = M::must(m, "m_length");
    if !last.is_null() {
        // SAFETY: the caller gives null or a place for a pointer.
        unsafe { last.write(m.last().address()) };
    }
    m.chain().map(M::length).sum::<usize>() as u32
}

extern "C" fn mb_free_ext(m: *mut u8) {
    super::free_ext(M::must(m, "mb_free_ext"), "mb_free_ext");
}

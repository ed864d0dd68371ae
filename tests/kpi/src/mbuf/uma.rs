//! The zones behind the inline functions of sys/mbuf.h (m_get, m_gethdr, m_free), which call uma(9) themselves.

use super::{M, flag};
use crate::complaint::complain;
use crate::foreign::shared;
use std::ptr::null_mut;

shared! {
    /// `struct mb_args`, the argument of the constructors.
    MbArgs(8) {
        flags, set_flags: i32 = 0;
        mtype, set_mtype: i16 = 4;
    }
}

/// What `zone_mbuf`, `zone_clust` and `zone_pack` hold: any three different values.
const MBUF: usize = 0x6d01;
const CLUST: usize = 0x6d02;
const PACK: usize = 0x6d03;

/// The variables, by name.
pub(crate) fn data() -> [(&'static str, u64); 3] {
    [("zone_mbuf", MBUF as u64), ("zone_clust", CLUST as u64), ("zone_pack", PACK as u64)]
}

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![uma_zalloc_arg, uma_zfree_arg];

extern "C" fn uma_zalloc_arg(zone: usize, args: *mut u8, how: i32) -> *mut u8 {
    // SAFETY: the inline functions pass their `struct mb_args`.
    let args = unsafe { MbArgs::new(args) }.unwrap_or_else(|| complain!("uma_zalloc_arg without arguments"));
    let (mtype, flags) = (args.mtype() as u32, args.flags() as u32);
    let m = match zone {
        MBUF => super::get(how, mtype, flags),
        PACK => super::getcl(how, mtype, flags),
        _ => complain!("uma_zalloc_arg: zone {zone:#x} is not emulated"),
    };
    m.map_or(null_mut(), |m: M| m.as_ptr())
}

extern "C" fn uma_zfree_arg(zone: usize, item: *mut u8, _argument: usize) {
    if zone != MBUF {
        complain!("uma_zfree_arg: zone {zone:#x} is not emulated");
    }
    let m = M::must(item, "uma_zfree");
    if m.has(flag::EXT) {
        complain!("uma_zfree: the mbuf still has external storage");
    }
    if m.has(flag::PKTHDR) {
        crate::tags::delete_chain(m);
    }
    crate::kernel::kernel().mbufs.free(m.address(), "m_free");
}

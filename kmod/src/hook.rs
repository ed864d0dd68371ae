//! The pfil(9) hook: every packet of a network stack, both directions.
//!
//! Context: inside the network epoch, on any thread; it never sleeps, takes no
//! lock and allocates nothing but what mbuf(9) needs to reshape a packet of a
//! bound flow (`M_NOWAIT`). On output the caller may hold the lock of the
//! connection: connections must not be looked up here.
//!
//! Who frees: a packet that passes stays the caller's; a dropped one is freed
//! here and the caller's slot set to null.

use crate::packet::{Direction, View};
use crate::stats;
use crate::vnet::Instance;
use core::ffi::{c_int, c_void};
use mobconn_abi::Counter;
use mobconn_engine::{Verdict, Version};
use mobconn_sys::{Mbuf, ffi, time_uptime};

/// Marks a packet to be sent that was translated: FreeBSD runs the output
/// hooks again on a packet whose destination they changed, and clears the mark
/// when the packet leaves the IP layer.
const TRANSLATED: u32 = ffi::M_PROTO11;

/// `M_FASTFWD_OURS`: the packet is for this host, whatever its destination.
/// The stack side's address may be on no interface any more.
const OURS: u32 = ffi::M_PROTO1;

/// The hook of the `inet` head.
///
/// # Safety
/// Called by pfil(9), with an [`Instance`] that is alive as `ruleset`.
pub(crate) unsafe extern "C" fn inet(
    slot: *mut *mut ffi::mbuf,
    _interface: *mut ffi::ifnet,
    flags: c_int,
    ruleset: *mut c_void,
    _connection: *mut ffi::inpcb,
) -> ffi::pfil_return_t {
    // SAFETY: as called.
    unsafe { check(slot, flags, ruleset, Version::V4) }
}

/// The hook of the `inet6` head.
///
/// # Safety
/// As for [`inet`].
pub(crate) unsafe extern "C" fn inet6(
    slot: *mut *mut ffi::mbuf,
    _interface: *mut ffi::ifnet,
    flags: c_int,
    ruleset: *mut c_void,
    _connection: *mut ffi::inpcb,
) -> ffi::pfil_return_t {
    // SAFETY: as called.
    unsafe { check(slot, flags, ruleset, Version::V6) }
}

/// # Safety
/// As for [`inet`].
#[inline(always)]
unsafe fn check(slot: *mut *mut ffi::mbuf, flags: c_int, ruleset: *mut c_void, version: Version) -> ffi::pfil_return_t {
    // SAFETY: alive until the epoch after the hook is unlinked, see `vnet`.
    let instance = unsafe { &*ruleset.cast::<Instance>() };
    if instance.engine.is_empty() {
        return ffi::PFIL_PASS;
    }
    let direction = if flags & ffi::PFIL_OUT as c_int == 0 { Direction::In } else { Direction::Out };
    // SAFETY: the slot is the hook's argument.
    let mbuf = unsafe { Mbuf::new(slot) };
    translate(instance, View { mbuf, direction }, version)
}

fn translate(instance: &Instance, mut packet: View<'_>, version: Version) -> ffi::pfil_return_t {
    let stats = &instance.stats;
    let now = time_uptime();
    let verdict = match packet.direction {
        Direction::In => instance.engine.input(&mut packet, version, now),
        Direction::Out => {
            if packet.mbuf.flags() & TRANSLATED != 0 {
                stats.count(Counter::Again);
                return ffi::PFIL_PASS;
            }
            // Somebody else's packet, on its way through this host.
            if packet.mbuf.has_rcvif() {
                return ffi::PFIL_PASS;
            }
            instance.engine.output(&mut packet, version, now)
        }
    };
    match verdict {
        Verdict::Pass => ffi::PFIL_PASS,
        Verdict::PassCounted(reason) => {
            stats.count(stats::of_pass(reason));
            ffi::PFIL_PASS
        }
        Verdict::Translated => {
            let (mark, counter) = match packet.direction {
                Direction::In => (OURS, Counter::TranslatedIn),
                Direction::Out => (TRANSLATED, Counter::TranslatedOut),
            };
            packet.mbuf.set_flags(mark);
            stats.count(counter);
            ffi::PFIL_PASS
        }
        Verdict::Drop(reason) => {
            stats.count(stats::of_drop(reason));
            packet.mbuf.m_freem();
            dropped(packet.direction)
        }
        Verdict::Gone => {
            stats.count(Counter::DroppedMemory);
            // Freed already; if not, this does it.
            packet.mbuf.m_freem();
            dropped(packet.direction)
        }
    }
}

/// On output a dropped packet must look sent: an error would reach the
/// connection, which may give up on it.
const fn dropped(direction: Direction) -> ffi::pfil_return_t {
    match direction {
        Direction::In => ffi::PFIL_DROPPED,
        Direction::Out => ffi::PFIL_CONSUMED,
    }
}

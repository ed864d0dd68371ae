//! The pfil(9) hook: every packet of a network stack, both directions.
//!
//! Context: inside the network epoch, on any thread; it never sleeps, takes no
//! lock and allocates nothing but what mbuf(9) needs to reshape a packet of a
//! bound flow (`M_NOWAIT`). On output the caller may hold the lock of the
//! connection: connections must not be looked up here.
//!
//! Who frees: a packet that passes stays the caller's; a dropped one is freed
//! here and the caller's slot set to null.

use crate::fit::{self, Fit, fit};
use crate::packet::{Direction, View};
use crate::park::Parked;
use crate::probe;
use crate::stats;
use crate::vnet::Instance;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use mobconn_abi::Counter;
use mobconn_engine::{Engine, Gone, Packet, Side, Verdict, Version};
use mobconn_sys::{Mbuf, OwnedMbuf, ffi, if_getindex, if_getmtu, in_localip, in6_localip, time_uptime};

/// Marks a packet to be sent that was translated: the output hooks run again
/// on it, and the kernel clears the mark when it leaves the IP layer.
const TRANSLATED: u32 = ffi::M_PROTO11;

/// Marks a packet whose way by [`crate::egress`] is settled: it is not looked
/// at again.
const STEERED: u32 = ffi::M_PROTO10;

/// `M_FASTFWD_OURS`: the packet is for this host, whatever its destination.
/// The stack side's address may be on no interface any more.
const OURS: u32 = ffi::M_PROTO1;

/// Where a packet that is sent had been routed to.
#[derive(Clone, Copy)]
struct Route {
    /// Null for a packet that is received, or comes from nowhere.
    interface: *mut ffi::ifnet,
    /// It might have to leave by another one.
    steering: bool,
}

impl Route {
    const NONE: Self = Self { interface: null_mut(), steering: false };
}

/// The hook of the `inet` head.
///
/// # Safety
/// Called by pfil(9), with an [`Instance`] that is alive as `ruleset`.
pub(crate) unsafe extern "C" fn inet(
    slot: *mut *mut ffi::mbuf,
    interface: *mut ffi::ifnet,
    flags: c_int,
    ruleset: *mut c_void,
    _connection: *mut ffi::inpcb,
) -> ffi::pfil_return_t {
    // SAFETY: as called.
    unsafe { check(slot, interface, flags, ruleset, Version::V4) }
}

/// The hook of the `inet6` head.
///
/// # Safety
/// As for [`inet`].
pub(crate) unsafe extern "C" fn inet6(
    slot: *mut *mut ffi::mbuf,
    interface: *mut ffi::ifnet,
    flags: c_int,
    ruleset: *mut c_void,
    _connection: *mut ffi::inpcb,
) -> ffi::pfil_return_t {
    // SAFETY: as called.
    unsafe { check(slot, interface, flags, ruleset, Version::V6) }
}

/// # Safety
/// As for [`inet`].
#[inline(always)]
unsafe fn check(
    slot: *mut *mut ffi::mbuf,
    interface: *mut ffi::ifnet,
    flags: c_int,
    ruleset: *mut c_void,
    version: Version,
) -> ffi::pfil_return_t {
    // SAFETY: alive until the epoch after the hook is unlinked, see `vnet`.
    let instance = unsafe { &*ruleset.cast::<Instance>() };
    let steering = instance.egress.is_set();
    if instance.engine.is_empty() && !steering {
        return ffi::PFIL_PASS;
    }
    if instance.hooks.others_came(version) {
        instance.hooks_displaced();
    }
    let direction = if flags & ffi::PFIL_OUT as c_int == 0 { Direction::In } else { Direction::Out };
    // SAFETY: the slot is the hook's argument.
    let mbuf = unsafe { Mbuf::new(slot) };
    let route = if direction == Direction::Out { Route { interface, steering } } else { Route::NONE };
    translate(instance, View { mbuf, direction }, version, route)
}

fn translate(instance: &Instance, mut packet: View<'_>, version: Version, route: Route) -> ffi::pfil_return_t {
    match packet.direction {
        Direction::In => {
            let mark = mark(instance, &packet, version);
            if packet.mbuf.mark() == mark {
                // A bridge runs the hooks on what then comes in, and takes flags away.
                packet.mbuf.set_flags(OURS);
                return ffi::PFIL_PASS;
            }
            let verdict = instance.engine.input(&mut packet, version, time_uptime());
            finish(instance, packet, verdict, false, version, route)
        }
        Direction::Out => {
            let flags = packet.mbuf.flags();
            if flags & STEERED != 0 {
                return ffi::PFIL_PASS;
            }
            if flags & TRANSLATED != 0 {
                instance.stats.count(Counter::Again);
                return steer(instance, packet, version, route, true);
            }
            // Somebody else's packet, on its way through this host.
            if packet.mbuf.has_rcvif() {
                return ffi::PFIL_PASS;
            }
            let before = destination(&packet, version);
            let verdict = instance.engine.output(&mut packet, version, time_uptime());
            let elsewhere = verdict == Verdict::Translated && destination(&packet, version) != before;
            finish(instance, packet, verdict, elsewhere, version, route)
        }
    }
}

/// Marks a received packet that was translated: input hooks may run again on
/// it, and it would seem to be a stranger's. It names the packet by its length,
/// because what it carries may come in by the same mbuf.
#[inline]
fn mark(instance: &Instance, packet: &View<'_>, version: Version) -> usize {
    let at = match version {
        Version::V4 => 2..4,
        Version::V6 => 4..6,
    };
    let length = packet.mbuf.data().get(at).and_then(|at| at.first_chunk()).map_or(0, |at| u16::from_be_bytes(*at));
    (&raw const *instance).addr() ^ usize::from(length) << 48
}

/// The destination of a packet that was looked at; IPv4 in the low four bytes.
#[inline]
fn destination(packet: &View<'_>, version: Version) -> u128 {
    let head = packet.mbuf.data();
    match version {
        Version::V4 => head.get(16..20).and_then(|at| at.first_chunk()).map_or(0, |at| u32::from_be_bytes(*at).into()),
        Version::V6 => head.get(24..40).and_then(|at| at.first_chunk()).map_or(0, |at| u128::from_be_bytes(*at)),
    }
}

/// Does with the packet what the engine said. `elsewhere`: it goes to another
/// destination now, not where it had been routed to.
#[inline]
fn finish(
    instance: &Instance,
    mut packet: View<'_>,
    verdict: Verdict,
    elsewhere: bool,
    version: Version,
    route: Route,
) -> ffi::pfil_return_t {
    let stats = &instance.stats;
    match verdict {
        Verdict::Pass => steer(instance, packet, version, route, false),
        Verdict::PassCounted(reason) => {
            stats.count(stats::of_pass(reason));
            ffi::PFIL_PASS
        }
        Verdict::Translated => {
            let (flag, counter) = match packet.direction {
                Direction::In => (OURS, Counter::TranslatedIn),
                // Firewalls have seen it. One that was switched on a moment ago, and is behind this hook until that is
                // noticed, must not look at the wire side: what it drops is an error for the application.
                Direction::Out => (TRANSLATED | ffi::M_SKIP_FIREWALL, Counter::TranslatedOut),
            };
            packet.mbuf.set_flags(flag);
            stats.count(counter);
            probe::translated(packet.mbuf.as_ptr(), version, packet.direction);
            if packet.direction == Direction::In {
                let mark = mark(instance, &packet, version);
                packet.mbuf.set_mark(mark);
            }
            if elsewhere {
                send(instance, packet, version, route);
                return ffi::PFIL_CONSUMED;
            }
            steer(instance, packet, version, route, true)
        }
        Verdict::Drop(reason) => {
            count_dropped(instance, &packet, version, stats::of_drop(reason));
            packet.mbuf.m_freem();
            dropped(packet.direction)
        }
        Verdict::Gone => {
            count_dropped(instance, &packet, version, Counter::DroppedMemory);
            // Freed already; if not, this does it.
            packet.mbuf.m_freem();
            dropped(packet.direction)
        }
        Verdict::Hold { flow } => {
            hold(instance, packet, version, flow);
            ffi::PFIL_CONSUMED
        }
        Verdict::Displace => {
            wait_for_port(instance, packet, version);
            ffi::PFIL_CONSUMED
        }
        Verdict::Reassemble { offset } => reassemble(instance, packet, version, offset),
    }
}

/// Lets a packet go, by the network of its source if a rule wants that.
#[inline]
fn steer(instance: &Instance, mut packet: View<'_>, version: Version, route: Route, bound: bool) -> ffi::pfil_return_t {
    if route.interface.is_null() {
        return ffi::PFIL_PASS;
    }
    if route.steering {
        // SAFETY: the hook's argument.
        let interface = unsafe { if_getindex(route.interface) };
        match instance.egress.tag(&mut packet, version, interface, bound) {
            Ok(false) => {}
            Ok(true) => {
                instance.stats.count(Counter::Steered);
                packet.mbuf.set_flags(STEERED);
                send(instance, packet, version, route);
                return ffi::PFIL_CONSUMED;
            }
            Err(Gone) => {
                count_dropped(instance, &packet, version, Counter::DroppedMemory);
                // Freed already; if not, this does it.
                packet.mbuf.m_freem();
                return ffi::PFIL_CONSUMED;
            }
        }
    }
    // The caller itself tells IPv4's TCP what is too big; IPv6's it spares the news.
    // SAFETY: the hook's argument.
    let is_long = bound && version == Version::V6 && packet.mbuf.len() > unsafe { if_getmtu(route.interface) };
    if is_long && !fitting(instance, &mut packet, version, Route::NONE) {
        return ffi::PFIL_CONSUMED;
    }
    ffi::PFIL_PASS
}

/// Counts a packet that is about to be dropped, and tells who wants to know.
#[cold]
pub(crate) fn count_dropped(instance: &Instance, packet: &View<'_>, version: Version, counter: Counter) {
    instance.stats.count(counter);
    probe::dropped(packet.mbuf.as_ptr(), version, packet.direction, counter);
}

/// Frees a packet for which there was no room.
#[cold]
pub(crate) fn drop_parked(instance: &Instance, parked: Parked, counter: Counter) {
    let direction = if parked.received { Direction::In } else { Direction::Out };
    match parked.packet {
        Some(packet) => packet.give(|mbuf| {
            count_dropped(instance, &View::new(mbuf, direction), parked.version, counter);
        }),
        None => instance.stats.count(counter),
    }
}

/// Keeps a packet until its flow's move is committed.
#[cold]
fn hold(instance: &Instance, mut packet: View<'_>, version: Version, flow: u32) {
    let bytes = packet.mbuf.len();
    let parked = Parked { packet: packet.mbuf.take(), version, received: false, flow, bytes };
    if let Err(parked) = instance.held.keep(parked) {
        drop_parked(instance, parked, Counter::DroppedHeld);
        return;
    }
    instance.stats.count(Counter::Held);
    // If the commit came since the packet was looked up, nobody else will
    // release it.
    if !instance.engine.holds(flow) {
        instance.attend();
    }
}

/// Keeps the first packet of a connection until it has a port.
#[cold]
fn wait_for_port(instance: &Instance, mut packet: View<'_>, version: Version) {
    let received = packet.direction == Direction::In;
    let ports = Engine::newcomer(&mut packet, version, received).map_or(0, |side| ports(&side));
    let bytes = packet.mbuf.len();
    let mut owned = packet.mbuf.take();
    if let (true, Some(owned)) = (received, &mut owned) {
        owned.m_rcvif_serialize();
    }
    if let Err(parked) = instance.newcomers.keep(Parked { packet: owned, version, received, flow: ports, bytes }) {
        drop_parked(instance, parked, Counter::DroppedNewcomer);
        return;
    }
    instance.attend();
}

/// Gives a fragment for this host to reassembly, which the kernel would do
/// later, behind the firewalls. The whole datagram comes in again.
#[cold]
fn reassemble(instance: &Instance, mut packet: View<'_>, version: Version, offset: usize) -> ffi::pfil_return_t {
    let to = destination(&packet, version);
    let ours = match version {
        Version::V4 => in_localip((to as u32).to_be_bytes()),
        Version::V6 => in6_localip(to.to_be_bytes()),
    };
    if !ours {
        return ffi::PFIL_PASS;
    }
    instance.stats.count(Counter::Fragments);
    let whole = match version {
        Version::V4 => packet.mbuf.ip_reass(),
        Version::V6 => packet.mbuf.frag6_input(offset),
    };
    if whole.is_none() || (version == Version::V4 && sum_header(&mut packet).is_err()) {
        return ffi::PFIL_CONSUMED;
    }
    if let Some(datagram) = packet.mbuf.take() {
        datagram.netisr_queue(version == Version::V6, false);
    }
    ffi::PFIL_CONSUMED
}

/// Gives a reassembled datagram, whose length is another than that of its
/// first fragment, the checksum of its IPv4 header.
fn sum_header(packet: &mut View<'_>) -> Result<(), Gone> {
    let length = packet.mbuf.data().first().map_or(0, |first| usize::from(first & 0xf).saturating_mul(4));
    packet.pull(length)?;
    let header = packet.writable(length)?.get_mut(..length).ok_or(Gone)?;
    header.get_mut(10..12).ok_or(Gone)?.fill(0);
    let sum = fit::sum(header, 0);
    header.get_mut(10..12).ok_or(Gone)?.copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Sends a packet that was kept. Some: it is still to be kept. Inside the
/// network epoch, with curvnet set.
pub(crate) fn resend(instance: &Instance, packet: OwnedMbuf, version: Version) -> Option<OwnedMbuf> {
    packet.give(|mbuf| {
        let mut packet = View::new(mbuf, Direction::Out);
        let stats = &instance.stats;
        match instance.engine.output(&mut packet, version, time_uptime()) {
            Verdict::Hold { .. } => return packet.mbuf.take(),
            Verdict::Translated => {
                stats.count(Counter::TranslatedOut);
                stats.count(Counter::Released);
                probe::translated(packet.mbuf.as_ptr(), version, Direction::Out);
                packet.mbuf.set_flags(TRANSLATED);
                send(instance, packet, version, Route::NONE);
            }
            Verdict::Pass | Verdict::PassCounted(_) => {
                stats.count(Counter::Released);
                packet.mbuf.set_flags(TRANSLATED);
                send(instance, packet, version, Route::NONE);
            }
            Verdict::Drop(reason) => count_dropped(instance, &packet, version, stats::of_drop(reason)),
            Verdict::Displace | Verdict::Reassemble { .. } => {
                count_dropped(instance, &packet, version, Counter::DroppedNewcomer);
            }
            Verdict::Gone => count_dropped(instance, &packet, version, Counter::DroppedMemory),
        }
        None
    })
}

/// Has a received packet that was kept come in again. Context as for
/// [`resend`].
pub(crate) fn receive_again(packet: OwnedMbuf, version: Version) {
    packet.netisr_queue(version == Version::V6, true);
}

/// Sends a packet that goes to another destination now, as the kernel does it
/// with what firewalls redirect: routed anew, past the firewalls.
///
/// The kernel would do so by itself if the hook let the packet pass, but not
/// well. `ip6_output` writes the new destination over the gateway in its own
/// routing table. `ip_output` remembers the new destination's route for the
/// connection, and later sends packets that are not translated any more
/// there.
fn send(instance: &Instance, mut packet: View<'_>, version: Version, before: Route) {
    if !fitting(instance, &mut packet, version, before) {
        return;
    }
    packet.mbuf.set_flags(ffi::M_SKIP_FIREWALL);
    match version {
        Version::V4 => packet.mbuf.ip_output(),
        Version::V6 => packet.mbuf.ip6_output(),
    }
}

/// Whether a packet fits where it goes. If not it is gone, and its sender is
/// told. `before`: where it had been routed to.
fn fitting(instance: &Instance, packet: &mut View<'_>, version: Version, before: Route) -> bool {
    // SAFETY: null or the hook's argument, and inside the network epoch as the hook.
    match unsafe { fit(packet, version, before.interface) } {
        Fit::Yes => return true,
        Fit::TooBig(error) => {
            count_dropped(instance, packet, version, Counter::DroppedTooBig);
            packet.mbuf.m_freem();
            if let Some(error) = error {
                error.netisr_queue(version == Version::V6, false);
            }
        }
        Fit::NoTso => {
            count_dropped(instance, packet, version, Counter::DroppedTooBig);
            keep_uncut(instance, packet, version);
        }
    }
    false
}

/// Keeps a packet until its connection was told that nobody cuts it into
/// segments any more.
#[cold]
fn keep_uncut(instance: &Instance, packet: &mut View<'_>, version: Version) {
    let flow = Engine::newcomer(packet, version, false).map_or(0, |side| ports(&side));
    let bytes = packet.mbuf.len();
    let parked = Parked { packet: packet.mbuf.take(), version, received: false, flow, bytes };
    // One of the connection is enough.
    drop(instance.uncut.keep(parked));
    instance.attend();
}

/// What packets of one flow have in common.
fn ports(side: &Side) -> u32 {
    u32::from(side.local_port) << 16 | u32::from(side.remote_port)
}

/// On output a dropped packet must look sent: an error would reach the
/// connection, which may give up on it.
const fn dropped(direction: Direction) -> ffi::pfil_return_t {
    match direction {
        Direction::In => ffi::PFIL_DROPPED,
        Direction::Out => ffi::PFIL_CONSUMED,
    }
}

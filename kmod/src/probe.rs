//! Probes for dtrace(1), see `probes.c` and mobconn(4).
//!
//! Context: anywhere. A probe that nobody enabled costs one load; what it tells
//! is looked up and written down only when somebody did.

use crate::packet::Direction;
use crate::text::Line;
use mobconn_abi::Counter;
use mobconn_engine::{Binding, Half, Protocol, Side, Version};
use mobconn_sys::ffi;

unsafe extern "C" {
    // Of `probes.c`: what SDT_PROBE_DEFINE(9) makes.
    static sdt_mobconn___translate__in: ffi::sdt_probe;
    static sdt_mobconn___translate__out: ffi::sdt_probe;
    static sdt_mobconn___drop: ffi::sdt_probe;
    static sdt_mobconn___displace: ffi::sdt_probe;
    static sdt_mobconn___rebind: ffi::sdt_probe;

    fn mobconn_probe(id: u32, first: usize, second: usize, third: usize, fourth: usize);
}

/// The id that dtrace(1) gave the probe; 0: not enabled.
#[inline]
fn id(probe: *const ffi::sdt_probe) -> u32 {
    // SAFETY: a static of this module.
    let id = unsafe { &raw const (*probe).id };
    // SAFETY: an aligned word, which the kernel writes whole.
    unsafe { id.read_volatile() as u32 }
}

#[cold]
fn fire(id: u32, arguments: [usize; 4]) {
    let [first, second, third, fourth] = arguments;
    // SAFETY: an id is set only where there is a function that takes it.
    unsafe { mobconn_probe(id, first, second, third, fourth) };
}

const fn number(version: Version) -> usize {
    match version {
        Version::V4 => 4,
        Version::V6 => 6,
    }
}

/// A packet was translated.
#[inline]
pub(crate) fn translated(packet: *const ffi::mbuf, version: Version, direction: Direction) {
    let probe = match direction {
        Direction::In => &raw const sdt_mobconn___translate__in,
        Direction::Out => &raw const sdt_mobconn___translate__out,
    };
    let id = id(probe);
    if id != 0 {
        fire(id, [packet.addr(), number(version), 0, 0]);
    }
}

/// A packet is dropped, for the reason that `counter` counts. It may be freed
/// already: then it is null.
pub(crate) fn dropped(packet: *const ffi::mbuf, version: Version, direction: Direction, counter: Counter) {
    let id = id(&raw const sdt_mobconn___drop);
    if id != 0 {
        let name = Line::new(format_args!("{}", counter.name()));
        let sent = usize::from(direction == Direction::Out);
        fire(id, [packet.addr(), number(version), sent, name.as_c_str().as_ptr().addr()]);
    }
}

/// A binding was made for a newcomer.
pub(crate) fn displaced(binding: impl FnOnce() -> Option<Binding>) {
    let id = id(&raw const sdt_mobconn___displace);
    if id != 0
        && let Some(binding) = binding()
    {
        let (stack, wire) = (line(&binding.stack), line(&binding.wire));
        fire(id, [stack.as_c_str().as_ptr().addr(), wire.as_c_str().as_ptr().addr(), 0, 0]);
    }
}

/// A binding has another wire side.
pub(crate) fn rebound(half: Half, generation: u32, binding: impl FnOnce() -> Option<Binding>) {
    let id = id(&raw const sdt_mobconn___rebind);
    if id != 0
        && let Some(binding) = binding()
    {
        let (stack, wire) = (line(&binding.stack), line(&binding.wire));
        let half = match half {
            Half::Local => mobconn_abi::Half::Local,
            Half::Remote => mobconn_abi::Half::Remote,
        };
        let generation = generation as usize;
        fire(id, [stack.as_c_str().as_ptr().addr(), wire.as_c_str().as_ptr().addr(), half as usize, generation]);
    }
}

/// A side in words: protocol, local end, remote end.
fn line(side: &Side) -> Line {
    let protocol = match side.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let (local, remote) = (side.local.0, side.remote.0);
    match side.version {
        Version::V4 => {
            let four = |[a, b, c, d, ..]: [u8; 16]| core::net::Ipv4Addr::new(a, b, c, d);
            let (local, remote) = (four(local), four(remote));
            Line::new(format_args!("{protocol} {local}:{} {remote}:{}", side.local_port, side.remote_port))
        }
        Version::V6 => {
            let (local, remote) = (core::net::Ipv6Addr::from(local), core::net::Ipv6Addr::from(remote));
            Line::new(format_args!("{protocol} [{local}]:{} [{remote}]:{}", side.local_port, side.remote_port))
        }
    }
}

//! By which network packets leave; what it does is written at
//! [`mobconn_abi::Egress`].
//!
//! Context: the hook reads the table inside the network epoch; a command, which
//! may sleep, puts another in its place, waits for an epoch and frees the old
//! one. No lock.
//!
//! A packet that goes another way is never left to the caller's `ip_output`:
//! that would remember the gateway as the route of the connection, and use it
//! long after the rule is gone. It is tagged and sent by the hook itself.

use crate::convert::version;
use crate::packet::View;
use crate::refusal::Refusal;
use alloc::boxed::Box;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use mobconn_abi::{self as abi, EgressPrefix, EgressRule};
use mobconn_engine::{Address, Gone, Packet, Version};
use mobconn_sys::{in_net_epoch, net_epoch_wait, try_box};
use zerocopy::IntoBytes;

/// The rules of one network stack, if there are any.
pub(crate) struct Egress(AtomicPtr<abi::Egress>);

impl Egress {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Whether there are rules.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        !self.0.load(Ordering::Relaxed).is_null()
    }

    /// The rules.
    ///
    /// # Safety
    /// Inside the network epoch, and not used after it.
    unsafe fn get(&self) -> Option<&abi::Egress> {
        // SAFETY: null, or alive until an epoch after it was replaced (contract).
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Puts rules in the place of others. Process context.
    pub(crate) fn set(&self, egress: &abi::Egress) -> Result<(), Refusal> {
        check(egress)?;
        let new = if egress.rule_count == 0 { null_mut() } else { Box::into_raw(try_box(*egress)?) };
        self.replace(new);
        Ok(())
    }

    fn replace(&self, new: *mut abi::Egress) {
        let old = self.0.swap(new, Ordering::AcqRel);
        if !old.is_null() {
            net_epoch_wait();
            // SAFETY: made by `set`, swapped out by this thread alone, and no reader has it any more.
            drop(unsafe { Box::from_raw(old) });
        }
    }

    /// Writes the rules as they are. Process context.
    pub(crate) fn copy(&self, to: &mut abi::Egress) {
        in_net_epoch(|| {
            // SAFETY: inside the epoch, and copied there.
            match unsafe { self.get() } {
                Some(egress) => to.as_mut_bytes().copy_from_slice(egress.as_bytes()),
                None => to.as_mut_bytes().fill(0),
            }
        });
    }

    /// Tags the packet for the gateway of its source, if a rule wants that.
    /// `interface`: the index of the one that it is routed to. `bound`: it is
    /// of a bound flow. Whether it was tagged. Inside the network epoch.
    #[cold]
    pub(crate) fn tag(
        &self,
        packet: &mut View<'_>,
        version: Version,
        interface: u32,
        bound: bool,
    ) -> Result<bool, Gone> {
        // SAFETY: inside the epoch (as promised), and not used after this function.
        let Some(egress) = (unsafe { self.get() }) else { return Ok(false) };
        let Some(rule) = choose(egress, packet, version, interface, bound)? else { return Ok(false) };
        packet.mbuf.next_hop(&embedded(rule), version == Version::V6).map_err(|_| Gone)?;
        Ok(true)
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        self.replace(null_mut());
    }
}

/// The gateway as the kernel wants it: a link-local address with the
/// interface in its second pair of bytes.
fn embedded(rule: &EgressRule) -> [u8; 16] {
    let mut gateway = rule.gateway;
    if let (true, [_, _, high, low, ..]) = (is_link_local(rule), &mut gateway) {
        [*high, *low] = (rule.interface as u16).to_be_bytes();
    }
    gateway
}

fn is_link_local(rule: &EgressRule) -> bool {
    rule.version == abi::IPV6 && rule.gateway.starts_with(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0])
}

/// The rule that wants the packet to go another way than it was routed.
fn choose<'a>(
    egress: &'a abi::Egress,
    packet: &mut View<'_>,
    version: Version,
    interface: u32,
    bound: bool,
) -> Result<Option<&'a EgressRule>, Gone> {
    let rules = used(&egress.rules, egress.rule_count);
    let prefixes = used(&egress.prefixes, egress.prefix_count);
    let (raw, length) = match version {
        Version::V4 => (abi::IPV4, 20),
        Version::V6 => (abi::IPV6, 40),
    };
    let head = packet.head();
    if head.len() < length {
        return Ok(None);
    }
    let (source, destination) = (address(head, version, 0), address(head, version, 1));
    let Some(rule) = rules.iter().find(|rule| rule.version == raw && rule.source == source) else { return Ok(None) };
    // Where no rule has its network, a route was made on purpose: a tunnel, say.
    if rule.interface == interface || !rules.iter().any(|rule| rule.interface == interface) {
        return Ok(None);
    }
    let within = |on_link: bool| {
        prefixes.iter().any(|prefix| (prefix.on_link != 0) == on_link && contains(prefix, raw, &destination))
    };
    if within(true) {
        return Ok(None);
    }
    if bound {
        return Ok(Some(rule));
    }
    let (protocol, transport) = match version {
        Version::V4 => (head.get(9), head.first().map_or(length, |first| usize::from(first & 0xf).saturating_mul(4))),
        Version::V6 => (head.get(6), length),
    };
    let protocol = protocol.copied().unwrap_or_default();
    let steered = match protocol {
        abi::TCP => within(false),
        abi::UDP => within(false) || egress.port != 0 && source_port(packet, transport)? == Some(egress.port),
        _ => false,
    };
    Ok(steered.then_some(rule))
}

fn source_port(packet: &mut View<'_>, at: usize) -> Result<Option<u16>, Gone> {
    let end = at.saturating_add(2);
    if packet.total() < end {
        return Ok(None);
    }
    if packet.head().len() < end {
        packet.pull(end)?;
    }
    Ok(packet.head().get(at..end).and_then(|port| port.first_chunk()).map(|port| u16::from_be_bytes(*port)))
}

/// The source (0) or destination (1) of a packet.
fn address(head: &[u8], version: Version, which: usize) -> [u8; 16] {
    let (first, length): (usize, usize) = match version {
        Version::V4 => (12, 4),
        Version::V6 => (8, 16),
    };
    let mut address = [0; 16];
    let bytes = head.iter().skip(length.saturating_mul(which).saturating_add(first)).take(length);
    address.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    address
}

fn contains(prefix: &EgressPrefix, version: u8, address: &[u8; 16]) -> bool {
    let difference = u128::from_be_bytes(prefix.address) ^ u128::from_be_bytes(*address);
    prefix.version == version && difference.leading_zeros() >= u32::from(prefix.length)
}

fn used<T>(all: &[T], count: u32) -> &[T] {
    all.get(..count as usize).unwrap_or_default()
}

/// Whether all of it can be.
fn check(egress: &abi::Egress) -> Result<(), Refusal> {
    if egress.rule_count as usize > egress.rules.len() || egress.prefix_count as usize > egress.prefixes.len() {
        return Err(Refusal::TooMany);
    }
    let rules = used(&egress.rules, egress.rule_count);
    let prefixes = used(&egress.prefixes, egress.prefix_count);
    let empty = egress.rules.iter().skip(rules.len()).all(|rule| *rule == EgressRule::default())
        && egress.prefixes.iter().skip(prefixes.len()).all(|prefix| *prefix == EgressPrefix::default());
    if !empty || egress.reserved != [0; 6] {
        return Err(Refusal::Invalid);
    }
    for (index, rule) in rules.iter().enumerate() {
        let version = version(rule.version)?;
        let same = |other: &EgressRule| (other.version, other.source) == (rule.version, rule.source);
        let usable = |address| Address(address).is_usable(version);
        if !usable(rule.source)
            || !(usable(rule.gateway) || is_link_local(rule))
            || rule.gateway == rule.source
            || !(1..=0xffff).contains(&rule.interface)
            || rule.reserved != [0; 3]
            || rules.iter().take(index).any(same)
        {
            return Err(Refusal::Invalid);
        }
    }
    for prefix in prefixes {
        let bits = match version(prefix.version)? {
            Version::V4 => 32,
            Version::V6 => 128,
        };
        let network = u128::from_be_bytes(prefix.address);
        let host = u128::MAX.checked_shr(prefix.length.into()).unwrap_or_default();
        if prefix.length > bits || network & host != 0 || prefix.on_link > 1 || prefix.reserved != [0; 5] {
            return Err(Refusal::Invalid);
        }
    }
    Ok(())
}

//! Output: route, hooks, again if the destination changed, checksums, fragments, the interface.

use super::checksum;
use super::cut::{fragment, segment};
use super::header::Header;
use super::{Passage, header_of};
use crate::complaint::complain;
use crate::connections::INPCB;
use crate::errno::Errno;
use crate::foreign::eternal;
use crate::kernel::kernel;
use crate::lock;
use crate::mbuf::{self, M, csum, flag};
use crate::packet::{Event, Output, Sent, Tx};
use crate::pfil;
use crate::tags;
use crate::thread::{self, Entry};
use crate::vnet::VnetState;
use std::cell::RefCell;
use std::sync::OnceLock;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![ip_output, ip6_output];

/// `IP_FORWARDING` and `IP_RAWOUTPUT`: the header is complete.
const FORWARDING: i32 = 1;
const RAWOUTPUT: i32 = 2;
/// `IPV6_MMTU`: below it nothing is fragmented.
const IPV6_MMTU: usize = 1280;

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] =
    &[("IP_FORWARDING", FORWARDING as u32), ("IP_RAWOUTPUT", RAWOUTPUT as u32), ("IPV6_MMTU", IPV6_MMTU as u32)];

thread_local! {
    /// Interface names that packets on their way out were sent by, innermost last.
    static NAMED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// What became of packets that output hooks sent by themselves.
    static SENT_BY_HOOK: RefCell<Vec<Output>> = const { RefCell::new(Vec::new()) };
}

/// Rounds of hooks and route look-ups after which a packet is going round in circles.
const ROUNDS: u32 = 8;

/// What hooks are given as the socket's inpcb: nothing but zeros.
fn inpcb() -> usize {
    static INP: OnceLock<usize> = OnceLock::new();
    *INP.get_or_init(|| eternal(INPCB).as_ptr() as usize)
}

/// Puts the pseudo header sum into the checksum field, as tcp_output and udp_send do, and says so in the mbuf.
fn delay(bytes: &mut [u8], header: &Header, m_flags: &mut u32) -> Option<usize> {
    let at = checksum::field(header.protocol)?;
    let length = header.transport_length(bytes);
    if header.fragment || length < at + 2 {
        return None;
    }
    let sum = checksum::pseudo(header, bytes, length);
    let start = header.transport + at;
    bytes[start..start + 2].copy_from_slice(&sum.to_be_bytes());
    *m_flags |= match (header.protocol, header.v6) {
        (6, false) => csum::TCP,
        (6, true) => csum::TCP_IPV6,
        (_, false) => csum::UDP,
        (_, true) => csum::UDP_IPV6,
    };
    Some(at)
}

/// ip_output(9) or ip6_output.
pub(crate) fn send(vnet: &'static VnetState, packet: &[u8], tx: &Tx<'_>) -> Output {
    let Some(header) = Header::parse(packet).filter(|header| header.total == packet.len()) else {
        return Output::Dropped(Errno::EINVAL);
    };
    let entry = Entry::new(if header.v6 { "ip6_output" } else { "ip_output" }, vnet.address(), 0);
    let mut bytes = packet.to_vec();
    let mut flags = 0;
    let delayed = if tx.offload || tx.tso.is_some() { delay(&mut bytes, &header, &mut flags) } else { None };
    let passage = Passage::new();
    let built = mbuf::build(&bytes, header.length, *kernel().split.lock().unwrap());
    let m = built.m;
    m.set_csum_flags(flags);
    m.set_csum_data(delayed.unwrap_or(0) as u32);
    if let Some(size) = tx.tso
        && delayed.is_some()
        && header.protocol == 6
    {
        m.set_csum_flags(flags | if header.v6 { csum::IP6_TSO } else { csum::IP_TSO });
        m.set_tso_segsz(size);
    }
    let output = if tx.socket {
        lock::with_inpcb(header.protocol == 6, || route(vnet, m, tx.ifname, inpcb(), &header))
    } else {
        route(vnet, m, tx.ifname, 0, &header)
    };
    built.settle();
    drop(passage);
    drop(entry);
    for sent in SENT_BY_HOOK.take() {
        vnet.events.tell(Event::Sent(sent));
    }
    output
}

/// A hook sends a packet by itself. What becomes of it is what becomes of the packet that the hook was given.
fn nested(who: &'static str, v6: bool, m: usize, unsupported: bool) -> i32 {
    let Some(m) = M::at(m, who) else { complain!("{who} of a null mbuf") };
    if unsupported {
        complain!("{who} with options, a route, multicast state or a connection, which is not emulated");
    }
    let Some(vnet) = crate::vnet::current() else { complain!("{who}: curvnet is not set") };
    let Some(header) = header_of(m).filter(|header| header.v6 == v6) else { complain!("{who} of another packet") };
    if !thread::current(|thread| thread.in_epoch()) {
        complain!("{who} outside the network epoch");
    }
    mbuf::verify(m, header.length, who);
    let named = NAMED.with_borrow(|named| named.last().cloned());
    let output = route(vnet, m, named.as_deref().unwrap_or(""), 0, &header);
    let error = match &output {
        Output::Dropped(error) => error.0,
        _ => 0,
    };
    if named.is_some() {
        SENT_BY_HOOK.with_borrow_mut(|sent| sent.push(output));
    } else {
        vnet.events.tell(Event::Sent(output));
    }
    error
}

extern "C" fn ip_output(m: usize, opt: usize, ro: usize, flags: i32, imo: usize, inp: usize) -> i32 {
    if flags & (RAWOUTPUT | FORWARDING) == 0 || flags & !(RAWOUTPUT | FORWARDING) != 0 {
        complain!("ip_output with flags {flags:#x}: it would write the header anew");
    }
    nested("ip_output", false, m, opt | ro | imo | inp != 0)
}

extern "C" fn ip6_output(m: usize, opt: usize, ro: usize, flags: i32, imo: usize, ifpp: usize, inp: usize) -> i32 {
    nested("ip6_output", true, m, opt | ro | imo | ifpp | inp != 0 || flags != 0)
}

/// Routes the packet and runs the hooks.
fn route(vnet: &'static VnetState, m: M, named: &str, inp: usize, first: &Header) -> Output {
    NAMED.with_borrow_mut(|all| all.push(named.to_owned()));
    let output = hooks(vnet, m, named, inp, first);
    NAMED.with_borrow_mut(Vec::pop);
    output
}

/// The part that begins again when a hook changes the destination.
fn hooks(vnet: &'static VnetState, mut m: M, named: &str, inp: usize, first: &Header) -> Output {
    let head = &vnet.heads[usize::from(first.v6)];
    let mut destination = first.destination;
    let mut changed = false;
    let mut fib = m.fibnum();
    let mut ifname = named.to_owned();
    let mut passes = 0;
    let mut forced = false;
    loop {
        if !forced {
            let Some(found) = vnet.egress(destination, if ifname.is_empty() { named } else { &ifname }) else {
                mbuf::freem(Some(m), "ip_output");
                return Output::Dropped(Errno::EHOSTUNREACH);
            };
            ifname = found;
        }
        if head.is_empty(pfil::OUT) {
            break;
        }
        passes += 1;
        if passes > ROUNDS {
            complain!("the output hooks change the destination for ever");
        }
        let ifp = vnet.ifnet(&ifname).address();
        m = match head.run(m, pfil::OUT, false, ifp, inp, first.length) {
            Ok(m) => m,
            Err(pfil::DROPPED) => return Output::Dropped(Errno::EACCES),
            Err(_) => return consumed(passes),
        };
        let Some(now) = header_of(m) else { complain!("an output hook left a packet that is no IP packet") };
        if now.v6 != first.v6 || now.length != first.length {
            complain!("an output hook changed the IP version or header length");
        }
        if now.destination != destination {
            if now.v6 {
                complain!("ip6_output would write the new destination over its route's gateway");
            }
            m.add_flags(flag::SKIP_FIREWALL);
            changed = true;
            destination = now.destination;
            if vnet.is_local(destination) {
                return come_back(vnet, m, now.v6);
            }
            named.clone_into(&mut ifname);
            continue;
        }
        if m.fibnum() != fib {
            m.add_flags(flag::SKIP_FIREWALL);
            fib = m.fibnum();
            continue;
        }
        if m.has(flag::FASTFWD_OURS) {
            return come_back(vnet, m, now.v6);
        }
        if m.has(flag::NEXTHOP)
            && let Some(gateway) = tags::take_next_hop(m)
        {
            if inp != 0 {
                complain!("the connection would remember {gateway} as its route");
            }
            m.add_flags(flag::SKIP_FIREWALL);
            m.clear_flags(flag::NEXTHOP);
            let Some(found) = vnet.towards(gateway) else {
                mbuf::freem(Some(m), "ip_output");
                return Output::Dropped(Errno::EHOSTUNREACH);
            };
            ifname = found;
            forced = true;
            continue;
        }
        break;
    }
    let by_hook = NAMED.with_borrow(Vec::len) > 1;
    if by_hook && vnet.is_local(destination) {
        // Through lo0, where it is this host's without any look at its destination.
        return come_back(vnet, m, first.v6);
    }
    match leave(vnet, m, ifname, changed, passes) {
        Output::Send(sent) => Output::Send(Sent { forced, ..sent }),
        other => other,
    }
}

/// A hook took the packet, and may have sent it by itself.
fn consumed(passes: u32) -> Output {
    // What was given comes last, behind what had waited before it.
    match SENT_BY_HOOK.with_borrow_mut(Vec::pop) {
        Some(Output::Send(sent)) => {
            let destination_changed = sent.destination_changed || !sent.forced;
            Output::Send(Sent { destination_changed, passes: sent.passes + passes, ..sent })
        }
        // The caller is told that all is well: the error was the hook's to see.
        Some(dropped @ Output::Dropped(_)) => {
            SENT_BY_HOOK.with_borrow_mut(|sent| sent.push(dropped));
            Output::Consumed
        }
        Some(other) => other,
        None => Output::Consumed,
    }
}

/// The packet is for this host after all: netisr_queue.
fn come_back(vnet: &'static VnetState, m: M, v6: bool) -> Output {
    m.add_flags(flag::FASTFWD_OURS);
    if m.rcvif() == 0 {
        m.set_rcvif(vnet.ifnet("lo0").address());
    }
    let delayed = if v6 { csum::DELAY_DATA_IPV6 } else { csum::DELAY_DATA };
    if m.csum_flags() & delayed != 0 {
        m.set_csum_flags(m.csum_flags() | csum::DATA_VALID | csum::PSEUDO_HDR);
        m.set_csum_data(0xffff);
    }
    if !v6 {
        m.set_csum_flags(m.csum_flags() | csum::IP_CHECKED | csum::IP_VALID);
    }
    Output::Loop(Box::new(super::input::local(m)))
}

/// Finishes checksums and gives the packet to the interface.
pub(super) fn leave(vnet: &'static VnetState, m: M, ifname: String, destination_changed: bool, passes: u32) -> Output {
    let flags = m.csum_flags();
    let (at, size) = (m.csum_data() as usize, usize::from(m.tso_segsz()));
    let mut bytes = mbuf::gather(m);
    mbuf::freem(Some(m), "the interface");
    let Some(header) = Header::parse(&bytes) else { complain!("a packet that is no IP packet leaves") };
    let v4_loopback = |ip: std::net::IpAddr| !header.v6 && ip.is_loopback();
    if ifname != "lo0" && (v4_loopback(header.destination) || v4_loopback(header.source)) {
        return Output::Dropped(Errno::EADDRNOTAVAIL);
    }
    let ifnet = vnet.ifnet(&ifname);
    let mtu = usize::try_from(ifnet.mtu()).unwrap_or(0);
    let tso = flags & csum::TSO;
    let packets = if u64::from(tso) & ifnet.hwassist() != 0 {
        if ifnet.tsomax() != 0 && bytes.len() > ifnet.tsomax() as usize {
            complain!(
                "{ifname} cuts packets of at most {} bytes into segments, not of {}",
                ifnet.tsomax(),
                bytes.len()
            );
        }
        segment(&bytes, &header, size)
    } else {
        if flags & (csum::DELAY_DATA | csum::DELAY_DATA_IPV6) != 0 {
            checksum::finish_delayed(&mut bytes, &header, at);
        }
        if !header.v6 {
            checksum::finish_ipv4(&mut bytes, header.length);
        }
        if bytes.len() <= mtu {
            vec![bytes]
        } else if header.dont_fragment || tso != 0 && !header.v6 || header.v6 && mtu < IPV6_MMTU {
            return Output::Dropped(Errno::EMSGSIZE);
        } else {
            fragment(&bytes, &header, mtu)
        }
    };
    Output::Send(Sent { packets, ifname, destination_changed, forced: false, passes })
}

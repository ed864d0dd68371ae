//! Input: checks, hooks, whose packet it is, what the transport protocol would think of its checksum; forwarding.

use super::checksum;
use super::header::Header;
use super::output::leave;
use super::{Passage, header_of};
use crate::complaint::complain;
use crate::kernel::kernel;
use crate::layout::MCLBYTES;
use crate::mbuf::{self, M, csum, flag};
use crate::netisr;
use crate::options::Split;
use crate::packet::{Delivered, DropCause, Event, Input, Output, Rx, RxChecksum};
use crate::pfil;
use crate::thread::Entry;
use crate::vnet::VnetState;
use std::net::IpAddr;

/// Addresses that the IP layer refuses before the hooks.
fn is_bad(header: &Header, ifname: &str) -> bool {
    match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ifname != "lo0" && (source.is_loopback() || destination.is_loopback()) || destination.is_unspecified()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            source.is_multicast()
                || destination.is_unspecified()
                || source.to_ipv4_mapped().is_some()
                || destination.to_ipv4_mapped().is_some()
                || ifname != "lo0" && (source.is_loopback() || destination.is_loopback())
        }
        _ => true,
    }
}

/// ip_input or ip6_input.
pub(crate) fn receive(vnet: &'static VnetState, packet: &[u8], rx: &Rx<'_>) -> Input {
    let Some(header) = Header::parse(packet) else { return Input::Dropped(DropCause::Malformed) };
    let entry = Entry::new(if header.v6 { "ip6_input" } else { "ip_input" }, vnet.address(), 0);
    let packet = &packet[..header.total];
    if is_bad(&header, rx.ifname) {
        return Input::Dropped(DropCause::BadAddress);
    }
    if !header.v6 && checksum::sum(&packet[..header.length], 0) != 0xffff {
        return Input::Dropped(DropCause::Malformed);
    }
    let split = *kernel().split.lock().unwrap();
    // ip6_input copies a short chain into one mbuf. An arbitrary split stands for other ways to the hooks, too.
    let split = match split {
        Split::After(_) if header.v6 && packet.len() < MCLBYTES => Split::Whole,
        split => split,
    };
    let passage = Passage::new();
    let built = mbuf::build(packet, header.length, split);
    let m = built.m;
    m.set_rcvif(vnet.ifnet(rx.ifname).address());
    if !header.v6 {
        m.set_csum_flags(csum::IP_CHECKED | csum::IP_VALID);
    }
    match rx.checksum {
        RxChecksum::Unchecked => {}
        // No interface can verify what it has a part of.
        RxChecksum::Valid if header.fragment => {}
        RxChecksum::Valid => {
            m.set_csum_flags(m.csum_flags() | csum::DATA_VALID | csum::PSEUDO_HDR);
            m.set_csum_data(0xffff);
        }
        RxChecksum::Data => {
            m.set_csum_flags(m.csum_flags() | csum::DATA_VALID);
            let end = header.transport + header.transport_length(packet);
            let sum = checksum::sum(&packet[header.transport..end], 0);
            // tcp_input takes it in host order for IPv4, and as it lies in memory for IPv6.
            m.set_csum_data(u32::from(if header.v6 { sum.swap_bytes() } else { sum }));
        }
    }
    let input = if rx.bridged { bridge(vnet, m, &header) } else { filter(vnet, m, &header) };
    built.settle();
    drop(passage);
    drop(entry);
    input
}

/// A packet from the queue of netisr(9), in that thread. What becomes of it is an event of its VNET.
pub(crate) fn come_up(v6: bool, m: usize) {
    let who = "netisr";
    let passage = Passage::new();
    let m = M::at(m, who).unwrap_or_else(|| complain!("a null mbuf in the queue"));
    let restored = netisr::restore(m, who).and_then(|ifnet| crate::vnet::at(ifnet.vnet()));
    let Some(vnet) = restored else {
        // The interface, or its whole stack, went while the packet waited.
        mbuf::freem(Some(m), who);
        return drop(passage);
    };
    let entry =
        Entry::new(if v6 { "ip6_input of a queued packet" } else { "ip_input of a queued packet" }, vnet.address(), 0);
    let input = if m.has(flag::FASTFWD_OURS) {
        local(m)
    } else {
        match header_of(m).filter(|header| header.v6 == v6 && header.total <= m.total()) {
            Some(header) => {
                if header.total < m.total() {
                    mbuf::adj(m, header.total as i32 - m.total() as i32);
                }
                check_header(m, &header).unwrap_or_else(|| filter(vnet, m, &header))
            }
            None => {
                mbuf::freem(Some(m), who);
                Input::Dropped(DropCause::Malformed)
            }
        }
    };
    drop(passage);
    drop(entry);
    vnet.events.tell(Event::Received(input));
}

/// What the IP layer refuses in a packet that no interface has looked at.
fn check_header(m: M, header: &Header) -> Option<Input> {
    let mut front = [0; 60];
    let front = &mut front[..header.length];
    if m.length() < front.len() {
        mbuf::freem(Some(m), "ip_input");
        return Some(Input::Dropped(DropCause::Malformed));
    }
    m.read(0, front);
    let checked = header.v6 || m.csum_flags() & csum::IP_CHECKED != 0;
    if !checked && checksum::sum(front, 0) != 0xffff {
        mbuf::freem(Some(m), "ip_input");
        return Some(Input::Dropped(DropCause::Malformed));
    }
    None
}

/// As if_bridge with `pfil_local_phys`: the hooks run, what they say of the packet is forgotten, and it comes in.
fn bridge(vnet: &'static VnetState, m: M, header: &Header) -> Input {
    let head = &vnet.heads[usize::from(header.v6)];
    let m = match head.run(m, pfil::IN, false, m.rcvif(), 0, header.length) {
        Ok(m) => m,
        Err(_) => return Input::Consumed,
    };
    m.clear_flags(flag::FASTFWD_OURS);
    let Some(now) = header_of(m) else { complain!("an input hook left a packet that is no IP packet") };
    filter(vnet, m, &now)
}

fn filter(vnet: &'static VnetState, m: M, header: &Header) -> Input {
    let head = &vnet.heads[usize::from(header.v6)];
    let ifp = m.rcvif();
    let m = if head.is_empty(pfil::IN) {
        m
    } else {
        match head.run(m, pfil::IN, false, ifp, 0, header.length) {
            Ok(m) => m,
            Err(_) => return Input::Consumed,
        }
    };
    if m.rcvif() != ifp {
        complain!("an input hook changed the receiving interface");
    }
    let Some(now) = header_of(m) else { complain!("an input hook left a packet that is no IP packet") };
    if m.has(flag::FASTFWD_OURS) {
        return local(m);
    }
    let destination = now.destination;
    let broadcast = matches!(destination, IpAddr::V4(ip) if ip.is_broadcast());
    let everyone = destination.is_multicast() || broadcast;
    if everyone || vnet.is_local(destination) || (!now.v6 && vnet.has_no_ipv4()) {
        return deliver(m, false);
    }
    if vnet.forwards() {
        return forward(vnet, m, &now);
    }
    mbuf::freem(Some(m), "ip_input");
    Input::Dropped(DropCause::NotOurs)
}

/// A packet with `M_FASTFWD_OURS`.
pub(super) fn local(m: M) -> Input {
    m.clear_flags(flag::FASTFWD_OURS);
    deliver(m, true)
}

/// What tcp_input and udp_input do with the checksum.
fn judge(m: M, packet: &[u8], header: &Header) -> bool {
    let Some(at) = checksum::field(header.protocol).filter(|_| !header.fragment) else { return true };
    let length = header.transport_length(packet);
    if length < at + 2 {
        return false;
    }
    let field = &packet[header.transport + at..header.transport + at + 2];
    if header.protocol == 17 && field == [0, 0] {
        return !header.v6;
    }
    let flags = m.csum_flags();
    if flags & csum::DATA_VALID == 0 {
        return checksum::is_right(packet, header);
    }
    if flags & csum::PSEUDO_HDR != 0 {
        return m.csum_data() as u16 == 0xffff;
    }
    let data = m.csum_data();
    let data = if header.v6 { u32::from((data as u16).swap_bytes()) } else { data };
    checksum::sum(&[], u32::from(checksum::pseudo(header, packet, length)) + data) == 0xffff
}

fn deliver(m: M, ours: bool) -> Input {
    let packet = mbuf::gather(m);
    let Some(header) = Header::parse(&packet) else { complain!("a packet that is no IP packet is delivered") };
    let checksum_ok = judge(m, &packet, &header);
    mbuf::freem(Some(m), "the transport protocol");
    Input::Deliver(Delivered { packet, checksum_ok, ours })
}

/// ip_tryforward or ip6_forward.
fn forward(vnet: &'static VnetState, m: M, header: &Header) -> Input {
    let refuse = |m: M, why: DropCause| {
        mbuf::freem(Some(m), "ip_forward");
        Input::Dropped(why)
    };
    let hops = if header.v6 { 7 } else { 8 };
    let mut byte = [0];
    m.read(hops, &mut byte);
    let Some(ifname) = vnet.route(header.destination, "").filter(|name| !name.is_empty()) else {
        return refuse(m, DropCause::Unforwardable);
    };
    if byte[0] <= 1 {
        return refuse(m, DropCause::Unforwardable);
    }
    let head = &vnet.heads[usize::from(header.v6)];
    let mut m = m;
    let mut passes = 0;
    if !head.is_empty(pfil::OUT) {
        passes = 1;
        // Only the IPv6 path says that the packet is being forwarded.
        m = match head.run(m, pfil::OUT, header.v6, vnet.ifnet(&ifname).address(), 0, header.length) {
            Ok(m) => m,
            Err(_) => return Input::Consumed,
        };
    }
    let Some(now) = header_of(m) else { complain!("an output hook left a packet that is no IP packet") };
    let changed = now.destination != header.destination;
    if changed && vnet.is_local(now.destination) || m.has(flag::FASTFWD_OURS) {
        return local(m);
    }
    let Some(ifname) = vnet.route(now.destination, "").filter(|name| !name.is_empty()) else {
        return refuse(m, DropCause::Unforwardable);
    };
    match leave(vnet, m, ifname, changed, passes) {
        Output::Send(mut sent) => {
            for packet in &mut sent.packets {
                packet[hops] -= 1;
                if !header.v6 {
                    checksum::finish_ipv4(packet, header.length);
                }
            }
            Input::Forward(sent)
        }
        _ => Input::Dropped(DropCause::Unforwardable),
    }
}

//! The interface towards the new address takes less than the one towards the old: smaller packets, or none that it has
//! to cut into segments.

mod common;

use common::moves::{at_mover, at_peer, came, connection, moves, place};
use common::packets::{Way, look, packet, payload};
use common::{count, loaded, tuple};
use etherparse::{Icmpv4Type, Icmpv6Type, Ipv4HeaderSlice, NetSlice, SlicedPacket, TransportSlice, icmpv4};
use mobconn_abi::{Counter, Half, TCP, Tuple, UDP};
use mobconn_kpi::{Errno, Failures, Machine, Options, Output, Route, Split, Timer, Tx, Vnet};

/// A host that talks to a flow whose other half went from behind `em0` to behind `wlan0`.
fn moved(v6: bool, protocol: u8, split: Split) -> (Machine, Vnet, Tuple, Tuple) {
    let machine = loaded(Options { split, ..Options::default() });
    let vnet = machine.vnet0();
    let (stack, wire) = (at_peer(v6, protocol, 1), at_peer(v6, protocol, 2));
    vnet.set_local(&[place(v6, 0)]);
    vnet.set_connections(&[connection(&stack).outstanding(0)]);
    moves(&vnet, stack, Half::Remote, place(v6, 2), 1).expect("moved");
    let length = if v6 { 128 } else { 32 };
    let route = |prefix, ifname: &str| Route { prefix, length, ifname: ifname.to_owned() };
    vnet.set_routes(&[route(place(v6, 1), "em0"), route(place(v6, 2), "wlan0"), route(place(v6, 0), "lo0")]);
    (machine, vnet, stack, wire)
}

/// A packet of `length` bytes in all; one of IPv4 must not be fragmented.
fn sized(tuple: &Tuple, length: usize) -> Vec<u8> {
    let headers = packet(tuple, Way::Sent, &[], false).len();
    packet(tuple, Way::Sent, &payload(length - headers), false)
}

/// The same packet, which may be fragmented.
fn divisible(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        let mut header = Ipv4HeaderSlice::from_slice(&packet).expect("a header").to_header();
        assert!(header.dont_fragment);
        header.dont_fragment = false;
        header.header_checksum = header.calc_header_checksum();
        packet[..20].copy_from_slice(&header.to_bytes());
    }
    packet
}

/// What came up: an error about `sent`, as the stack knows it. Returns the MTU that it names.
fn told(machine: &Machine, vnet: &Vnet, sent: &[u8]) -> u32 {
    let (up, out) = came(machine, vnet);
    assert!(out.is_empty());
    let [error] = up.as_slice() else { panic!("{up:?}") };
    let sliced = SlicedPacket::from_ip(&error.packet).expect("a packet");
    let (mtu, quote) = match &sliced.transport {
        Some(TransportSlice::Icmpv4(icmp)) => {
            let Icmpv4Type::DestinationUnreachable(reason) = icmp.icmp_type() else { panic!("{icmp:?}") };
            let icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu } = reason else {
                panic!("{reason:?}")
            };
            assert_eq!(icmp.icmp_type().calc_checksum(icmp.payload()), icmp.checksum());
            (next_hop_mtu.into(), icmp.payload())
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let Icmpv6Type::PacketTooBig { mtu } = icmp.icmp_type() else { panic!("{icmp:?}") };
            let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("no IPv6") };
            let (source, destination) = (ip.header().source(), ip.header().destination());
            let sum = icmp.icmp_type().calc_checksum(source, destination, icmp.payload());
            assert_eq!(sum.expect("a sum"), icmp.checksum());
            (mtu, icmp.payload())
        }
        other => panic!("{other:?}"),
    };
    // Addresses, ports, sequence number: by these the stack knows its packet.
    let (addresses, transport) = if sent[0] >> 4 == 6 { (8..40, 40..48) } else { (12..20, 20..28) };
    assert_eq!(quote[addresses.clone()], sent[addresses]);
    assert_eq!(quote[transport.clone()], sent[transport]);
    mtu
}

#[test]
fn tcp_hears_that_its_packets_became_too_big() {
    for v6 in [false, true] {
        for split in [Split::Whole, Split::Arbitrary] {
            for offload in [false, true] {
                let (machine, vnet, stack, wire) = moved(v6, TCP, split);
                vnet.set_mtu("wlan0", 1300);
                let tx = Tx { offload, ..Tx::new("em0") };
                let bytes = sized(&stack, 1500);
                assert_eq!(vnet.ip_output(&bytes, &tx), Output::Consumed);
                assert_eq!(told(&machine, &vnet, &bytes), 1300);
                assert_eq!(vnet.ip_output(&sized(&stack, 1301), &tx), Output::Consumed);
                assert_eq!(count(&vnet, Counter::DroppedTooBig), 2);
                // The largest that fits.
                let Output::Send(sent) = vnet.ip_output(&sized(&stack, 1300), &tx) else { panic!("not sent") };
                assert_eq!((sent.packets.len(), sent.ifname.as_str()), (1, "wlan0"));
                let seen = look(&sent.packets[0]);
                assert!(seen.right);
                assert_eq!((seen.source, seen.destination), common::addresses(&wire));
                machine.quiesce();
                common::unload(&machine);
                assert_eq!(machine.mbufs(), 0);
            }
        }
    }
}

#[test]
fn what_may_be_fragmented_is() {
    for v6 in [false, true] {
        let (machine, vnet, stack, _) = moved(v6, UDP, Split::Whole);
        vnet.set_mtu("wlan0", 1300);
        let Output::Send(sent) = vnet.ip_output(&divisible(sized(&stack, 1400)), &Tx::new("em0")) else {
            panic!("not sent")
        };
        assert_eq!(sent.packets.len(), 2);
        assert_eq!(came(&machine, &vnet), (vec![], vec![]));
        assert_eq!(count(&vnet, Counter::DroppedTooBig), 0);
        common::unload(&machine);
    }
    // A datagram that must stay whole: its sender hears of it.
    let (machine, vnet, stack, _) = moved(false, UDP, Split::Whole);
    vnet.set_mtu("wlan0", 1300);
    let bytes = sized(&stack, 1400);
    assert_eq!(vnet.ip_output(&bytes, &Tx::new("em0")), Output::Consumed);
    assert_eq!(told(&machine, &vnet, &bytes), 1300);
    common::unload(&machine);
}

#[test]
fn segments_that_the_interface_cuts_fit_it() {
    for v6 in [false, true] {
        let (machine, vnet, stack, _) = moved(v6, TCP, Split::Whole);
        vnet.set_mtu("wlan0", 1300);
        let bytes = sized(&stack, 9000);
        let cut = |size| Tx { tso: Some(size), ..Tx::new("em0") };
        assert_eq!(vnet.ip_output(&bytes, &cut(1400)), Output::Consumed);
        assert_eq!(told(&machine, &vnet, &bytes), 1300);
        let headers = if v6 { 60 } else { 40 };
        let Output::Send(sent) = vnet.ip_output(&bytes, &cut(1300 - headers)) else { panic!("not sent") };
        assert_eq!(sent.packets.iter().map(Vec::len).max(), Some(1300));
        assert_eq!(vnet.ip_output(&bytes, &cut(1301 - headers)), Output::Consumed);
        machine.quiesce();
        common::unload(&machine);
    }
}

#[test]
fn an_interface_that_cuts_nothing_gets_nothing_to_cut() {
    // It cuts nothing, or less at a time than the one before.
    for (v6, on, limit) in [(false, false, 0), (true, false, 0), (false, true, 8000), (true, true, 8000)] {
        let (machine, vnet, stack, _) = moved(v6, TCP, Split::Whole);
        let known = connection(&stack).outstanding(0);
        vnet.set_tso("wlan0", on, limit);
        let bytes = sized(&stack, 9000);
        for _ in 0..20 {
            let tx = Tx { tso: Some(1400), ..Tx::new("em0") };
            assert_eq!(vnet.ip_output(&bytes, &tx), Output::Consumed);
        }
        assert_eq!(came(&machine, &vnet), (vec![], vec![]));
        assert!(!vnet.uses_tso(&known), "TCP goes on with what nobody cuts");
        assert!(matches!(vnet.timers().first(), Some((_, Timer::Retransmit, 0..=1))), "TCP waits for its timer");
        assert_eq!(count(&vnet, Counter::DroppedTooBig), 20);
        // What TCP does then.
        assert!(matches!(vnet.ip_output(&sized(&stack, 1500), &Tx::new("em0")), Output::Send(_)));
        common::unload(&machine);
        assert_eq!(machine.mbufs(), 0);
    }
}

#[test]
fn the_mover_hears_of_its_own_interface() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let stacks = [false, true].map(|v6| at_mover(v6, TCP, 1));
    vnet.set_connections(&stacks.map(|stack| connection(&stack)));
    vnet.set_local(&[place(false, 2), place(true, 2)]);
    for (v6, stack) in [false, true].into_iter().zip(stacks) {
        moves(&vnet, stack, Half::Local, place(v6, 2), 1).expect("moved");
    }
    vnet.set_mtu("em0", 1300);
    // IPv4's TCP is told by ip_output, as ever.
    assert_eq!(vnet.ip_output(&sized(&stacks[0], 1500), &Tx::new("em0")), Output::Dropped(Errno::EMSGSIZE));
    assert_eq!(count(&vnet, Counter::DroppedTooBig), 0);
    // IPv6's would never know.
    let bytes = sized(&stacks[1], 1500);
    assert_eq!(vnet.ip_output(&bytes, &Tx::new("em0")), Output::Consumed);
    assert_eq!(told(&machine, &vnet, &bytes), 1300);
    // Others are none of the module's business.
    let other = sized(&tuple("2001:db8:b::17", 5000, "2001:db8:99::1", 80, TCP), 1500);
    assert!(matches!(vnet.ip_output(&other, &Tx::new("em0")), Output::Send(_)));
    assert_eq!(count(&vnet, Counter::DroppedTooBig), 1);
    common::unload(&machine);
}

#[test]
fn short_memory_loses_the_news_and_nothing_else() {
    let (machine, vnet, stack, _) = moved(false, TCP, Split::Whole);
    vnet.set_mtu("wlan0", 1300);
    machine.set_failures(Failures::All);
    assert_eq!(vnet.ip_output(&sized(&stack, 1500), &Tx::new("em0")), Output::Consumed);
    machine.set_failures(Failures::None);
    assert_eq!(came(&machine, &vnet), (vec![], vec![]));
    assert_eq!((count(&vnet, Counter::DroppedTooBig), machine.mbufs()), (1, 0));
    common::unload(&machine);
}

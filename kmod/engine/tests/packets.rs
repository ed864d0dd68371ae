//! Single packets: translated right, or left alone, or dropped with a reason.

mod common;
use common::*;
use mobconn_engine::*;
use proptest::prelude::*;

fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn transport(side: &Side) -> usize {
    match side.version {
        Version::V4 => 20,
        Version::V6 => 40,
    }
}

fn field(side: &Side) -> usize {
    transport(side) + if side.protocol == Protocol::Tcp { 16 } else { 6 }
}

/// Sum of the pseudo header of a packet, from its own bytes.
fn pseudo(side: &Side, bytes: &[u8]) -> u16 {
    let addresses = if side.version == Version::V4 { &bytes[12..20] } else { &bytes[8..40] };
    let mut all = addresses.to_vec();
    all.extend([0, if side.protocol == Protocol::Tcp { 6 } else { 17 }]);
    all.extend(((bytes.len() - transport(side)) as u16).to_be_bytes());
    sum(&all)
}

/// Zero has two forms in one's complement.
fn same(a: u16, b: u16) -> bool {
    a == b || (a ^ b) == 0xffff && (a == 0 || b == 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn there_and_back((stack, wire) in any_pair(), payload in proptest::collection::vec(any::<u8>(), 0..70), split in 0_usize..120) {
        let (engine, mut control) = engine(16);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let original = outgoing(&stack, "A", &payload);
        let expected = outgoing(&wire, "A", &payload);
        let mut packet = Bytes::new(original.clone());
        packet.contiguous = split;
        prop_assert_eq!(engine.output(&mut packet, stack.version, 2), Verdict::Translated);
        prop_assert_eq!(&packet.bytes, &expected);
        prop_assert!(is_sound(&packet.bytes));

        let mut packet = Bytes::new(incoming(&wire, "A", &payload));
        packet.contiguous = split;
        prop_assert_eq!(engine.input(&mut packet, stack.version, 2), Verdict::Translated);
        prop_assert_eq!(&packet.bytes, &incoming(&stack, "A", &payload));
        prop_assert!(is_sound(&packet.bytes));
    }

    #[test]
    fn a_corrupt_packet_stays_corrupt((stack, wire) in any_pair(), payload in proptest::collection::vec(any::<u8>(), 1..70), at: prop::sample::Index, bit in 0_u8..8) {
        let (engine, mut control) = engine(16);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let mut bytes = incoming(&wire, "A", &payload);
        let at = bytes.len() - 1 - at.index(payload.len());
        bytes[at] ^= 1 << bit;
        let mut packet = Bytes::new(bytes);
        prop_assert_eq!(engine.input(&mut packet, stack.version, 2), Verdict::Translated);
        prop_assert!(!is_sound(&packet.bytes));
    }

    #[test]
    fn a_delayed_checksum_is_finished_right((stack, wire) in any_pair(), payload in proptest::collection::vec(any::<u8>(), 0..70)) {
        let (engine, mut control) = engine(16);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let mut bytes = outgoing(&stack, "A", &payload);
        let at = field(&stack);
        let partial = pseudo(&stack, &bytes);
        bytes[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        let mut packet = Bytes::new(bytes);
        packet.checksum = Checksum::Pseudo;
        prop_assert_eq!(engine.output(&mut packet, stack.version, 2), Verdict::Translated);
        // What hardware or in_delayed_cksum() does: sum it all, complement.
        let mut bytes = packet.bytes;
        let mut finished = !sum(&bytes[transport(&stack)..]);
        if finished == 0 && stack.protocol == Protocol::Udp {
            finished = 0xffff;
        }
        bytes[at..at + 2].copy_from_slice(&finished.to_be_bytes());
        prop_assert!(is_sound(&bytes));
    }

    #[test]
    fn a_sum_by_hardware_is_kept_right((stack, wire) in any_pair(), payload in proptest::collection::vec(any::<u8>(), 0..70)) {
        let (engine, mut control) = engine(16);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let mut packet = Bytes::new(incoming(&wire, "A", &payload));
        packet.checksum = Checksum::DataValid;
        packet.sum = sum(&packet.bytes[transport(&stack)..]);
        prop_assert_eq!(engine.input(&mut packet, stack.version, 2), Verdict::Translated);
        prop_assert!(is_sound(&packet.bytes));
        prop_assert!(same(packet.sum, sum(&packet.bytes[transport(&stack)..])));
        // What tcp_input does with it.
        let total = u32::from(packet.sum) + u32::from(pseudo(&stack, &packet.bytes));
        prop_assert!(same(((total & 0xffff) + (total >> 16)) as u16, 0xffff));
    }

    #[test]
    fn no_bytes_make_it_panic((stack, wire) in any_pair(), bytes in proptest::collection::vec(any::<u8>(), 0..200), split in 0_usize..200, first in 0_u8..16, patch: bool) {
        let (engine, mut control) = engine(16);
        control.add(&engine, &stack, &wire, 1).unwrap();
        for version in [Version::V4, Version::V6] {
            let mut bytes = bytes.clone();
            if let (true, Some(byte)) = (patch, bytes.first_mut()) {
                *byte = if version == Version::V4 { 0x40 } else { 0x60 } | first;
            }
            if let (true, Some(byte)) = (patch, bytes.get_mut(if version == Version::V4 { 9 } else { 6 })) {
                *byte = [0, 6, 17, 43, 44, 60, 1, 58][usize::from(*byte & 7)];
            }
            for direction in [Engine::input::<Bytes>, Engine::output::<Bytes>] {
                let mut packet = Bytes::new(bytes.clone());
                packet.contiguous = split;
                let _ = direction(&engine, &mut packet, version, 1);
                prop_assert!(!packet.touched);
                prop_assert_eq!(&packet.bytes, &bytes);
            }
        }
    }

    #[test]
    fn short_memory_changes_nothing((stack, wire) in any_pair(), split in 0_usize..120) {
        let (engine, mut control) = engine(16);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let bytes = outgoing(&stack, "A", b"payload");
        let mut packet = Bytes::new(bytes.clone());
        packet.contiguous = split;
        packet.fail = true;
        prop_assert_eq!(engine.output(&mut packet, stack.version, 2), Verdict::Gone);
        prop_assert_eq!(packet.bytes, bytes);
    }
}

const STACK: &str = "tcp 10.1.0.2:4444 10.9.0.9:80";
const WIRE: &str = "tcp 10.2.0.2:4444 10.9.0.9:80";

fn bound() -> (Engine, Control, Side, Side) {
    let (engine, mut control) = engine(16);
    let (stack, wire) = (side(STACK), side(WIRE));
    control.add(&engine, &stack, &wire, 1).unwrap();
    (engine, control, stack, wire)
}

fn input(engine: &Engine, bytes: &[u8]) -> (Verdict, Vec<u8>) {
    let mut packet = Bytes::new(bytes.to_vec());
    let version = if bytes[0] >> 4 == 4 { Version::V4 } else { Version::V6 };
    let verdict = engine.input(&mut packet, version, 1);
    assert_eq!(verdict == Verdict::Translated, packet.touched, "touches what it translates, and nothing else");
    (verdict, packet.bytes)
}

#[test]
fn other_flows_pass_untouched() {
    let (engine, _control, _, wire) = bound();
    for other in [
        Side { local_port: 4445, ..wire },
        Side { remote_port: 81, ..wire },
        Side { remote: ip("10.9.0.8"), ..wire },
        Side { local: ip("10.2.0.3"), ..wire },
        Side { protocol: Protocol::Udp, ..wire },
    ] {
        let bytes = incoming(&other, "A", b"x");
        assert_eq!(input(&engine, &bytes), (Verdict::Pass, bytes));
    }
}

#[test]
fn what_ipsec_sealed_passes_counted() {
    for flow in ["10.2.0.2:4444 10.9.0.9:80", "[2001:db8::2]:4444 [2001:db8::9]:80"] {
        let (engine, mut control) = engine(4);
        let wire = side(&format!("tcp {flow}"));
        control
            .add(&engine, &side("tcp 10.1.0.2:4444 10.9.0.9:80"), &side("tcp 10.2.0.2:4444 10.9.0.9:80"), 1)
            .unwrap();
        for (protocol, verdict) in [
            (50, Verdict::PassCounted(PassReason::Ipsec)),
            (51, Verdict::PassCounted(PassReason::Ipsec)),
            (47, Verdict::Pass),
        ] {
            let mut bytes = incoming(&wire, "A", b"x");
            bytes[if wire.version == Version::V4 { 9 } else { 6 }] = protocol;
            assert_eq!(input(&engine, &bytes), (verdict, bytes.clone()), "received, protocol {protocol}");
            let mut packet = Bytes::new(bytes.clone());
            assert_eq!(engine.output(&mut packet, wire.version, 1), verdict, "sent, protocol {protocol}");
            assert_eq!(packet.bytes, bytes);
        }
    }
}

#[test]
fn udp_without_checksum_keeps_none() {
    for (stack, wire) in [
        ("udp 10.1.0.2:4444 10.9.0.9:53", "udp 10.2.0.2:4444 10.9.0.9:53"),
        ("udp [2001:db8::1]:4444 [2001:db8::9]:53", "udp [2001:db8::2]:4444 [2001:db8::9]:53"),
    ] {
        let (engine, mut control) = engine(4);
        let (stack, wire) = (side(stack), side(wire));
        control.add(&engine, &stack, &wire, 1).unwrap();
        let mut bytes = incoming(&wire, "", b"x");
        let at = field(&wire);
        bytes[at..at + 2].fill(0);
        let (verdict, bytes) = input(&engine, &bytes);
        assert_eq!(verdict, Verdict::Translated);
        assert_eq!(bytes[at..at + 2], [0, 0]);
    }
}

#[test]
fn the_stack_side_on_the_wire_is_a_strangers() {
    let (engine, _control, stack, _) = bound();
    let bytes = incoming(&stack, "A", b"x");
    assert_eq!(input(&engine, &bytes), (Verdict::Drop(DropReason::Stray), bytes));
}

#[test]
fn fragments_are_to_be_reassembled_first() {
    let (engine, _control, stack, wire) = bound();
    let mut bytes = incoming(&wire, "A", b"x");
    bytes[6] = 0x20;
    assert_eq!(input(&engine, &bytes), (Verdict::Reassemble { offset: 0 }, bytes.clone()));
    bytes[7] = 3;
    assert_eq!(input(&engine, &bytes), (Verdict::Reassemble { offset: 0 }, bytes.clone()));
    bytes[6] = 0;
    assert_eq!(input(&engine, &bytes), (Verdict::Reassemble { offset: 0 }, bytes.clone()));
    // Not of TCP or UDP, so of no flow.
    bytes[9] = 1;
    assert_eq!(input(&engine, &bytes), (Verdict::Pass, bytes));
    // What is sent in fragments was not made by this host.
    let mut bytes = outgoing(&stack, "A", b"x");
    bytes[6] = 0x20;
    let mut packet = Bytes::new(bytes.clone());
    assert_eq!(engine.output(&mut packet, Version::V4, 2), Verdict::Pass);
    assert_eq!(packet.bytes, bytes);
}

#[test]
fn ipv4_options_before_the_transport_header() {
    let (engine, _control, stack, wire) = bound();
    let with = |side: &Side, options: &[u8]| {
        let plain = incoming(side, "A", b"x");
        let mut bytes = plain[..20].to_vec();
        bytes.extend(options);
        bytes.extend(&plain[20..]);
        bytes[0] = 0x45 + (options.len() / 4) as u8;
        let total = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes[10..12].fill(0);
        let check = !sum(&bytes[..20 + options.len()]);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes
    };
    let router_alert = [148, 4, 0, 0];
    assert_eq!(input(&engine, &with(&wire, &router_alert)), (Verdict::Translated, with(&stack, &router_alert)));
    for route in
        [[131, 7, 4, 10, 0, 0, 1, 0], [1, 137, 7, 4, 10, 0, 0, 1], [7, 0, 0, 0, 0, 0, 0, 0], [7, 99, 0, 0, 0, 0, 0, 0]]
    {
        let bytes = with(&wire, &route);
        assert_eq!(input(&engine, &bytes), (Verdict::PassCounted(PassReason::Options), bytes));
    }
}

#[test]
fn ipv6_extension_headers_before_the_transport_header() {
    let (engine, mut control) = engine(4);
    let stack = side("tcp [2001:db8::1]:4444 [2001:db8::9]:80");
    let wire = side("tcp [2001:db8:2::1]:4444 [2001:db8::9]:80");
    control.add(&engine, &stack, &wire, 1).unwrap();
    let with = |side: &Side, kind: u8, extension: &[u8]| {
        let plain = incoming(side, "A", b"x");
        let mut bytes = plain[..40].to_vec();
        bytes.extend(extension);
        bytes.extend(&plain[40..]);
        bytes[6] = kind;
        let length = (bytes.len() - 40) as u16;
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    for (kind, extension) in [
        (0, [6, 0, 1, 4, 0, 0, 0, 0]),
        (60, [6, 0, 1, 4, 0, 0, 0, 0]),
        (44, [6, 0, 0, 0, 1, 2, 3, 4]),
        (43, [6, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        let translated = (Verdict::Translated, with(&stack, kind, &extension));
        assert_eq!(input(&engine, &with(&wire, kind, &extension)), translated, "extension {kind}");
    }
    let check = |kind, extension: &[u8], verdict| {
        let bytes = with(&wire, kind, extension);
        assert_eq!(input(&engine, &bytes), (verdict, bytes), "extension {kind}");
    };
    check(43, &[6, 0, 0, 1, 0, 0, 0, 0], Verdict::PassCounted(PassReason::Options));
    check(44, &[6, 0, 0, 1, 1, 2, 3, 4], Verdict::Reassemble { offset: 40 });
    check(44, &[6, 0, 0, 9, 1, 2, 3, 4], Verdict::Reassemble { offset: 40 });
    check(44, &[6, 0, 0, 8, 1, 2, 3, 4], Verdict::Reassemble { offset: 40 });
    check(44, &[58, 0, 0, 9, 1, 2, 3, 4], Verdict::Pass);
    check(50, &[6, 0, 0, 9, 1, 2, 3, 4], Verdict::PassCounted(PassReason::Ipsec));
    check(0, &[6, 200, 0, 0, 0, 0, 0, 0], Verdict::PassCounted(PassReason::Malformed));
}

#[test]
fn headers_that_contradict_themselves_pass_and_are_counted() {
    let (engine, _control, _, wire) = bound();
    let good = incoming(&wire, "A", b"x");
    let broken = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let mut packet = Bytes::new(bytes.clone());
        assert_eq!(engine.input(&mut packet, Version::V4, 1), Verdict::PassCounted(PassReason::Malformed));
        assert_eq!(packet.bytes, bytes);
    };
    broken(|b| b[0] = 0x44);
    broken(|b| b[0] = 0x65);
    broken(|b| b[3] = 255);
    broken(|b| b[3] = 39);
    broken(|b| b.truncate(30));
    broken(|b| b.truncate(19));
    broken(|b| b.truncate(0));
}

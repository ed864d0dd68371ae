//! ICMP and ICMPv6 errors about bound flows.

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

/// An error message from `from` to `to` that quotes `quote`.
fn error(version: Version, kind: u8, from: Address, to: Address, quote: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 4, 0, 0, 0, 0, 5, 0];
    message.extend(quote);
    let mut bytes = match version {
        Version::V4 => {
            let mut ip = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, 1, 0, 0];
            ip[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes());
            ip.extend(&from.0[..4]);
            ip.extend(&to.0[..4]);
            let check = !sum(&ip);
            ip[10..12].copy_from_slice(&check.to_be_bytes());
            let check = !sum(&message);
            message[2..4].copy_from_slice(&check.to_be_bytes());
            ip
        }
        Version::V6 => {
            let mut ip = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
            ip[4..6].copy_from_slice(&(message.len() as u16).to_be_bytes());
            ip.extend(from.0);
            ip.extend(to.0);
            let mut pseudo = ip[8..40].to_vec();
            pseudo.extend([0, 58]);
            pseudo.extend((message.len() as u16).to_be_bytes());
            pseudo.extend(&message);
            let check = !sum(&pseudo);
            message[2..4].copy_from_slice(&check.to_be_bytes());
            ip
        }
    };
    bytes.extend(message);
    bytes
}

fn kind(version: Version) -> u8 {
    match version {
        Version::V4 => 3,
        Version::V6 => 2,
    }
}

fn header(version: Version) -> usize {
    match version {
        Version::V4 => 20,
        Version::V6 => 40,
    }
}

fn router(version: Version) -> Address {
    match version {
        Version::V4 => ip("192.0.2.1"),
        Version::V6 => ip("2001:db8:ffff::1"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// A router quotes a packet of ours, as far as it likes.
    #[test]
    fn a_received_error_quotes_the_stack_side((stack, wire) in any_pair(), more in 0_usize..60, payload in proptest::collection::vec(any::<u8>(), 0..40)) {
        // Of half a checksum field nothing right can be said.
        prop_assume!(more != 9);
        let (engine, mut control) = engine(4);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let version = stack.version;
        let message = |side: &Side| {
            let mut quote = outgoing(side, "A", &payload);
            quote.truncate(header(version) + 8 + more);
            error(version, kind(version), router(version), wire.local, &quote)
        };
        let mut packet = Bytes::new(message(&wire));
        packet.contiguous = more;
        packet.generous = more % 2 == 0;
        prop_assert_eq!(engine.input(&mut packet, version, 1), Verdict::Translated);
        prop_assert_eq!(packet.bytes, message(&stack));
    }

    /// We refuse a packet of the peer's; the stack knows it by its stack side.
    #[test]
    fn an_error_to_be_sent_quotes_the_wire_side((stack, wire) in any_pair(), more in 0_usize..60, payload in proptest::collection::vec(any::<u8>(), 0..40)) {
        // Of half a checksum field nothing right can be said.
        prop_assume!(more != 9);
        let (engine, mut control) = engine(4);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let version = stack.version;
        let message = |side: &Side| {
            let mut quote = incoming(side, "A", &payload);
            quote.truncate(header(version) + 8 + more);
            error(version, kind(version), side.local, side.remote, &quote)
        };
        let mut packet = Bytes::new(message(&stack));
        packet.contiguous = more;
        prop_assert_eq!(engine.output(&mut packet, version, 1), Verdict::Translated);
        prop_assert_eq!(packet.bytes, message(&wire));
    }

    /// Whatever is quoted, nothing panics, and what is not of the flow passes.
    #[test]
    fn an_absurd_quote_passes(kind: u8, quote in proptest::collection::vec(any::<u8>(), 0..120), first: bool, v6: bool, split in 0_usize..160) {
        let (engine, mut control) = engine(4);
        let (stack, wire) = if v6 {
            (side("tcp [2001:db8::1]:1 [2001:db8::9]:80"), side("tcp [2001:db8::2]:1 [2001:db8::9]:80"))
        } else {
            (side("tcp 10.1.0.2:1 10.9.0.9:80"), side("tcp 10.2.0.2:1 10.9.0.9:80"))
        };
        control.add(&engine, &stack, &wire, 1).unwrap();
        let mut quote = quote;
        if let (true, Some(byte)) = (first, quote.first_mut()) {
            *byte = if v6 { 0x60 } else { 0x45 };
        }
        let bytes = error(stack.version, kind, router(stack.version), wire.local, &quote);
        for direction in [Engine::input::<Bytes>, Engine::output::<Bytes>] {
            let mut packet = Bytes::new(bytes.clone());
            packet.contiguous = split;
            prop_assert_eq!(direction(&engine, &mut packet, stack.version, 1), Verdict::Pass);
            prop_assert_eq!(&packet.bytes, &bytes);
        }
    }
}

#[test]
fn what_is_no_error_or_quotes_half_a_packet_passes() {
    let (engine, mut control) = engine(4);
    let (stack, wire) = (side("tcp 10.1.0.2:1 10.9.0.9:80"), side("tcp 10.2.0.2:1 10.9.0.9:80"));
    control.add(&engine, &stack, &wire, 1).unwrap();
    let quote = outgoing(&wire, "A", b"x");
    let check = |kind: u8, quote: &[u8], verdict: Verdict| {
        let mut packet = Bytes::new(error(Version::V4, kind, router(Version::V4), wire.local, quote));
        assert_eq!(engine.input(&mut packet, Version::V4, 1), verdict, "type {kind}");
    };
    for kind in [3, 4, 11, 12] {
        check(kind, &quote, Verdict::Translated);
    }
    for kind in [0, 5, 8, 13, 40] {
        check(kind, &quote, Verdict::Pass);
    }
    check(3, &quote[..27], Verdict::Pass);
    let mut fragment = quote.clone();
    fragment[7] = 1;
    check(3, &fragment, Verdict::Pass);
}

#[test]
fn nothing_about_a_held_flow_is_sent() {
    let (engine, mut control) = engine(4);
    let stack = side("udp 10.1.0.2:1 10.9.0.9:80");
    let prepare = Prepare { half: Half::Local, new: ip("10.2.0.2"), generation: 1, hold: true, take: false };
    control.prepare(&engine, &stack, &prepare, |_| false, 1).unwrap();
    let bytes = error(Version::V4, 3, stack.local, stack.remote, &incoming(&stack, "", b"x"));
    let mut packet = Bytes::new(bytes);
    assert_eq!(engine.output(&mut packet, Version::V4, 1), Verdict::Hold { flow: 0 });
}

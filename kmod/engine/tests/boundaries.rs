//! Packets whose headers end exactly where they may, or one byte further.

mod common;
use common::*;
use mobconn_engine::*;

const V4: (&str, &str) = ("tcp 10.1.0.2:4444 10.9.0.9:80", "tcp 10.2.0.2:4444 10.9.0.9:80");
const V6: (&str, &str) = ("tcp [2001:db8::1]:4444 [2001:db8::9]:80", "tcp [2001:db8:2::1]:4444 [2001:db8::9]:80");

/// A table with one binding, its stack side and its wire side.
fn bound((stack, wire): (&str, &str)) -> (Engine, Control, Side, Side) {
    let (engine, mut control) = engine(4);
    let (stack, wire) = (side(stack), side(wire));
    control.add(&engine, &stack, &wire, 1).unwrap();
    (engine, control, stack, wire)
}

fn input(engine: &Engine, bytes: &[u8], version: Version) -> Verdict {
    // All at once, and with as little contiguous as there can be.
    let mut verdicts = [bytes.len(), 0].map(|contiguous| {
        let mut packet = Bytes::new(bytes.to_vec());
        packet.contiguous = contiguous;
        let verdict = engine.input(&mut packet, version, 1);
        assert!(verdict == Verdict::Translated || packet.bytes == bytes);
        verdict
    });
    verdicts.sort_by_key(|verdict| *verdict == Verdict::Translated);
    assert_eq!(verdicts[0], verdicts[1]);
    verdicts[0]
}

fn set_v6_length(bytes: &mut [u8]) {
    let length = (bytes.len() - 40) as u16;
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
}

/// An IPv6 packet with a destination header of `length` bytes in front of TCP.
fn extended(wire: &Side, length: usize) -> Vec<u8> {
    let plain = incoming(wire, "A", b"x");
    let mut bytes = plain[..40].to_vec();
    bytes.extend([6, (length / 8 - 1) as u8, 1, 4, 0, 0, 0, 0]);
    bytes.resize(40 + length, 0);
    bytes.extend(&plain[40..]);
    bytes[6] = 60;
    set_v6_length(&mut bytes);
    bytes
}

const MALFORMED: Verdict = Verdict::PassCounted(PassReason::Malformed);

#[test]
fn the_version_says_what_the_packet_is() {
    let (engine, _control, _, wire) = bound(V6);
    let good = incoming(&wire, "A", b"payload");
    assert_eq!(input(&engine, &good, Version::V6), Verdict::Translated);
    let mut bytes = good.clone();
    bytes[0] = 0x40;
    assert_eq!(input(&engine, &bytes, Version::V6), MALFORMED);
    let mut longer = good.clone();
    longer[5] += 1;
    assert_eq!(input(&engine, &longer, Version::V6), MALFORMED);
    // Bytes behind the packet are no part of it.
    let mut padded = good.clone();
    padded.extend([0; 9]);
    assert_eq!(input(&engine, &padded, Version::V6), Verdict::Translated);
}

#[test]
fn a_header_ends_with_the_packet() {
    for (sides, version, ip) in [(V4, Version::V4, 20), (V6, Version::V6, 40)] {
        for (protocol, transport) in [(Protocol::Tcp, 20), (Protocol::Udp, 8)] {
            let (engine, mut control) = engine(4);
            let [stack, wire] = [side(sides.0), side(sides.1)].map(|side| Side { protocol, ..side });
            control.add(&engine, &stack, &wire, 1).unwrap();
            let mut bytes = incoming(&wire, "A", b"");
            assert_eq!(bytes.len(), ip + transport);
            assert_eq!(input(&engine, &bytes, version), Verdict::Translated);
            // One byte less of it, with bytes enough behind the packet.
            bytes[if version == Version::V4 { 3 } else { 5 }] -= 1;
            assert_eq!(input(&engine, &bytes, version), MALFORMED);
        }
    }
}

#[test]
fn a_piece_of_a_segment_needs_no_whole_header() {
    let (engine, _control, _, wire) = bound(V4);
    let mut bytes = incoming(&wire, "A", b"");
    bytes.truncate(28);
    bytes[3] = 28;
    bytes[6] = 0x20;
    assert!(matches!(input(&engine, &bytes, Version::V4), Verdict::Reassemble { .. }));
    bytes[6] = 0;
    assert_eq!(input(&engine, &bytes, Version::V4), MALFORMED);
}

#[test]
fn headers_are_read_up_to_their_limit() {
    let (engine, _control, _, wire) = bound(V6);
    // 40 bytes of IPv6 and 20 of TCP leave 68 of 128.
    assert_eq!(input(&engine, &extended(&wire, 64), Version::V6), Verdict::Translated);
    assert_eq!(input(&engine, &extended(&wire, 72), Version::V6), Verdict::Pass);
    // A UDP header that ends with byte 128.
    let udp = Side { protocol: Protocol::Udp, ..wire };
    let (engine, mut control) = common::engine(4);
    control.add(&engine, &Side { protocol: Protocol::Udp, ..side(V6.0) }, &udp, 1).unwrap();
    for (length, verdict) in [(80, Verdict::Translated), (88, Verdict::Pass)] {
        let mut bytes = extended(&udp, length);
        bytes[40] = 17;
        assert_eq!(input(&engine, &bytes, Version::V6), verdict);
    }
}

#[test]
fn an_extension_header_ends_with_the_packet() {
    let (engine, _control, _, wire) = bound(V6);
    let header = |content: &[u8]| {
        let mut bytes = incoming(&wire, "A", b"")[..40].to_vec();
        bytes.extend(content);
        bytes[6] = 60;
        set_v6_length(&mut bytes);
        bytes
    };
    // Nothing follows: no packet of a flow, and nothing wrong with it.
    assert_eq!(input(&engine, &header(&[59, 0, 1, 4, 0, 0, 0, 0]), Version::V6), Verdict::Pass);
    assert_eq!(input(&engine, &header(&[59, 0, 1, 4, 0, 0, 0]), Version::V6), MALFORMED);
    // Headers of 8 bytes each, up to byte 120 and 128: as many as are followed, or too many.
    for count in 1..12 {
        let mut bytes = incoming(&wire, "A", b"")[..40].to_vec();
        for _ in 0..count {
            bytes.extend([60, 0, 1, 4, 0, 0, 0, 0]);
        }
        let last = bytes.len() - 8;
        bytes[last] = 6;
        bytes.extend(&incoming(&wire, "A", b"")[40..]);
        bytes[6] = 60;
        set_v6_length(&mut bytes);
        let verdict = if count <= 8 { Verdict::Translated } else { Verdict::Pass };
        assert_eq!(input(&engine, &bytes, Version::V6), verdict, "{count} headers");
    }
}

/// A table as full as it can be, in the middle of a move of all: where a bucket is full, the next one has the entry.
#[test]
fn everything_is_found_in_a_crowded_table() {
    const FLOWS: u16 = 1000;
    let (engine, mut control) = engine(FLOWS.into());
    let (first, second) = (ip("10.3.0.2"), ip("2001:db8:3::1"));
    let all: Vec<(Side, Side, Address)> = (0..FLOWS)
        .map(|nth| {
            let ((stack, wire), new) = if nth % 2 == 0 { (V4, first) } else { (V6, second) };
            let with_port = |text| Side { local_port: 1024 + nth, ..side(text) };
            (with_port(stack), with_port(wire), new)
        })
        .collect();
    for (stack, wire, new) in &all {
        control.add(&engine, stack, wire, 1).unwrap();
        let prepare = Prepare { half: Half::Local, new: *new, generation: 1, hold: false, take: false };
        control.prepare(&engine, stack, &prepare, |_| false, 1).unwrap();
    }
    let translated = |side: &Side, received: bool| {
        let mut packet = Bytes::new(if received { incoming(side, "A", b"x") } else { outgoing(side, "A", b"x") });
        let verdict = if received {
            engine.input(&mut packet, side.version, 1)
        } else {
            engine.output(&mut packet, side.version, 1)
        };
        assert_eq!(verdict, Verdict::Translated, "{side:?}");
        packet.bytes
    };
    for (stack, wire, new) in &all {
        assert_eq!(translated(stack, false), outgoing(wire, "A", b"x"));
        for local in [wire.local, *new] {
            let wire = Side { local, ..*wire };
            assert_eq!(translated(&wire, true), incoming(stack, "A", b"x"));
            assert_eq!(engine.output(&mut Bytes::new(outgoing(&wire, "A", b"x")), wire.version, 1), STRAY);
        }
        assert_eq!(engine.input(&mut Bytes::new(incoming(stack, "A", b"x")), stack.version, 1), STRAY);
        // Nobody's, in the same buckets.
        let other = Side { remote_port: 81, ..*stack };
        assert_eq!(engine.input(&mut Bytes::new(incoming(&other, "A", b"x")), other.version, 1), Verdict::Pass);
        assert_eq!(engine.output(&mut Bytes::new(outgoing(&other, "A", b"x")), other.version, 1), Verdict::Pass);
    }
    for (stack, ..) in &all {
        control.delete(&engine, stack).unwrap();
    }
    assert!(engine.is_empty());
}

const STRAY: Verdict = Verdict::Drop(DropReason::Stray);

/// A sum that comes out as nothing would say that there is none (RFC 768).
#[test]
fn a_udp_checksum_is_never_written_as_zero() {
    for (stack, wire) in [V4, V6] {
        let udp = |text: &str| side(&text.replace("tcp", "udp"));
        let (engine, mut control) = engine(4);
        let (stack, wire) = (udp(stack), udp(wire));
        control.add(&engine, &stack, &wire, 1).unwrap();
        let field = if stack.version == Version::V4 { 26..28 } else { 46..48 };
        // What the sum lacks, so that it becomes nothing.
        let payload = outgoing(&wire, "", &[0, 0])[field.clone()].to_vec();
        let expected = outgoing(&wire, "", &payload);
        assert_eq!(expected[field], [0xff, 0xff]);
        let mut packet = Bytes::new(outgoing(&stack, "", &payload));
        assert_eq!(engine.output(&mut packet, stack.version, 1), Verdict::Translated);
        assert_eq!(packet.bytes, expected);
    }
}

/// Ports in a row, as clients use them, crowd no part of the table, whatever its secret: all can be in it and move.
#[test]
fn ports_in_a_row_fill_a_table() {
    const FLOWS: u16 = 2000;
    for secret in 0..24_u64 {
        let key =
            core::array::from_fn(|i| (8 * secret + i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
        let (engine, mut control) = new(&Config { capacity: FLOWS.into(), key }).unwrap();
        for nth in 0..FLOWS {
            let [stack, wire] = [V4.0, V4.1].map(|text| Side { local_port: 20_000 + nth, ..side(text) });
            control.add(&engine, &stack, &wire, 1).unwrap();
            let prepare = Prepare { half: Half::Local, new: ip("10.3.0.2"), generation: 1, hold: false, take: false };
            let done = control.prepare(&engine, &stack, &prepare, |_| false, 1);
            assert!(done.is_ok(), "secret {secret}, flow {nth}: {done:?}");
        }
    }
}

//! Translation against full recomputation: whatever the packet, the split and the state of its checksum, the bytes are
//! those that an implementation that is not ours (etherparse) gives the same packet on the other side.

mod common;
use common::*;
use etherparse::checksum::Sum16BitWords;
use mobconn_engine::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// What is between the IP header and the transport header.
#[derive(Clone, Debug)]
struct Between {
    /// IPv4 options, whole words.
    options: Vec<u8>,
    /// IPv6 extension headers: kind, and content behind next header and length.
    extensions: Vec<(u8, Vec<u8>)>,
}

fn any_between() -> impl Strategy<Value = Between> {
    let options = prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(vec![148, 4, 0, 0]),
        // Record route, empty, and padding.
        1 => Just(vec![7, 7, 4, 0, 0, 0, 0, 0]),
    ];
    let extension = (prop_oneof![Just(0_u8), Just(60)], 0_usize..3)
        .prop_map(|(kind, words)| (kind, [[1, 4, 0, 0, 0, 0].to_vec(), vec![0; 8 * words]].concat()));
    (options, prop_oneof![3 => Just(Vec::new()), 1 => vec(extension, 0..3)])
        .prop_map(|(options, extensions)| Between { options, extensions })
}

/// One's complement sum of 16-bit words, big-endian; an odd last byte is the high one.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut all = Sum16BitWords::new();
    for part in parts {
        // Each part is whole words but the last.
        all = all.add_slice(part);
    }
    !all.ones_complement().to_be()
}

/// Puts `between` into a packet without it, and says where the transport header is.
fn with(between: &Between, plain: &[u8]) -> (Vec<u8>, usize) {
    if plain[0] >> 4 == 4 {
        let at = 20 + between.options.len();
        let mut bytes = [&plain[..20], &between.options, &plain[20..]].concat();
        bytes[0] = 0x40 | (at / 4) as u8;
        let total = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes[10..12].fill(0);
        let check = !sum(&[&bytes[..at]]);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        return (bytes, at);
    }
    let mut bytes = plain[..40].to_vec();
    let protocol = plain[6];
    let mut place = 6;
    for (kind, content) in &between.extensions {
        bytes[place] = *kind;
        place = bytes.len();
        bytes.extend([protocol, ((content.len() + 2) / 8 - 1) as u8]);
        bytes.extend(content);
    }
    let at = bytes.len();
    bytes.extend(&plain[40..]);
    let length = (bytes.len() - 40) as u16;
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    (bytes, at)
}

/// Payloads of all sizes: none, odd, of several mbufs, TSO- or LRO-sized.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => vec(any::<u8>(), 0..40),
        3 => vec(any::<u8>(), 40..1600),
        1 => (any::<[u8; 7]>(), 1600_usize..65_000).prop_map(|(some, length)| {
            some.iter().copied().cycle().take(length).collect()
        }),
    ]
}

fn addresses(bytes: &[u8]) -> &[u8] {
    if bytes[0] >> 4 == 4 { &bytes[12..20] } else { &bytes[8..40] }
}

fn check_at(side: &Side, transport: usize) -> usize {
    transport + if side.protocol == Protocol::Tcp { 16 } else { 6 }
}

fn protocol(side: &Side) -> u8 {
    if side.protocol == Protocol::Tcp { 6 } else { 17 }
}

/// Zero has two forms in one's complement.
fn same(a: u16, b: u16) -> bool {
    a == b || (a ^ b == 0xffff && (a == 0 || b == 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// A checksum that is complete: right stays right, and wrong stays exactly as wrong.
    #[test]
    fn complete((stack, wire) in any_pair(), payload in any_payload(), between in any_between(), split in 0_usize..200,
        out: bool, wrong in prop_oneof![Just(0_u16), any::<u16>()]) {
        let (engine, mut control) = engine(4);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let (from, to) = if out { (stack, wire) } else { (reversed(&wire), reversed(&stack)) };
        let (mut bytes, at) = with(&between, &outgoing(&from, "A", &payload));
        let (mut expected, _) = with(&between, &outgoing(&to, "A", &payload));
        let check = check_at(&from, at);
        let spoil = |bytes: &mut Vec<u8>| {
            let field = u16::from_be_bytes([bytes[check], bytes[check + 1]]);
            let (sum, carry) = field.overflowing_add(wrong);
            bytes[check..check + 2].copy_from_slice(&sum.wrapping_add(u16::from(carry)).to_be_bytes());
        };
        spoil(&mut bytes);
        spoil(&mut expected);
        // A UDP field that this makes zero says that there is no checksum, which is another test.
        prop_assume!(from.protocol == Protocol::Tcp || bytes[check..check + 2] != [0, 0]);
        let mut packet = Bytes::new(bytes);
        packet.contiguous = split;
        let verdict = if out {
            engine.output(&mut packet, stack.version, 2)
        } else {
            engine.input(&mut packet, stack.version, 2)
        };
        prop_assert_eq!(verdict, Verdict::Translated);
        if wrong != 0 {
            // The two forms of zero are equally wrong.
            let field = |bytes: &[u8]| u16::from_be_bytes([bytes[check], bytes[check + 1]]);
            let (is, should) = (field(&packet.bytes), field(&expected));
            prop_assert!(same(is, should), "{is:#x} is not {should:#x}");
            expected[check..check + 2].copy_from_slice(&is.to_be_bytes());
        }
        prop_assert_eq!(&packet.bytes, &expected);
    }

    /// To be finished later, by the interface or before it, perhaps in many segments: the field holds the sum of the
    /// pseudo header, with a length or (TSO) without.
    #[test]
    fn delayed((stack, wire) in any_pair(), payload in any_payload(), between in any_between(), split in 0_usize..200, tso: bool) {
        let (engine, mut control) = engine(4);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let state = |side: &Side| {
            let (mut bytes, at) = with(&between, &outgoing(side, "A", &payload));
            let length = if tso { 0 } else { (bytes.len() - at) as u16 };
            let pseudo = sum(&[addresses(&bytes), &[0, protocol(side)], &length.to_be_bytes()]);
            let check = check_at(side, at);
            bytes[check..check + 2].copy_from_slice(&pseudo.to_be_bytes());
            bytes
        };
        let mut packet = Bytes::new(state(&stack));
        packet.checksum = Checksum::Pseudo;
        packet.contiguous = split;
        prop_assert_eq!(engine.output(&mut packet, stack.version, 2), Verdict::Translated);
        prop_assert_eq!(packet.bytes, state(&wire));
    }

    /// Summed by the interface without the pseudo header: what is added later makes it come out as it would have.
    #[test]
    fn summed((stack, wire) in any_pair(), payload in any_payload(), between in any_between(), split in 0_usize..200) {
        let (engine, mut control) = engine(4);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let (bytes, at) = with(&between, &incoming(&wire, "A", &payload));
        let mut packet = Bytes::new(bytes);
        packet.checksum = Checksum::DataValid;
        packet.contiguous = split;
        packet.sum = sum(&[&packet.bytes[at..]]);
        prop_assert_eq!(engine.input(&mut packet, stack.version, 2), Verdict::Translated);
        prop_assert_eq!(&packet.bytes, &with(&between, &incoming(&stack, "A", &payload)).0);
        prop_assert!(same(packet.sum, sum(&[&packet.bytes[at..]])));
    }

    /// UDP without a checksum has none afterwards, whatever the state says.
    #[test]
    fn none((stack, wire) in any_pair(), payload in any_payload(), split in 0_usize..200, summed: bool) {
        let [stack, wire] = [stack, wire].map(|side| Side { protocol: Protocol::Udp, ..side });
        let (engine, mut control) = engine(4);
        control.add(&engine, &stack, &wire, 1).unwrap();
        let state = |side: &Side| {
            let mut bytes = incoming(side, "", &payload);
            let check = check_at(side, if side.version == Version::V4 { 20 } else { 40 });
            bytes[check..check + 2].fill(0);
            bytes
        };
        let mut packet = Bytes::new(state(&wire));
        packet.contiguous = split;
        packet.sum = 0x1234;
        if summed {
            packet.checksum = Checksum::DataValid;
        }
        prop_assert_eq!(engine.input(&mut packet, stack.version, 2), Verdict::Translated);
        prop_assert_eq!(packet.bytes, state(&stack));
        prop_assert_eq!(packet.sum, 0x1234);
    }
}

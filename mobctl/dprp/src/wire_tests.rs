use super::*;
use proptest::prelude::*;

fn golden(packet: &Packet<'_>, expected: &[u8]) {
    assert_eq!(packet.write(), expected);
    assert_eq!(Packet::parse(expected).as_ref(), Some(packet));
}

#[test]
fn golden_datagrams() {
    let noise: Vec<u8> = (0..396_u16).map(|i| (i % 251) as u8).collect();
    golden(&Packet::Hello { noise: &noise }, &[&[1, 1, 0, 0], noise.as_slice()].concat());
    golden(&Packet::Answer { receiver: 0x0102_0304, noise: &[9, 8] }, &[2, 1, 0, 0, 1, 2, 3, 4, 9, 8]);
    golden(&Packet::Finish { receiver: 0x0102_0304, noise: &[9, 8] }, &[3, 1, 0, 0, 1, 2, 3, 4, 9, 8]);
    golden(
        &Packet::Sealed { receiver: 0x0102_0304, counter: 0x0506_0708_090a_0b0c, sealed: &[0xee] },
        &[4, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xee],
    );
}

#[test]
fn what_is_no_datagram() {
    let good = [4, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    assert!(Packet::parse(&good).is_some());
    for length in 0..good.len() {
        assert_eq!(Packet::parse(&good[..length]), None, "{length} bytes");
    }
    for (at, value) in [(0, 0), (0, 5), (1, 0), (1, 2), (2, 1), (3, 1)] {
        let mut bad = good;
        bad[at] = value;
        assert_eq!(Packet::parse(&bad), None, "byte {at} is {value}");
    }
    let mut hello = vec![0; HELLO_LENGTH];
    hello[..2].copy_from_slice(&[1, 1]);
    assert!(Packet::parse(&hello).is_some());
    assert_eq!(Packet::parse(&hello[1..]), None);
    assert_eq!(Packet::parse(&hello[..HELLO_LENGTH - 1]), None);
    hello.push(0);
    assert_eq!(Packet::parse(&hello), None);
    let mut long = good.to_vec();
    long.resize(DATAGRAM_MAX, 0);
    assert!(Packet::parse(&long).is_some());
    long.push(0);
    assert_eq!(Packet::parse(&long), None);
}

#[test]
fn golden_payloads() -> Result<(), Box<dyn std::error::Error>> {
    let hello = Hello { sender: 0x0a0b_0c0d, cookie: [0; 16] };
    let bytes = hello.write();
    assert_eq!((bytes.len(), &bytes[..5]), (HELLO_PAYLOAD, &[10, 11, 12, 13, 0][..]));
    assert_eq!(Hello::parse(&bytes), Some(hello));
    assert_eq!(Hello::parse(&bytes[1..]), None);
    let mut dirty = bytes;
    dirty[HELLO_PAYLOAD - 1] = 1;
    assert_eq!(Hello::parse(&dirty), None);

    let answer = Answer {
        sender: 0x0a0b_0c0d,
        incarnation: 0x0102_0304_0506_0708,
        seen: "192.0.2.9".parse()?,
        name: "ab".into(),
    };
    let bytes = [10, 11, 12, 13, 1, 2, 3, 4, 5, 6, 7, 8, 4, 192, 0, 2, 9, 2, b'a', b'b'];
    assert_eq!(answer.write(), bytes);
    assert_eq!(Answer::parse(&bytes), Some(answer));
    for length in 0..bytes.len() {
        assert_eq!(Answer::parse(&bytes[..length]), None, "{length} bytes");
    }
    assert_eq!(Answer::parse(&[&bytes[..], &[0]].concat()), None);

    let finish = Finish { incarnation: 0x0102_0304_0506_0708, source: "2001:db8::9".parse()?, name: String::new() };
    let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 6, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0];
    assert_eq!(finish.write(), bytes);
    assert_eq!(Finish::parse(&bytes), Some(finish));
    for length in 0..bytes.len() {
        assert_eq!(Finish::parse(&bytes[..length]), None, "{length} bytes");
    }
    Ok(())
}

#[test]
fn names_are_plain() {
    let with = |name: &[u8]| [&[0, 0, 0, 0, 0, 0, 0, 1, 4, 192, 0, 2, 9, name.len() as u8][..], name].concat();
    assert!(Finish::parse(&with(b"laptop.example.org")).is_some());
    for name in [&b"a b"[..], b"a\x1b[2J", b"a\n", b"\xff", b"\xc3\xa9"] {
        assert_eq!(Finish::parse(&with(name)), None, "{name:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_round_trip_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..450), kind in 0_u8..6) {
        let mut bytes = bytes;
        if let Some(head) = bytes.first_chunk_mut::<4>() {
            *head = [kind, VERSION, 0, 0];
        }
        if let Some(packet) = Packet::parse(&bytes) {
            prop_assert_eq!(packet.write(), bytes.clone());
        }
        if let Some(hello) = Hello::parse(&bytes) {
            prop_assert_eq!(hello.write(), bytes.clone());
        }
        if let Some(answer) = Answer::parse(&bytes) {
            prop_assert_eq!(answer.write(), bytes.clone());
        }
        if let Some(finish) = Finish::parse(&bytes) {
            prop_assert_eq!(finish.write(), bytes);
        }
    }
}

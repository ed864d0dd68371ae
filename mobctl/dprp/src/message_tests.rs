use super::*;
use proptest::prelude::*;

fn golden(message: &Message, expected: &[u8]) {
    assert_eq!(message.write(), expected, "{message:?}");
    assert_eq!(Message::parse(expected).as_ref(), Some(message));
    for length in 0..expected.len() {
        assert_eq!(Message::parse(&expected[..length]), None, "{message:?} cut to {length} bytes");
    }
    assert_eq!(Message::parse(&[expected, &[0]].concat()), None, "{message:?} with a byte more");
}

fn flow(local: &str, remote: &str, protocol: Protocol) -> Result<Flow, std::net::AddrParseError> {
    Ok(Flow { local: local.parse()?, remote: remote.parse()?, protocol })
}

const TOKEN: Token = [0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

#[test]
fn golden_small_messages() {
    golden(&Message::Ready, &[1]);
    golden(&Message::Ping { nonce: 0x0102_0304 }, &[2, 1, 2, 3, 4]);
    golden(&Message::Pong { nonce: 0x0102_0304 }, &[3, 1, 2, 3, 4]);
    golden(&Message::ClaimChallenge { first: 7, token: TOKEN }, &[&[5, 0, 0, 0, 7][..], &TOKEN].concat());
    golden(&Message::ClaimProof { first: 7, token: TOKEN }, &[&[6, 0, 0, 0, 7][..], &TOKEN].concat());
    let statuses = vec![
        ClaimStatus::Confirmed,
        ClaimStatus::NotFound,
        ClaimStatus::WrongAddress,
        ClaimStatus::Taken,
        ClaimStatus::Full,
        ClaimStatus::Invalid,
    ];
    golden(&Message::ClaimAck { first: 7, statuses }, &[7, 0, 0, 0, 7, 6, 0, 1, 2, 3, 4, 5]);
    let ranges = vec![Range { first: 1, last: 2 }, Range { first: 4, last: 4 }];
    golden(
        &Message::Release { serial: 9, ranges },
        &[8, 0, 0, 0, 9, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4],
    );
    golden(&Message::Released { serial: 9 }, &[9, 0, 0, 0, 9]);
    golden(
        &Message::MoveChallenge { number: 3, token: TOKEN, refused: 0x0102 },
        &[&[11, 0, 0, 0, 3][..], &TOKEN, &[0, 0, 1, 2]].concat(),
    );
    golden(&Message::MoveResponse { number: 3, token: TOKEN }, &[&[12, 0, 0, 0, 3][..], &TOKEN].concat());
    golden(&Message::MoveRefused { number: 3, reason: MoveRefusal::Mismatch }, &[14, 0, 0, 0, 3, 3]);
    let stays = Stays { reason: Refusal::Kernel, at_former: true };
    let refused =
        vec![(Range { first: 1, last: 2 }, Refusal::Gone.into()), (Range { first: 4, last: 0x0a0b_0c0d }, stays)];
    golden(
        &Message::MoveCommit { number: 3, part: 1, parts: 2, refused },
        &[13, 0, 0, 0, 3, 0, 1, 0, 2, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 4, 10, 11, 12, 13, 0x87],
    );
}

#[test]
fn golden_claims() -> Result<(), std::net::AddrParseError> {
    let flows = vec![
        flow("192.0.2.1:4660", "198.51.100.2:22", Protocol::Tcp)?,
        flow("[2001:db8::1]:1", "[2001:db8::2]:65535", Protocol::Udp)?,
    ];
    let expected = [
        4, 0, 0, 0, 7, 0, 5, 2, // kind, first, bundle, count
        0x41, 0x12, 0x34, 0, 22, 192, 0, 2, 1, 198, 51, 100, 2, //
        0x62, 0, 1, 0xff, 0xff, // then two IPv6 addresses
        0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
        0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    ];
    golden(&Message::Claim { first: 7, bundle: 5, flows }, &expected);
    let mut bad = expected;
    bad[8] = 0x43;
    assert_eq!(Message::parse(&bad), None, "neither TCP nor UDP");
    bad[8] = 0x51;
    assert_eq!(Message::parse(&bad), None, "neither IPv4 nor IPv6");
    assert_eq!(Message::parse(&[4, 0, 0, 0, 7, 0, 5, 0]), None, "a claim of nothing");
    let last = [&[4, 0xff, 0xff, 0xff, 0xff, 0, 5, 2][..], &expected[8..21], &expected[8..21]].concat();
    assert_eq!(Message::parse(&last), None, "numbers beyond the last one");
    Ok(())
}

#[test]
fn golden_moves() -> Result<(), std::net::AddrParseError> {
    let (old, new) = ("192.0.2.1".parse()?, "198.51.100.7".parse()?);
    let selection = Selection::Bundles {
        bundles: vec![1, 0x0203],
        except: vec![Range { first: 5, last: 6 }],
        count: 10_000,
        digest: 0x0102_0304_0506_0708,
    };
    golden(
        &Message::Move(Move { number: 3, old_usable: true, old, new, former: None, selection }),
        &[
            10, 0, 0, 0, 3, 1, 4, 192, 0, 2, 1, 4, 198, 51, 100, 7, 0, 0, 0, 0x27, 0x10, 1, 2, 3, 4, 5, 6, 7,
            8, //
            2, 0, 1, 2, 3, 1, 0, 0, 0, 5, 0, 0, 0, 6,
        ],
    );
    let selection = Selection::Listed { ranges: vec![Range { first: 5, last: 6 }] };
    let expected = [10, 0, 0, 0, 3, 0, 4, 192, 0, 2, 1, 4, 198, 51, 100, 7, 1, 1, 0, 0, 0, 5, 0, 0, 0, 6];
    let request = Move { number: 3, old_usable: false, old, new, former: None, selection };
    golden(&Message::Move(request.clone()), &expected);
    let former = Some(Former { number: 2, token: TOKEN });
    let (head, selected) = expected.split_at(16);
    let mut with_former = [head, &[0, 0, 0, 2], &TOKEN, selected].concat();
    with_former[5] = 2;
    golden(&Message::Move(Move { former, ..request }), &with_former);
    for (at, value, why) in [(4, 0, "number 0"), (5, 4, "unknown flag"), (6, 5, "IP version"), (16, 2, "selection")] {
        let mut bad = expected;
        bad[at] = value;
        assert_eq!(Message::parse(&bad), None, "{why}");
    }
    Ok(())
}

#[test]
fn sets_are_written_in_one_way() {
    let release = |ranges: &[(u32, u32)]| {
        let ranges = ranges.iter().map(|&(first, last)| Range { first, last }).collect();
        Message::parse(&Message::Release { serial: 1, ranges }.write())
    };
    assert!(release(&[(1, 1), (3, 4)]).is_some());
    assert!(release(&[(2, 1)]).is_none(), "backwards");
    assert!(release(&[(3, 4), (1, 1)]).is_none(), "descending");
    assert!(release(&[(1, 4), (4, 5)]).is_none(), "overlapping");
    assert!(release(&[(1, 4), (5, 6)]).is_none(), "touching");
    assert!(release(&[(1, u32::MAX), (1, 2)]).is_none(), "after the last number");
    let many: Vec<_> = (0..129).map(|i| (i * 2, i * 2)).collect();
    assert!(release(&many[..128]).is_some());
    assert!(release(&many).is_none(), "too many");
}

/// Every message at its largest fits a datagram, and no challenge is longer than what asks for it.
#[test]
fn largest_messages_fit() -> Result<(), std::net::AddrParseError> {
    let ranges: Vec<_> = (0..128).map(|i| Range { first: i * 2, last: i * 2 }).collect();
    let (v4, v6) = (flow("192.0.2.1:1", "192.0.2.2:2", Protocol::Tcp)?, flow("[::1]:1", "[::2]:2", Protocol::Tcp)?);
    let large = |new: &str, bundles: usize| -> Result<Message, std::net::AddrParseError> {
        let bundles = (0..bundles).filter_map(|i| u16::try_from(i).ok()).collect();
        let selection = Selection::Bundles { bundles, except: ranges.clone(), count: 1, digest: 1 };
        let former = Some(Former { number: 1, token: TOKEN });
        Ok(Message::Move(Move { number: 1, old_usable: true, old: new.parse()?, new: new.parse()?, former, selection }))
    };
    let messages = [
        (Message::Claim { first: 1, bundle: 1, flows: vec![v4; claim_capacity(true)] }, 1165),
        (Message::Claim { first: 1, bundle: 1, flows: vec![v6; claim_capacity(false)] }, 1155),
        (Message::Release { serial: 1, ranges: ranges.clone() }, 1030),
        (large("2001:db8::1", BUNDLES_MAX)?, 1163),
        (
            Message::MoveCommit { number: 1, part: 0, parts: 1, refused: vec![(ranges[0], Refusal::Gone.into()); 128] },
            1162,
        ),
    ];
    for (message, length) in messages {
        let written = message.write();
        assert_eq!(written.len(), length);
        assert!(length <= MESSAGE_MAX);
        assert_eq!(Message::parse(&written), Some(message));
    }
    assert_eq!((claim_capacity(true), claim_capacity(false)), (89, 31));

    let challenge = Message::ClaimChallenge { first: 1, token: TOKEN }.write().len();
    assert!(challenge <= Message::Claim { first: 1, bundle: 1, flows: vec![v4] }.write().len());
    let statuses = vec![ClaimStatus::Full; 89];
    let ack = Message::ClaimAck { first: 1, statuses }.write().len();
    assert!(ack <= Message::Claim { first: 1, bundle: 1, flows: vec![v4; 89] }.write().len());
    let least = |ranges| {
        let selection = Selection::Listed { ranges };
        let (old, new) = (v4.local.ip(), v4.local.ip());
        Message::Move(Move { number: 1, old_usable: true, old, new, former: None, selection }).write()
    };
    let challenge = Message::MoveChallenge { number: 1, token: TOKEN, refused: 0 }.write().len();
    let refusal = Message::MoveRefused { number: 1, reason: MoveRefusal::Address }.write().len();
    assert_eq!((challenge, refusal, least(vec![Range { first: 1, last: 1 }]).len()), (25, 6, 26));
    assert_eq!(Message::parse(&least(Vec::new())), None, "shorter than its challenge");
    Ok(())
}

#[test]
fn digests_tell_sets_apart() {
    assert_eq!(digest([]), 0);
    assert_eq!(digest([1, 2, 3]), digest([3, 1, 2]));
    assert_ne!(digest([1, 4]), digest([2, 3]));
    assert_ne!(digest([1, 2]), digest([1, 2, 2]));
    assert_eq!(digest([1]), 0x17fb_89ee_9dca_b42a);
}

proptest! {
    #[test]
    fn arbitrary_bytes_round_trip_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u8..16) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Some(message) = Message::parse(&bytes) {
            prop_assert_eq!(message.write(), bytes);
        }
    }

    #[test]
    fn ranges_of_any_set(ids in proptest::collection::btree_set(0_u32..300, 0..200)) {
        let made = crate::codec::ranges(ids.iter().copied());
        for id in 0..301 {
            prop_assert_eq!(crate::codec::in_ranges(&made, id), ids.contains(&id));
        }
        prop_assert_eq!(made.iter().map(|range| range.count()).sum::<u64>(), ids.len() as u64);
        if made.len() <= RANGES_MAX {
            let message = Message::Release { serial: 1, ranges: made };
            prop_assert_eq!(Message::parse(&message.write()), Some(message));
        }
    }
}

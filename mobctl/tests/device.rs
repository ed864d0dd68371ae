//! The device's methods against a user-space host's socket.

mod common;

use common::Fake;
use mobconn_abi::{self as abi, Counter, Half, TCP, Tuple, UDP};
use mobctl::device::{ChannelError, Device};
use mobctl::errno::Errno;
use mobctl::exit::Exit;
use mobctl::tuple;
use std::net::IpAddr;
use std::path::Path;

fn side(protocol: u8, local: &str, remote: &str) -> Tuple {
    tuple::side(protocol, local.parse().unwrap(), remote.parse().unwrap()).unwrap()
}

fn stack(port: u16) -> Tuple {
    side(TCP, &format!("192.0.2.1:{port}"), "203.0.113.9:22")
}

fn wire(port: u16) -> Tuple {
    side(TCP, &format!("198.51.100.1:{port}"), "203.0.113.9:22")
}

fn errno<T: std::fmt::Debug>(result: Result<T, ChannelError>) -> Errno {
    match result {
        Err(ChannelError::Errno(errno)) => errno,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bindings_come_and_go() {
    let fake = Fake::new();
    let mut device = Device::open(&fake.path).unwrap();
    device.add_flow(stack(1), wire(1)).unwrap();
    assert_eq!(device.info().unwrap().flows, 1);
    let record = device.flow(stack(1)).unwrap().unwrap();
    assert_eq!((record.stack, record.wire), (stack(1), wire(1)));
    assert_eq!(errno(device.add_flow(stack(1), wire(2))), Errno::EEXIST);
    let v6 = side(TCP, "[2001:db8::1]:1", "[2001:db8::2]:2");
    assert_eq!(errno(device.add_flow(stack(2), v6)), Errno::EINVAL);
    device.delete_flow(stack(1)).unwrap();
    assert_eq!(errno(device.delete_flow(stack(1))), Errno::ENOENT);
    assert_eq!(device.flow(stack(1)).unwrap(), None);
    device.add_flow(stack(3), wire(3)).unwrap();
    device.flush().unwrap();
    assert_eq!(device.flows().unwrap(), []);
}

#[test]
fn long_listings_come_in_pieces() {
    let fake = Fake::new();
    for port in 1..=2500 {
        fake.state().bind(stack(port), wire(port));
    }
    let mut device = Device::open(&fake.path).unwrap();
    let ports =
        |device: &mut Device| -> Vec<u16> { device.flows().unwrap().iter().map(|r| r.stack.local_port).collect() };
    assert_eq!(ports(&mut device), (1..=2500).collect::<Vec<_>>());
    fake.state().list_limit = 999;
    assert_eq!(ports(&mut device), (1..=2500).collect::<Vec<_>>());
}

#[test]
fn batches_have_a_result_for_each_flow() {
    let fake = Fake::new();
    fake.state().bind(stack(1), stack(1));
    fake.state().find(&stack(1)).unwrap().local.generation = 5;
    let mut device = Device::open(&fake.path).unwrap();
    let new: IpAddr = "198.51.100.1".parse().unwrap();
    let moves = [(stack(1), 5), (stack(2), 6), (stack(3), 6)];
    assert_eq!(device.prepare(Half::Local, new, true, &moves), [Err(Errno::ESTALE), Ok(()), Ok(())]);
    assert_eq!(
        device.commit(Half::Local, &[(stack(2), 6), (stack(3), 7), (stack(4), 6)]),
        [Ok(()), Err(Errno::ENOENT), Err(Errno::ENOENT)]
    );
    assert_eq!(device.abort(Half::Local, &[(stack(3), 6)]), [Ok(())]);
    assert_eq!(fake.state().find(&stack(2)).unwrap().wire, wire(2));
    assert_eq!(fake.state().find(&stack(3)).unwrap().wire, stack(3));
    assert_eq!(device.prepare(Half::Remote, new, false, &[]), []);
}

#[test]
fn a_batch_beyond_the_interfaces_limit_is_cut() {
    let fake = Fake::new();
    let mut device = Device::open(&fake.path).unwrap();
    let nobody = Tuple::default();
    let moves = vec![(nobody, 1); abi::BATCH_MAX as usize + 3];
    let results = device.commit(Half::Remote, &moves);
    assert_eq!(results.len(), moves.len());
    assert!(results.iter().all(|result| *result == Err(Errno::ENOENT)));
    let lengths: Vec<u32> = fake
        .state()
        .commands
        .iter()
        .filter(|(command, _)| *command == abi::MOVE_COMMIT)
        .map(|(_, length)| *length)
        .collect();
    assert_eq!(lengths, [abi::BATCH_MAX, 3]);
}

#[test]
fn expiry_and_counters() {
    let fake = Fake::new();
    fake.state().counters[Counter::TranslatedIn as usize] = 7;
    let mut device = Device::open(&fake.path).unwrap();
    assert_eq!(device.expire(60, 300).unwrap(), (3, 1));
    assert_eq!(fake.state().expire, (60, 300));
    let stats = device.stats(true).unwrap();
    assert_eq!(stats.len(), Counter::ALL.len());
    assert_eq!(stats[0], (Counter::TranslatedIn, 7));
    assert_eq!(device.stats(false).unwrap()[0].1, 0);
}

#[test]
fn what_is_wrong_is_said() {
    let missing = Device::open(Path::new("/nonexistent/mobconn")).unwrap_err();
    assert_eq!(missing.exit, Exit::Unavailable);
    assert!(missing.advice.contains("kldload mobconn"), "{missing}");

    let fake = Fake::new();
    fake.state().version = 2;
    let other = Device::open(&fake.path).unwrap_err();
    assert_eq!(other.exit, Exit::Protocol);
    assert!(other.message.contains("version 2"), "{other}");
}

#[test]
fn a_device_that_talks_nonsense_is_an_error_and_stays_one() {
    for garbage in [&[][..], &[0; 3], &[0, 0, 0, 0, 1, 0, 0, 0, 9], &[0xff; 64]] {
        let fake = Fake::new();
        let mut device = Device::open(&fake.path).unwrap();
        fake.state().garbage = Some(garbage.into());
        assert!(matches!(device.info(), Err(ChannelError::Io(_) | ChannelError::Protocol(_))), "{garbage:?}");
        fake.state().garbage = None;
        assert!(device.info().is_err(), "what follows could be the rest of that answer");
        assert_eq!(device.commit(Half::Local, &[(stack(1), 1)]), [Err(Errno::EIO)]);
    }
}

#[test]
fn a_udp_flow_is_one_too() {
    let fake = Fake::new();
    let mut device = Device::open(&fake.path).unwrap();
    let (stack, wire) =
        (side(UDP, "[2001:db8::1]:5", "[2001:db8::2]:6"), side(UDP, "[2001:db8:1::1]:5", "[2001:db8::2]:6"));
    device.add_flow(stack, wire).unwrap();
    assert_eq!(device.flows().unwrap()[0].wire, wire);
}

#[test]
fn egress_is_said_and_read() {
    let fake = Fake::new();
    let mut device = Device::open(&fake.path).unwrap();
    assert_eq!(device.egress().unwrap(), abi::Egress::default());
    let mut egress = abi::Egress { port: 9434, rule_count: 1, ..abi::Egress::default() };
    egress.rules[0].interface = 3;
    device.set_egress(&egress).unwrap();
    assert_eq!(device.egress().unwrap(), egress);
}

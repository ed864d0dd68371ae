//! What tools/counts counts instructions of: `count CASE`, for example `count v4-out-hit`. The function `measured` gives
//! the engine the same packets in every run, and prints how many; `bare` does all but that.

use mobconn_engine::{Address, Checksum, Config, Control, Engine, Gone, Packet, Protocol, Side, Verdict, Version, new};
use std::hint::black_box;

/// Flows in the table, and packets: one of each flow.
const FLOWS: u16 = 1000;

struct Bytes {
    bytes: [u8; 80],
}

impl Packet for Bytes {
    #[inline(always)]
    fn head(&self) -> &[u8] {
        &self.bytes
    }

    #[inline(always)]
    fn total(&self) -> usize {
        self.bytes.len()
    }

    fn pull(&mut self, _: usize) -> Result<(), Gone> {
        Err(Gone)
    }

    #[inline(always)]
    fn writable(&mut self, _: usize) -> Result<&mut [u8], Gone> {
        Ok(&mut self.bytes)
    }

    #[inline(always)]
    fn checksum(&self) -> Checksum {
        Checksum::Complete
    }

    fn shift_sum(&mut self, _: u16) {}
}

fn address(version: Version, net: u8, host: u16) -> Address {
    let [a, b] = host.to_be_bytes();
    match version {
        Version::V4 => Address::v4([10, net, a, b]),
        Version::V6 => Address([0x20, 1, 0xd, 0xb8, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b]),
    }
}

/// The side of a flow whose local end is in `net`.
fn side(version: Version, net: u8, number: u16) -> Side {
    Side {
        local: address(version, net, 1),
        remote: address(version, 9, 1 + number % 100),
        local_port: 10_000 + number,
        remote_port: 443,
        version,
        protocol: Protocol::Tcp,
    }
}

/// A segment from the local end, or from the remote one; its checksums are of no matter here.
fn segment(side: &Side, out: bool) -> Bytes {
    let (from, to) = ((side.local, side.local_port), (side.remote, side.remote_port));
    let (from, to) = if out { (from, to) } else { (to, from) };
    let mut packet = match side.version {
        Version::V4 => {
            let mut packet = vec![0x45, 0, 0, 80, 0, 1, 0, 0, 64, 6, 0x12, 0x34];
            packet.extend(&from.0.0[..4]);
            packet.extend(&to.0.0[..4]);
            packet
        }
        Version::V6 => {
            let mut packet = vec![0x60, 0, 0, 0, 0, 40, 6, 64];
            packet.extend(from.0.0);
            packet.extend(to.0.0);
            packet
        }
    };
    packet.extend(from.1.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x10, 0, 0x12, 0x34, 0, 0]);
    packet.resize(80, 0x5a);
    Bytes { bytes: packet.try_into().expect("80 bytes") }
}

/// Counted from its beginning to its end.
#[inline(never)]
fn measured(packets: &mut [Bytes], expected: Verdict, mut each: impl FnMut(&mut Bytes) -> Verdict) {
    for packet in packets {
        assert!(each(black_box(packet)) == expected, "the packet is not what the case says");
    }
}

fn main() {
    let case = std::env::args().nth(1).expect("usage: count CASE");
    let mut words = case.split('-');
    let version = match words.next() {
        Some("v4") => Version::V4,
        Some("v6") => Version::V6,
        _ => panic!("{case}: v4 or v6"),
    };
    let out = words.next() == Some("out");
    let what = words.next().expect("bare, empty, miss or hit");
    let key = core::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * i as u64 + 1));
    let (engine, mut control): (Engine, Control) = new(&Config { capacity: 65_536, key }).expect("a capacity");
    if what != "empty" {
        for number in 0..FLOWS {
            control.add(&engine, &side(version, 1, number), &side(version, 2, number), 1).expect("a binding");
        }
    }
    let net = match (what, out) {
        ("hit", true) => 1,
        ("hit", false) => 2,
        _ => 3,
    };
    let mut packets: Vec<Bytes> = (0..FLOWS).map(|number| segment(&side(version, net, number), out)).collect();
    let expected = if what == "hit" { Verdict::Translated } else { Verdict::Pass };
    match (what, out) {
        ("bare", _) => measured(&mut packets, expected, |_| black_box(expected)),
        (_, true) => measured(&mut packets, expected, |packet| engine.output(packet, version, 1)),
        (_, false) => measured(&mut packets, expected, |packet| engine.input(packet, version, 1)),
    }
    println!("{}", packets.len());
}

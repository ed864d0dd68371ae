//! The module against full recomputation: random packets in mbufs cut anywhere, in every state of the checksum, compared
//! with what an implementation that is not ours says of the same packet on the other side.

mod common;

use common::packets::{Seen, Way, expected, look, packet};
use common::{add, flow, loaded};
use mobconn_abi::{TCP, Tuple, UDP};
use mobconn_kpi::{Input, Machine, Options, Output, Rx, RxChecksum, Split, Tx, Vnet};

const IFNAME: &str = "em0";
const PACKETS: u64 = 4000;

/// Numbers that look random, the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }

    /// None, odd, of one mbuf or of several.
    fn size(&mut self) -> usize {
        let bound = [2, 60, 300, 1400][self.below(4)];
        self.below(bound)
    }

    fn split(&mut self) -> Split {
        match self.below(4) {
            0 => Split::Whole,
            1 => Split::After(self.below(90)),
            _ => Split::Arbitrary,
        }
    }
}

fn machine(seed: u64) -> (Machine, Vnet, Vec<(Tuple, Tuple)>) {
    let machine = loaded(Options { seed, ..Options::default() });
    let vnet = machine.vnet0();
    vnet.set_mtu(IFNAME, 9000);
    let kinds = [(false, TCP), (false, UDP), (true, TCP), (true, UDP)];
    let flows: Vec<_> = kinds.into_iter().map(|(v6, protocol)| flow(v6, protocol, 5001)).collect();
    for (stack, wire) in &flows {
        add(&vnet, *stack, *wire).expect("FLOW_ADD");
    }
    (machine, vnet, flows)
}

fn sent(vnet: &Vnet, bytes: &[u8], tx: &Tx<'_>) -> Vec<Vec<u8>> {
    match vnet.ip_output(bytes, tx) {
        Output::Send(sent) => sent.packets,
        other => panic!("{other:?}"),
    }
}

fn check_at(tuple: &Tuple) -> usize {
    let ip = if tuple.version == 4 { 20 } else { 40 };
    ip + if tuple.protocol == TCP { 16 } else { 6 }
}

#[test]
fn sent_packets() {
    let (machine, vnet, flows) = machine(3);
    let mut dice = Dice(3);
    for number in 0..PACKETS {
        machine.set_split(dice.split());
        let (stack, wire) = &flows[dice.below(4)];
        let size = dice.size();
        let (data, options, offload) = (dice.bytes(size), dice.below(2) == 0, dice.below(2) == 0);
        let bytes = packet(stack, Way::Sent, &data, options);
        let out = sent(&vnet, &bytes, &Tx { offload, ..Tx::new(IFNAME) });
        assert_eq!(out, [packet(wire, Way::Sent, &data, options)], "packet {number}");
    }
    assert_eq!(machine.mbufs(), 0);
    machine.check();
}

#[test]
fn received_packets() {
    let (machine, vnet, flows) = machine(4);
    let mut dice = Dice(4);
    for number in 0..PACKETS {
        machine.set_split(dice.split());
        let (stack, wire) = &flows[dice.below(4)];
        let size = dice.size();
        let (data, options) = (dice.bytes(size), dice.below(2) == 0);
        let mut bytes = packet(wire, Way::Received, &data, options);
        let mut right = packet(stack, Way::Received, &data, options);
        let checksum = [RxChecksum::Unchecked, RxChecksum::Valid, RxChecksum::Data][dice.below(3)];
        let mut good = true;
        match dice.below(4) {
            // No checksum at all.
            0 if wire.protocol == UDP => {
                let at = check_at(wire);
                bytes[at..at + 2].fill(0);
                right[at..at + 2].fill(0);
            }
            // Damaged on the way: in the last byte, which is payload, so that both sides differ alike.
            1 if size > 0 && checksum != RxChecksum::Valid => {
                let last = bytes.len() - 1;
                bytes[last] ^= 0x11;
                right[last] ^= 0x11;
                good = false;
            }
            _ => {}
        }
        let Input::Deliver(delivered) = vnet.ip_input(&bytes, &Rx { checksum, ..Rx::new(IFNAME) }) else {
            panic!("not delivered")
        };
        assert_eq!(delivered.packet, right, "packet {number} {checksum:?}");
        // IPv6 does not know UDP without a checksum by itself (RFC 6935): the transport protocol judges.
        let without = wire.protocol == UDP && bytes[check_at(wire)..][..2] == [0, 0];
        if !without {
            assert_eq!(delivered.checksum_ok, good, "packet {number} {checksum:?}");
        }
    }
    assert_eq!(machine.mbufs(), 0);
    machine.check();
}

/// Segments that the interface will cut, and segments that it has put together.
#[test]
fn large_segments() {
    let (machine, vnet, flows) = machine(5);
    let mut dice = Dice(5);
    for number in 0..60 {
        machine.set_split(dice.split());
        for (stack, wire) in flows.iter().filter(|(stack, _)| stack.protocol == TCP) {
            let (size, cut) = (10_000 + dice.below(50_000), 536 + dice.below(900) as u16);
            let data = dice.bytes(size);
            let bytes = packet(stack, Way::Sent, &data, true);
            let pieces = sent(&vnet, &bytes, &Tx { tso: Some(cut), ..Tx::new(IFNAME) });
            assert_eq!(pieces.len(), size.div_ceil(usize::from(cut)), "packet {number}");
            let seen: Vec<Seen> = pieces.iter().map(|piece| look(piece)).collect();
            assert_eq!(seen.iter().flat_map(|seen| seen.payload.clone()).collect::<Vec<_>>(), data);
            for piece in seen {
                let payload = piece.payload.clone();
                assert_eq!(piece, expected(wire, Way::Sent, &payload), "packet {number}");
            }
            // What LRO merged is verified; its field is of one of the segments, and wrong for the whole.
            let mut bytes = packet(wire, Way::Received, &data, true);
            let at = check_at(wire);
            bytes[at] ^= 0x5a;
            let rx = Rx { checksum: RxChecksum::Valid, ..Rx::new(IFNAME) };
            let Input::Deliver(delivered) = vnet.ip_input(&bytes, &rx) else { panic!("not delivered") };
            assert!(delivered.checksum_ok, "packet {number}");
            let seen = look(&delivered.packet);
            assert_eq!(Seen { right: true, ..seen.clone() }, expected(stack, Way::Received, &data), "packet {number}");
            assert!(!seen.right, "a checksum is adjusted, not recomputed");
        }
    }
    assert_eq!(machine.mbufs(), 0);
    machine.check();
}

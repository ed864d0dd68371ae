//! ip_reass and frag6_input, called from a hook as a module may: what comes out is what was cut, or nothing.

#[path = "common/cc.rs"]
mod cc;

use mobconn_kpi::{Input, Machine, Options, Rx, Split, Vnet};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

const REASSEMBLE: u32 = 17;

fn loaded(seed: u64) -> Machine {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    let module = MODULE.get_or_init(|| cc::compile("testmod/services.c", "reassembly"));
    let machine = Machine::boot(Options { split: Split::Arbitrary, seed, ..Options::default() });
    machine.kldload(module, &[]).unwrap_or_else(|error| panic!("{error}: {:?}", machine.console()));
    machine.set_uptime(Some(1000));
    let vnet = machine.vnet0();
    vnet.set_local(&["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()]);
    let mut request = vec![0; 96];
    request[..4].copy_from_slice(&REASSEMBLE.to_le_bytes());
    request[4] = 1;
    vnet.open("services", 0, 3).unwrap().ioctl(0xc060_5301, &mut request, &mut []).unwrap();
    machine
}

/// The datagram as it should be: its UDP payload.
fn data(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 256) as u8).collect()
}

/// A UDP packet with a right checksum.
fn packet(v6: bool, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let address = |host| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host];
    let builder = if v6 {
        etherparse::PacketBuilder::ipv6(address(1), address(2), 64)
    } else {
        etherparse::PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
    };
    builder.udp(5000, 80).write(&mut out, &data(length)).unwrap();
    out
}

/// The part of the packet's data from `begin` to `end` as a fragment.
fn cut(whole: &[u8], begin: usize, end: usize, identity: u16) -> Vec<u8> {
    let v6 = whole[0] >> 4 == 6;
    let (headers, body) = whole.split_at(if v6 { 40 } else { 20 });
    let end = end.min(body.len());
    let more = end < body.len();
    let mut out = headers.to_vec();
    if v6 {
        out[4..6].copy_from_slice(&((end - begin + 8) as u16).to_be_bytes());
        let next = std::mem::replace(&mut out[6], 44);
        out.extend([next, 0]);
        out.extend((begin as u16 | u16::from(more)).to_be_bytes());
        out.extend([0, 0]);
        out.extend(identity.to_be_bytes());
    } else {
        out[2..4].copy_from_slice(&((20 + end - begin) as u16).to_be_bytes());
        out[4..6].copy_from_slice(&identity.to_be_bytes());
        out[6..8].copy_from_slice(&((begin / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
    }
    out.extend(&body[begin..end]);
    if !v6 {
        seal(&mut out);
    }
    out
}

fn seal(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum: u32 = packet[..20].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes());
}

/// What comes up: nothing, or a packet whose UDP payload is returned after a look at everything else.
fn receive(vnet: &Vnet, fragment: &[u8]) -> Option<Vec<u8>> {
    match vnet.ip_input(fragment, &Rx::new("em0")) {
        Input::Consumed => None,
        Input::Deliver(delivered) => {
            assert!(delivered.checksum_ok, "the transport checksum");
            let sliced = etherparse::SlicedPacket::from_ip(&delivered.packet).unwrap();
            assert!(!sliced.net.as_ref().unwrap().ip_payload_ref().is_some_and(|payload| payload.fragmented));
            let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else { panic!("not UDP") };
            assert_eq!((udp.source_port(), udp.destination_port()), (5000, 80));
            Some(udp.payload().to_vec())
        }
        other => panic!("{other:?}"),
    }
}

/// A small generator, so that the orders differ with the seed.
fn shuffle<T>(list: &mut [T], mut seed: u64) {
    for at in (1..list.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        list.swap(at, (seed >> 33) as usize % (at + 1));
    }
}

#[test]
fn any_order_makes_the_packet() {
    for seed in 0..30 {
        let machine = loaded(seed);
        let vnet = machine.vnet0();
        for v6 in [false, true] {
            for size in [8, 64, 1232] {
                let length = size * 10 - 3;
                let whole = packet(v6, length);
                let mut pieces: Vec<_> =
                    (0..length + 8).step_by(size).map(|at| cut(&whole, at, at + size, seed as u16)).collect();
                shuffle(&mut pieces, seed);
                let mut came: Vec<_> = pieces.iter().map(|piece| receive(&vnet, piece)).collect();
                assert_eq!(came.pop().unwrap().as_deref(), Some(&*data(length)), "{v6} {size} {seed}");
                assert!(came.iter().all(Option::is_none));
                assert_eq!(machine.mbufs(), 0);
            }
            // What is no fragment is not touched.
            assert_eq!(receive(&vnet, &packet(v6, 99)), Some(data(99)));
        }
        machine.check();
    }
}

#[test]
fn packets_do_not_mix() {
    let machine = loaded(1);
    let vnet = machine.vnet0();
    for v6 in [false, true] {
        let whole = packet(v6, 3000);
        let mut pieces: Vec<_> = (0..50).flat_map(|id| [(0, id), (1000, id), (2000, id)]).collect();
        shuffle(&mut pieces, 5);
        let came: Vec<_> = pieces
            .iter()
            .filter_map(|&(at, id)| receive(&vnet, &cut(&whole, at, if at == 2000 { 9999 } else { at + 1000 }, id)))
            .collect();
        assert_eq!(came.len(), 50);
        assert!(came.iter().all(|payload| *payload == data(3000)));
    }
}

#[test]
fn overlaps_never_make_another_packet() {
    let machine = loaded(2);
    let vnet = machine.vnet0();
    let mut evil = packet(false, 3000);
    evil[20 + 8..].fill(0xee);
    let whole = packet(false, 3000);
    // IPv4: what came first stays, as far as something new does not begin before it.
    assert_eq!(receive(&vnet, &cut(&whole, 0, 1600, 1)), None);
    assert_eq!(receive(&vnet, &cut(&evil, 800, 1600, 1)), None, "covered: dropped");
    assert_eq!(receive(&vnet, &cut(&whole, 800, 2400, 1)), None, "cut to what is new");
    assert_eq!(receive(&vnet, &cut(&whole, 2400, 9999, 1)), Some(data(3000)));
    // A part that ends elsewhere than the last one said.
    assert_eq!(receive(&vnet, &cut(&whole, 2400, 9999, 2)), None);
    let longer = packet(false, 3800);
    assert_eq!(receive(&vnet, &cut(&longer, 2400, 3200, 2)), None);
    assert_eq!(receive(&vnet, &cut(&whole, 0, 2400, 2)), Some(data(3000)));
    // IPv6: an exact repetition is dropped, any overlap ends the packet.
    let whole = packet(true, 3000);
    for begin in [0, 8, 792, 800] {
        let id = 10 + begin as u16;
        assert_eq!(receive(&vnet, &cut(&whole, 0, 800, id)), None);
        assert_eq!(receive(&vnet, &cut(&whole, 0, 800, id)), None);
        assert_eq!(receive(&vnet, &cut(&whole, begin, begin + 808, id)), None);
        let end = begin + 808;
        let rest = receive(&vnet, &cut(&whole, end, 9999, id));
        assert_eq!(rest, (begin == 800).then(|| data(3000)), "{begin}");
    }
    machine.check();
}

#[test]
fn endless_fragments_are_bounded_and_forgotten() {
    let machine = loaded(3);
    let vnet = machine.vnet0();
    for v6 in [false, true] {
        let whole = packet(v6, 30_000);
        // Many packets, none complete.
        for id in 0..5000 {
            assert_eq!(receive(&vnet, &cut(&whole, 0, 1000, id)), None);
        }
        // Many pieces of one packet: given up.
        for at in (0..30_000).step_by(16).skip(1) {
            assert_eq!(receive(&vnet, &cut(&whole, at, at + 8, 6000)), None);
        }
    }
    assert_eq!(machine.mbufs(), 0, "the module keeps none");
    machine.advance(Duration::from_secs(61));
    for v6 in [false, true] {
        // The half of it that came a minute ago is forgotten.
        let whole = packet(v6, 1500);
        assert_eq!(receive(&vnet, &cut(&whole, 0, 1000, 7000)), None);
        machine.advance(Duration::from_secs(61));
        assert_eq!(receive(&vnet, &cut(&whole, 1000, 9999, 7000)), None);
        assert_eq!(receive(&vnet, &cut(&whole, 0, 1000, 7000)), Some(data(1500)));
    }
}

#[test]
fn an_atomic_fragment_is_a_packet() {
    let machine = loaded(4);
    let whole = packet(true, 500);
    let mut atomic = cut(&whole, 0, 9999, 1);
    assert_eq!(atomic[42..44], [0, 0]);
    assert_eq!(receive(&machine.vnet0(), &atomic), Some(data(500)));
    // Nothing in it.
    atomic.truncate(48);
    atomic[4..6].copy_from_slice(&8_u16.to_be_bytes());
    atomic[43] = 1;
    assert_eq!(receive(&machine.vnet0(), &atomic), None);
    assert_eq!(machine.mbufs(), 0);
}

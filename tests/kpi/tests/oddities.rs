//! Packets that are not plain segments: options, fragments, extension headers, quoted packets, nonsense.

mod common;

use common::packets::{Way, expected, look, packet, payload};
use common::{add, addresses, count, flow, loaded};
use mobconn_abi::{Counter, TCP, Tuple, UDP};
use mobconn_kpi::{Delivered, Event, Input, Machine, Options, Output, Rx, Split, Tx, Vnet};

const IFNAME: &str = "em0";

fn machine(seed: u64) -> (Machine, Vec<(Tuple, Tuple)>) {
    let machine = loaded(Options { seed, split: Split::Arbitrary, ..Options::default() });
    let vnet = machine.vnet0();
    vnet.set_mtu(IFNAME, 9000);
    let mut flows = Vec::new();
    let mut local = Vec::new();
    for v6 in [false, true] {
        for protocol in [TCP, UDP] {
            let (stack, wire) = flow(v6, protocol, 5001);
            add(&vnet, stack, wire).expect("FLOW_ADD");
            local.push(addresses(&wire).0);
            flows.push((stack, wire));
        }
    }
    vnet.set_local(&local);
    (machine, flows)
}

fn sent(vnet: &Vnet, bytes: &[u8]) -> Vec<u8> {
    match vnet.ip_output(bytes, &Tx::new(IFNAME)) {
        Output::Send(mut sent) if sent.packets.len() == 1 => sent.packets.remove(0),
        other => panic!("{other:?}"),
    }
}

fn delivered(vnet: &Vnet, bytes: &[u8]) -> Delivered {
    match vnet.ip_input(bytes, &Rx::new(IFNAME)) {
        Input::Deliver(delivered) => delivered,
        other => panic!("{other:?}"),
    }
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)])));
    let total: u32 = words.sum();
    let total = (total & 0xffff) + (total >> 16);
    ((total & 0xffff) + (total >> 16)) as u16
}

/// Puts IPv4 options into a packet and makes the header right again.
fn with_ipv4_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut out = packet[..20].to_vec();
    out.extend(options);
    out.extend(&packet[20..]);
    out[0] = 0x45 + (options.len() / 4) as u8;
    let total = out.len() as u16;
    out[2..4].copy_from_slice(&total.to_be_bytes());
    out[10..12].fill(0);
    let value = !sum(&out[..20 + options.len()]);
    out[10..12].copy_from_slice(&value.to_be_bytes());
    out
}

/// Lets routers cut an IPv4 packet.
fn without_df(mut packet: Vec<u8>) -> Vec<u8> {
    packet[6] &= !0x40;
    packet[10..12].fill(0);
    let value = !sum(&packet[..20]);
    packet[10..12].copy_from_slice(&value.to_be_bytes());
    packet
}

/// Puts an extension header of `length` bytes (a multiple of 8) into an IPv6 packet: destination options, padding only.
fn with_extension(packet: &[u8], length: usize) -> Vec<u8> {
    let mut out = packet[..40].to_vec();
    out.extend([packet[6], (length / 8 - 1) as u8]);
    // PadN options of at most 255 bytes each.
    let mut left = length - 2;
    while left > 0 {
        let pad = left.min(200);
        if pad == 1 {
            out.push(0);
        } else {
            out.extend([1, (pad - 2) as u8]);
            out.resize(out.len() + pad - 2, 0);
        }
        left -= pad;
    }
    out.extend(&packet[40..]);
    out[6] = 60;
    let total = (out.len() - 40) as u16;
    out[4..6].copy_from_slice(&total.to_be_bytes());
    out
}

#[test]
fn ordinary_ipv4_options_do_not_hinder() {
    for seed in 0..10 {
        let (machine, flows) = machine(seed);
        let vnet = machine.vnet0();
        for (stack, wire) in flows.iter().filter(|(stack, _)| stack.version == 4) {
            // Record route, empty; no source route.
            let options = [7, 7, 4, 0, 0, 0, 0, 0];
            let out = sent(&vnet, &with_ipv4_options(&packet(stack, Way::Sent, &payload(300), false), &options));
            assert_eq!(look(&out), expected(wire, Way::Sent, &payload(300)), "seed {seed}");
            let bytes = with_ipv4_options(&packet(wire, Way::Received, &payload(300), false), &options);
            let back = delivered(&vnet, &bytes);
            assert_eq!(look(&back.packet), expected(stack, Way::Received, &payload(300)), "seed {seed}");
        }
    }
}

#[test]
fn source_routes_pass_untouched() {
    let (machine, flows) = machine(1);
    let vnet = machine.vnet0();
    let (stack, wire) = flows[0];
    for kind in [131, 137] {
        let options = [kind, 7, 4, 203, 0, 113, 1, 0];
        let bytes = with_ipv4_options(&packet(&stack, Way::Sent, &payload(20), false), &options);
        assert_eq!(sent(&vnet, &bytes), bytes);
        let bytes = with_ipv4_options(&packet(&wire, Way::Received, &payload(20), false), &options);
        let delivered = delivered(&vnet, &bytes);
        assert_eq!((delivered.packet, delivered.ours), (bytes, false));
    }
    assert_eq!(count(&vnet, Counter::PassedOptions), 4);
}

#[test]
fn fragments_are_never_half_translated() {
    for seed in 0..10 {
        let (machine, flows) = machine(seed);
        let vnet = machine.vnet0();
        let cuttable = |packet: Vec<u8>| if packet[0] >> 4 == 4 { without_df(packet) } else { packet };
        vnet.set_mtu("small0", 1280);
        for (stack, wire) in &flows {
            // Sent whole, cut behind the hook: every piece has the wire side.
            let bytes = cuttable(packet(stack, Way::Sent, &payload(3000), false));
            let Output::Send(out) = vnet.ip_output(&bytes, &Tx::new("small0")) else { panic!("not sent") };
            assert!(out.packets.len() > 2);
            let address = if stack.version == 4 { 12..20 } else { 8..40 };
            let whole = sent(&vnet, &bytes);
            let (first, later) = out.packets.split_first().expect("fragments");
            assert!(later.iter().chain([first]).all(|piece| piece[address.clone()] == whole[address.clone()]));
            // Received in pieces, the last one first: nothing goes up before it is whole.
            let bytes = cuttable(packet(wire, Way::Received, &payload(3000), false));
            let other = flow(stack.version == 6, stack.protocol, 9999).0;
            let pieces = {
                // Cut by a stack without the binding.
                let plain = machine.vnet_create();
                plain.set_mtu("small0", 1280);
                let Output::Send(out) = plain.ip_output(&bytes, &Tx::new("small0")) else { panic!("not sent") };
                out.packets
            };
            let before = count(&vnet, Counter::Fragments);
            assert!(vnet.events().is_empty());
            for piece in pieces.iter().rev() {
                assert_eq!(vnet.ip_input(piece, &Rx::new(IFNAME)), Input::Consumed, "{stack:?} seed {seed}");
            }
            assert_eq!(count(&vnet, Counter::Fragments), before + pieces.len() as u64);
            machine.quiesce();
            let events = vnet.events();
            let [Event::Received(Input::Deliver(delivered))] = events.as_slice() else { panic!("{events:?}") };
            assert!(delivered.ours);
            assert_eq!(look(&delivered.packet), expected(stack, Way::Received, &payload(3000)), "seed {seed}");
            assert_eq!(sent(&vnet, &packet(&other, Way::Sent, &[1], false)), packet(&other, Way::Sent, &[1], false));
        }
    }
}

#[test]
fn extension_headers_of_any_length_are_survived() {
    for seed in 0..20 {
        let (machine, flows) = machine(seed);
        let vnet = machine.vnet0();
        for (stack, wire) in flows.iter().filter(|(stack, _)| stack.version == 6) {
            for length in [8, 64, 96, 104, 120, 200, 1024, 2048] {
                // Somebody else's packet passes, whatever it carries.
                let other = flow(true, stack.protocol, 7777).0;
                let bytes = with_extension(&packet(&other, Way::Sent, &payload(100), false), length);
                assert_eq!(sent(&vnet, &bytes), bytes, "{length} seed {seed}");
                let (local, _) = addresses(&other);
                vnet.set_local(&[local, addresses(wire).0]);
                let bytes = with_extension(&packet(&other, Way::Received, &payload(100), false), length);
                assert_eq!(delivered(&vnet, &bytes).packet, bytes, "{length} seed {seed}");
                // One of a bound flow is translated as long as its headers are not out of all proportion.
                let bytes = with_extension(&packet(stack, Way::Sent, &payload(100), false), length);
                let translated = with_extension(&packet(wire, Way::Sent, &payload(100), false), length);
                let out = sent(&vnet, &bytes);
                // Headers that are longer than 128 bytes in all are nobody's.
                let side = if 40 + length + 20 <= 128 { &translated } else { &bytes };
                assert_eq!(&out, side, "{length} seed {seed}");
            }
        }
        assert_eq!(machine.mbufs(), 0);
    }
}

/// An error message that quotes the first bytes of `quoted`, from a router.
fn error(quoted: &[u8], length: usize, to: &Tuple) -> Vec<u8> {
    let quoted = &quoted[..length.min(quoted.len())];
    let (local, _) = addresses(to);
    let (std::net::IpAddr::V4(_), v6) = (local, false) else { return error_v6(quoted, to) };
    assert!(!v6);
    // Fragmentation needed, next MTU 1280.
    let mut icmp = vec![3, 4, 0, 0, 0, 0, 5, 0];
    icmp.extend(quoted);
    let value = !sum(&icmp);
    icmp[2..4].copy_from_slice(&value.to_be_bytes());
    let mut out = vec![0x45, 0, 0, 0, 0, 9, 0, 0, 64, 1, 0, 0, 203, 0, 113, 254];
    out.extend(&to.local[..4]);
    let total = (20 + icmp.len()) as u16;
    out[2..4].copy_from_slice(&total.to_be_bytes());
    let value = !sum(&out);
    out[10..12].copy_from_slice(&value.to_be_bytes());
    out.extend(icmp);
    out
}

fn error_v6(quoted: &[u8], to: &Tuple) -> Vec<u8> {
    // Packet too big, MTU 1280.
    let mut icmp = vec![2, 0, 0, 0, 0, 0, 5, 0];
    icmp.extend(quoted);
    let mut out = vec![0x60, 0, 0, 0];
    out.extend((icmp.len() as u16).to_be_bytes());
    out.extend([58, 64, 0x20, 1, 0xd, 0xb8, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe]);
    out.extend(to.local);
    let value = !icmpv6_sum(&out, &icmp);
    icmp[2..4].copy_from_slice(&value.to_be_bytes());
    out.extend(icmp);
    out
}

fn icmpv6_sum(header: &[u8], icmp: &[u8]) -> u16 {
    let mut all = header[8..40].to_vec();
    all.extend((icmp.len() as u32).to_be_bytes());
    all.extend([0, 0, 0, 58]);
    all.extend(icmp);
    sum(&all)
}

#[test]
fn errors_reach_the_connection_they_are_about() {
    for seed in 0..20 {
        let (machine, flows) = machine(seed);
        let vnet = machine.vnet0();
        for (stack, wire) in &flows {
            let header = if stack.version == 4 { 20 } else { 40 };
            for quoted in [header + 8, header + 20, header + 100] {
                let on_wire = packet(wire, Way::Sent, &payload(1200), false);
                let bytes = error(&on_wire, quoted, wire);
                let got = delivered(&vnet, &bytes).packet;
                let context = format!("{stack:?} {quoted} seed {seed}");
                // The quote is what the connection sent, byte for byte.
                let known = packet(stack, Way::Sent, &payload(1200), false);
                assert_eq!(got[header + 8..], known[..quoted], "{context}");
                let icmp = &got[header..];
                let right = if stack.version == 4 { sum(icmp) } else { icmpv6_sum(&got, icmp) };
                assert_eq!(right, 0xffff, "{context}: checksum");
                assert_eq!(got[..header], bytes[..header], "{context}: the router's own header");
            }
        }
        assert_eq!(machine.mbufs(), 0);
    }
}

#[test]
fn nonsense_passes_untouched() {
    let (machine, flows) = machine(3);
    let vnet = machine.vnet0();
    for (stack, wire) in &flows {
        let header = if stack.version == 4 { 20 } else { 40 };
        let bytes = packet(stack, Way::Sent, &payload(60), false);
        // Cut off in the transport header, with an IP length that says so.
        for keep in 0..8 {
            let mut short = bytes[..header + keep].to_vec();
            if stack.version == 4 {
                let total = short.len() as u16;
                short[2..4].copy_from_slice(&total.to_be_bytes());
                short[10..12].fill(0);
                let value = !sum(&short[..20]);
                short[10..12].copy_from_slice(&value.to_be_bytes());
            } else {
                short[4..6].copy_from_slice(&(keep as u16).to_be_bytes());
            }
            assert_eq!(sent(&vnet, &short), short, "{stack:?} {keep}");
        }
        // Another protocol with the same bytes.
        let mut other = bytes.clone();
        other[if stack.version == 4 { 9 } else { 6 }] = 132;
        if stack.version == 4 {
            other[10..12].fill(0);
            let value = !sum(&other[..20]);
            other[10..12].copy_from_slice(&value.to_be_bytes());
        }
        assert_eq!(sent(&vnet, &other), other);
        // A reflected packet: the flow's own, coming back.
        let reflected = packet(wire, Way::Sent, &payload(60), false);
        assert!(!matches!(vnet.ip_input(&reflected, &Rx::new(IFNAME)), Input::Deliver(d) if d.ours));
    }
    assert_eq!(machine.mbufs(), 0);
}

/// Random bytes after a right IP header, of bound flows' addresses: nothing breaks, nothing is lost.
#[test]
fn random_packets_do_no_harm() {
    for seed in 0..6 {
        let (machine, flows) = machine(seed);
        let vnet = machine.vnet0();
        let mut state = seed + 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..3000 {
            let (stack, wire) = flows[(random() % 4) as usize];
            let (tuple, way) = if random() % 2 == 0 { (stack, Way::Sent) } else { (wire, Way::Received) };
            let mut bytes = packet(&tuple, way, &payload((random() % 300) as usize), random() % 2 == 0);
            for _ in 0..random() % 6 {
                let at = (random() % bytes.len() as u64) as usize;
                bytes[at] = random() as u8;
            }
            if bytes[0] >> 4 == 4 {
                let length = (usize::from(bytes[0] & 15) * 4).clamp(20, bytes.len());
                bytes[10..12].fill(0);
                let value = !sum(&bytes[..length]);
                bytes[10..12].copy_from_slice(&value.to_be_bytes());
            }
            let _ = vnet.ip_output(&bytes, &Tx { offload: random() % 2 == 0, ..Tx::new(IFNAME) });
            let _ = vnet.ip_input(&bytes, &Rx::new(IFNAME));
            assert_eq!(machine.mbufs(), 0);
        }
        machine.check();
    }
}

//! Target `lists`.

use arbitrary::{Arbitrary, Unstructured};
use mobconn_dprp::Instant;
use mobctl::connections::{inet_diag, pcblist};
use mobctl::networks::egress::Steering;
use mobctl::networks::policy::{Policy, Preference};
use mobctl::networks::{Snapshot, is_global, routesock, rtnetlink};

/// What the kernels' lists are like; any of it may be missing.
#[derive(Arbitrary, Debug)]
struct List {
    kind: u8,
    records: Vec<Record>,
    /// Bytes changed afterwards.
    edits: Vec<(u16, u8)>,
    /// Bytes behind it, and bytes cut off.
    more: Vec<u8>,
    less: u16,
}

#[derive(Arbitrary, Debug)]
struct Record {
    /// Repeated to the length of a record.
    content: Vec<u8>,
    /// Fields of four bytes that decide: where, by the list of the decoder's own offsets, and what.
    fields: [(u8, u32); 4],
    /// Of a message of the other kernel.
    kind: u16,
}

impl List {
    /// A list of FreeBSD's: a generation, records, and the generation again, each with its length in front.
    fn pcblist(&self, length: usize) -> Vec<u8> {
        const GENERATION: usize = 32;
        let mut list = vec![0; GENERATION];
        list[..8].copy_from_slice(&(GENERATION as u64).to_ne_bytes());
        for record in self.records.iter().take(8) {
            let mut bytes: Vec<u8> = record.content.iter().copied().cycle().take(length).collect();
            bytes.resize(length, 0);
            for (at, value) in record.fields {
                let (_, offset) = pcblist::LAYOUT[usize::from(at) % pcblist::LAYOUT.len()];
                if let Some(place) = bytes.get_mut(offset..offset + 4) {
                    place.copy_from_slice(&(value & 0x0f).to_ne_bytes());
                }
            }
            bytes[..8].copy_from_slice(&(length as u64).to_ne_bytes());
            list.extend(bytes);
        }
        let generation = list[..GENERATION].to_vec();
        list.extend(generation);
        list
    }

    /// Messages of Linux: length, kind, flags, sequence 1, sender, content.
    fn messages(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for record in &self.records {
            let kind = [20_u16, 2, 3, record.kind][usize::from(record.kind % 4)];
            let mut content = record.content.clone();
            content.resize(content.len().max(72), 0);
            for (at, value) in record.fields {
                content[usize::from(at) % 8] = value as u8 & 0x0f;
            }
            list.extend(((16 + content.len()) as u32).to_ne_bytes());
            list.extend(kind.to_ne_bytes());
            list.extend([0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
            list.extend(&content);
            list.resize(list.len().next_multiple_of(4), 0);
        }
        list
    }
}

/// Runs the target.
pub(crate) fn run(data: &[u8]) {
    let Ok(list) = List::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let kind = list.kind % 4;
    let size = |name: &str| pcblist::LAYOUT.iter().find(|(known, _)| *known == name).expect("a size").1;
    let mut bytes = match kind {
        0 => list.pcblist(size("sizeof(struct xtcpcb)")),
        1 => list.pcblist(size("sizeof(struct xinpcb)")),
        _ => list.messages(),
    };
    for (at, value) in &list.edits {
        if let Some(byte) = bytes.get_mut(usize::from(*at)) {
            *byte = *value;
        }
    }
    bytes.extend(&list.more);
    bytes.truncate(bytes.len() - usize::from(list.less).min(bytes.len()));
    let found = match kind {
        0 => pcblist::parse_tcp(&bytes).unwrap_or_default(),
        1 => pcblist::parse_udp(&bytes).unwrap_or_default(),
        _ => {
            let mut found = Vec::new();
            let _ = inet_diag::parse(&bytes, if kind == 2 { 6 } else { 17 }, 1, &mut found);
            found
        }
    };
    assert!(found.len() <= list.records.len() + list.more.len() / 32, "more connections than records");
    for connection in found {
        assert!(matches!(connection.tuple.version, 4 | 6));
        assert!(mobctl::tuple::ends(&connection.tuple).is_some());
    }
    networks(&bytes);
}

/// The same bytes as lists of interfaces, addresses and routes; whatever comes of it can be decided about.
fn networks(bytes: &[u8]) {
    let mut snapshot = Snapshot::default();
    let _ = rtnetlink::parse(bytes, 1, &mut snapshot);
    routesock::interfaces(bytes, &mut snapshot);
    routesock::routes(bytes, &mut snapshot);
    routesock::routers(bytes, &mut snapshot);
    let mut policy = Policy::new(Preference::default());
    for decision in policy.observe(Instant::from_micros(0), snapshot, []) {
        assert!(is_global(decision.new) && decision.old.is_ipv4() == decision.new.is_ipv4());
    }
    let _ = Steering::default().egress(Instant::from_micros(0), &policy, &[], &[], 9434);
}

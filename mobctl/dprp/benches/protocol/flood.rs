//! Datagrams that nobody asked for, at a host with many associations.

use crate::crowd::Crowd;
use crate::end::{Datagram, End, config, flow, stranger};
use crate::kernels::Willing;
use mobconn_dprp::{Config, Event, GroupKey, Host, Instant};

/// What a host with this configuration sends first to a host that it does not know.
fn hello(config: Config, to: std::net::IpAddr) -> Vec<u8> {
    let mut end = End::new(config, Willing);
    let flows = vec![(flow(stranger(1), to, 1), 1)];
    end.event(Instant::from_micros(0), Event::Flows(flows)).remove(0).data
}

/// Forged datagrams of one kind.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) datagrams: Vec<Datagram>,
}

/// As many of each kind as are wanted.
pub(crate) fn kinds<H: Host>(crowd: &mut Crowd<H>, times: u32) -> Vec<Kind> {
    let genuine = crowd.begin();
    let before = genuine.clone();
    crowd.end(genuine);
    let to = before[0].to;
    let mut random = 1_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random.to_be_bytes()
    };
    let outsider = hello(Config { group_keys: vec![GroupKey::from_bytes(&[43; 32])], ..config(9_000_000) }, to);
    let member = hello(config(9_000_001), to);
    let names = [
        "noise",
        "sealed, of no association",
        "sealed, tampered with",
        "sealed, replayed",
        "Hello of another group",
        "Hello of a member, replayed from anywhere",
    ];
    let mut make = |kind: usize, i: u32| {
        let mut datagram = before[i as usize % before.len()].clone();
        match kind {
            0 => datagram.data[1..9].copy_from_slice(&next()),
            1 => datagram.data[4..8].copy_from_slice(&next()[..4]),
            // A counter of the future, as a replayed one would be dropped before anything is computed.
            2 => datagram.data[8..12].copy_from_slice(&(i + 1).to_be_bytes()),
            3 => return datagram,
            4 => {
                datagram.data.clone_from(&outsider);
                datagram.data[4..12].copy_from_slice(&next());
            }
            _ => datagram.data.clone_from(&member),
        }
        datagram.from = stranger(i);
        datagram
    };
    let kind = |(kind, name)| Kind { name, datagrams: (0..times).map(|i| make(kind, i)).collect() };
    names.into_iter().enumerate().map(kind).collect()
}

/// All kinds in turn, `times` datagrams together, and among them these.
pub(crate) fn among(kinds: &[Kind], times: usize, genuine: Vec<Datagram>) -> Vec<Datagram> {
    let mut forged = (0..times).map(|i| kinds[i % kinds.len()].datagrams[i].clone());
    let (each, count) = (times / genuine.len().max(1), genuine.len());
    let mut all = Vec::with_capacity(times + count);
    for datagram in genuine {
        all.extend(forged.by_ref().take(each));
        all.push(datagram);
    }
    all.extend(forged);
    all
}

//! What a host's kernel does on its own, without a packet that somebody waits
//! for, and making Linux's TCP send again at once.
//!
//! FreeBSD's module sets the retransmission timer of a connection to now.
//! Linux has no such call, but takes the backoff of that timer back when it is
//! told by ICMP that the destination cannot be reached (RFC 6069), and sends
//! at once when the shorter time is over. So that is what it is told.

use crate::kernel::By;
use crate::packet::{Transport, View};
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

/// Something that a kernel does on its own.
#[derive(Debug, PartialEq, Eq)]
pub enum Extra {
    /// It sends packets.
    Send(Vec<Vec<u8>>, By),
    /// A packet is for this host.
    Deliver(Vec<u8>),
    /// The retransmission timer of this connection (local end first) fires.
    Resume(SocketAddr, SocketAddr),
}

/// What waits for the packet loop: number of the host, and what.
pub(crate) type Queue = Arc<Mutex<VecDeque<(usize, Extra)>>>;

/// Where a host's kernel puts what it does on its own. Never waits.
#[derive(Clone, Debug)]
pub struct Sink {
    host: usize,
    queue: Queue,
    wake: Option<Arc<UnixStream>>,
}

impl Sink {
    pub(crate) fn new(host: usize, queue: Queue, wake: Arc<UnixStream>) -> Self {
        Self { host, queue, wake: Some(wake) }
    }

    /// One that nobody looks at.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { host: 0, queue: Queue::default(), wake: None }
    }

    /// Puts it there.
    pub fn put(&self, extra: Extra) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back((self.host, extra));
        if let Some(wake) = &self.wake {
            // Full: the loop is awake, or will be.
            let _ = (&**wake).write(&[0]);
        }
    }

    /// The connection is to send again.
    pub fn resume(&self, local: SocketAddr, remote: SocketAddr) {
        self.put(Extra::Resume(local, remote));
    }
}

/// What a host's TCP said and heard last.
#[derive(Debug)]
struct Segment {
    /// The beginning of the last segment with data: what ICMP quotes.
    front: Vec<u8>,
    /// Where the sequence number lies in it.
    sequence: usize,
    /// How many were sent.
    count: u64,
}

/// The connections of a host, as its packets show them.
#[derive(Debug, Default)]
pub(crate) struct Spoken {
    segments: HashMap<(SocketAddr, SocketAddr), Segment>,
    acknowledged: HashMap<(SocketAddr, SocketAddr), [u8; 4]>,
}

impl Spoken {
    /// The host's IP layer sends this packet.
    pub(crate) fn sends(&mut self, packet: &[u8]) {
        let Some(view) = View::parse(packet) else { return };
        let Transport::Tcp { flags, .. } = view.transport else { return };
        // FIN and SYN count as data.
        if view.length == 0 && flags & 3 == 0 {
            return;
        }
        let transport = if packet.first().is_some_and(|first| first >> 4 == 4) { header(packet) } else { 40 };
        let Some(front) = packet.get(..transport + 20) else { return };
        let key = (view.source, view.destination);
        let count = self.segments.get(&key).map_or(0, |segment| segment.count) + 1;
        self.segments.insert(key, Segment { front: front.to_vec(), sequence: transport + 4, count });
    }

    /// The host is given this packet.
    pub(crate) fn hears(&mut self, packet: &[u8]) {
        let Some(view) = View::parse(packet) else { return };
        let Transport::Tcp { flags, .. } = view.transport else { return };
        let transport = if packet.first().is_some_and(|first| first >> 4 == 4) { header(packet) } else { 40 };
        if let (true, Some(bytes)) = (flags & 0x10 != 0, packet.get(transport + 8..transport + 12)) {
            let mut number = [0; 4];
            number.copy_from_slice(bytes);
            self.acknowledged.insert((view.destination, view.source), number);
        }
    }

    /// How many segments with data the connection has sent.
    pub(crate) fn count(&self, local: SocketAddr, remote: SocketAddr) -> u64 {
        self.segments.get(&(local, remote)).map_or(0, |segment| segment.count)
    }

    /// ICMP errors about what may be the first segment that is not acknowledged: TCP believes only the one that is. It is
    /// the segment behind the last acknowledgement that came, unless TCP threw that away (it came with a segment that was
    /// older than all it waits for); then it is the one that the timer sent last.
    pub(crate) fn unreachable(&self, local: SocketAddr, remote: SocketAddr) -> Vec<Vec<u8>> {
        let Some(segment) = self.segments.get(&(local, remote)) else { return Vec::new() };
        let mut quotes = vec![segment.front.clone()];
        if let Some(number) = self.acknowledged.get(&(local, remote)) {
            let mut quote = segment.front.clone();
            if let Some(sequence) = quote.get_mut(segment.sequence..segment.sequence + 4) {
                sequence.copy_from_slice(number);
            }
            quotes.insert(0, quote);
            quotes.dedup();
        }
        // Network unreachable; no route.
        let kind = if local.is_ipv4() { [3, 0] } else { [1, 0] };
        quotes.iter().map(|quote| error(remote.ip(), local.ip(), kind, 0, quote)).collect()
    }
}

fn header(packet: &[u8]) -> usize {
    packet.first().map_or(20, |first| usize::from(first & 15) * 4)
}

/// "Fragmentation needed" or "packet too big" about a packet of this host.
pub(crate) fn too_big(packet: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let (source, destination) = crate::packet::addresses(packet)?;
    let v4 = source.is_ipv4();
    let quote = packet.get(..packet.len().min(if v4 { header(packet) + 8 } else { 1000 }))?;
    Some(error(destination, source, if v4 { [3, 4] } else { [2, 0] }, mtu.into(), quote))
}

/// An ICMP or ICMPv6 error.
pub fn error(from: IpAddr, to: IpAddr, kind: [u8; 2], rest: u32, quote: &[u8]) -> Vec<u8> {
    let mut icmp = vec![kind[0], kind[1], 0, 0];
    icmp.extend(rest.to_be_bytes());
    icmp.extend(quote);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let sum = checksum(&icmp, 0);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 1, 0, 0];
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet[2..4].copy_from_slice(&((20 + icmp.len()) as u16).to_be_bytes());
            let sum = checksum(&packet, 0);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend(icmp);
            packet
        }
        (from, to) => {
            let octets = |ip| match ip {
                IpAddr::V6(ip) => ip.octets(),
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            };
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
            packet[4..6].copy_from_slice(&(icmp.len() as u16).to_be_bytes());
            packet.extend(octets(from));
            packet.extend(octets(to));
            let pseudo = packet.get(8..40).unwrap_or_default().to_vec();
            let start = u32::from(!checksum(&pseudo, 0)) + icmp.len() as u32 + 58;
            let sum = checksum(&icmp, start);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            packet.extend(icmp);
            packet
        }
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | w.get(1).copied().map_or(0, u32::from));
    let mut sum = u64::from(start) + words.map(u64::from).sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

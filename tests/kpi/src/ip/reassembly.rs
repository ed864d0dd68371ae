//! Reassembly: ip_reass and frag6_input, with the kernel's rules for what overlaps, its limits and its patience.
//!
//! Whatever is kept stays in the mbufs that were handed in, and the packet that comes out is the mbuf of its first
//! fragment with the others' behind it.

use crate::clock;
use crate::complaint::complain;
use crate::mbuf::{self, M};
use crate::thread;
use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![ip_reass, frag6_input];

/// Fragments of one packet, and packets, at most: `net.inet.ip.maxfragsperpacket` and its IPv6 counterpart.
const PER_PACKET: [usize; 2] = [16, 64];
const PACKETS: usize = 256;
/// Fragments in all.
const FRAGMENTS: usize = 1024;
/// How long an incomplete packet is kept: `net.inet.ip.fragttl`, and for IPv6 RFC 8200's minute.
const PATIENCE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(60)];
/// `IP_MAXPACKET`.
const LONGEST: usize = 65_535;
/// `IPPROTO_DONE`: the packet is gone.
const DONE: i32 = 257;

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[("IPPROTO_DONE", DONE as u32)];

/// Which packet a fragment is of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    vnet: usize,
    v6: bool,
    /// Source and destination.
    addresses: Vec<u8>,
    identity: u32,
    /// 0 for IPv6, where it may differ between fragments.
    protocol: u8,
}

/// A part of a packet; the mbuf begins with its data.
#[derive(Clone, Copy, Debug)]
struct Part {
    m: M,
    offset: usize,
    length: usize,
    more: bool,
    /// Bytes in front of the data in the same mbuf: IP header, for IPv6 up to the end of the fragment header.
    headers: usize,
    next: u8,
}

impl Part {
    fn end(&self) -> usize {
        self.offset + self.length
    }
}

#[derive(Debug)]
struct Packet {
    key: Key,
    parts: Vec<Part>,
    ecn: u8,
    expires: Duration,
}

/// What is being reassembled.
#[derive(Debug, Default)]
pub(crate) struct Fragments(Mutex<Vec<Packet>>);

// SAFETY: the handles are addresses of mbufs, which belong to the queue and to no thread.
unsafe impl Send for Fragments {}
// SAFETY: as above; they are reached under the lock only.
unsafe impl Sync for Fragments {}

fn release(packet: Packet) {
    for part in packet.parts {
        mbuf::freem(Some(part.m), "reassembly");
    }
}

impl Fragments {
    /// mbufs that are kept, and those that stay for the count of references to a cluster that one of them shares.
    pub(crate) fn mbufs(&self) -> usize {
        let all = self.0.lock().unwrap();
        let chains = all.iter().flat_map(|packet| &packet.parts).flat_map(|part| part.m.chain());
        let kept: HashSet<usize> = chains.flat_map(|m| [m.address(), m.owner()]).collect();
        kept.len()
    }

    fn remove(&self, doomed: impl Fn(&Packet) -> bool) {
        let mut all = self.0.lock().unwrap();
        let (gone, kept) = std::mem::take(&mut *all).into_iter().partition::<Vec<_>, _>(doomed);
        *all = kept;
        gone.into_iter().for_each(release);
    }

    /// Drops what has waited too long.
    pub(crate) fn expire(&self) {
        let now = clock::uptime();
        self.remove(|packet| packet.expires <= now);
    }

    /// Drops what a VNET that is gone has.
    pub(crate) fn forget(&self, vnet: usize) {
        self.remove(|packet| packet.key.vnet == vnet);
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.remove(|_| true);
    }
}

/// What becomes of a new part.
enum Fate {
    Kept,
    Dropped(M),
    Complete(Packet),
}

fn context(who: &str) -> usize {
    if !thread::current(|thread| thread.in_epoch()) {
        complain!("{who} outside the network epoch");
    }
    crate::vnet::current().unwrap_or_else(|| complain!("{who}: curvnet is not set")).address()
}

/// ECN by RFC 3168, 5.3: a mark is not lost, and packets with and without ECN do not mix. False for the latter.
fn mix(ecn: &mut u8, new: u8) -> bool {
    const CE: u8 = 3;
    match (*ecn, new) {
        (0, CE) => return false,
        (_, CE) => *ecn = CE,
        (0, _) => {}
        (_, 0) => return false,
        _ => {}
    }
    true
}

fn add(all: &mut Vec<Packet>, key: Key, part: Part, ecn: u8) -> Fate {
    let v6 = key.v6;
    if all.iter().map(|packet| packet.parts.len()).sum::<usize>() >= FRAGMENTS {
        return Fate::Dropped(part.m);
    }
    let Some(at) = all.iter().position(|packet| packet.key == key) else {
        if all.iter().filter(|packet| packet.key.v6 == v6).count() >= PACKETS {
            // IPv4 gives up the oldest packet for the new one, IPv6 drops the new one.
            let Some(oldest) = all.iter().position(|packet| !packet.key.v6).filter(|_| !v6) else {
                return Fate::Dropped(part.m);
            };
            release(all.remove(oldest));
        }
        let expires = clock::uptime() + PATIENCE[usize::from(v6)];
        all.push(Packet { key, parts: vec![part], ecn, expires });
        return Fate::Kept;
    };
    let packet = &mut all[at];
    if !mix(&mut packet.ecn, ecn) {
        return Fate::Dropped(part.m);
    }
    let placed = if v6 { place6(packet, part) } else { place4(packet, part) };
    match placed {
        Placed::Yes => {}
        Placed::Dropped => return Fate::Dropped(part.m),
        Placed::Hopeless => {
            release(all.remove(at));
            return Fate::Dropped(part.m);
        }
    }
    let mut next = 0;
    let whole = packet.parts.iter().all(|part| {
        let fits = part.offset == next;
        next = part.end();
        fits
    });
    if whole && packet.parts.last().is_some_and(|last| !last.more) {
        let headers = packet.parts.first().map_or(0, |first| first.headers);
        if next + headers > LONGEST {
            release(all.remove(at));
            return Fate::Kept;
        }
        return Fate::Complete(all.remove(at));
    }
    if packet.parts.len() > PER_PACKET[usize::from(v6)] {
        release(all.remove(at));
    }
    Fate::Kept
}

enum Placed {
    Yes,
    /// The new part is dropped, the rest stays.
    Dropped,
    /// The whole packet is given up.
    Hopeless,
}

/// Cuts `by` bytes off the front.
fn trim(part: &mut Part, by: usize) {
    mbuf::adj(part.m, by as i32);
    part.m.set_csum_flags(0);
    part.offset += by;
    part.length -= by;
}

/// IPv4: what was there first stays, except that a new part takes the place of what begins after it.
fn place4(packet: &mut Packet, mut part: Part) -> Placed {
    // Behind the last part there is nothing, and it ends where it ends.
    if let Some(last) = packet.parts.iter().find(|part| !part.more) {
        let end = last.end();
        if part.more && part.end() >= end || !part.more && part.end() != end {
            return Placed::Dropped;
        }
    }
    let at = packet.parts.partition_point(|other| other.offset <= part.offset);
    if let Some(before) = at.checked_sub(1).and_then(|before| packet.parts.get(before)) {
        let overlap = before.end().saturating_sub(part.offset);
        if overlap >= part.length {
            return Placed::Dropped;
        }
        if overlap > 0 {
            trim(&mut part, overlap);
        }
    }
    while let Some(after) = packet.parts.get_mut(at) {
        let overlap = part.end().saturating_sub(after.offset);
        if overlap == 0 {
            break;
        }
        if overlap < after.length {
            trim(after, overlap);
            break;
        }
        mbuf::freem(Some(packet.parts.remove(at).m), "ip_reass");
    }
    packet.parts.insert(at, part);
    Placed::Yes
}

/// IPv6: an overlap ends the whole packet, unless the part is an exact repetition (RFC 8200, 4.5).
fn place6(packet: &mut Packet, part: Part) -> Placed {
    let overlapping = packet.parts.iter().find(|other| other.offset < part.end() && part.offset < other.end());
    if let Some(other) = overlapping {
        let same = other.offset == part.offset && other.length == part.length;
        return if same { Placed::Dropped } else { Placed::Hopeless };
    }
    let at = packet.parts.partition_point(|other| other.offset < part.offset);
    packet.parts.insert(at, part);
    Placed::Yes
}

/// Puts the parts together behind the first, whose headers come back in front. Returns the length of the data.
fn join(packet: &Packet) -> (M, usize) {
    let Some((first, rest)) = packet.parts.split_first() else { complain!("a packet without fragments") };
    let m = first.m;
    let mut flags = m.csum_flags();
    let mut sum = u64::from(m.csum_data());
    for part in rest {
        flags &= part.m.csum_flags();
        sum += u64::from(part.m.csum_data());
        mbuf::demote(part.m);
        mbuf::cat(m, part.m);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    m.set_csum_flags(flags);
    m.set_csum_data(sum as u32);
    m.set_data(m.data() - first.headers);
    m.set_length(m.length() + first.headers);
    let length = packet.parts.last().map_or(0, Part::end);
    m.set_total(length + first.headers);
    (m, length)
}

/// Takes the first `length` bytes off the front, where they stay in reach for [`join`].
fn strip(m: M, length: usize) {
    m.set_data(m.data() + length);
    m.set_length(m.length() - length);
    m.set_total(m.total() - length);
}

/// The same mbuf or another, whose first `length` bytes are contiguous and its own.
fn own(m: M, length: usize) -> Option<M> {
    if m.length() >= length && !m.is_shared() { Some(m) } else { mbuf::copyup(m, length, 0) }
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

extern "C" fn ip_reass(m: *mut u8) -> *mut u8 {
    let who = "ip_reass";
    let vnet = context(who);
    let m = M::must(m, who);
    mbuf::verify(m, 20, who);
    let mut front = [0; 20];
    m.read(0, &mut front);
    let headers = usize::from(front[0] & 0xf) * 4;
    let field = word(&front, 6);
    if front[0] >> 4 != 4 || m.length() < headers || word(&front, 2) != m.total() {
        complain!("{who}: the packet's IP header is not as ip_input leaves it");
    }
    if field & 0x3fff == 0 {
        complain!("{who} of a packet that is no fragment");
    }
    crate::kernel::kernel().fragments.expire();
    let part = Part {
        m,
        offset: (field & 0x1fff) * 8,
        length: m.total() - headers,
        more: field & 0x2000 != 0,
        headers,
        next: front[9],
    };
    let malformed = part.length == 0 || part.more && !part.length.is_multiple_of(8) || part.end() > LONGEST;
    let Some(m) = (if malformed { drop_it(m, who) } else { own(m, headers) }) else { return std::ptr::null_mut() };
    let rcvif = m.rcvif();
    strip(m, headers);
    let part = Part { m, ..part };
    let addresses = front[12..20].to_vec();
    let key = Key { vnet, v6: false, addresses, identity: word(&front, 4) as u32, protocol: front[9] };
    let fate = add(&mut crate::kernel::kernel().fragments.0.lock().unwrap(), key, part, front[1] & 3);
    match fate {
        Fate::Kept => std::ptr::null_mut(),
        Fate::Dropped(m) => {
            mbuf::freem(Some(m), who);
            std::ptr::null_mut()
        }
        Fate::Complete(packet) => {
            let (joined, length) = join(&packet);
            let headers = packet.parts.first().map_or(0, |first| first.headers);
            let mut tos = [0];
            joined.read(1, &mut tos);
            joined.write(1, &[tos[0] & !3 | packet.ecn]);
            joined.write(2, &((headers + length) as u16).to_be_bytes());
            joined.write(6, &[0, 0]);
            joined.set_rcvif(rcvif);
            joined.as_ptr()
        }
    }
}

fn drop_it(m: M, who: &str) -> Option<M> {
    mbuf::freem(Some(m), who);
    None
}

/// Offset of the field that names the header at `at`: ip6_get_prevhdr.
fn before(bytes: &[u8], at: usize) -> usize {
    let (mut field, mut here) = (6, 40);
    while here < at {
        field = here;
        let units = if bytes[here] == 44 { 0 } else { usize::from(bytes[here + 1]) };
        here += (units + 1) * 8;
    }
    field
}

/// Takes the fragment header at `at` out of the first mbuf, and writes the next header where it was named.
fn delete_header(m: M, at: usize, next: u8) {
    let mut headers = vec![0; at];
    m.read(0, &mut headers);
    let field = before(&headers, at);
    headers[field] = next;
    let length = m.total() - 8 - 40;
    headers[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    m.set_data(m.data() + 8);
    m.set_length(m.length() - 8);
    m.set_total(m.total() - 8);
    m.write(0, &headers);
}

fn frag6(m: M, at: usize) -> Result<(M, u8, usize), Option<M>> {
    let who = "frag6_input";
    let vnet = context(who);
    mbuf::verify(m, 40, who);
    if m.total() < at + 8 {
        complain!("{who}: the fragment header at {at} lies beyond the packet");
    }
    let m = own(m, at + 8).ok_or(None)?;
    let mut front = vec![0; at + 8];
    m.read(0, &mut front);
    let total = word(&front, 4) + 40;
    if front[0] >> 4 != 6 || total != m.total() {
        complain!("{who}: the packet's IP header is not as ip6_input leaves it");
    }
    let field = word(&front, at + 2);
    let part = Part {
        m,
        offset: field & 0xfff8,
        length: total - at - 8,
        more: field & 1 != 0,
        headers: at + 8,
        next: front[at],
    };
    if part.more && !part.length.is_multiple_of(8) {
        return Err(Some(m));
    }
    if field & 0xfff9 == 0 {
        delete_header(m, at, part.next);
        return Ok((m, part.next, at));
    }
    if part.length == 0 || part.end() > LONGEST {
        return Err(Some(m));
    }
    crate::kernel::kernel().fragments.expire();
    let rcvif = m.rcvif();
    strip(m, at + 8);
    let identity = u32::from_be_bytes([front[at + 4], front[at + 5], front[at + 6], front[at + 7]]);
    let key = Key { vnet, v6: true, addresses: front[8..40].to_vec(), identity, protocol: 0 };
    let fate = add(&mut crate::kernel::kernel().fragments.0.lock().unwrap(), key, part, front[1] >> 4 & 3);
    match fate {
        Fate::Kept => Err(None),
        Fate::Dropped(m) => Err(Some(m)),
        Fate::Complete(packet) => {
            let first = packet.parts.first().copied().unwrap_or(part);
            let (joined, _) = join(&packet);
            let mut flow = [0];
            joined.read(1, &mut flow);
            joined.write(1, &[flow[0] & !0x30 | packet.ecn << 4]);
            delete_header(joined, first.headers - 8, first.next);
            joined.set_rcvif(rcvif);
            Ok((joined, first.next, first.headers - 8))
        }
    }
}

extern "C" fn frag6_input(mp: *mut usize, offset: *mut i32, _protocol: i32) -> i32 {
    let who = "frag6_input";
    if mp.is_null() || offset.is_null() {
        complain!("{who} of null");
    }
    // SAFETY: the caller gives a place for a pointer.
    let m = unsafe { mp.read() };
    // SAFETY: and one for a number.
    let at = unsafe { offset.read() };
    let at = usize::try_from(at).ok().filter(|at| *at >= 40 && at % 8 == 0);
    let Some(at) = at else { complain!("{who}: there is no fragment header at such an offset") };
    let Some(m) = M::at(m, who) else { complain!("{who}: null mbuf") };
    let (left, result) = match frag6(m, at) {
        Ok((m, next, at)) => {
            // SAFETY: as above.
            unsafe { offset.write(at as i32) };
            (m.address(), i32::from(next))
        }
        Err(doomed) => {
            mbuf::freem(doomed, who);
            (0, DONE)
        }
    };
    // SAFETY: as above.
    unsafe { mp.write(left) };
    result
}

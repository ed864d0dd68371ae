//! The networks between the hosts, and what they do to packets.

use crate::frame::Frame;
use mobconn_dprp::Protocol;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A network with its router.
#[derive(Clone, Debug)]
pub struct Network {
    /// One way, from here to the middle of everything; in microseconds.
    pub delay: u64,
    /// The router drops what comes from inside with a source that is not of this network (BCP 38).
    pub filters: bool,
    /// The router translates: outside, all of this network have its own address.
    pub nat: bool,
    /// Nothing passes until then.
    pub down_until: u64,
}

/// What happens to packets on their way; chances are in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Lost.
    pub loss: u32,
    /// Comes twice.
    pub duplicate: u32,
    /// A bit is flipped; for DPRP sometimes in a way that no checksum finds.
    pub corrupt: u32,
    /// Added to the delay, at random up to this, in microseconds: reorders.
    pub jitter: u64,
}

/// All networks.
#[derive(Clone, Debug)]
pub struct Networks {
    /// By number.
    pub all: Vec<Network>,
    /// Faults now, everywhere.
    pub faults: Faults,
    rng: ChaCha8Rng,
    /// What routers that translate have seen from inside: its port outside is the place.
    translated: Vec<(usize, Protocol, SocketAddr)>,
}

/// The slot of a router's own address, and the first port that it gives away.
const ROUTER: u8 = 250;
const PORTS: u16 = 32_768;

/// The address number `slot` of a network.
#[must_use]
pub fn address(network: usize, slot: u8, v6: bool) -> IpAddr {
    let network = u8::try_from(network).unwrap_or(u8::MAX);
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, network.into(), 0, 0, 0, 0, slot.into()).into()
    } else {
        Ipv4Addr::new(10, network, 0, slot).into()
    }
}

/// The network that an address belongs to.
#[must_use]
pub fn network_of(address: IpAddr) -> Option<usize> {
    match address {
        IpAddr::V4(v4) => {
            let [ten, network, ..] = v4.octets();
            (ten == 10).then_some(network.into())
        }
        IpAddr::V6(v6) => {
            let [a, b, network, ..] = v6.segments();
            ([a, b] == [0x2001, 0xdb8]).then_some(network.into())
        }
    }
}

impl Networks {
    /// These networks, without faults.
    #[must_use]
    pub fn new(all: Vec<Network>, rng: ChaCha8Rng) -> Self {
        Self { all, faults: Faults::default(), rng, translated: Vec::new() }
    }

    fn chance(&mut self, in_thousand: u32) -> bool {
        in_thousand != 0 && self.rng.next_u32() % 1000 < in_thousand
    }

    /// Carries a packet that enters at network `from`. Returns each copy that arrives, and how many microseconds later.
    pub fn carry(&mut self, now: u64, from: usize, frame: &Frame) -> Result<Vec<(u64, Frame)>, &'static str> {
        let (Some(source), Some(destination)) = (frame.source(), frame.destination()) else {
            return Err("no addresses");
        };
        let entry = self.all.get(from).ok_or("no network")?;
        if entry.filters && network_of(source) != Some(from) {
            return Err("dropped by the router: foreign source");
        }
        let to = network_of(destination).ok_or("no route")?;
        let exit = self.all.get(to).ok_or("no route")?;
        if entry.down_until > now || exit.down_until > now {
            return Err("lost: a network is down");
        }
        let delay = entry.delay.saturating_add(exit.delay);
        let mut frame = frame.clone();
        if from != to && entry.nat {
            self.translate_out(from, &mut frame)?;
        }
        if from != to && self.all.get(to).is_some_and(|exit| exit.nat) {
            self.translate_in(to, &mut frame)?;
        }
        let faults = self.faults;
        let copies = if self.chance(faults.duplicate) { 2 } else { 1 };
        let mut arrivals = Vec::new();
        for _ in 0..copies {
            if self.chance(faults.loss) {
                continue;
            }
            let mut copy = frame.clone();
            if self.chance(faults.corrupt) {
                self.damage(&mut copy);
            }
            let late = if faults.jitter == 0 { 0 } else { self.rng.next_u64() % faults.jitter };
            arrivals.push((delay.saturating_add(late), copy));
        }
        if arrivals.is_empty() { Err("lost") } else { Ok(arrivals) }
    }

    fn translate_out(&mut self, network: usize, frame: &mut Frame) -> Result<(), &'static str> {
        let flow = frame.heads().ok_or("no ports to translate")?.flow;
        let inside = (network, flow.protocol, flow.local);
        let place = self.translated.iter().position(|known| *known == inside).unwrap_or_else(|| {
            self.translated.push(inside);
            self.translated.len() - 1
        });
        let port = u16::try_from(place).ok().and_then(|place| PORTS.checked_add(place)).ok_or("no port is left")?;
        frame.readdress(Some(SocketAddr::new(address(network, ROUTER, flow.local.is_ipv6()), port)), None);
        Ok(())
    }

    fn translate_in(&self, network: usize, frame: &mut Frame) -> Result<(), &'static str> {
        let flow = frame.heads().ok_or("no ports to translate")?.flow;
        let router = flow.remote.ip() == address(network, ROUTER, flow.remote.is_ipv6());
        let place = flow.remote.port().checked_sub(PORTS).filter(|_| router);
        let known = place.and_then(|place| self.translated.get(usize::from(place)));
        let inside = known.filter(|(of, protocol, inside)| {
            *of == network && *protocol == flow.protocol && inside.is_ipv4() == flow.remote.is_ipv4()
        });
        let (_, _, inside) = *inside.ok_or("dropped by the router: nobody asked for it")?;
        frame.readdress(None, Some(inside));
        Ok(())
    }

    /// Flips a bit.
    fn damage(&mut self, frame: &mut Frame) {
        let length = u32::try_from(frame.bytes.len()).unwrap_or(1).max(1);
        // In DPRP's payload, and unseen by UDP; or anywhere.
        let unseen = frame.origin.is_none() && self.chance(500);
        let first = if unseen { length.saturating_sub(1).min(48) } else { 0 };
        let at = first + self.rng.next_u32() % (length - first).max(1);
        let bit = self.rng.next_u32() % 8;
        if let Some(byte) = frame.bytes.get_mut(at as usize) {
            *byte ^= 1 << bit;
        }
        if unseen {
            frame.repair();
        }
    }
}

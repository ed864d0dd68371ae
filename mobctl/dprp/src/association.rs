//! Associations: what this host knows of another one.

use crate::claimant::Claimant;
use crate::correspondent::Correspondent;
use crate::few::Few;
use crate::key::PublicKey;
use crate::moving::Moving;
use crate::noise::Transport;
use crate::rare::Rare;
use crate::replay::Replay;
use crate::time::Instant;
use crate::timer::{PeerId, RoundTrip};
use blake2::digest::consts::U16;
use blake2::{Blake2s, Digest as _};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Most sets of keys that one association holds at a time.
const CHANNELS_MAX: usize = 3;
/// Two handshakes that end within this time and were begun by different ends crossed each other.
const CROSSING: Duration = Duration::from_secs(3);
/// Most addresses under which one peer is found.
pub(crate) const ADDRESSES_MAX: usize = 16;

/// One set of transport keys.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Index that the peer puts into what it sends.
    pub(crate) local_index: u32,
    /// Index that this host puts into what it sends.
    pub(crate) remote_index: u32,
    pub(crate) transport: Transport,
    /// Next counter to send.
    pub(crate) counter: u64,
    pub(crate) replay: Replay,
    /// Whether this host began the handshake.
    pub(crate) started: bool,
    /// When the handshake ended.
    pub(crate) made: Instant,
    /// When something was received with these keys.
    pub(crate) used: Instant,
    /// What the Finish that made these keys looked like, at the responder: repeated, it is answered again.
    pub(crate) finish: Digest,
}

/// What is remembered of a datagram to know it again.
pub(crate) type Digest = [u8; 16];

/// Only this datagram has it.
pub(crate) fn digest(datagram: &[u8]) -> Digest {
    Blake2s::<U16>::digest(datagram).into()
}

/// Keys are replaced after so many datagrams, far below what ChaCha20-Poly1305 can stand.
const REKEY_COUNT: u64 = 1 << 32;

impl Channel {
    /// Whether these keys are to be replaced. Who began their handshake does so; the other end later, if need be.
    pub(crate) fn is_worn(&self, now: Instant, rekey: Duration) -> bool {
        let age = now.since(self.made);
        let patience = if self.started { rekey } else { rekey.saturating_add(rekey / 4) };
        age >= patience || self.counter >= REKEY_COUNT
    }
}

/// A handshake that this host finished as initiator: the peer has not said that it knows.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    pub(crate) channel: Channel,
    /// To be repeated until there is a sign.
    pub(crate) finish: Vec<u8>,
    pub(crate) path: Path,
    pub(crate) incarnation: u64,
    pub(crate) name: String,
    /// How the peer sees this host's address.
    pub(crate) seen: IpAddr,
    pub(crate) began: Instant,
    pub(crate) tries: u32,
    pub(crate) attempt: u32,
}

/// Where datagrams go, and where from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) local: IpAddr,
    pub(crate) remote: SocketAddr,
}

/// A ping on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ping {
    pub(crate) nonce: u32,
    pub(crate) sent: Instant,
    pub(crate) tries: u32,
}

/// An association.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) key: PublicKey,
    pub(crate) name: String,
    pub(crate) incarnation: Option<u64>,
    /// Proved paths, one per address family; the last proved one comes first.
    pub(crate) paths: Vec<Path>,
    /// Addresses under which the endpoint finds this peer.
    pub(crate) addresses: Vec<IpAddr>,
    /// The first is used for sending, all are accepted.
    pub(crate) channels: Vec<Channel>,
    /// Handshakes of this host that wait for a sign: at most one per address of the peer.
    pub(crate) unconfirmed: Vec<Unconfirmed>,
    pub(crate) round_trip: RoundTrip,
    pub(crate) established: Instant,
    pub(crate) heard: Instant,
    pub(crate) ping: Option<Ping>,
    /// This host's address that the peer saw as another one when the association was last made.
    pub(crate) hidden: Option<IpAddr>,
    /// New keys are being made because the present ones are old.
    pub(crate) rekeying: bool,
    pub(crate) numbers: Numbers,
    /// This host's claims.
    pub(crate) claimant: Rare<Claimant>,
    /// This host's moves in progress, by number.
    pub(crate) moves: Few<u32, Moving>,
    /// The peer's claims and moves.
    pub(crate) correspondent: Rare<Correspondent>,
}

/// Numbers of this host towards one peer that are never used again: the last of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) claim: u32,
    pub(crate) release: u32,
    pub(crate) bundle: u16,
}

impl Peer {
    pub(crate) fn new(key: PublicKey, now: Instant) -> Self {
        Self {
            key,
            name: String::new(),
            incarnation: None,
            paths: Vec::new(),
            addresses: Vec::new(),
            channels: Vec::new(),
            unconfirmed: Vec::new(),
            round_trip: RoundTrip::default(),
            established: now,
            heard: now,
            ping: None,
            hidden: None,
            rekeying: false,
            numbers: Numbers::default(),
            claimant: Rare::default(),
            moves: Few::default(),
            correspondent: Rare::default(),
        }
    }

    /// The path to the peer in the family of `like`.
    pub(crate) fn path(&self, like: IpAddr) -> Option<Path> {
        self.paths.iter().find(|path| path.local.is_ipv4() == like.is_ipv4()).copied()
    }

    /// Makes `path` the one of its family, and the first.
    pub(crate) fn set_path(&mut self, path: Path) {
        self.paths.retain(|other| other.local.is_ipv4() != path.local.is_ipv4());
        self.paths.reserve_exact(1);
        self.paths.insert(0, path);
    }

    /// Takes new keys into use; returns the indexes of keys that fell out.
    ///
    /// The newest keys are used for sending, except when handshakes of both ends crossed each other: then both ends
    /// choose the one that the host with the lower public key began.
    pub(crate) fn install(&mut self, channel: Channel, own: PublicKey) -> Vec<u32> {
        let loses = self.channels.first().is_some_and(|current| {
            current.started != channel.started
                && channel.made.since(current.made) < CROSSING
                && current.started == (own < self.key)
        });
        self.channels.reserve_exact(1);
        self.channels.insert(usize::from(loses), channel);
        self.channels.drain(CHANNELS_MAX.min(self.channels.len())..).map(|channel| channel.local_index).collect()
    }

    /// Drops keys that are not the current ones and were not used for `unused`; returns their indexes.
    pub(crate) fn retire(&mut self, now: Instant, unused: Duration) -> Vec<u32> {
        let mut retired = Vec::new();
        let mut first = true;
        self.channels.retain(|channel| {
            let keep = std::mem::take(&mut first) || now.since(channel.used.max(channel.made)) < unused;
            if !keep {
                retired.push(channel.local_index);
            }
            keep
        });
        retired
    }

    pub(crate) fn channel_mut(&mut self, local_index: u32) -> Option<&mut Channel> {
        let unconfirmed = self.unconfirmed.iter_mut().map(|unconfirmed| &mut unconfirmed.channel);
        self.channels.iter_mut().chain(unconfirmed).find(|channel| channel.local_index == local_index)
    }

    /// Takes out the handshake with this index.
    pub(crate) fn take_unconfirmed(&mut self, local_index: u32) -> Option<Unconfirmed> {
        let at = self.unconfirmed.iter().position(|unconfirmed| unconfirmed.channel.local_index == local_index)?;
        let taken = self.unconfirmed.remove(at);
        // There are very many peers, and handshakes with few of them.
        self.unconfirmed.shrink_to_fit();
        Some(taken)
    }

    /// Gives back memory that nothing needs any more.
    pub(crate) fn tidy(&mut self) {
        self.claimant.tidy();
        self.correspondent.tidy();
    }

    /// The bundle for new claims from this address.
    pub(crate) fn home(&mut self, address: IpAddr) -> u16 {
        if let Some(bundle) = self.claimant.homes.get(&address) {
            return *bundle;
        }
        self.numbers.bundle = self.numbers.bundle.wrapping_add(1);
        self.claimant.homes.insert(address, self.numbers.bundle);
        self.numbers.bundle
    }

    /// Whether nothing ties the two hosts together any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.claimant.is_empty()
            && self.moves.is_empty()
            && self.correspondent.is_empty()
            && self.unconfirmed.is_empty()
    }
}

/// All associations.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    pub(crate) all: BTreeMap<PeerId, Box<Peer>>,
    by_key: BTreeMap<PublicKey, PeerId>,
    by_address: BTreeMap<IpAddr, PeerId>,
    by_index: BTreeMap<u32, PeerId>,
    last: PeerId,
}

impl Peers {
    pub(crate) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.all.get(&id).map(Box::as_ref)
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.all.get_mut(&id).map(Box::as_mut)
    }

    pub(crate) fn by_key(&self, key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn by_address(&self, address: IpAddr) -> Option<PeerId> {
        self.by_address.get(&address).copied()
    }

    pub(crate) fn by_index(&self, index: u32) -> Option<PeerId> {
        self.by_index.get(&index).copied()
    }

    /// The association with the owner of `key`, made if need be; `None` when there are `limit` already.
    pub(crate) fn get_or_make(&mut self, key: PublicKey, limit: usize, now: Instant) -> Option<PeerId> {
        if let Some(id) = self.by_key(&key) {
            return Some(id);
        }
        if self.all.len() >= limit && !self.evict() {
            return None;
        }
        self.last = self.last.checked_add(1)?;
        self.all.insert(self.last, Box::new(Peer::new(key, now)));
        self.by_key.insert(key, self.last);
        Some(self.last)
    }

    /// Makes room by removing the idle association that was silent for longest, if there is one.
    fn evict(&mut self) -> bool {
        let idle = self.all.iter().filter(|(_, peer)| peer.is_idle()).min_by_key(|(_, peer)| peer.heard);
        let Some(id) = idle.map(|(id, _)| *id) else { return false };
        self.remove(id);
        true
    }

    pub(crate) fn remove(&mut self, id: PeerId) -> Option<Peer> {
        let peer = *self.all.remove(&id)?;
        self.by_key.remove(&peer.key);
        for address in &peer.addresses {
            self.unbind_address(id, *address);
        }
        let unconfirmed = peer.unconfirmed.iter().map(|unconfirmed| unconfirmed.channel.local_index);
        for index in peer.channels.iter().map(|channel| channel.local_index).chain(unconfirmed) {
            self.by_index.remove(&index);
        }
        Some(peer)
    }

    pub(crate) fn bind_index(&mut self, index: u32, id: PeerId) {
        self.by_index.insert(index, id);
    }

    pub(crate) fn unbind_index(&mut self, index: u32) {
        self.by_index.remove(&index);
    }

    /// From now on the owner of `address` is this peer: it has proved so, later than any other.
    pub(crate) fn bind_address(&mut self, id: PeerId, address: IpAddr) {
        let Some(peer) = self.all.get_mut(&id) else { return };
        peer.addresses.retain(|other| *other != address);
        peer.addresses.reserve_exact(1);
        peer.addresses.push(address);
        let oldest = (peer.addresses.len() > ADDRESSES_MAX).then(|| peer.addresses.remove(0));
        if let Some(oldest) = oldest {
            self.unbind_address(id, oldest);
        }
        if let Some(former) = self.by_address.insert(address, id).filter(|former| *former != id)
            && let Some(former) = self.all.get_mut(&former)
        {
            former.addresses.retain(|other| *other != address);
        }
    }

    /// This peer is not at `address` any more.
    pub(crate) fn unbind_address(&mut self, id: PeerId, address: IpAddr) {
        if self.by_address(address) == Some(id) {
            self.by_address.remove(&address);
        }
        if let Some(peer) = self.all.get_mut(&id) {
            peer.addresses.retain(|other| *other != address);
        }
    }
}

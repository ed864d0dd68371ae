//! What outlives the daemon: claims of both roles, numbers, the incarnation.
//! Keys of associations do not; those are made anew.
//! Format: `PROTOCOL.md`, section "Memory".

use crate::association::{Numbers, Path, Peer};
use crate::claimant::{Claim, Claimant, Mine, State, numbered};
use crate::codec::{Range, Reader, Writer};
use crate::config::{Config, ConfigError, NAME_MAX};
use crate::correspondent::{Correspondent, Outcome, Owner, Theirs};
use crate::endpoint::Endpoint;
use crate::host::Flow;
use crate::key::{KEY_LENGTH, PublicKey};
use crate::message::{Stays, read_flow, write_flow};
use crate::moving::Relocation;
use crate::time::Instant;
use crate::timer::{PeerId, Timer, jittered};
use rand_core::CryptoRng;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) const MAGIC: &[u8; 16] = b"mobconn claims\0\x01";
/// Numbers of claims that may have been used after the last snapshot was taken.
const SKIPPED: u32 = 1 << 18;
/// Associations are made anew within this time after a restart.
const RETURN: Duration = Duration::from_millis(200);

const AHEAD: u8 = 1;
const STUCK: u8 = 2;
const AGAIN: u8 = 4;
const UNSURE: u8 = 8;

/// Why a snapshot cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The configuration cannot be used, with or without a snapshot.
    Config(ConfigError),
    /// It is of another version, or damaged.
    Damaged,
    /// It is from before a reboot: connections and bindings are gone.
    OtherBoot,
    /// It is another host key's.
    OtherKey,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Damaged => f.write_str("damaged, or of another version"),
            Self::OtherBoot => f.write_str("from before this boot"),
            Self::OtherKey => f.write_str("of another host key"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// CRC-32 (IEEE 802.3): finds damage, not malice.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let next = |crc: u32, byte: &u8| {
        let index = (crc ^ u32::from(*byte)) & 0xff;
        (crc >> 8) ^ usize::try_from(index).ok().and_then(|index| CRC.get(index)).unwrap_or(&0)
    };
    !bytes.iter().fold(u32::MAX, next)
}

/// What each byte does to the checksum.
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte: u8 = 0;
    let mut rest = table.as_mut_slice();
    while let [entry, others @ ..] = rest {
        let mut crc = byte as u32;
        let mut bits = 0_u8;
        while bits < 8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
            bits = bits.wrapping_add(1);
        }
        *entry = crc;
        byte = byte.wrapping_add(1);
        rest = others;
    }
    table
};

impl Writer {
    /// A count and each item. What nobody can count to is left out.
    fn many<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        self.u32(count);
        items.take(usize::try_from(count).unwrap_or(usize::MAX)).for_each(|item| each(self, item));
    }

    fn socket(&mut self, address: SocketAddr) -> &mut Self {
        self.address(address.ip()).u16(address.port())
    }
}

fn many<T>(r: &mut Reader<'_>, mut each: impl FnMut(&mut Reader<'_>) -> Option<T>) -> Option<Vec<T>> {
    // The vector grows with what is there, not with what is promised.
    (0..r.u32()?).map(|_| each(r)).collect()
}

fn socket(r: &mut Reader<'_>) -> Option<SocketAddr> {
    Some(SocketAddr::new(r.address()?, r.u16()?))
}

impl Endpoint {
    /// Everything that a restart of the daemon must not lose, to be given to [`Self::restore`]. `boot` names this boot of
    /// the system, at most 255 bytes. There is no secret in it.
    #[must_use]
    pub fn snapshot(&self, boot: &[u8]) -> Vec<u8> {
        let mut body = Writer::new();
        let w = &mut body;
        w.list(boot, |w, byte| {
            w.u8(*byte);
        });
        w.bytes(&self.own.0).u64(self.incarnation).u32(self.generation);
        w.many(self.relocations.iter(), |w, relocation| {
            w.address(relocation.old).address(relocation.new).u8(relocation.old_usable.into());
        });
        // A claim of which it is not sure that the peer let it go is a tie, too.
        let is_tied = |peer: &&Peer| !peer.is_idle() || !peer.claimant.releasing.is_empty();
        let peers: Vec<&Peer> = self.peers.all.values().map(Box::as_ref).filter(is_tied).collect();
        w.many(peers.into_iter(), |w, peer| self.write_peer(w, peer));
        let mut all = Writer(Vec::with_capacity(body.0.len().saturating_add(20)));
        all.bytes(MAGIC).u32(crc32(&body.0)).bytes(&body.0);
        all.0
    }

    /// Counts up whenever [`Self::snapshot`] would say something that matters and that it did not say before.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn write_peer(&self, w: &mut Writer, peer: &Peer) {
        let name = peer.name.as_bytes();
        w.bytes(&peer.key.0).list(name.get(..name.len().min(NAME_MAX)).unwrap_or_default(), |w, byte| {
            w.u8(*byte);
        });
        w.u64(peer.incarnation.unwrap_or(0));
        w.many(peer.paths.iter(), |w, path| {
            w.address(path.local).socket(path.remote);
        });
        w.many(peer.addresses.iter(), |w, address| {
            w.address(*address);
        });
        let claimant = &peer.claimant;
        w.u32(peer.numbers.claim).u16(peer.numbers.bundle).u32(peer.numbers.release);
        w.many(claimant.homes.iter(), |w, (address, bundle)| {
            w.address(*address).u16(*bundle);
        });
        let confirmed: Vec<(&u32, &Claim, &Mine)> = claimant
            .confirmed
            .iter()
            .filter_map(|(number, claim)| Some((number, claim, self.mine.get(&claim.flow)?)))
            .collect();
        w.many(confirmed.into_iter(), |w, (number, claim, mine)| {
            let flag = |set: bool, bit: u8| if set { bit } else { 0 };
            let unsure = claim.unsure || claim.moving.is_some();
            let flags = flag(claim.ahead, AHEAD) | flag(claim.stuck, STUCK) | flag(claim.again, AGAIN);
            let flags = flags | flag(unsure, UNSURE);
            w.u32(*number).u64(mine.instance).u16(claim.bundle).address(claim.at).u8(flags);
            write_flow(w, &claim.flow);
        });
        let offered =
            claimant.offers.iter().flat_map(|(first, offer)| numbered(*first, offer).map(|(n, _)| (n, offer.bundle)));
        let unsure: Vec<(u32, u16)> =
            claimant.releasing.iter().map(|(n, bundle)| (*n, *bundle)).chain(offered).collect();
        w.many(unsure.into_iter(), |w, (number, bundle)| {
            w.u32(number).u16(bundle);
        });
        let correspondent = &peer.correspondent;
        w.many(correspondent.claims.iter(), |w, (number, theirs)| {
            w.u32(*number).u64(theirs.instance).u16(theirs.bundle).u32(theirs.generation);
            w.u32(theirs.pending.unwrap_or(0)).u8(theirs.ended.is_some().into());
            write_flow(w, &theirs.flow);
        });
        let orphans: Vec<(&Flow, u64)> = correspondent
            .orphans
            .iter()
            .filter_map(|flow| self.owners.get(flow).map(|owner| (flow, owner.instance)))
            .collect();
        w.many(orphans.into_iter(), |w, (flow, instance)| {
            w.u64(instance);
            write_flow(w, flow);
        });
        w.many(correspondent.outcomes.iter(), |w, outcome| {
            w.u32(outcome.number).socket(outcome.remote);
            w.many(outcome.refused.iter(), |w, (range, stays)| {
                w.u32(range.first).u32(range.last).u8(stays.raw());
            });
        });
    }

    /// An endpoint that goes on where the one that made `snapshot` ended, in the same boot. Associations are made anew at
    /// once. The first [`Event::Flows`](crate::Event::Flows) brings it in line with the kernel and with the connections.
    ///
    /// # Errors
    /// When the snapshot is of no use; [`Endpoint::new`] makes one that remembers nothing.
    pub fn restore(
        config: Config,
        rng: impl CryptoRng + Send + 'static,
        now: Instant,
        boot: &[u8],
        snapshot: &[u8],
    ) -> Result<Self, RestoreError> {
        let mut endpoint = Self::new(config, rng, now).map_err(RestoreError::Config)?;
        let mut reader = Reader::new(snapshot);
        let sum = reader.array().filter(|magic| magic == MAGIC).and_then(|_| reader.u32());
        let body = reader.rest();
        if sum != Some(crc32(body)) {
            return Err(RestoreError::Damaged);
        }
        let mut reader = Reader::new(body);
        let length = reader.u8().ok_or(RestoreError::Damaged)?;
        if reader.slice(length.into()) != Some(boot) {
            return Err(RestoreError::OtherBoot);
        }
        if reader.array() != Some(endpoint.own.0) {
            return Err(RestoreError::OtherKey);
        }
        endpoint.read_all(now, reader).ok_or(RestoreError::Damaged)?;
        endpoint.restored = true;
        Ok(endpoint)
    }

    fn read_all(&mut self, now: Instant, mut reader: Reader<'_>) -> Option<()> {
        let r = &mut reader;
        self.incarnation = r.u64()?;
        self.generation = self.generation.max(r.u32()?);
        self.relocations =
            many(r, |r| Some(Relocation { old: r.address()?, new: r.address()?, old_usable: r.u8()? != 0 }))?;
        many(r, |r| self.read_peer(now, r))?;
        reader.end(())
    }

    fn read_peer(&mut self, now: Instant, r: &mut Reader<'_>) -> Option<()> {
        let key = PublicKey(r.array::<KEY_LENGTH>()?);
        let length = r.u8()?;
        let name = String::from_utf8(r.slice(length.into())?.to_vec()).ok()?;
        let incarnation = Some(r.u64()?).filter(|incarnation| *incarnation != 0);
        let paths = many(r, |r| Some(Path { local: r.address()?, remote: socket(r)? }))?;
        let addresses = many(r, |r| r.address())?;
        let id = self.peers.get_or_make(key, usize::MAX, now)?;
        let (numbers, claimant) = self.read_claimant(id, r)?;
        let (correspondent, pending) = self.read_correspondent(now, id, r)?;
        let peer = self.peers.get_mut(id)?;
        peer.name = name;
        peer.incarnation = incarnation;
        peer.paths = paths;
        peer.numbers = numbers;
        peer.claimant = claimant.into();
        peer.correspondent = correspondent.into();
        let waits = peer.claimant.confirmed.values().any(|claim| claim.again);
        for address in addresses {
            self.peers.bind_address(id, address);
        }
        for number in pending {
            self.timers.set(Timer::Pending(id, number), now.after(self.config.timers.pending));
        }
        if waits {
            self.timers.set(Timer::Again(id), now.after(self.config.timers.claim_retry));
        }
        // Not all at once.
        let wait = jittered(RETURN, &mut *self.rng);
        let at = now.after(wait.saturating_sub(RETURN).saturating_mul(4));
        self.timers.set(Timer::Upkeep(id), at);
        Some(())
    }

    fn read_claimant(&mut self, id: PeerId, r: &mut Reader<'_>) -> Option<(Numbers, Claimant)> {
        let mut claimant = Claimant::default();
        let (last, bundle, release) = (r.u32()?, r.u16()?, r.u32()?);
        let lost = Range { first: last.saturating_add(1), last: last.saturating_add(SKIPPED) };
        claimant.lost = Some(lost);
        claimant.homes = many(r, |r| Some((r.address()?, r.u16()?)))?.into_iter().collect();
        for (number, instance, claim) in many(r, |r| {
            let (number, instance, bundle, at, flags) = (r.u32()?, r.u64()?, r.u16()?, r.address()?, r.u8()?);
            let is = |bit: u8| flags & bit != 0;
            let (ahead, stuck, again, unsure) = (is(AHEAD), is(STUCK), is(AGAIN), is(UNSURE));
            let flow = read_flow(r)?;
            Some((number, instance, Claim { flow, bundle, at, ahead, moving: None, stuck, again, unsure }))
        })? {
            self.mine.insert(claim.flow, Mine::restored(instance, State::Confirmed(id, number)));
            claimant.confirmed.insert(number, claim);
        }
        claimant.releasing = many(r, |r| Some((r.u32()?, r.u16()?)))?.into_iter().collect();
        Some((Numbers { claim: lost.last, release, bundle }, claimant))
    }

    fn read_correspondent(
        &mut self,
        now: Instant,
        id: PeerId,
        r: &mut Reader<'_>,
    ) -> Option<(Correspondent, Vec<u32>)> {
        let mut correspondent = Correspondent::default();
        let mut waiting = Vec::new();
        for (number, theirs) in many(r, |r| {
            let (number, instance, bundle, generation) = (r.u32()?, r.u64()?, r.u16()?, r.u32()?);
            let (pending, ended) = (r.u32()?, r.u8()? != 0);
            let pending = (pending != 0).then_some(pending);
            let ended = ended.then_some(now);
            Some((number, Theirs { flow: read_flow(r)?, instance, bundle, generation, pending, ended }))
        })? {
            if theirs.ended.is_none() {
                let owner = Owner { peer: id, number: Some(number), instance: theirs.instance };
                self.owners.insert(theirs.flow, owner);
            }
            waiting.extend(theirs.pending);
            correspondent.claims.insert(number, theirs);
        }
        for (instance, flow) in many(r, |r| Some((r.u64()?, read_flow(r)?)))? {
            self.owners.insert(flow, Owner { peer: id, number: None, instance });
            correspondent.orphans.insert(flow);
        }
        let outcomes = many(r, |r| {
            let (number, remote) = (r.u32()?, socket(r)?);
            let refused = many(r, |r| {
                let range = Range { first: r.u32()?, last: r.u32()? };
                Some((range, Stays::from_raw(r.u8()?)?))
            })?;
            Some(Outcome::restored(number, remote, refused, &correspondent.claims))
        })?;
        waiting.extend(outcomes.iter().filter(|outcome| outcome.is_unfinished()).map(|outcome| outcome.number));
        correspondent.outcomes = outcomes.into();
        waiting.sort_unstable();
        waiting.dedup();
        Some((correspondent, waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value that every description of this CRC gives.
    #[test]
    fn checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}

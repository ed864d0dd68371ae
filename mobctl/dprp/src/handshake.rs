//! Making associations: the three messages of the handshake.

use crate::association::{Channel, Digest, Path, Unconfirmed, digest};
use crate::endpoint::{Endpoint, count};
use crate::host::Host;
use crate::key::{GroupKey, PublicKey};
use crate::message::Message;
use crate::noise::{Ephemeral, Handshake};
use crate::notice::News;
use crate::replay::Replay;
use crate::time::Instant;
use crate::timer::{PeerId, Timer, doubled, jittered};
use crate::wire::{Answer, Cookie, Finish, Hello, Packet, TAG};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// How often a host that may not have mobconn is asked in a row.
const HELLOS: u32 = 5;
/// How often a peer is sought in a row at an address that only the DNS gives.
const HINTS: u32 = 10;
/// How often one Hello is begun anew with a cookie.
const COOKIES: u32 = 3;
/// Most half-open handshakes of one address (IPv6: of 64 bits of it) once there are many.
const PER_SOURCE: usize = 8;
/// How often a Finish is sent.
const FINISHES: u32 = 5;
/// How often a handshake is begun anew in a row because its Finish got no answer: the responder may have had to forget it.
const ATTEMPTS: u32 = 4;

/// A handshake that this host began.
#[derive(Debug)]
struct Dial {
    path: Path,
    /// The association that is made anew; `None`: nobody is known there.
    expected: Option<PeerId>,
    handshake: Handshake,
    hello: Vec<u8>,
    began: Instant,
    tries: u32,
    attempt: u32,
    /// How often the other end has asked for a cookie.
    cookies: u32,
}

/// A handshake that somebody else began, after the first message.
#[derive(Debug)]
struct HalfOpen {
    path: Path,
    handshake: Handshake,
    /// What it takes to rebuild `handshake`.
    ephemeral: Ephemeral,
    group: GroupKey,
    hello: Vec<u8>,
    payload: Vec<u8>,
    remote_index: u32,
    answer: Vec<u8>,
    began: Instant,
}

/// A host that did not answer.
#[derive(Debug)]
struct Silence {
    until: Instant,
    times: u32,
}

/// The last bytes of a Hello, which no other Hello has.
type HelloTag = [u8; TAG];

/// All handshakes in progress.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    dials: BTreeMap<u32, Dial>,
    /// Index of the handshake with each host, until it is confirmed.
    dialled: BTreeMap<SocketAddr, u32>,
    half_open: BTreeMap<u32, HalfOpen>,
    by_hello: BTreeMap<(SocketAddr, HelloTag), u32>,
    silent: BTreeMap<IpAddr, Silence>,
}

impl Handshakes {
    pub(crate) fn forget_half_open(&mut self, index: u32) {
        self.take_half_open(index);
    }

    pub(crate) fn half_open_count(&self) -> usize {
        self.half_open.len()
    }

    fn take_half_open(&mut self, index: u32) -> Option<HalfOpen> {
        let half = self.half_open.remove(&index)?;
        if let Some(tag) = half.hello.last_chunk() {
            self.by_hello.remove(&(half.path.remote, *tag));
        }
        Some(half)
    }

    fn forget_dial(&mut self, index: u32, remote: SocketAddr) {
        self.dials.remove(&index);
        if self.dialled.get(&remote) == Some(&index) {
            self.dialled.remove(&remote);
        }
    }
}

/// What one host can have many addresses of.
fn network(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6) >> 64 << 64,
    }
}

/// What the two ends told each other at the end of a handshake.
pub(crate) struct Introduction {
    pub(crate) channel: Channel,
    pub(crate) path: Path,
    pub(crate) incarnation: u64,
    pub(crate) name: String,
    pub(crate) translation: Translation,
    pub(crate) began: Instant,
}

/// The address of the end that began, as both ends know it.
pub(crate) struct Translation {
    pub(crate) sent_from: IpAddr,
    pub(crate) seen_as: IpAddr,
}

impl Endpoint {
    /// An index that nothing else has.
    fn new_index(&mut self) -> u32 {
        loop {
            let index = self.rng.next_u32();
            let taken = self.handshakes.dials.contains_key(&index)
                || self.handshakes.half_open.contains_key(&index)
                || self.peers.by_index(index).is_some();
            if index != 0 && !taken {
                return index;
            }
        }
    }

    /// Begins a handshake with the host at the end of `path`, unless one is under way or the host is known not to answer.
    /// `expected`: it is to have the key of this peer, whose association is made anew.
    pub(crate) fn dial(&mut self, now: Instant, path: Path, expected: Option<PeerId>) {
        self.attempt(now, path, expected, 0);
    }

    fn attempt(&mut self, now: Instant, path: Path, expected: Option<PeerId>, attempt: u32) {
        if let Some(index) = self.handshakes.dialled.get(&path.remote).copied() {
            let same = match self.handshakes.dials.get(&index) {
                Some(dial) => dial.path == path && dial.expected == expected,
                None => self.unconfirmed_path(index).is_none_or(|finished| finished == path),
            };
            if expected.is_none() || same {
                return;
            }
            // From another address now: the former handshake may never get an answer.
            self.handshakes.forget_dial(index, path.remote);
            self.timers.cancel(Timer::Dial(index));
        }
        if expected.is_none()
            && let Some(silence) = self.handshakes.silent.get(&path.remote.ip())
            && silence.until > now
        {
            let timer = Timer::Silence(path.remote.ip());
            return self.timers.set(timer, silence.until);
        }
        if self.handshakes.dials.len() >= self.config.limits.dials {
            return count(&mut self.counters.limited);
        }
        let index = self.new_index();
        let Some((handshake, hello)) = self.new_hello(index, Cookie::default()) else { return };
        self.transmit(path, hello.clone());
        self.handshakes.dialled.insert(path.remote, index);
        let dial = Dial { path, expected, handshake, hello, began: now, tries: 0, attempt, cookies: 0 };
        self.handshakes.dials.insert(index, dial);
        self.set_dial_timer(now, index, expected, 0);
    }

    /// Where a handshake that this host has finished, and the peer has not confirmed, goes.
    fn unconfirmed_path(&self, index: u32) -> Option<Path> {
        let peer = self.peers.get(self.peers.by_index(index)?)?;
        peer.unconfirmed.iter().find(|unconfirmed| unconfirmed.channel.local_index == index).map(|found| found.path)
    }

    fn new_hello(&mut self, index: u32, cookie: Cookie) -> Option<(Handshake, Vec<u8>)> {
        let ephemeral = Ephemeral::draw(&mut *self.rng);
        let group = self.config.group_keys.first()?;
        let mut handshake = Handshake::new(true, &self.config.host_key, group, &ephemeral)?;
        let noise = handshake.write(&Hello { sender: index, cookie }.write())?;
        Some((handshake, Packet::Hello { noise: &noise }.write()))
    }

    /// The responder is under load: it wants to see that this host receives where it says.
    pub(crate) fn on_retry(&mut self, now: Instant, path: Path, receiver: u32, cookie: Cookie) {
        let dial = self.handshakes.dials.get(&receiver);
        let Some(dial) = dial.filter(|dial| dial.path == path && dial.cookies < COOKIES) else {
            return count(&mut self.counters.unknown_index);
        };
        let (expected, tries) = (dial.expected, dial.tries);
        let Some((handshake, hello)) = self.new_hello(receiver, cookie) else { return };
        let Some(dial) = self.handshakes.dials.get_mut(&receiver) else { return };
        dial.handshake = handshake;
        dial.hello.clone_from(&hello);
        dial.cookies = dial.cookies.saturating_add(1);
        self.transmit(path, hello);
        self.set_dial_timer(now, receiver, expected, tries);
    }

    fn set_dial_timer(&mut self, now: Instant, index: u32, expected: Option<PeerId>, tries: u32) {
        let timers = self.config.timers;
        let known = expected.and_then(|id| self.peers.get(id)).map(|peer| peer.round_trip.timeout(timers.retry));
        // A host that nobody knows is not in a hurry.
        let first = known.unwrap_or(timers.retry.saturating_mul(3));
        let wait = jittered(doubled(first, tries, timers.retry_cap), &mut *self.rng);
        self.timers.set(Timer::Dial(index), now.after(wait));
    }

    pub(crate) fn on_dial_timer(&mut self, now: Instant, index: u32) {
        let Some(dial) = self.handshakes.dials.get_mut(&index) else { return };
        dial.tries = dial.tries.saturating_add(1);
        let (path, expected, tries) = (dial.path, dial.expected, dial.tries);
        let needed = match expected {
            None => tries < HELLOS,
            Some(id) => self.peers.get(id).is_some_and(|peer| {
                // An address that only the DNS knows gets no more than a few in a row.
                let known = peer.paths.iter().any(|known| known.remote == path.remote);
                let wanted = !peer.moves.is_empty() || peer.ping.is_some() || peer.rekeying;
                wanted && (known || tries < HINTS)
            }),
        };
        if !needed {
            self.handshakes.forget_dial(index, path.remote);
            if expected.is_none() {
                self.silence(now, path.remote);
            }
            return;
        }
        let hello = dial.hello.clone();
        self.transmit(path, hello);
        self.set_dial_timer(now, index, expected, tries);
    }

    /// Remembers that a host does not answer, and tells it.
    fn silence(&mut self, now: Instant, remote: SocketAddr) {
        let (timers, limit) = (self.config.timers, self.config.limits.silent);
        let silent = &mut self.handshakes.silent;
        if silent.len() >= limit
            && !silent.contains_key(&remote.ip())
            && let Some(soonest) = silent.iter().min_by_key(|(_, silence)| silence.until).map(|(address, _)| *address)
        {
            silent.remove(&soonest);
        }
        let silence = silent.entry(remote.ip()).or_insert(Silence { until: now, times: 0 });
        let wait = doubled(timers.silence, silence.times, timers.silence_cap);
        silence.times = silence.times.saturating_add(1);
        let until = now.after(jittered(wait, &mut *self.rng));
        silence.until = until;
        self.timers.set(Timer::Silence(remote.ip()), until);
        self.notice(now, News::NoAnswer { address: remote, again: until });
    }

    pub(crate) fn on_hello(&mut self, now: Instant, path: Path, noise: &[u8]) {
        // A repeated Hello gets the same Answer again: a handshake has one state per Hello.
        let tag: Option<HelloTag> = noise.last_chunk().copied();
        let known = tag.and_then(|tag| self.handshakes.by_hello.get(&(path.remote, tag)));
        if let Some(half) = known.and_then(|index| self.handshakes.half_open.get(index)) {
            if half.hello == noise {
                let answer = half.answer.clone();
                self.transmit(path, answer);
            }
            return;
        }
        let ephemeral = Ephemeral::draw(&mut *self.rng);
        let opened = self.config.group_keys.iter().find_map(|group| {
            let mut handshake = Handshake::new(false, &self.config.host_key, group, &ephemeral)?;
            let payload = handshake.read(noise)?;
            Some((group.clone(), handshake, payload))
        });
        let Some((group, mut handshake, payload)) = opened else { return count(&mut self.counters.forged) };
        let Some(hello) = Hello::parse(&payload) else { return count(&mut self.counters.nonsense) };

        // Under load nothing is computed or remembered for an address that was not seen to receive.
        if self.handshakes.half_open.len() >= self.config.limits.half_open / 2
            && !self.baker.is_good(now, path.remote, &hello.cookie)
        {
            count(&mut self.counters.limited);
            if let Some(cookie) = self.baker.bake(now, path.remote) {
                self.transmit(path, Packet::Retry { receiver: hello.sender, cookie }.write());
            }
            return;
        }
        self.make_room(path.remote.ip());
        let index = self.new_index();
        let answer = Answer {
            sender: index,
            incarnation: self.incarnation,
            seen: path.remote.ip(),
            name: self.config.name.clone(),
        };
        let payload = answer.write();
        let Some(message) = handshake.write(&payload) else { return };
        let answer = Packet::Answer { receiver: hello.sender, noise: &message }.write();
        self.transmit(path, answer.clone());
        if let Some(tag) = tag {
            self.handshakes.by_hello.insert((path.remote, tag), index);
        }
        let half = HalfOpen {
            path,
            handshake,
            ephemeral,
            group,
            hello: noise.to_vec(),
            payload,
            remote_index: hello.sender,
            answer,
            began: now,
        };
        self.handshakes.half_open.insert(index, half);
        self.timers.set(Timer::HalfOpen(index), now.after(self.config.timers.half_open));
    }

    /// Keeps the half-open handshakes within their limits, those of one source and all together: the oldest goes.
    fn make_room(&mut self, source: IpAddr) {
        let limit = self.config.limits.half_open.max(1);
        while self.handshakes.half_open.len() >= limit / 2 {
            let all = self.handshakes.half_open.iter();
            let same: Vec<(u32, Instant)> = all
                .filter(|(_, half)| network(half.path.remote.ip()) == network(source))
                .map(|(index, half)| (*index, half.began))
                .collect();
            let oldest = if same.len() >= PER_SOURCE {
                same.into_iter().min_by_key(|(_, began)| *began).map(|(index, _)| index)
            } else if self.handshakes.half_open.len() >= limit {
                self.handshakes.half_open.iter().min_by_key(|(_, half)| half.began).map(|(index, _)| *index)
            } else {
                return;
            };
            let Some(oldest) = oldest else { return };
            count(&mut self.counters.limited);
            self.handshakes.take_half_open(oldest);
            self.timers.cancel(Timer::HalfOpen(oldest));
        }
    }

    pub(crate) fn on_answer(&mut self, now: Instant, path: Path, receiver: u32, noise: &[u8]) {
        let Some(dial) = self.handshakes.dials.get_mut(&receiver).filter(|dial| dial.path.remote == path.remote) else {
            return count(&mut self.counters.unknown_index);
        };
        let Some(payload) = dial.handshake.read(noise) else { return count(&mut self.counters.forged) };
        let Some(mut dial) = self.handshakes.dials.remove(&receiver) else { return };
        self.timers.cancel(Timer::Dial(receiver));
        let (Some(answer), Some(key)) = (Answer::parse(&payload), dial.handshake.remote()) else {
            count(&mut self.counters.nonsense);
            return self.give_up(now, receiver, path, dial.expected);
        };
        let expected = dial.expected.and_then(|id| self.peers.get(id)).is_none_or(|peer| peer.key == key);
        if !expected || !self.is_welcome(now, path, key) {
            if !expected {
                self.notice(now, News::WrongKey { address: path.remote, key });
            }
            return self.give_up(now, receiver, path, dial.expected);
        }
        let finish =
            Finish { incarnation: self.incarnation, source: path.local, name: self.config.name.clone() }.write();
        let written = dial.handshake.write(&finish);
        let id = self.peers.get_or_make(key, self.config.limits.peers, now);
        let (Some(noise), Some(id)) = (written, id) else {
            count(&mut self.counters.limited);
            return self.give_up(now, receiver, path, dial.expected);
        };
        let Some(transport) = dial.handshake.finish() else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        if dial.tries == 0 {
            peer.round_trip.sample(now.since(dial.began));
        }
        let finish = Packet::Finish { receiver: answer.sender, noise: &noise }.write();
        let channel = Channel {
            local_index: receiver,
            remote_index: answer.sender,
            transport,
            counter: 0,
            replay: Replay::new(),
            started: true,
            made: now,
            used: now,
            finish: Digest::default(),
        };
        let unconfirmed = Unconfirmed {
            channel,
            finish: finish.clone(),
            path,
            incarnation: answer.incarnation,
            name: answer.name,
            seen: answer.seen,
            began: dial.began,
            tries: 0,
            attempt: dial.attempt,
        };
        peer.unconfirmed.push(unconfirmed);
        self.peers.bind_index(receiver, id);
        self.transmit(path, finish);
        self.set_confirm_timer(now, id, receiver, 0);
    }

    fn give_up(&mut self, now: Instant, index: u32, path: Path, expected: Option<PeerId>) {
        self.handshakes.forget_dial(index, path.remote);
        if expected.is_none() {
            self.silence(now, path.remote);
        }
    }

    /// Whether this host talks to the owner of `key`.
    fn is_welcome(&mut self, now: Instant, path: Path, key: PublicKey) -> bool {
        let pinned = self.config.pinned.is_empty() || self.config.pinned.contains(&key);
        if key == self.own || !pinned {
            count(&mut self.counters.unwelcome);
            if !pinned {
                self.notice(now, News::WrongKey { address: path.remote, key });
            }
            return false;
        }
        true
    }

    fn set_confirm_timer(&mut self, now: Instant, id: PeerId, index: u32, tries: u32) {
        let timers = self.config.timers;
        let first = self.peers.get(id).map_or(timers.retry, |peer| peer.round_trip.timeout(timers.retry));
        let wait = jittered(doubled(first, tries, timers.retry_cap), &mut *self.rng);
        self.timers.set(Timer::Confirm(id, index), now.after(wait));
    }

    pub(crate) fn on_confirm_timer(&mut self, now: Instant, id: PeerId, index: u32) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(at) = peer.unconfirmed.iter().position(|u| u.channel.local_index == index) else { return };
        let Some(unconfirmed) = peer.unconfirmed.get_mut(at) else { return };
        unconfirmed.tries = unconfirmed.tries.saturating_add(1);
        let (path, tries, attempt) = (unconfirmed.path, unconfirmed.tries, unconfirmed.attempt.saturating_add(1));
        if tries < FINISHES {
            let finish = unconfirmed.finish.clone();
            self.transmit(path, finish);
            return self.set_confirm_timer(now, id, index, tries);
        }
        peer.unconfirmed.remove(at);
        // After a restart there are claims before there is an association.
        let stranger = peer.channels.is_empty() && peer.unconfirmed.is_empty() && peer.is_idle();
        self.peers.unbind_index(index);
        self.handshakes.forget_dial(index, path.remote);
        if stranger {
            self.remove_peer(now, id);
        }
        if attempt < ATTEMPTS {
            // Another handshake, from another address, may be under way meanwhile.
            self.attempt(now, path, None, attempt);
        } else if stranger {
            self.silence(now, path.remote);
        }
    }

    /// The peer has used the keys of a handshake that this host finished.
    pub(crate) fn on_confirmed(&mut self, now: Instant, id: PeerId, unconfirmed: Unconfirmed, host: &mut dyn Host) {
        let Unconfirmed { channel, path, incarnation, name, seen, began, .. } = unconfirmed;
        self.timers.cancel(Timer::Confirm(id, channel.local_index));
        self.handshakes.forget_dial(channel.local_index, path.remote);
        self.handshakes.silent.remove(&path.remote.ip());
        self.timers.cancel(Timer::Silence(path.remote.ip()));
        let translation = Translation { sent_from: path.local, seen_as: seen };
        self.on_established(now, id, Introduction { channel, path, incarnation, name, translation, began }, host);
    }

    pub(crate) fn on_finish(&mut self, now: Instant, path: Path, receiver: u32, noise: &[u8], host: &mut dyn Host) {
        let Some(half) = self.handshakes.half_open.get_mut(&receiver).filter(|half| half.path.remote == path.remote)
        else {
            return self.on_repeated_finish(now, path, receiver, noise);
        };
        let Some(payload) = half.handshake.read(noise) else {
            if half.handshake.is_spoiled() {
                self.rebuild(receiver);
            }
            return count(&mut self.counters.forged);
        };
        let Some(half) = self.handshakes.take_half_open(receiver) else { return };
        self.timers.cancel(Timer::HalfOpen(receiver));
        let (Some(finish), Some(key)) = (Finish::parse(&payload), half.handshake.remote()) else {
            return count(&mut self.counters.nonsense);
        };
        if !self.is_welcome(now, path, key) {
            return;
        }
        let Some(transport) = half.handshake.finish() else { return };
        let Some(id) = self.peers.get_or_make(key, self.config.limits.peers, now) else {
            return count(&mut self.counters.limited);
        };
        let channel = Channel {
            local_index: receiver,
            remote_index: half.remote_index,
            transport,
            counter: 0,
            replay: Replay::new(),
            started: false,
            made: now,
            used: now,
            finish: digest(noise),
        };
        self.peers.bind_index(receiver, id);
        let translation = Translation { sent_from: finish.source, seen_as: path.remote.ip() };
        let Finish { incarnation, name, .. } = finish;
        let introduction = Introduction { channel, path, incarnation, name, translation, began: half.began };
        self.on_established(now, id, introduction, host);
        self.send_ready(now, id, receiver, path);
    }

    /// The initiator has not heard that its Finish arrived.
    fn on_repeated_finish(&mut self, now: Instant, path: Path, receiver: u32, noise: &[u8]) {
        let Some(id) = self.peers.by_index(receiver) else { return count(&mut self.counters.unknown_index) };
        let Some(peer) = self.peers.get_mut(id) else { return };
        let here = peer.paths.iter().any(|known| known.remote == path.remote);
        let same =
            peer.channel_mut(receiver).is_some_and(|channel| !channel.started && channel.finish == digest(noise));
        if here && same {
            self.send_ready(now, id, receiver, path);
        } else {
            count(&mut self.counters.forged);
        }
    }

    fn send_ready(&mut self, now: Instant, peer: PeerId, index: u32, path: Path) {
        self.reply(crate::endpoint::Arrival { now, peer, index, path }, &Message::Ready);
    }

    /// Puts a half-open handshake back to where it was before a corrupt Finish: see [`Handshake::is_spoiled`].
    fn rebuild(&mut self, index: u32) {
        let Some(half) = self.handshakes.half_open.get_mut(&index) else { return };
        let Some(mut handshake) = Handshake::new(false, &self.config.host_key, &half.group, &half.ephemeral) else {
            return;
        };
        if handshake.read(&half.hello).is_some() && handshake.write(&half.payload).is_some() {
            half.handshake = handshake;
        }
    }

    /// An association is up, or has new keys.
    fn on_established(&mut self, now: Instant, id: PeerId, introduction: Introduction, host: &mut dyn Host) {
        let Introduction { channel, path, incarnation, name, translation, began } = introduction;
        let Translation { sent_from, seen_as } = translation;
        let own = self.own;
        let Some(peer) = self.peers.get_mut(id) else { return };
        let restarted = peer.incarnation.is_some_and(|known| known != incarnation);
        let started = channel.started;
        let mut dropped = Vec::new();
        if restarted {
            dropped.extend(peer.channels.drain(..).map(|channel| channel.local_index));
        }
        dropped.extend(peer.install(channel, own));
        peer.incarnation = Some(incarnation);
        peer.name.clone_from(&name);
        peer.established = now;
        peer.heard = now;
        peer.ping = None;
        peer.rekeying = false;
        // Only who begins learns how the other end sees it: this host begins one too when it may have changed.
        let unsure = !started && peer.hidden == Some(path.local) && peer.path(path.local) != Some(path);
        if started {
            peer.hidden = (sent_from != seen_as).then_some(sent_from);
        }
        peer.set_path(path);
        let key = peer.key;
        for index in dropped {
            self.peers.unbind_index(index);
        }
        self.peers.bind_address(id, path.remote.ip());
        let news = News::AssociationUp { peer: key, name, address: path.remote, started, elapsed: now.since(began) };
        self.notice(now, news);
        // After that: who tells people takes the association for good news.
        if sent_from != seen_as {
            self.notice(now, News::Translated { peer: key, sent_from, seen_as });
        }
        self.changed();
        if restarted {
            self.notice(now, News::PeerRestarted { peer: key });
            self.forget_claims_with(id);
            self.forget_claims_of(id, host);
        }
        let wait = jittered(self.config.timers.ping, &mut *self.rng);
        self.timers.set(Timer::Upkeep(id), now.after(wait));
        self.adopt_wanted(now, id, path.remote.ip(), host);
        self.pump_releases(now, id);
        self.repeat_moves(now, id, restarted, host);
        if unsure {
            self.dial(now, path, Some(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_dial_leaves_its_successor() {
        let remote: SocketAddr = SocketAddr::new(IpAddr::from([192, 0, 2, 1]), 9434);
        let mut handshakes = Handshakes::default();
        handshakes.dialled.insert(remote, 2);
        handshakes.forget_dial(1, remote);
        assert_eq!(handshakes.dialled.get(&remote), Some(&2));
        handshakes.forget_dial(2, remote);
        assert!(handshakes.dialled.is_empty());
    }
}

//! TCP streams that go on while the mobile host moves.

use super::Figures;
use super::common::{CABLE, CELL, MEGABYTE, PATIENCE, Streams, WLAN, rewritten, times};
use crate::cable::Lane;
use crate::check;
use crate::error::Result;
use crate::lab::{Lab, Places, Shape};
use std::net::{IpAddr, SocketAddr};

/// How a scenario moves its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mover {
    /// The daemons do.
    Daemon,
    /// An administrator does, with mobctl flow on both hosts.
    Hand,
}

/// Streams while the mobile host moves to the second network and back.
#[derive(Clone, Copy, Debug)]
struct Case {
    v6: bool,
    count: usize,
    /// Bytes from the mobile host, each stream.
    up: u64,
    /// Bytes to the mobile host, each stream.
    down: u64,
    /// Packets lost while a move lasts, of a million.
    loss: u32,
    mover: Mover,
}

impl Case {
    const fn new(up: u64, down: u64) -> Self {
        Self { v6: false, count: 1, up, down, loss: 0, mover: Mover::Daemon }
    }

    const fn v6(mut self) -> Self {
        self.v6 = true;
        self
    }

    fn run(self, places: &Places) -> Result<Figures> {
        let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
        if self.mover == Mover::Daemon {
            lab.start_daemons([1, 1])?;
        }
        let streams = Streams::start(&lab, self.v6, self.count, self.up, self.down)?;
        streams.allow(1);
        if self.mover == Mover::Daemon {
            lab.mover()?.wait_claimed(self.count as u64)?;
        }
        let mut figures = Figures::new();
        // Each time, more arrives after the move than could have been sent before it.
        for (number, (from, to, begin, until)) in [(WLAN, CELL, 2, 7), (CELL, WLAN, 7, 11)].into_iter().enumerate() {
            streams.allow(until - 1);
            streams.wait(begin)?;
            self.lose(&lab, self.loss);
            match self.mover {
                Mover::Daemon => move_by_daemon(&lab, from, to, streams.address)?,
                Mover::Hand => self.move_by_hand(&lab, from, to, &streams)?,
            }
            streams.allow(until);
            let heard = lab.wait_resumed(PATIENCE, |heard| heard.sent.is_some() && heard.received.is_some())?;
            streams.wait(until)?;
            self.lose(&lab, 0);
            figures.push(format!("move {}: {} after the address was usable", number + 1, times(&heard)));
        }
        streams.finish()?;
        if self.loss > 0 {
            let lost: u64 = (0..3).map(|cable| lab.world.wire.tally(cable)).map(|(up, down)| up.lost + down.lost).sum();
            check!(lost > 0, "no packet was lost");
            figures.push(format!("{lost} packets lost"));
        }
        figures.push(rewritten(&lab)?);
        for host in [&lab.world.mobile, &lab.world.peer] {
            let left = lab.expire(host)?;
            check!(left == 0, "{}: {left} bindings are left, back where they began", host.namespace.name());
        }
        lab.finish()?;
        Ok(figures)
    }

    fn lose(self, lab: &Lab, loss: u32) {
        for cable in 0..3 {
            let lane = Lane { loss, ..CABLE };
            lab.world.wire.set(cable, lane, lane);
        }
    }

    /// An administrator binds every flow at both hosts to where the mobile host
    /// is now, or unbinds it, before the new cable is plugged in.
    fn move_by_hand(self, lab: &Lab, from: usize, to: usize, streams: &Streams) -> Result<()> {
        let (_, new) = lab.change_interface(from, to, streams.address)?;
        let (mobile, peer) = (&lab.world.mobile, &lab.world.peer);
        for (near, far) in &streams.flows {
            let (stack, other) = (near.to_string(), far.to_string());
            let wire = SocketAddr::new(new, near.port()).to_string();
            if wire == stack {
                lab.mobctl(mobile, &["flow", "del", "tcp", &stack, &other])?;
                lab.mobctl(peer, &["flow", "del", "tcp", &other, &stack])?;
            } else {
                lab.mobctl(mobile, &["flow", "add", "tcp", &stack, &other, &wire, &other])?;
                lab.mobctl(peer, &["flow", "add", "tcp", &other, &stack, &other, &wire])?;
            }
        }
        lab.plug_in(to, new);
        Ok(())
    }
}

/// Changes the network, tells the daemon, and wants every flow to have moved.
pub(crate) fn move_by_daemon(lab: &Lab, from: usize, to: usize, like: IpAddr) -> Result<()> {
    let (old, new) = lab.change_network(from, to, like)?;
    let report = lab.mover()?.announce(old, new)?;
    let outcome = &report["peers"][0]["outcome"];
    check!(outcome == "moved", "the move from {old} to {new} came to {report}");
    Ok(())
}

pub(super) fn no_move(places: &Places) -> Result<Figures> {
    let lab = Lab::new(places, &Shape::uniform(CABLE).without())?;
    for v6 in [false, true] {
        Streams::start(&lab, v6, 2, MEGABYTE, MEGABYTE)?.finish()?;
    }
    lab.finish()?;
    Ok(Figures::new())
}

pub(super) fn without(places: &Places) -> Result<Figures> {
    let lab = Lab::new(places, &Shape::uniform(CABLE).without())?;
    let streams = Streams::start(&lab, false, 1, MEGABYTE, MEGABYTE)?;
    streams.allow(11);
    streams.wait(2)?;
    lab.change_network(WLAN, CELL, streams.address)?;
    streams.wait_stalled()?;
    let foreign = lab.world.wire.tally(CELL).0.foreign;
    check!(foreign > 0, "the router let the old address out of the new network");
    lab.finish()?;
    Ok(vec![format!("stalled; the router dropped {foreign} packets with the old source")])
}

pub(super) fn wrong_key(places: &Places) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    lab.start_daemons([1, 2])?;
    let streams = Streams::start(&lab, false, 1, MEGABYTE, MEGABYTE)?;
    streams.allow(11);
    streams.wait(2)?;
    lab.wait_messages(PATIENCE)?;
    let (old, new) = lab.change_network(WLAN, CELL, streams.address)?;
    let report = lab.mover()?.announce(old, new)?;
    check!(report["peers"].as_array().is_some_and(Vec::is_empty), "somebody moved: {report}");
    streams.wait_stalled()?;
    for host in [&lab.world.mobile, &lab.world.peer] {
        let counters = lab.counters(host)?.text();
        check!(counters.is_empty(), "{}: the module did something: {counters}", host.namespace.name());
    }
    let messages = lab.world.wire.watch(|watch| watch.messages.len());
    let answers =
        lab.world.wire.watch(|watch| watch.messages.iter().filter(|m| m.source.ip() == streams.address).count());
    check!(answers == 0, "the peer answered a host that is not of its group, {answers} times");
    lab.finish()?;
    Ok(vec![format!("stalled; {messages} messages of the mobile host stayed without an answer")])
}

/// A connection without traffic moves; afterwards the peer speaks first, then
/// the mobile host.
pub(super) fn idle(places: &Places) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    lab.start_daemons([1, 1])?;
    let streams = Streams::start(&lab, false, 3, MEGABYTE / 4, MEGABYTE / 4)?;
    streams.allow(3);
    streams.wait(3)?;
    lab.mover()?.wait_claimed(3)?;
    move_by_daemon(&lab, WLAN, CELL, streams.address)?;
    streams.peer.open();
    streams.mobile.wait_received(3 * MEGABYTE / 4, PATIENCE)?;
    streams.mobile.open();
    streams.finish()?;
    let figures = vec![rewritten(&lab)?];
    lab.finish()?;
    Ok(figures)
}

pub(super) fn by_hand_v4(places: &Places) -> Result<Figures> {
    Case { count: 2, mover: Mover::Hand, ..Case::new(2 * MEGABYTE, 2 * MEGABYTE) }.run(places)
}

pub(super) fn by_hand_v6(places: &Places) -> Result<Figures> {
    Case { count: 2, mover: Mover::Hand, ..Case::new(2 * MEGABYTE, 2 * MEGABYTE) }.v6().run(places)
}

pub(super) fn mobile_sends_v4(places: &Places) -> Result<Figures> {
    Case::new(4 * MEGABYTE, 0).run(places)
}

pub(super) fn peer_sends_v4(places: &Places) -> Result<Figures> {
    Case::new(0, 4 * MEGABYTE).run(places)
}

pub(super) fn both_send_v4(places: &Places) -> Result<Figures> {
    Case::new(4 * MEGABYTE, 4 * MEGABYTE).run(places)
}

pub(super) fn mobile_sends_v6(places: &Places) -> Result<Figures> {
    Case::new(4 * MEGABYTE, 0).v6().run(places)
}

pub(super) fn peer_sends_v6(places: &Places) -> Result<Figures> {
    Case::new(0, 4 * MEGABYTE).v6().run(places)
}

pub(super) fn both_send_v6(places: &Places) -> Result<Figures> {
    Case::new(4 * MEGABYTE, 4 * MEGABYTE).v6().run(places)
}

pub(super) fn hundred(places: &Places) -> Result<Figures> {
    Case { count: 100, ..Case::new(60_000, 60_000) }.run(places)
}

pub(super) fn loss(places: &Places) -> Result<Figures> {
    Case { loss: 50_000, count: 4, ..Case::new(MEGABYTE, MEGABYTE) }.run(places)
}

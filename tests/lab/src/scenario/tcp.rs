//! TCP streams between the mobile host and its peer.

use super::Figures;
use crate::cable::Lane;
use crate::check;
use crate::error::{Doing, Result};
use crate::lab::{Counters, Lab, Places, Shape};
use crate::stream::{self, Load, Pump};
use crate::watch::Resumption;
use mobconn_abi::Counter;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Longest that anything is waited for. Nothing depends on how long it takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// The peer's port.
const PORT: u16 = 7000;
const MEGABYTE: u64 = 1 << 20;
/// A cable on which a megabyte takes some 0.4 seconds.
const CABLE: Lane = Lane { delay: Duration::from_millis(5), rate: 20_000_000, queue: 128 << 10, loss: 0 };
/// The interfaces of the mobile host.
const WLAN: usize = 0;
const CELL: usize = 1;

/// How a scenario moves its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mover {
    /// The daemons do.
    Daemon,
    /// An administrator does, with mobctl flow on both hosts.
    Hand,
}

/// A stream or many while the mobile host moves to the second network and back.
#[derive(Clone, Copy, Debug)]
struct Case {
    v6: bool,
    count: usize,
    /// Bytes from the mobile host, each stream.
    up: u64,
    /// Bytes to the mobile host, each stream.
    down: u64,
    cable: Lane,
    mover: Mover,
}

impl Case {
    const fn new(up: u64, down: u64) -> Self {
        Self { v6: false, count: 1, up, down, cable: CABLE, mover: Mover::Daemon }
    }

    fn run(self, places: &Places) -> Result<Figures> {
        let mut lab = Lab::new(places, &Shape::uniform(self.cable))?;
        if self.mover == Mover::Daemon {
            lab.start_daemons([1, 1])?;
        }
        let last = |bytes: u64| bytes - bytes / 6;
        let streams = Streams::start(&lab, self.v6, self.count, self.up, self.down, last(self.up.max(self.down)))?;
        let part = |sixths: u64| (self.count as u64 * self.up * sixths / 6, self.count as u64 * self.down * sixths / 6);
        let mut figures = Figures::new();
        for (number, (from, to)) in [(WLAN, CELL), (CELL, WLAN)].into_iter().enumerate() {
            let (up, down) = part(1 + 2 * number as u64);
            streams.wait(up, down, PATIENCE)?;
            match self.mover {
                Mover::Daemon => {
                    lab.mover()?.wait_claimed(self.count as u64)?;
                    let (old, new) = lab.change_network(from, to, streams.address)?;
                    let report = lab.mover()?.announce(old, new)?;
                    let outcome = &report["peers"][0]["outcome"];
                    check!(outcome == "moved", "the move from {old} to {new} came to {report}");
                }
                Mover::Hand => {
                    let (old, new) = lab.change_interface(from, to, streams.address)?;
                    for flow in &streams.flows {
                        by_hand(&lab, flow, if to == CELL { Some((old, new)) } else { None })?;
                    }
                    lab.plug_in(to, new);
                }
            }
            let (up, down) = part(2 + 2 * number as u64);
            streams.wait(up, down, PATIENCE)?;
            let heard = lab.wait_resumed(PATIENCE, |heard| heard.sent.is_some() && heard.received.is_some())?;
            figures.push(format!("move {}: {}", number + 1, times(&heard)));
        }
        streams.finish()?;
        figures.push(rewritten(&lab)?);
        lab.finish()?;
        Ok(figures)
    }
}

/// Binds a flow at both hosts to where the mobile host is now, or unbinds it.
fn by_hand(lab: &Lab, flow: &(SocketAddr, SocketAddr), moved: Option<(IpAddr, IpAddr)>) -> Result<()> {
    let (mobile, peer) = (flow.0.to_string(), flow.1.to_string());
    let Some((_, new)) = moved else {
        lab.mobctl(&lab.world.mobile, &["flow", "del", "tcp", &mobile, &peer])?;
        lab.mobctl(&lab.world.peer, &["flow", "del", "tcp", &peer, &mobile])?;
        return Ok(());
    };
    let wire = SocketAddr::new(new, flow.0.port()).to_string();
    lab.mobctl(&lab.world.mobile, &["flow", "add", "tcp", &mobile, &peer, &wire, &peer])?;
    lab.mobctl(&lab.world.peer, &["flow", "add", "tcp", &peer, &mobile, &peer, &wire])?;
    Ok(())
}

/// How long it took until the flows were heard again.
fn times(heard: &Resumption) -> String {
    let ms = |time: Option<Duration>| time.map_or("never".to_owned(), |t| format!("{:.1} ms", t.as_secs_f64() * 1e3));
    format!("after the address was usable, mobile > peer {}, peer > mobile {}", ms(heard.sent), ms(heard.received))
}

fn rewritten(lab: &Lab) -> Result<String> {
    let (mobile, peer) = (lab.counters(&lab.world.mobile)?, lab.counters(&lab.world.peer)?);
    let both = |c: &Counters| format!("{} + {}", c.get(Counter::TranslatedIn), c.get(Counter::TranslatedOut));
    Ok(format!("packets rewritten in + out: mobile {}, peer {}", both(&mobile), both(&peer)))
}

pub(super) fn mobile_sends(places: &Places) -> Result<Figures> {
    Case::new(4 * MEGABYTE, 0).run(places)
}

pub(super) fn peer_sends(places: &Places) -> Result<Figures> {
    Case::new(0, 4 * MEGABYTE).run(places)
}

pub(super) fn both_send(places: &Places) -> Result<Figures> {
    Case::new(4 * MEGABYTE, 4 * MEGABYTE).run(places)
}

pub(super) fn mobile_sends_v6(places: &Places) -> Result<Figures> {
    Case { v6: true, ..Case::new(4 * MEGABYTE, 0) }.run(places)
}

pub(super) fn peer_sends_v6(places: &Places) -> Result<Figures> {
    Case { v6: true, ..Case::new(0, 4 * MEGABYTE) }.run(places)
}

pub(super) fn both_send_v6(places: &Places) -> Result<Figures> {
    Case { v6: true, ..Case::new(4 * MEGABYTE, 4 * MEGABYTE) }.run(places)
}

pub(super) fn hundred(places: &Places) -> Result<Figures> {
    Case { count: 100, ..Case::new(60_000, 60_000) }.run(places)
}

pub(super) fn by_hand_v4(places: &Places) -> Result<Figures> {
    Case { count: 2, mover: Mover::Hand, ..Case::new(2 * MEGABYTE, 2 * MEGABYTE) }.run(places)
}

pub(super) fn by_hand_v6(places: &Places) -> Result<Figures> {
    Case { v6: true, count: 2, mover: Mover::Hand, ..Case::new(2 * MEGABYTE, 2 * MEGABYTE) }.run(places)
}

/// Both ends of streams from the mobile host to the peer.
struct Streams {
    mobile: Pump,
    peer: Pump,
    /// The peer's address.
    address: IpAddr,
    /// Ends of each stream as it began: at the mobile host, at the peer.
    flows: Vec<(SocketAddr, SocketAddr)>,
}

impl Streams {
    /// Connects `count` streams, each with `up` bytes from the mobile host and
    /// `down` bytes to it, of which `gate` flow at once.
    fn start(lab: &Lab, v6: bool, count: usize, up: u64, down: u64, gate: u64) -> Result<Self> {
        let address = lab.world.peer.addresses().into_iter().find(|a| a.is_ipv6() == v6);
        let target = SocketAddr::new(address.ok_or_else(|| no_address(v6))?, PORT);
        let (near, far) = stream::connect(&lab.world.mobile.namespace, &lab.world.peer.namespace, target, count)?;
        let flows: std::io::Result<_> = near.iter().map(|s| Ok((s.local_addr()?, s.peer_addr()?))).collect();
        let flows = flows.doing("naming sockets")?;
        let load = |number| Load { send: up, receive: down, number, active: true };
        let mobile = near.into_iter().zip(0..).map(|(socket, number)| (socket, load(number))).collect();
        let peer = far.into_iter().zip(0..).map(|(socket, number)| (socket, load(number).mirrored())).collect();
        let (mobile, peer) = (Pump::start(mobile, gate)?, Pump::start(peer, gate)?);
        Ok(Self { mobile, peer, address: target.ip(), flows })
    }

    /// Waits until the receiving ends have `up` and `down` bytes.
    fn wait(&self, up: u64, down: u64, timeout: Duration) -> Result<()> {
        self.peer.wait_received(up, timeout)?;
        self.mobile.wait_received(down, timeout)
    }

    fn finish(self) -> Result<()> {
        self.mobile.open();
        self.peer.open();
        self.mobile.finish(PATIENCE)?;
        self.peer.finish(PATIENCE)
    }
}

fn no_address(v6: bool) -> crate::Error {
    crate::Error::Check(format!("the peer has no IPv{} address", if v6 { 6 } else { 4 }))
}

pub(super) fn no_move(places: &Places) -> Result<Figures> {
    let lab = Lab::new(places, &Shape::uniform(CABLE).without())?;
    for v6 in [false, true] {
        Streams::start(&lab, v6, 2, MEGABYTE, MEGABYTE, u64::MAX)?.finish()?;
    }
    lab.finish()?;
    Ok(Vec::new())
}

pub(super) fn without(places: &Places) -> Result<Figures> {
    let lab = Lab::new(places, &Shape::uniform(CABLE).without())?;
    let streams = Streams::start(&lab, false, 1, MEGABYTE, MEGABYTE, u64::MAX)?;
    streams.wait(MEGABYTE / 4, MEGABYTE / 4, PATIENCE)?;
    lab.change_network(WLAN, CELL, streams.address)?;
    let received = || (streams.mobile.received(), streams.peer.received());
    // What was under way when the cable was pulled.
    std::thread::sleep(Duration::from_secs(1));
    let before = received();
    std::thread::sleep(Duration::from_secs(3));
    check!(before == received(), "the streams went on from {before:?} to {:?} bytes", received());
    check!(before.0 < MEGABYTE && before.1 < MEGABYTE, "the streams ended before the move");
    let foreign = lab.world.wire.tally(CELL).0.foreign;
    check!(foreign > 0, "the router let the old address out of the new network");
    // The streams are never complete.
    drop(streams);
    lab.finish()?;
    Ok(vec![format!("stalled; the router dropped {foreign} packets with the old source")])
}

//! TCP streams between the mobile host and its peer.

use super::Figures;
use crate::cable::Lane;
use crate::check;
use crate::error::Result;
use crate::lab::{Lab, Places, Shape};
use crate::stream::{self, Load, Pump};
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

/// Both ends of streams from the mobile host to the peer.
struct Streams {
    mobile: Pump,
    peer: Pump,
    address: IpAddr,
}

impl Streams {
    /// Connects `count` streams, each with `up` bytes from the mobile host and
    /// `down` bytes to it, of which `gate` flow at once.
    fn start(lab: &Lab, v6: bool, count: usize, up: u64, down: u64, gate: u64) -> Result<Self> {
        let address = lab.world.peer.addresses().into_iter().find(|a| a.is_ipv6() == v6);
        let target = SocketAddr::new(address.ok_or_else(|| no_address(v6))?, PORT);
        let (near, far) = stream::connect(&lab.world.mobile.namespace, &lab.world.peer.namespace, target, count)?;
        let load = |number| Load { send: up, receive: down, number, active: true };
        let mobile = near.into_iter().zip(0..).map(|(socket, number)| (socket, load(number))).collect();
        let peer = far.into_iter().zip(0..).map(|(socket, number)| (socket, load(number).mirrored())).collect();
        Ok(Self { mobile: Pump::start(mobile, gate)?, peer: Pump::start(peer, gate)?, address: target.ip() })
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

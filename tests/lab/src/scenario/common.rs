//! What scenarios share: cables, streams, words for figures.

use crate::cable::Lane;
use crate::check;
use crate::error::{Doing, Error, Result};
use crate::lab::{Counters, Lab};
use crate::stream::{self, Load, Pump};
use crate::watch::Resumption;
use mobconn_abi::Counter;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Longest that anything is waited for. Nothing depends on how long it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing must happen for a stream to count as stalled.
pub(crate) const STALL: Duration = Duration::from_secs(3);
/// The peer's port.
pub(crate) const PORT: u16 = 7000;
pub(crate) const MEGABYTE: u64 = 1 << 20;
/// A cable on which a megabyte takes some 0.4 seconds.
pub(crate) const CABLE: Lane = Lane { delay: Duration::from_millis(5), rate: 20_000_000, queue: 64 << 10, loss: 0 };
/// The interfaces of the mobile host.
pub(crate) const WLAN: usize = 0;
pub(crate) const CELL: usize = 1;

/// The peer's address of a family.
pub(crate) fn peer_address(lab: &Lab, v6: bool) -> Result<IpAddr> {
    let address = lab.world.peer.addresses().into_iter().find(|a| a.is_ipv6() == v6);
    address.ok_or_else(|| Error::Check(format!("the peer has no IPv{} address", if v6 { 6 } else { 4 })))
}

/// Both ends of streams from the mobile host to the peer.
pub(crate) struct Streams {
    /// The ends at the mobile host.
    pub(crate) mobile: Pump,
    /// The ends at the peer.
    pub(crate) peer: Pump,
    /// The peer's address.
    pub(crate) address: IpAddr,
    /// Ends of each stream as it began: at the mobile host, at the peer.
    pub(crate) flows: Vec<(SocketAddr, SocketAddr)>,
    up: u64,
    down: u64,
}

impl Streams {
    /// Connects `count` streams, each with `up` bytes from the mobile host and
    /// `down` bytes to it. None of them flow before [`Streams::allow`].
    pub(crate) fn start(lab: &Lab, v6: bool, count: usize, up: u64, down: u64) -> Result<Self> {
        let address = peer_address(lab, v6)?;
        let target = SocketAddr::new(address, PORT);
        let (near, far) = stream::connect(&lab.world.mobile.namespace, &lab.world.peer.namespace, target, count)?;
        let flows: std::io::Result<_> = near.iter().map(|s| Ok((s.local_addr()?, s.peer_addr()?))).collect();
        let flows = flows.doing("naming sockets")?;
        let load = |number| Load { send: up, receive: down, number, active: true };
        let near = near.into_iter().zip(0..).map(|(socket, number)| (socket, load(number))).collect();
        let far = far.into_iter().zip(0..).map(|(socket, number)| (socket, load(number).mirrored())).collect();
        let (mobile, peer) = (Pump::start(near, 0)?, Pump::start(far, 0)?);
        Ok(Self { mobile, peer, address, flows, up, down })
    }

    /// Lets so many twelfths of every stream flow.
    pub(crate) fn allow(&self, twelfths: u64) {
        self.mobile.allow(self.up * twelfths / 12);
        self.peer.allow(self.down * twelfths / 12);
    }

    /// Waits until so many twelfths have arrived, all streams together.
    pub(crate) fn wait(&self, twelfths: u64) -> Result<()> {
        self.wait_for(twelfths, PATIENCE)
    }

    /// The same, each way for so long.
    pub(crate) fn wait_for(&self, twelfths: u64, patience: Duration) -> Result<()> {
        let count = self.flows.len() as u64;
        self.peer.wait_received(count * (self.up * twelfths / 12), patience)?;
        self.mobile.wait_received(count * (self.down * twelfths / 12), patience)
    }

    /// Lets all flow, and waits for the end.
    pub(crate) fn finish(self) -> Result<()> {
        self.mobile.open();
        self.peer.open();
        self.mobile.finish(PATIENCE)?;
        self.peer.finish(PATIENCE)
    }

    /// Makes sure that nothing arrives any more although there is more to come.
    pub(crate) fn wait_stalled(&self) -> Result<()> {
        // What was under way when the cable was pulled.
        std::thread::sleep(Duration::from_secs(1));
        let received = || (self.mobile.received(), self.peer.received());
        let before = received();
        std::thread::sleep(STALL);
        check!(before == received(), "the streams went on from {before:?} to {:?} bytes", received());
        let count = self.flows.len() as u64;
        check!(before.0 < count * self.down && before.1 < count * self.up, "the streams had ended before");
        Ok(())
    }
}

/// Starts the daemons, and one stream each way of so many bytes, which begins and is claimed.
pub(crate) fn begin(lab: &mut Lab, v6: bool, bytes: u64) -> Result<Streams> {
    lab.start_daemons([1, 1])?;
    let streams = Streams::start(lab, v6, 1, bytes, bytes)?;
    streams.allow(2);
    lab.mover()?.wait_claimed(1)?;
    streams.wait(2)?;
    Ok(streams)
}

/// The mobile host is nowhere for a while, and then in the second network. Ends when both have sent data from there.
pub(crate) fn vanish(lab: &Lab, streams: &Streams, outage: Duration) -> Result<Resumption> {
    let (old, new) = lab.change_interface(WLAN, CELL, streams.address)?;
    busy_for(lab, outage)?;
    lab.plug_in(CELL, new);
    let report = lab.mover()?.announce(old, new)?;
    check!(report["peers"][0]["outcome"] == "moved", "the move came to {report}");
    lab.wait_resumed(PATIENCE, |heard| heard.sent_data.is_some() && heard.received_data.is_some())
}

/// Waits. The daemons are asked how they are meanwhile: a machine on which nothing happens takes a while to wake up, a
/// virtual one above all, and that is no part of a move.
fn busy_for(lab: &Lab, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for number in [0, 1] {
            lab.daemon(number)?.ask(&serde_json::json!({"command": "status"}))?;
        }
        std::thread::sleep(Duration::from_millis(10).min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// A time as people read it.
pub(crate) fn ms(time: Option<Duration>) -> String {
    time.map_or("never".to_owned(), |t| format!("{:.1} ms", t.as_secs_f64() * 1e3))
}

/// How long it took until the flows were heard again.
pub(crate) fn times(heard: &Resumption) -> String {
    format!("mobile > peer {}, peer > mobile {}", ms(heard.sent), ms(heard.received))
}

/// How many packets the module rewrote.
pub(crate) fn rewritten(lab: &Lab) -> Result<String> {
    let (mobile, peer) = (lab.counters(&lab.world.mobile)?, lab.counters(&lab.world.peer)?);
    let both = |c: &Counters| format!("{} + {}", c.get(Counter::TranslatedIn), c.get(Counter::TranslatedOut));
    Ok(format!("packets rewritten in + out: mobile {}, peer {}", both(&mobile), both(&peer)))
}

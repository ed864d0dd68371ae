//! Strangers: somebody else gets the old address, and talks to the same peer
//! from the same port to the same port.

use super::Figures;
use super::common::{CABLE, CELL, MEGABYTE, PATIENCE, PORT, Streams, WLAN, rewritten};
use super::tcp::move_by_daemon;
use crate::check;
use crate::error::Result;
use crate::lab::{Lab, Places, Shape};
use crate::program;
use crate::stream::{Load, Pump, connect_from};
use mobconn_abi::Counter;
use std::net::SocketAddr;

/// Bytes that a stranger exchanges, each way.
const CHAT: u64 = 100_000;

/// The mobile host moves; the router, of all hosts, gets its old address.
fn run(places: &Places, v6: bool) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    lab.start_daemons([1, 1])?;
    let streams = Streams::start(&lab, v6, 1, MEGABYTE, MEGABYTE)?;
    streams.allow(2);
    lab.mover()?.wait_claimed(1)?;
    streams.wait(2)?;
    move_by_daemon(&lab, WLAN, CELL, streams.address)?;
    streams.allow(5);
    streams.wait(5)?;
    let (source, _) = *streams.flows.first().ok_or_else(|| crate::Error::Check("no stream".to_owned()))?;
    let length = if v6 { 128 } else { 32 };
    let commands = format!("address add {}/{length} dev lo\n", source.ip());
    program::run(&lab.world.router, &["ip", "-batch", "-"], &commands)?;
    let mut ports = Vec::new();
    for number in 0..2_u64 {
        let target = SocketAddr::new(streams.address, PORT);
        let (near, far) = connect_from(&lab.world.router, source, &lab.world.peer.namespace, target)?;
        if let Ok(seen) = far.peer_addr() {
            check!(seen.ip() == source.ip(), "the stranger at {source} is seen at {seen}");
            check!(seen.port() != source.port(), "the stranger has the owner's port {seen}");
            ports.push(seen.port().to_string());
        }
        let load = Load { send: CHAT, receive: CHAT, number: 100 + number, active: number == 1 };
        let near = Pump::start(vec![(near, load)], u64::MAX)?;
        let far = Pump::start(vec![(far, load.mirrored())], u64::MAX)?;
        // The owner goes on meanwhile.
        streams.allow(7 + 2 * number);
        streams.wait(7 + 2 * number)?;
        near.finish(PATIENCE)?;
        far.finish(PATIENCE)?;
        // A connection of the same ends may begin again where the last one waits (RFC 6191) a second later.
        std::thread::sleep(std::time::Duration::from_millis(1200));
    }
    streams.finish()?;
    let displaced = lab.counters(&lab.world.peer)?.get(Counter::Displaced);
    check!(displaced > 0, "nobody was displaced");
    let figures = vec![format!("strangers were given ports {}", ports.join(", ")), rewritten(&lab)?];
    lab.finish()?;
    Ok(figures)
}

pub(super) fn tcp_v4(places: &Places) -> Result<Figures> {
    run(places, false)
}

pub(super) fn tcp_v6(places: &Places) -> Result<Figures> {
    run(places, true)
}

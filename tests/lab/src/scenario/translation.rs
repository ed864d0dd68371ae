//! A network behind address translation (NAT): nothing can move there, which is
//! said, and nothing breaks.

use super::Figures;
use super::common::{CABLE, CELL, MEGABYTE, PATIENCE, Streams, WLAN, rewritten};
use super::networks::{automatic, committed, destinations, join, leave, wait_chosen};
use crate::check;
use crate::error::Result;
use crate::lab::{Lab, Places};
use crate::stream::{Load, Pump, connect_from};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// What `mobctl status` says is wrong with peers.
fn troubles(lab: &Lab) -> Result<Vec<Value>> {
    let status = lab.mover()?.ask(&json!({"command": "status"}))?;
    Ok(status["trouble"].as_array().cloned().unwrap_or_default())
}

fn wait_troubles(lab: &Lab, wanted: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let troubles = troubles(lab)?;
        let translation = |one: &Value| one["what"].as_str().is_some_and(|what| what.contains("address translation"));
        if troubles.len() == wanted && troubles.iter().all(translation) {
            return Ok(());
        }
        check!(Instant::now() < deadline, "{wanted} peers behind address translation, and status says {troubles:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until flows have moved to `there`. Once; before that at most back to where they stood, if they were being asked for
/// when the other network went.
fn wait_moved(lab: &Lab, there: IpAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let moves = destinations(lab)?;
        let there = there.to_string();
        if moves.last() == Some(&there) && moves.len() <= 2 && moves.iter().filter(|one| **one == there).count() == 1 {
            return Ok(());
        }
        check!(Instant::now() < deadline, "moves to {moves:?} instead of one to {there}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A connection from exactly this address, with some bytes each way, that lives for a while.
fn another(lab: &Lab, source: SocketAddr, target: SocketAddr) -> Result<(Pump, Pump)> {
    let (near, far) = connect_from(&lab.world.mobile.namespace, source, &lab.world.peer.namespace, target)?;
    let load = Load { send: MEGABYTE / 4, receive: MEGABYTE / 4, number: 9, active: true };
    Ok((Pump::start(vec![(near, load)], 1000)?, Pump::start(vec![(far, load.mirrored())], 1000)?))
}

/// The better network of two translates; the other one goes and comes back; the better one stops translating.
pub(super) fn nat(places: &Places) -> Result<Figures> {
    let mut lab = automatic(places, CABLE, "hold_down = 1\nprefer = [\"em1\", \"em0\"]\n")?;
    // The other network may go while the flows are being asked for there.
    lab.replaced = true;
    let (mobile, wire) = (&lab.world.mobile, &lab.world.wire);
    let cell = mobile.interfaces[CELL].cable;
    let streams = Streams::start(&lab, false, 2, 2 * MEGABYTE, 2 * MEGABYTE)?;
    streams.allow(2);
    lab.mover()?.wait_claimed(2)?;
    streams.wait(2)?;
    wait_troubles(&lab, 0)?;

    wire.translate(cell, true);
    join(&lab, CELL, streams.address)?;
    let there = lab.mobile_address(CELL, streams.address);
    wait_chosen(&lab, there)?;
    wait_troubles(&lab, 1)?;
    let shown = lab.mobctl(mobile, &["status"])?;
    check!(shown.contains("address translation (NAT)"), "mobctl status does not say why nothing moves:\n{shown}");
    // They stay where they can.
    streams.allow(4);
    streams.wait(4)?;

    // What begins behind the translation is left alone.
    let (near, far) =
        another(&lab, SocketAddr::new(there, 40_000), SocketAddr::new(streams.address, super::common::PORT + 1))?;
    std::thread::sleep(Duration::from_millis(2500));
    let confirmed = lab.mover()?.ask(&json!({"command": "status"}))?["confirmed"].as_u64();
    check!(confirmed == Some(2), "{confirmed:?} flows are claimed, one of them through address translation");
    check!(lab.mover()?.logged().contains("the claim came from another address"), "nobody said why");
    near.open();
    far.open();
    near.finish(PATIENCE)?;
    far.finish(PATIENCE)?;
    wait_troubles(&lab, 1)?;

    // Nobody can help them now; nobody may harm them either.
    leave(&lab, WLAN)?;
    std::thread::sleep(Duration::from_secs(2));
    check!(committed(&lab)? == 0, "flows moved through address translation");
    join(&lab, WLAN, streams.address)?;
    streams.allow(7);
    streams.wait(7)?;
    check!(committed(&lab)? == 0, "flows moved although they were where they can be");

    leave(&lab, CELL)?;
    wire.translate(cell, false);
    join(&lab, CELL, streams.address)?;
    wait_chosen(&lab, there)?;
    streams.allow(11);
    streams.wait(11)?;
    wait_troubles(&lab, 0)?;
    wait_moved(&lab, there)?;
    streams.finish()?;
    let figures = vec![rewritten(&lab)?];
    lab.finish()?;
    Ok(figures)
}

//! Paths that differ after a move: narrower, or away for a while.

use super::Figures;
use super::common::{CABLE, CELL, MEGABYTE, WLAN, begin, ms, rewritten, vanish};
use super::tcp::move_by_daemon;
use crate::check;
use crate::error::Result;
use crate::lab::{Lab, Places, Shape};
use crate::program;
use mobconn_abi::Counter;
use std::time::Duration;

/// What the narrow place takes, bytes.
const NARROW: u32 = 1300;
/// How long the mobile host is nowhere: long enough for a retransmission timer
/// to back off.
const OUTAGE: Duration = Duration::from_secs(4);

/// After the move the router's way to the peer takes smaller packets: it says
/// so about what comes from the new address.
fn small_link(places: &Places, v6: bool) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    let streams = begin(&mut lab, v6, MEGABYTE)?;
    move_by_daemon(&lab, WLAN, CELL, streams.address)?;
    program::run(&lab.world.router, &["ip", "link", "set", "home", "mtu", &NARROW.to_string()], "")?;
    streams.allow(11);
    streams.wait(11)?;
    streams.finish()?;
    let figures = vec![rewritten(&lab)?];
    lab.finish()?;
    Ok(figures)
}

/// The interface that the mobile host moves to takes smaller packets.
fn small_interface(places: &Places, v6: bool) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    let streams = begin(&mut lab, v6, MEGABYTE)?;
    lab.world.mobile.kernel.set_mtu("em1", NARROW);
    move_by_daemon(&lab, WLAN, CELL, streams.address)?;
    streams.allow(11);
    streams.wait(11)?;
    streams.finish()?;
    let fragments = lab.counters(&lab.world.peer)?.get(Counter::Fragments);
    check!(fragments == 0, "{fragments} fragments came to the peer: TCP went on with packets that are too big");
    let figures = vec![rewritten(&lab)?];
    lab.finish()?;
    Ok(figures)
}

/// After the move the peer's own interface takes smaller packets, towards the
/// new address: its TCP made them for another one.
fn small_peer(places: &Places, v6: bool) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    let streams = begin(&mut lab, v6, MEGABYTE)?;
    move_by_daemon(&lab, WLAN, CELL, streams.address)?;
    lab.world.peer.kernel.set_mtu("em0", NARROW);
    streams.allow(11);
    streams.wait(11)?;
    streams.finish()?;
    let dropped = lab.counters(&lab.world.peer)?.get(Counter::DroppedTooBig);
    check!((1..100).contains(&dropped), "{dropped} packets were too big at the peer");
    let fragments = lab.counters(&lab.world.mobile)?.get(Counter::Fragments);
    check!(fragments == 0, "{fragments} fragments came to the mobile host");
    let figures = vec![format!("{dropped} packets were too big until TCP knew"), rewritten(&lab)?];
    lab.finish()?;
    Ok(figures)
}

/// Both ends send into the void for a while.
fn outage(places: &Places, v6: bool) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    let streams = begin(&mut lab, v6, MEGABYTE)?;
    streams.allow(11);
    let heard = vanish(&lab, &streams, OUTAGE)?;
    streams.wait(11)?;
    streams.finish()?;
    let of = |counter| -> Result<(u64, u64)> {
        Ok((lab.counters(&lab.world.mobile)?.get(counter), lab.counters(&lab.world.peer)?.get(counter)))
    };
    let (resumed, released) = (of(Counter::Resumed)?, of(Counter::Released)?);
    check!(resumed.0 + released.0 > 0, "the mobile host's TCP was left to its timer");
    let figures = vec![
        format!(
            "data after the address was usable: from the mobile host {}, from the peer {}",
            ms(heard.sent_data),
            ms(heard.received_data)
        ),
        format!(
            "timers fired: mobile {}, peer {}; held segments sent: mobile {}, peer {}",
            resumed.0, resumed.1, released.0, released.1
        ),
    ];
    lab.finish()?;
    Ok(figures)
}

pub(super) fn small_link_v4(places: &Places) -> Result<Figures> {
    small_link(places, false)
}

pub(super) fn small_link_v6(places: &Places) -> Result<Figures> {
    small_link(places, true)
}

pub(super) fn small_interface_v4(places: &Places) -> Result<Figures> {
    small_interface(places, false)
}

pub(super) fn small_interface_v6(places: &Places) -> Result<Figures> {
    small_interface(places, true)
}

pub(super) fn small_peer_v4(places: &Places) -> Result<Figures> {
    small_peer(places, false)
}

pub(super) fn small_peer_v6(places: &Places) -> Result<Figures> {
    small_peer(places, true)
}

pub(super) fn outage_v4(places: &Places) -> Result<Figures> {
    outage(places, false)
}

pub(super) fn outage_v6(places: &Places) -> Result<Figures> {
    outage(places, true)
}

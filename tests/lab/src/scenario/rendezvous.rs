//! Both hosts move, and neither is where the other one believes.

use super::Figures;
use super::common::{CABLE, CELL, MEGABYTE, PATIENCE, Streams, WLAN, ms, rewritten};
use crate::check;
use crate::daemon::Role;
use crate::error::Result;
use crate::lab::{Lab, Places, Shape};
use crate::names::{Kind, MOBILE, PEER};
use crate::world::{HOME, MOBILE_NODE, PEER_NODE};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Another number of the peer in its network.
const PEER_MOVED: u8 = 6;

/// Waits until the zone's server gives these addresses, and says when it did.
fn wait_name(lab: &Lab, name: &str, wanted: [IpAddr; 2]) -> Result<Instant> {
    let wanted = wanted.map(|address| address.to_string());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = lab.names()?.addresses_of(&lab.world.router, name)?;
        if found == wanted {
            return Ok(Instant::now());
        }
        check!(Instant::now() < deadline, "{name} is {found:?} and not {wanted:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Both lose their networks, and get other addresses while they are still unreachable; then the cables are plugged in.
pub(super) fn both_move(places: &Places) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    lab.start_names(Kind::Bind)?;
    lab.start_roles([Role::Mobile, Role::Mobile], [1, 1])?;
    wait_name(&lab, MOBILE, lab_addresses(&lab, WLAN))?;
    wait_name(&lab, PEER, HOME.addresses(PEER_NODE))?;
    let streams = Streams::start(&lab, false, 2, MEGABYTE, MEGABYTE)?;
    streams.allow(2);
    for number in [0, 1] {
        lab.daemon(number)?.wait_claimed(2)?;
    }
    streams.wait(2)?;
    streams.allow(11);
    let mut figures = Figures::new();
    for (from, to, old_node, new_node, until) in
        [(WLAN, CELL, PEER_NODE, PEER_MOVED, 6), (CELL, WLAN, PEER_MOVED, PEER_NODE, 10)]
    {
        let peer = &lab.world.peer;
        let (old, new) = lab.change_interface(from, to, streams.address)?;
        peer.renumber(&peer.interfaces[0], new_node)?;
        // Both are told, and nobody can be reached for a while.
        let brief = Duration::from_millis(50);
        lab.daemon(0)?.announce_for(old, new, brief)?;
        lab.daemon(1)?.announce_for(HOME.v4(old_node).into(), HOME.v4(new_node).into(), brief)?;
        std::thread::sleep(Duration::from_secs(3));
        lab.plug_in(to, new);
        lab.world.wire.plug(peer.interfaces[0].cable, true);
        let known =
            wait_name(&lab, MOBILE, lab_addresses(&lab, to))?.max(wait_name(&lab, PEER, HOME.addresses(new_node))?);
        let heard = lab.wait_resumed(PATIENCE, |heard| heard.sent.is_some() && heard.received.is_some())?;
        let both = [heard.sent, heard.received].into_iter().flatten().max().map(|after| heard.since + after);
        let since = both.map(|both| both.saturating_duration_since(known));
        figures.push(format!("both ends were heard {} after dig(1) had both new addresses", ms(since)));
        streams.wait(until)?;
    }
    streams.finish()?;
    figures.push(rewritten(&lab)?);
    lab.finish()?;
    Ok(figures)
}

fn lab_addresses(lab: &Lab, interface: usize) -> [IpAddr; 2] {
    lab.world.mobile.interfaces[interface].network.addresses(MOBILE_NODE)
}

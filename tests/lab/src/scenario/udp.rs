//! UDP flows, which go on, and which show how long a move interrupts the path:
//! they send every millisecond, whatever happened before.

use super::Figures;
use super::common::{CABLE, CELL, PATIENCE, PORT, WLAN, ms, peer_address, rewritten};
use super::tcp::move_by_daemon;
use crate::cable::Lane;
use crate::error::Result;
use crate::lab::{Lab, Places, Shape};
use crate::udp::{self, Ticker};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(1);
/// Datagrams that must come each way before and after a move.
const PROOF: u64 = 50;
/// Moves of which the interruption is measured.
const MOVES: usize = 6;

struct Flow {
    mobile: Ticker,
    peer: Ticker,
    address: IpAddr,
}

impl Flow {
    fn start(lab: &Lab, v6: bool) -> Result<Self> {
        let address = peer_address(lab, v6)?;
        let (near, far) = (&lab.world.mobile.namespace, &lab.world.peer.namespace);
        let (mobile, peer) = udp::start(near, far, SocketAddr::new(address, PORT), TICK)?;
        Ok(Self { mobile, peer, address })
    }

    fn proceeds(&self) -> Result<()> {
        self.mobile.wait_more(PROOF, PATIENCE)?;
        self.peer.wait_more(PROOF, PATIENCE)
    }

    fn finish(self) -> Result<()> {
        self.mobile.finish()?;
        self.peer.finish()?;
        Ok(())
    }
}

/// Moves there and back as often as wanted. Returns what each move cost.
fn moves(places: &Places, v6: bool, cable: Lane, count: usize) -> Result<(Vec<[Option<Duration>; 2]>, String)> {
    let mut lab = Lab::new(places, &Shape::uniform(cable))?;
    lab.start_daemons([1, 1])?;
    let flow = Flow::start(&lab, v6)?;
    lab.mover()?.wait_claimed(1)?;
    let mut costs = Vec::new();
    for number in 0..count {
        flow.proceeds()?;
        let (from, to) = if number % 2 == 0 { (WLAN, CELL) } else { (CELL, WLAN) };
        move_by_daemon(&lab, from, to, flow.address)?;
        flow.proceeds()?;
        let heard = lab.wait_resumed(PATIENCE, |heard| heard.sent_data.is_some() && heard.received_data.is_some())?;
        costs.push([heard.sent_data, heard.received_data]);
    }
    flow.finish()?;
    let rewritten = rewritten(&lab)?;
    lab.finish()?;
    Ok((costs, rewritten))
}

fn flow(places: &Places, v6: bool) -> Result<Figures> {
    let (costs, rewritten) = moves(places, v6, CABLE, 2)?;
    let line = |cost: &[Option<Duration>; 2]| format!("mobile > peer {}, peer > mobile {}", ms(cost[0]), ms(cost[1]));
    Ok(costs.iter().map(line).chain([rewritten]).collect())
}

pub(super) fn flow_v4(places: &Places) -> Result<Figures> {
    flow(places, false)
}

pub(super) fn flow_v6(places: &Places) -> Result<Figures> {
    flow(places, true)
}

/// What a move costs over a path of this delay, one way.
fn interruption(places: &Places, one_way: Duration) -> Result<Figures> {
    // Two cables make the path.
    let cable = Lane { delay: one_way / 2, ..Lane::default() };
    let (costs, _) = moves(places, false, cable, MOVES)?;
    let Some((first, others)) = costs.split_first() else { return Ok(Figures::new()) };
    let figure = |way: usize| {
        let mut times: Vec<_> = others.iter().filter_map(|cost| cost[way]).collect();
        times.sort();
        let at = |index: usize| ms(times.get(index).copied());
        format!("{} to {}, median {}", at(0), at(times.len().saturating_sub(1)), at(times.len() / 2))
    };
    let round_trip = ms(Some(2 * one_way));
    Ok(vec![
        format!("round trip {round_trip}; from the address being usable to the first datagram, {MOVES} moves:"),
        format!("mobile > peer {}, the first move {}", figure(0), ms(first[0])),
        format!("peer > mobile {}, the first move {}", figure(1), ms(first[1])),
    ])
}

pub(super) fn no_delay(places: &Places) -> Result<Figures> {
    interruption(places, Duration::ZERO)
}

pub(super) fn delay(places: &Places) -> Result<Figures> {
    interruption(places, Duration::from_millis(20))
}

//! What a move costs a flow that sends every millisecond, both ways.

use super::{Row, Trips};
use crate::cable::Lane;
use crate::check;
use crate::error::{Doing, Error, Result};
use crate::host::Interface;
use crate::lab::{Lab, Places, Shape};
use crate::scenario::common::{CELL, PATIENCE, PORT, WLAN, peer_address};
use crate::scenario::tcp::move_by_daemon;
use crate::udp::{self, Ticker};
use crate::world::{HOME, MOBILE_NODE};
use mobconn_abi::{EGRESS_SET, Egress, EgressPrefix};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use zerocopy::IntoBytes;

const TICK: Duration = Duration::from_millis(1);
/// Datagrams that must come each way before and after a move.
const PROOF: u64 = 50;
/// Moves that are measured, after a first one.
const MOVES: usize = 10;
/// Where first moves are told apart: worlds, and moves after the first one in each.
const WORLDS: usize = 5;
const LATER: usize = 2;
/// The daemons' port.
const DPRP: u16 = 9434;

/// A flow between the hosts of a world.
struct Flow {
    lab: Lab,
    mobile: Ticker,
    peer: Ticker,
    address: IpAddr,
}

impl Flow {
    /// Over a path of this delay one way.
    fn start(places: &Places, one_way: Duration) -> Result<Self> {
        // Two cables make the path.
        let mut lab = Lab::new(places, &Shape::uniform(Lane { delay: one_way / 2, ..Lane::default() }))?;
        lab.start_daemons([1, 1])?;
        let address = peer_address(&lab, false)?;
        let (near, far) = (&lab.world.mobile.namespace, &lab.world.peer.namespace);
        let (mobile, peer) = udp::start(near, far, SocketAddr::new(address, PORT), TICK)?;
        lab.mover()?.wait_claimed(1)?;
        Ok(Self { lab, mobile, peer, address })
    }

    fn proceeds(&self) -> Result<()> {
        self.mobile.wait_more(PROOF, PATIENCE)?;
        self.peer.wait_more(PROOF, PATIENCE)
    }

    /// Waits until both directions are heard again. When the first datagram left, and when the first one came.
    fn resumed(&self) -> Result<[Duration; 2]> {
        self.lab.wait_resumed(PATIENCE, |heard| heard.sent_data.is_some() && heard.received_data.is_some())?.costs()
    }

    /// What the path takes there and back, beside the flow.
    fn round_trip(&self) -> Result<Duration> {
        let (near, far) = (&self.lab.world.mobile.namespace, &self.lab.world.peer.namespace);
        udp::round_trip(near, far, self.address, Duration::from_millis(10))
    }

    fn finish(self) -> Result<()> {
        self.mobile.finish()?;
        self.peer.finish()?;
        self.lab.finish()
    }
}

/// Between which interfaces move `number` goes.
fn ends(number: usize) -> (usize, usize) {
    if number.is_multiple_of(2) { (WLAN, CELL) } else { (CELL, WLAN) }
}

/// The old network is gone before the new one is usable.
pub(super) fn break_before_make(places: &Places, one_way: u32) -> Result<Vec<Row>> {
    // Only in the first move of a world the kernels make bindings.
    let (mut first, mut later, mut trips) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..WORLDS {
        let flow = Flow::start(places, Duration::from_millis(one_way.into()))?;
        for number in 0..=LATER {
            flow.proceeds()?;
            let (from, to) = ends(number);
            move_by_daemon(&flow.lab, from, to, flow.address)?;
            flow.proceeds()?;
            if number == 0 { &mut first } else { &mut later }.push(flow.resumed()?);
        }
        trips.push(flow.round_trip()?);
        flow.finish()?;
    }
    let path = Trips::new(trips);
    let name = |what: &str| format!("break before make, {one_way} ms one way, {what}");
    let mut rows = vec![path.row(name("round trip"))];
    for (which, costs) in [("", later), (", first move", first)] {
        let (left, received) = costs.into_iter().map(|[left, received]| (left, received)).unzip();
        let (leaves, comes) = (name(&format!("mobile > peer{which}")), name(&format!("peer > mobile{which}")));
        rows.push(Row::times(leaves, left, Some(path.goal(1.0))));
        rows.push(Row::times(comes, received, Some(path.goal(2.0))));
    }
    Ok(rows)
}

/// Both networks are there until the move is over.
pub(super) fn make_before_break(places: &Places, one_way: u32) -> Result<Vec<Row>> {
    let delay = Duration::from_millis(one_way.into());
    let flow = Flow::start(places, delay)?;
    let (lab, host) = (&flow.lab, &flow.lab.world.mobile);
    leave_by_source(lab)?;
    let mut silences = [Vec::new(), Vec::new()];
    for number in 0..=MOVES {
        flow.proceeds()?;
        let (from, to) = ends(number);
        flow.mobile.forget_silence();
        flow.peer.forget_silence();
        host.configure(&host.interfaces[to], MOBILE_NODE)?;
        let (old, new) = (lab.mobile_address(from, flow.address), lab.mobile_address(to, flow.address));
        lab.plug_in(to, new);
        let report = lab.mover()?.announce(old, new)?;
        check!(report["peers"][0]["outcome"] == "moved", "the move from {old} to {new} came to {report}");
        check!(report["old_usable"] == true, "the daemon did not see the old network: {report}");
        flow.resumed()?;
        // What went to the old address before the move is still on its way.
        std::thread::sleep(4 * delay + Duration::from_millis(50));
        for (silences, ticker) in silences.iter_mut().zip([&flow.peer, &flow.mobile]) {
            silences.push(ticker.silence());
        }
        host.leave(&host.interfaces[from])?;
    }
    let lost = udp::lost(&flow.mobile, &flow.peer, 4 * delay + Duration::from_millis(200));
    flow.finish()?;
    let name = |what: &str| format!("make before break, {one_way} ms one way, {what}");
    let [up, down] = silences;
    Ok(vec![
        Row::number(name(&format!("datagrams lost in {} moves", MOVES + 1)), lost as f64, "", Some(0.0)),
        Row::times(name("mobile > peer, longest silence"), up, None),
        Row::times(name("peer > mobile, longest silence"), down, None),
    ])
}

/// What carries an address of the mobile host leaves by the network of that address.
fn leave_by_source(lab: &Lab) -> Result<()> {
    let host = &lab.world.mobile;
    // As the ABI has IPv4 addresses.
    let front = |address: Ipv4Addr| {
        let mut all = [0; 16];
        all[..4].copy_from_slice(&address.octets());
        all
    };
    let mut egress = Egress { port: DPRP, ..Egress::default() };
    for (rule, interface) in egress.rules.iter_mut().zip(&host.interfaces) {
        rule.source = front(interface.network.v4(MOBILE_NODE));
        rule.gateway = front(interface.network.v4(1));
        rule.interface = index(lab, interface)?;
        rule.version = 4;
        egress.rule_count += 1;
    }
    egress.prefixes[0] = EgressPrefix { address: front(HOME.v4), length: 24, version: 4, ..EgressPrefix::default() };
    egress.prefix_count = 1;
    host.kernel
        .ioctl(3, EGRESS_SET, egress.as_mut_bytes(), &mut [])
        .map_err(|errno| Error::Check(format!("the module refuses the rules: errno {errno}")))
}

fn index(lab: &Lab, interface: &Interface) -> Result<u32> {
    let name = interface.name;
    let index = lab.world.mobile.namespace.run(move || nix::net::if_::if_nametoindex(name))?;
    index.map_err(std::io::Error::from).doing(format_args!("looking for {name}"))
}

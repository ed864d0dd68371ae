//! The daemon notices by itself: nobody tells it that this host moves.

use super::Figures;
use super::common::{CABLE, CELL, MEGABYTE, PATIENCE, Streams, WLAN, rewritten, times};
use crate::cable::{Lane, Tally};
use crate::check;
use crate::error::{Doing, Error, Result};
use crate::host::{Host, Interface};
use crate::lab::{Lab, Places, Shape};
use crate::ns::Namespace;
use crate::world::MOBILE_NODE;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A cable that never has a queue, so that whatever is lost is the move's fault.
const WIDE: Lane = Lane { delay: Duration::from_millis(5), rate: 0, queue: 0, loss: 0 };

/// A lab whose daemon moves by itself, with these lines in its configuration.
pub(super) fn automatic(places: &Places, lane: Lane, config: &str) -> Result<Lab> {
    let mut lab = Lab::new(places, &Shape::uniform(lane))?;
    lab.mobile_config = config.to_owned();
    lab.start_daemons([1, 1])?;
    Ok(lab)
}

fn interface(lab: &Lab, number: usize) -> (&Host, &Interface) {
    (&lab.world.mobile, &lab.world.mobile.interfaces[number])
}

/// Joins a network: the cable is in before the addresses come.
pub(super) fn join(lab: &Lab, number: usize, like: IpAddr) -> Result<()> {
    let (host, interface) = interface(lab, number);
    let new = lab.mobile_address(number, like);
    lab.world.wire.plug(interface.cable, true);
    lab.world.wire.watch(|watch| watch.usable(new, Instant::now()));
    host.configure(interface, MOBILE_NODE)
}

pub(super) fn leave(lab: &Lab, number: usize) -> Result<()> {
    let (host, interface) = interface(lab, number);
    host.leave(interface)
}

fn networks(lab: &Lab) -> Result<Value> {
    lab.mover()?.ask(&json!({"command": "networks"}))
}

/// The addresses that connections go to.
fn chosen(lab: &Lab) -> Result<Vec<String>> {
    let report = networks(lab)?;
    let all = report["addresses"].as_array().cloned().unwrap_or_default();
    let chosen = all.iter().filter(|one| one["chosen"] == true);
    Ok(chosen.filter_map(|one| one["address"].as_str().map(str::to_owned)).collect())
}

pub(super) fn wait_chosen(lab: &Lab, address: IpAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !chosen(lab)?.contains(&address.to_string()) {
        check!(Instant::now() < deadline, "{address} is not chosen: {}", networks(lab)?);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Moves of this host that were committed so far.
pub(super) fn committed(lab: &Lab) -> Result<usize> {
    Ok(destinations(lab)?.len())
}

/// Where flows of the mobile host moved to, one after the other.
pub(super) fn destinations(lab: &Lab) -> Result<Vec<String>> {
    let status = lab.mover()?.ask(&json!({"command": "status"}))?;
    let moves = status["moves"].as_array().cloned().unwrap_or_default();
    let own = moves.iter().filter(|one| one["who"] == "this host" && one["flows"].as_u64() > Some(0));
    Ok(own.map(|one| one["new"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Waits until the flows are heard from and at the address that was usable last.
fn resumed(lab: &Lab) -> Result<String> {
    let heard = lab.wait_resumed(PATIENCE, |heard| heard.sent.is_some() && heard.received.is_some())?;
    Ok(times(&heard))
}

fn break_before_make(places: &Places, v6: bool) -> Result<Figures> {
    let lab = automatic(places, CABLE, "hold_down = 1\n")?;
    let streams = Streams::start(&lab, v6, 3, 2 * MEGABYTE, 2 * MEGABYTE)?;
    streams.allow(1);
    lab.mover()?.wait_claimed(3)?;
    let mut figures = Figures::new();
    for (from, to, until) in [(WLAN, CELL, 6), (CELL, WLAN, 11)] {
        streams.allow(until - 1);
        streams.wait(until - 4)?;
        leave(&lab, from)?;
        join(&lab, to, streams.address)?;
        streams.allow(until);
        figures.push(format!("{} after the address was configured", resumed(&lab)?));
        streams.wait(until)?;
    }
    streams.finish()?;
    check!(committed(&lab)? == 2, "{} moves instead of 2", committed(&lab)?);
    figures.push(rewritten(&lab)?);
    for host in [&lab.world.mobile, &lab.world.peer] {
        let left = lab.expire(host)?;
        check!(left == 0, "{}: {left} bindings are left, back where they began", host.namespace.name());
    }
    lab.finish()?;
    Ok(figures)
}

pub(super) fn break_v4(places: &Places) -> Result<Figures> {
    break_before_make(places, false)
}

pub(super) fn break_v6(places: &Places) -> Result<Figures> {
    break_before_make(places, true)
}

/// Segments that the TCP of a namespace has sent again.
fn retransmissions(namespace: &Namespace) -> Result<u64> {
    let text = namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?.doing("reading TCP's counters")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let place = names.split(' ').position(|name| name == "RetransSegs");
    let value = place.and_then(|place| values.split(' ').nth(place)).and_then(|value| value.parse().ok());
    value.ok_or_else(|| Error::Check(format!("no RetransSegs in {text}")))
}

/// Packets that were lost on all cables so far, whatever for.
fn losses(lab: &Lab) -> u64 {
    let lost = |tally: Tally| tally.lost + tally.full + tally.unplugged + tally.foreign + tally.refused;
    (0..3).map(|cable| lab.world.wire.tally(cable)).map(|(up, down)| lost(up) + lost(down)).sum()
}

/// How the daemon is led to the better network.
enum Better {
    /// By the order of interfaces: the system's routes stay with the other one.
    Wish,
    /// By the system's default route.
    Route,
}

/// A steady stream, so that it is never TCP itself that overfills a queue.
struct Trickle<'a> {
    streams: &'a Streams,
    allowed: u64,
}

impl Trickle<'_> {
    /// Lets the streams flow for a while.
    fn flow(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.allowed += 6_000;
            self.streams.mobile.allow(self.allowed);
            self.streams.peer.allow(self.allowed);
            std::thread::sleep(Duration::from_millis(4));
        }
    }
}

fn make_before_break(places: &Places, v6: bool, better: &Better) -> Result<Figures> {
    let wish = if matches!(better, Better::Wish) { "prefer = [\"em1\", \"em0\"]\n" } else { "" };
    let lab = automatic(places, WIDE, &format!("hold_down = 1\n{wish}"))?;
    for host in [&lab.world.mobile, &lab.world.peer] {
        // A probe after two round trips is sent although nothing is lost.
        host.namespace.sysctl("net/ipv4/tcp_early_retrans", "0")?;
    }
    let streams = Streams::start(&lab, v6, 2, 16 * MEGABYTE, 16 * MEGABYTE)?;
    let mut trickle = Trickle { streams: &streams, allowed: 0 };
    trickle.flow(Duration::from_millis(300));
    lab.mover()?.wait_claimed(2)?;
    let mut figures = Figures::new();
    // What the router said into the cables that were out, when it began.
    let before = losses(&lab);
    let metric = |number: usize, metric: u32| -> Result<()> {
        let (host, interface) = interface(&lab, number);
        let router: IpAddr = if v6 { interface.network.v6(1).into() } else { interface.network.v4(1).into() };
        host.ip(&format!("route add default via {router} dev {} metric {metric}\n", interface.name))?;
        lab.world.wire.rerouted(host.number);
        Ok(())
    };
    for (from, to) in [(WLAN, CELL), (CELL, WLAN)] {
        // Back in a network that it knows, the system sends by it before a busy daemon looks.
        let busy = |signal| if to == WLAN { lab.mover()?.signal(signal) } else { Ok(()) };
        busy(Signal::SIGSTOP)?;
        join(&lab, to, streams.address)?;
        trickle.flow(Duration::from_millis(200));
        busy(Signal::SIGCONT)?;
        match better {
            Better::Wish if to == WLAN => {
                lab.mover()?.ask(&json!({"command": "prefer", "interfaces": ["em0", "em1"]}))?;
            }
            Better::Wish => {}
            // Packets from the old address must go on leaving by the old network until the move.
            Better::Route => metric(to, if to == CELL { 50 } else { 40 })?,
        }
        let new = lab.mobile_address(to, streams.address);
        let deadline = Instant::now() + PATIENCE;
        while !chosen(&lab)?.contains(&new.to_string()) {
            check!(Instant::now() < deadline, "{new} is not chosen: {}", networks(&lab)?);
            trickle.flow(Duration::from_millis(50));
        }
        trickle.flow(Duration::from_millis(500));
        resumed(&lab)?;
        let status = networks(&lab)?;
        check!(status["steered"].as_array().is_some_and(|all| all.len() == 4), "nothing is steered: {status}");
        // What was under way has arrived.
        trickle.flow(Duration::from_millis(200));
        leave(&lab, from)?;
        trickle.flow(Duration::from_millis(200));
    }
    let again = [&lab.world.mobile, &lab.world.peer].map(|host| retransmissions(&host.namespace));
    let lost = losses(&lab) - before;
    let total = trickle.allowed;
    streams.peer.wait_received(2 * total, PATIENCE)?;
    streams.mobile.wait_received(2 * total, PATIENCE)?;
    let [mobile, peer] = again;
    let (mobile, peer) = (mobile?, peer?);
    let foreign = lab.world.wire.watch(|watch| watch.foreign.join("; "));
    check!(foreign.is_empty(), "a network dropped what was not its own: {foreign}");
    check!(lost == 0, "{lost} packets were lost: {:?}", (0..3).map(|c| lab.world.wire.tally(c)).collect::<Vec<_>>());
    check!(mobile == 0 && peer == 0, "sent again: {mobile} segments by the mobile host, {peer} by the peer");
    check!(committed(&lab)? == 2, "{} moves instead of 2", committed(&lab)?);
    let steered = lab.counters(&lab.world.mobile)?.get(mobconn_abi::Counter::Steered);
    check!(steered > 0, "no packet was steered");
    figures.push(format!(
        "{} kB each way, 2 moves: 0 segments lost, 0 sent again, 0 with a foreign source; {steered} packets steered",
        2 * total / 1000
    ));
    figures.push(rewritten(&lab)?);
    streams.finish()?;
    lab.finish()?;
    Ok(figures)
}

pub(super) fn make_v4(places: &Places) -> Result<Figures> {
    make_before_break(places, false, &Better::Wish)
}

pub(super) fn make_v6(places: &Places) -> Result<Figures> {
    make_before_break(places, true, &Better::Route)
}

pub(super) fn flapping(places: &Places) -> Result<Figures> {
    let lab = automatic(places, CABLE, "prefer = [\"em0\"]\nhold_down = 3\n")?;
    let streams = Streams::start(&lab, false, 1, 4 * MEGABYTE, 4 * MEGABYTE)?;
    join(&lab, CELL, streams.address)?;
    streams.allow(2);
    lab.mover()?.wait_claimed(1)?;
    leave(&lab, WLAN)?;
    wait_chosen(&lab, lab.mobile_address(CELL, streams.address))?;
    streams.allow(4);
    streams.wait(4)?;
    for _ in 0..5 {
        join(&lab, WLAN, streams.address)?;
        std::thread::sleep(Duration::from_millis(150));
        check!(committed(&lab)? == 1, "moved to a network that flaps");
        leave(&lab, WLAN)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    streams.allow(8);
    streams.wait(8)?;
    check!(committed(&lab)? == 1, "{} moves instead of 1", committed(&lab)?);
    // Now it stays.
    let begin = Instant::now();
    join(&lab, WLAN, streams.address)?;
    wait_chosen(&lab, lab.mobile_address(WLAN, streams.address))?;
    let waited = begin.elapsed();
    check!(waited >= Duration::from_secs(3), "back after {waited:?} already");
    streams.finish()?;
    check!(committed(&lab)? == 2, "{} moves instead of 2", committed(&lab)?);
    lab.finish()?;
    Ok(vec![format!("back on the preferred network {:.1} s after it stayed", waited.as_secs_f64())])
}

/// The node number of the third address.
const THIRD_NODE: u8 = 33;

pub(super) fn third(places: &Places) -> Result<Figures> {
    let mut lab = automatic(places, CABLE, "hold_down = 1\n")?;
    let streams = Streams::start(&lab, false, 2, 2 * MEGABYTE, 2 * MEGABYTE)?;
    streams.allow(4);
    streams.wait(2)?;
    lab.mover()?.wait_claimed(2)?;
    leave(&lab, WLAN)?;
    // The second network is there, and leads nowhere.
    let (host, cell) = interface(&lab, CELL);
    host.configure(cell, MOBILE_NODE)?;
    wait_chosen(&lab, lab.mobile_address(CELL, streams.address))?;
    std::thread::sleep(Duration::from_millis(300));
    check!(committed(&lab)? == 0, "the move to the second network was finished");
    leave(&lab, CELL)?;
    let wlan = &host.interfaces[WLAN];
    let new: IpAddr = wlan.network.v4(THIRD_NODE).into();
    lab.world.wire.plug(wlan.cable, true);
    lab.world.wire.watch(|watch| watch.usable(new, Instant::now()));
    host.configure(wlan, THIRD_NODE)?;
    streams.allow(8);
    let figures = vec![format!("{} after the third address was configured", resumed(&lab)?)];
    streams.finish()?;
    lab.replaced = true;
    lab.finish()?;
    Ok(figures)
}

pub(super) fn renumber(places: &Places) -> Result<Figures> {
    let mut figures = Figures::new();
    for v6 in [false, true] {
        let lab = automatic(places, CABLE, "hold_down = 1\n")?;
        let streams = Streams::start(&lab, v6, 2, 2 * MEGABYTE, 2 * MEGABYTE)?;
        streams.allow(4);
        streams.wait(2)?;
        lab.mover()?.wait_claimed(2)?;
        let (host, wlan) = interface(&lab, WLAN);
        let usable = |node: u8| {
            let [v4, v6_address] = wlan.network.addresses(node);
            let new = if v6 { v6_address } else { v4 };
            lab.world.wire.watch(|watch| watch.usable(new, Instant::now()));
        };
        // As dhclient does it; the default route goes with the address.
        host.remove_node(wlan, MOBILE_NODE)?;
        std::thread::sleep(Duration::from_millis(200));
        usable(11);
        host.ip(&format!("address flush dev {}\nlink set {} down\n", wlan.name, wlan.name))?;
        host.configure(wlan, 11)?;
        streams.allow(8);
        figures.push(format!("deleted, then added: {}", resumed(&lab)?));
        streams.wait(8)?;
        // And the other way round: the first one is left when it goes.
        host.add_node(wlan, 12)?;
        std::thread::sleep(Duration::from_millis(1_200));
        check!(committed(&lab)? == 1, "moved although the address was still there");
        usable(12);
        host.remove_node(wlan, 11)?;
        streams.allow(11);
        figures.push(format!("added, then deleted: {}", resumed(&lab)?));
        streams.finish()?;
        check!(committed(&lab)? == 2, "{} moves instead of 2", committed(&lab)?);
        lab.finish()?;
    }
    Ok(figures)
}

pub(super) fn by_hand(places: &Places) -> Result<Figures> {
    let lab = automatic(places, CABLE, "prefer = [\"em0\"]\nhold_down = 1\n")?;
    let streams = Streams::start(&lab, false, 1, 2 * MEGABYTE, 2 * MEGABYTE)?;
    streams.allow(2);
    streams.wait(2)?;
    lab.mover()?.wait_claimed(1)?;
    join(&lab, CELL, streams.address)?;
    let [wlan, cell] = [WLAN, CELL].map(|number| lab.mobile_address(number, streams.address));
    // It has been noticed, and is no better.
    std::thread::sleep(Duration::from_millis(1_500));
    check!(chosen(&lab)?.contains(&wlan.to_string()), "{}", networks(&lab)?);
    let report = lab.mover()?.announce(wlan, cell)?;
    check!(report["peers"][0]["outcome"] == "moved" && report["old_usable"] == true, "{report}");
    streams.allow(5);
    streams.wait(5)?;
    std::thread::sleep(Duration::from_millis(2_500));
    check!(chosen(&lab)?.contains(&cell.to_string()), "undone: {}", networks(&lab)?);
    check!(committed(&lab)? == 1, "{} moves instead of 1", committed(&lab)?);
    leave(&lab, CELL)?;
    wait_chosen(&lab, wlan)?;
    streams.finish()?;
    check!(committed(&lab)? == 2, "{} moves instead of 2", committed(&lab)?);
    let shown = lab.mobctl(&lab.world.mobile, &["networks"])?;
    check!(shown.contains("chosen") && shown.contains("192.0.2.10/24"), "{shown}");
    lab.finish()?;
    Ok(Figures::new())
}

//! TCP that has data to send at both ends while the mobile host is nowhere: how
//! long after its new address is usable it goes on.
//!
//! What is ours is measured apart from what Linux's TCP makes of it. The module
//! tells TCP at the commit to send, and FreeBSD's does. Linux's is told by ICMP
//! ([`crate::resume`]), which it believes only while its timer backs off: once
//! it was answered, it may take what it sent before the outage for under way,
//! and wait for one or two round trips.
//!
//! One thing has to be kept out: when the first segment after the outage is one
//! that had arrived before it, the answer echoes a timestamp from before the
//! outage. Linux takes that for a round trip as long as the outage, and waits
//! for more than that. So these streams have no timestamps; [`alone`] shows
//! what Linux does with them, without any move and without mobconn.

use super::{Row, Trips};
use crate::cable::Lane;
use crate::error::Result;
use crate::lab::{Lab, Places, Shape};
use crate::scenario::common::{MEGABYTE, Streams, WLAN, begin, vanish};
use crate::udp;
use std::time::{Duration, Instant};

/// Delay of the path, one way.
const ONE_WAY: u32 = 10;
/// A path on which a full segment takes a tenth of a millisecond on each cable.
const RATE: u64 = 100_000_000;
/// A stream that lasts for a while there.
const LENGTH: u64 = 8 * MEGABYTE;
/// Linux's longest retransmission timer.
const LONGEST: Duration = Duration::from_secs(120);

/// The path.
const LANE: Lane = Lane { delay: Duration::from_millis(ONE_WAY as u64 / 2), rate: RATE, queue: 64 << 10, loss: 0 };

/// Why data may be later than the kernel's word.
const LINUX: &str = "Linux's TCP, which cannot be told as FreeBSD's is; see the rows above, and tests/vm/engine.sh";

/// So many outages of this length, each in a world of its own.
pub(super) fn bench(places: &Places, outage: Duration, times: usize) -> Result<Vec<Row>> {
    let all = (0..times).map(|_| one(places, outage)).collect::<Result<Vec<_>>>()?;
    let path = Trips::new(all.iter().map(|(round_trip, _)| *round_trip).collect());
    let name = |what: &str| format!("outage of {} s, {ONE_WAY} ms one way, {what}", outage.as_secs_f64());
    let row = |what: &str, number: usize, round_trips: f64| {
        let times = all.iter().filter_map(|(_, costs)| costs.get(number).copied()).collect();
        Row::times(name(what), times, Some(path.goal(round_trips)))
    };
    Ok(vec![
        path.row(name("round trip")),
        row("mobile host's TCP told", 0, 1.0),
        // So that its data is there after two round trips.
        row("peer's TCP told", 1, 1.5),
        row("data mobile > peer", 2, 1.0).unless(LINUX),
        row("data peer > mobile", 3, 2.0).unless(LINUX),
    ])
}

/// What the path takes there and back; when both kernels told TCP to send, when data left and when it came, after the new
/// address was usable.
fn one(places: &Places, outage: Duration) -> Result<(Duration, [Duration; 4])> {
    let mut lab = Lab::new(places, &Shape::uniform(LANE))?;
    for host in [&lab.world.mobile, &lab.world.peer] {
        host.namespace.sysctl("net/ipv4/tcp_timestamps", "0")?;
    }
    let streams = begin(&mut lab, false, LENGTH)?;
    // In the midst of what both have to say.
    streams.allow(11);
    streams.wait(3)?;
    let heard = vanish(&lab, &streams, outage)?;
    let address = streams.address;
    streams.finish()?;
    let (near, far) = (&lab.world.mobile.namespace, &lab.world.peer.namespace);
    let round_trip = udp::round_trip(near, far, address, Duration::from_millis(50))?;
    lab.finish()?;
    let [left, received] = heard.costs()?;
    // Where nobody had to be told, TCP sent by itself.
    let [mobile, peer] = heard.told;
    let before = Duration::from_millis(ONE_WAY.into());
    let (mobile, peer) = (mobile.unwrap_or(left).min(left), peer.unwrap_or(received.saturating_sub(before)));
    Ok((round_trip, [mobile, peer, left, received]))
}

/// What Linux's TCP does alone: no mobconn, no move, a cable that is out for a while. When data left and came after
/// that, and when all had arrived.
pub(super) fn alone(places: &Places, outage: Duration) -> Result<Vec<Row>> {
    let lab = Lab::new(places, &Shape::uniform(LANE).without())?;
    let streams = Streams::start(&lab, false, 1, LENGTH, LENGTH)?;
    streams.allow(11);
    streams.wait(3)?;
    let cable = lab.world.mobile.interfaces[WLAN].cable;
    lab.world.wire.plug(cable, false);
    std::thread::sleep(outage);
    let usable = Instant::now();
    lab.plug_in(WLAN, lab.mobile_address(WLAN, streams.address));
    let heard =
        lab.wait_resumed(LONGEST, |heard| heard.left_data.is_some() && heard.received_data.is_some())?.costs()?;
    // It may take longer than that; then it is said that it took so long.
    let _ = streams.wait_for(11, LONGEST);
    let all = usable.elapsed();
    drop(streams);
    let name = |what: &str| format!("cable out for {} s, no move, Linux's TCP alone, {what}", outage.as_secs_f64());
    let [left, received] = heard;
    Ok(vec![
        Row::times(name("data mobile > peer"), vec![left], None),
        Row::times(name("data peer > mobile"), vec![received], None),
        Row::times(name("until all arrived, or given up"), vec![all], None),
    ])
}

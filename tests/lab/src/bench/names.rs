//! How soon the name server has the new address of a host that moves, and what
//! that costs.

use super::Row;
use crate::cable::Lane;
use crate::check;
use crate::error::{Doing, Error, Result};
use crate::lab::{Lab, Places, Shape};
use crate::names::{Kind, MOBILE};
use crate::scenario::common::{CELL, PATIENCE, WLAN, peer_address};
use crate::world::HOME;
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Delay between the mobile host and the name server, one way.
const ONE_WAY: Duration = Duration::from_millis(5);
/// Moves that are measured.
const MOVES: usize = 10;
/// How long an answer to one of the questions is waited for.
const ANSWER: Duration = Duration::from_millis(200);

/// The host has no connection: nobody tells the daemon that it moves.
pub(super) fn bench(places: &Places, kind: Kind) -> Result<Vec<Row>> {
    let mut lab = Lab::new(places, &Shape::uniform(Lane { delay: ONE_WAY, ..Lane::default() }))?;
    lab.mobile_config = String::new();
    lab.start_names(kind)?;
    lab.start_daemons([1, 1])?;
    let like = peer_address(&lab, false)?;
    settled(&lab, lab.mobile_address(WLAN, like))?;
    // Beside the name server, so that asking takes no time.
    let observer = lab.world.router.run(|| UdpSocket::bind(("0.0.0.0", 0)))?.doing("making a socket")?;
    observer.connect((HOME.addresses(1)[0], 53)).doing("connecting to the name server")?;
    observer.set_read_timeout(Some(ANSWER)).doing("setting a timeout")?;
    let mut times = Vec::new();
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    for number in 0..MOVES {
        let (from, to) = if number.is_multiple_of(2) { (WLAN, CELL) } else { (CELL, WLAN) };
        let wanted = lab.mobile_address(to, like);
        let (moved, seen) = thread::scope(|scope| -> Result<_> {
            let seen = scope.spawn(|| wait_told(&observer, wanted));
            lab.change_network(from, to, like)?;
            let moved = Instant::now();
            let seen = seen.join().map_err(|_| Error::Check("nobody looked at the name server".to_owned()))??;
            Ok((moved, seen))
        })?;
        times.push(seen.saturating_duration_since(moved));
        let report = settled(&lab, wanted)?;
        for (list, what) in costs.iter_mut().zip(["round_trips", "bytes_sent", "bytes_received"]) {
            list.push(report[what].as_f64().unwrap_or(f64::NAN));
        }
    }
    lab.finish()?;
    let name = |what: &str| format!("name at {kind:?}, {} ms one way, {what}", ONE_WAY.as_millis());
    let median = |mut list: Vec<f64>| {
        list.sort_by(f64::total_cmp);
        list.get(list.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let [trips, sent, received] = costs.map(median);
    Ok(vec![
        Row::times(name("new address usable > record at server"), times, None),
        Row::number(name("round trips of an update"), trips, "", None),
        Row::number(name("bytes of an update"), sent, "", None),
        Row::number(name("bytes of its answer"), received, "", None),
    ])
}

/// Waits until the daemon has nothing to do for the name, which has this address; returns what it reports.
fn settled(lab: &Lab, address: IpAddr) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = lab.mover()?.ask(&json!({"command": "status"}))?["ddns"].take();
        let wanted = report["wanted"].as_array().is_some_and(|list| list.iter().any(|one| *one == json!(address)));
        if wanted && report["current"] == true {
            return Ok(report);
        }
        check!(Instant::now() < deadline, "the name does not become {address}: {report}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks the name server again and again, until it tells this address.
fn wait_told(observer: &UdpSocket, address: IpAddr) -> Result<Instant> {
    let IpAddr::V4(address) = address else {
        return Err(Error::Check("only IPv4 is asked for".to_owned()));
    };
    // A question for one A record, RFC 1035 section 4.1.
    let mut question = b"\x12\x34\0\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in MOBILE.split('.') {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(b"\0\0\x01\0\x01");
    let deadline = Instant::now() + PATIENCE;
    let mut answer = [0; 512];
    loop {
        observer.send(&question).doing("asking the name server")?;
        // A server that is busy is asked again.
        let length = observer.recv(&mut answer).unwrap_or_default();
        let told = answer.get(question.len()..length).unwrap_or_default();
        if told.windows(4).any(|bytes| bytes == address.octets()) {
            return Ok(Instant::now());
        }
        check!(Instant::now() < deadline, "the name server does not tell {address}");
        thread::sleep(Duration::from_micros(500));
    }
}

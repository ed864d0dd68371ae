//! What daemons remember: claims over a restart, and hosts that do not answer.

use super::Figures;
use super::common::{CABLE, CELL, MEGABYTE, PATIENCE, PORT, Streams, WLAN, rewritten};
use super::tcp::move_by_daemon;
use crate::check;
use crate::daemon::Role;
use crate::error::Result;
use crate::lab::{Lab, Places, Shape};
use nix::sys::signal::Signal;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The hosts' numbers.
const MOBILE: usize = 0;
const PEER: usize = 1;

/// Each of these happens to each daemon: before a move, while it is under way, and after it. Nothing is ever claimed again.
pub(super) fn restarts(places: &Places) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    lab.start_daemons([1, 1])?;
    let streams = Streams::start(&lab, false, 2, MEGABYTE, MEGABYTE)?;
    streams.allow(2);
    lab.mover()?.wait_claimed(2)?;
    streams.wait(2)?;
    let like = streams.address;
    let (mut at, mut elsewhere) = (WLAN, CELL);
    let mut until = 2;
    for (host, signal) in
        [(MOBILE, Signal::SIGKILL), (PEER, Signal::SIGKILL), (MOBILE, Signal::SIGTERM), (PEER, Signal::SIGTERM)]
    {
        remembered(&lab)?;
        lab.end_daemon(host, signal)?;
        if host == PEER {
            // The move begins while nobody answers.
            let (old, new) = lab.change_network(at, elsewhere, like)?;
            let report = lab.mover()?.announce_for(old, new, Duration::from_millis(300))?;
            check!(report["peers"][0]["outcome"] == "in_doubt", "{report}");
            // And the mover is killed in the middle of it.
            lab.end_daemon(MOBILE, Signal::SIGKILL)?;
            lab.restart_daemon(MOBILE)?;
            lab.restart_daemon(PEER)?;
            let heard = |heard: &crate::watch::Resumption| heard.sent.is_some() && heard.received.is_some();
            streams.allow(until + 1);
            lab.wait_resumed(PATIENCE, heard)?;
        } else {
            lab.restart_daemon(host)?;
            move_by_daemon(&lab, at, elsewhere, like)?;
        }
        std::mem::swap(&mut at, &mut elsewhere);
        until += 2;
        streams.allow(until);
        streams.wait(until)?;
        lab.mover()?.wait_claimed(2)?;
    }
    streams.finish()?;
    // Every claim was made once: those at the start.
    let mut anew = 0;
    for entry in std::fs::read_dir(&places.logs).map_err(|e| crate::error::Error::Check(e.to_string()))?.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        anew += text.lines().filter(|line| line.contains("claims") && line.contains("confirmed")).count();
        check!(!text.contains("was restarted"), "a daemon has forgotten: {}", entry.path().display());
        check!(!text.contains("what was claimed is claimed anew"), "{}", entry.path().display());
    }
    check!((1..=2).contains(&anew), "claims were confirmed {anew} times");
    let figures = vec![format!("claims confirmed {anew} times in all"), rewritten(&lab)?];
    lab.finish()?;
    Ok(figures)
}

/// Waits until both daemons have written down that the two streams are claimed. What came after that they may forget.
fn remembered(lab: &Lab) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for host in [&lab.world.mobile, &lab.world.peer] {
        let path = lab.files().join(format!("{}.claims", host.namespace.name()));
        // Each claim is written with the peer's port.
        let claims = || {
            let bytes = std::fs::read(&path).unwrap_or_default();
            bytes.windows(2).filter(|two| *two == PORT.to_be_bytes()).count()
        };
        while claims() < 2 {
            check!(Instant::now() < deadline, "{} has {} claims", path.display(), claims());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// The peer has no daemon. It is asked a few times, and then left alone, however many connections there are.
pub(super) fn no_mobconn(places: &Places) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    lab.start_mover_alone()?;
    let began = Instant::now();
    let streams = Streams::start(&lab, false, 20, 60_000, 60_000)?;
    let deadline = began + PATIENCE;
    while lab.mover()?.ask(&serde_json::json!({"command": "status"}))?["trouble"].as_array().is_none_or(Vec::is_empty) {
        check!(Instant::now() < deadline, "nobody says that the peer does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    // More connections are no reason to ask again, nor is a move.
    let more = Streams::start(&lab, false, 20, 60_000, 60_000)?;
    let sent = || {
        lab.world.wire.watch(|watch| {
            let to = |message: &&crate::watch::Message| message.destination.ip() == streams.address;
            let sizes: Vec<usize> = watch.messages.iter().filter(to).map(|message| message.data.len()).collect();
            (sizes.len(), sizes.iter().copied().max().unwrap_or_default())
        })
    };
    std::thread::sleep(Duration::from_secs(4));
    let (count, longest) = sent();
    // It is asked again after a minute, which a very slow machine may have needed.
    let rounds = 1 + began.elapsed().as_secs() as usize / 40;
    check!((1..=8 * rounds).contains(&count) && longest <= 400, "{count} datagrams of up to {longest} bytes");
    streams.finish()?;
    more.finish()?;
    let old: IpAddr = lab.mobile_address(WLAN, IpAddr::from([0; 4]));
    let (_, new) = lab.change_network(WLAN, CELL, old)?;
    let report = lab.mover()?.announce(old, new)?;
    check!(report["peers"].as_array().is_some_and(Vec::is_empty), "somebody moved: {report}");
    lab.finish()?;
    Ok(vec![format!("40 connections: {count} datagrams of at most {longest} bytes")])
}

impl Lab {
    /// Starts the mobile host's daemon only.
    fn start_mover_alone(&mut self) -> Result<()> {
        self.start_roles([Role::Mobile, Role::Correspondent], [1, 1])?;
        self.end_daemon(PEER, Signal::SIGKILL)
    }
}

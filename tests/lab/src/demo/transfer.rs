//! One download, with the moves in it, told as it happens.

use super::chart::{Curve, Sample, Stay};
use super::{LENGTH, digest};
use crate::error::Result;
use crate::lab::Lab;
use crate::names::MOBILE;
use crate::program::Program;
use crate::watch::Resumption;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How often the length of the received file is looked at.
const SAMPLE: Duration = Duration::from_millis(10);
/// How often progress is printed.
const TELL: Duration = Duration::from_millis(500);
/// A download that has brought nothing for so long has stalled.
const STALL: Duration = Duration::from_secs(5);

/// Length of a challenge and of the response to it: header, receiver, counter,
/// tag; kind, number, token.
const SEALED_TOKEN: usize = 4 + 4 + 8 + 16 + 1 + 4 + 16;

/// What became of a download.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    samples: Vec<Sample>,
    stays: Vec<Stay>,
    /// The moves.
    pub(super) moves: Vec<Resumption>,
    /// How long each `mobctl move` took.
    pub(super) commands: Vec<Duration>,
    /// Complete, and the same bytes.
    pub(super) identical: bool,
    /// Where the peer reached the mobile host by its name, after the first move.
    pub(super) reached: Option<IpAddr>,
    /// Where it was after the first move.
    pub(super) second: Option<IpAddr>,
}

impl Transfer {
    /// Bytes received.
    pub(super) fn received(&self) -> u64 {
        self.samples.last().map_or(0, |(_, bytes)| *bytes)
    }

    /// Moves after which data arrived again.
    pub(super) fn survived(&self) -> usize {
        self.moves.iter().filter(|movement| movement.received_data.is_some()).count()
    }

    /// How long the received file did not grow, from before the move `number` on.
    pub(super) fn silence(&self, number: usize) -> Option<Duration> {
        let moved = self.stays.get(number + 1)?.from;
        let before = self.samples.iter().rposition(|(at, _)| *at <= moved)?;
        let (_, length) = *self.samples.get(before)?;
        let (last, _) = self.samples.iter().find(|(_, bytes)| *bytes == length)?;
        let (next, _) = self.samples.iter().find(|(_, bytes)| *bytes > length)?;
        Some(*next - *last)
    }

    pub(super) fn curve(&self, label: &str) -> Curve {
        Curve { label: label.to_owned(), samples: self.samples.clone() }
    }

    /// The networks, with what each move cost.
    pub(super) fn stays(&self) -> Vec<Stay> {
        let mut stays = self.stays.clone();
        for (stay, movement) in stays.iter_mut().skip(1).zip(&self.moves) {
            if let Some(after) = movement.received_data {
                stay.note = format!("data again after {:.0} ms", after.as_secs_f64() * 1e3);
            }
        }
        stays
    }
}

/// Downloads `url` and moves the mobile host at a third and at two thirds.
pub(super) fn download(lab: &Lab, file: &Path, url: &str, peer: IpAddr) -> Result<Transfer> {
    let received = lab.files().join("received");
    let words = ["curl", "--silent", "--show-error", "--output", &received.to_string_lossy(), url];
    let begin = Instant::now();
    let mut teller = Teller {
        begin,
        lab,
        peer,
        messages: 0,
        told: begin,
        moving: None,
        took: Vec::new(),
        call: None,
        reached: None,
    };
    let mut curl = Program::start(&lab.world.mobile.namespace, &words, &lab.places.logs.join("curl.log"))?;
    let mut stays = vec![stay(lab, 0, peer, Duration::ZERO)];
    let mut samples: Vec<Sample> = vec![(Duration::ZERO, 0)];
    let mut grew = begin;
    let complete = loop {
        let (now, length) = (Instant::now(), fs::metadata(&received).map_or(0, |m| m.len()));
        if samples.last().is_none_or(|(_, last)| *last < length) {
            grew = now;
        }
        samples.push((now - begin, length));
        teller.messages();
        teller.moved()?;
        teller.called()?;
        teller.progress(now, length, false);
        if let Some(status) = curl.ended()? {
            teller.progress(now, length, true);
            break status.success();
        }
        if now > grew + STALL {
            teller.say(&format!("stalled: nothing for {} s; curl is ended", STALL.as_secs()));
            break false;
        }
        let due = LENGTH as u64 * stays.len() as u64 / 3;
        if stays.len() < 3 && length >= due {
            let (from, to) = if stays.len() == 1 { (0, 1) } else { (1, 0) };
            let (left, joined) = (&lab.world.mobile.interfaces[from], &lab.world.mobile.interfaces[to]);
            teller.say(&format!("MOVE: {} goes down, its address is removed; {} comes up", left.name, joined.name));
            let (old, new) = lab.change_network(from, to, peer)?;
            teller.say(&format!("{new} is usable, {old} is gone"));
            stays.push(stay(lab, to, peer, begin.elapsed()));
            if lab.has_mobconn() {
                let words = lab.mobctl_words(&lab.world.mobile, &["move", &old.to_string(), &new.to_string()]);
                teller.say(&format!("mobile# mobctl move {old} {new}"));
                let log = lab.places.logs.join(format!("move-{}.log", stays.len() - 1));
                teller.moving = Some((Instant::now(), Program::start(&lab.world.mobile.namespace, &words, &log)?));
            }
        }
        thread::sleep(SAMPLE);
    };
    curl.stop();
    teller.hang_up()?;
    let identical = complete && {
        let (sent, got) = (digest(lab, file)?, digest(lab, &received)?);
        println!("  sha256 sent      {sent}\n  sha256 received  {got}");
        sent == got
    };
    let moves = lab.world.wire.watch(|watch| watch.moves.clone());
    Ok(Transfer {
        samples,
        stays,
        moves,
        commands: teller.took,
        identical,
        reached: teller.reached,
        second: Some(lab.mobile_address(1, peer)),
    })
}

fn stay(lab: &Lab, interface: usize, peer: IpAddr, from: Duration) -> Stay {
    let network = &lab.world.mobile.interfaces[interface].network;
    let address = lab.mobile_address(interface, peer);
    Stay { from, label: format!("{} {address}", network.name), note: String::new() }
}

/// Prints what happens.
struct Teller<'a> {
    begin: Instant,
    lab: &'a Lab,
    peer: IpAddr,
    messages: usize,
    told: Instant,
    /// `mobctl move` at work.
    moving: Option<(Instant, Program)>,
    took: Vec<Duration>,
    /// The peer calls the mobile host by its name.
    call: Option<Program>,
    reached: Option<IpAddr>,
}

impl Teller<'_> {
    fn say(&self, words: &str) {
        self.say_at(Instant::now(), words);
    }

    fn say_at(&self, at: Instant, words: &str) {
        println!("  {:7.3} s  {words}", at.saturating_duration_since(self.begin).as_secs_f64());
    }

    /// The messages of DPRP that nobody has been told of.
    fn messages(&mut self) {
        let new = self.lab.world.wire.watch(|watch| watch.messages.get(self.messages..).unwrap_or_default().to_vec());
        self.messages += new.len();
        for message in new {
            let (from, to) = (message.source.ip(), message.destination.ip());
            let name = self.name(&message.data, to == self.peer);
            self.say_at(message.at, &format!("DPRP {from} > {to}  {name}, {} bytes", message.data.len()));
        }
    }

    /// Tells the end of `mobctl move`.
    fn moved(&mut self) -> Result<()> {
        let Some((begin, command)) = &mut self.moving else { return Ok(()) };
        if command.ended()?.is_none() {
            return Ok(());
        }
        let (took, said) = (begin.elapsed(), command.printed());
        self.took.push(took);
        self.moving = None;
        for line in said.lines() {
            self.say(&format!("        {line}"));
        }
        if self.took.len() == 1 {
            self.say(&format!("peer# curl {}", super::CALL));
            let words = [
                "curl",
                "--ipv4",
                "--silent",
                "--show-error",
                "--max-time",
                "10",
                "--output",
                "/dev/null",
                "--write-out",
                "%{remote_ip}",
                super::CALL,
            ];
            let log = self.lab.places.logs.join("call.log");
            self.call = Some(Program::start(&self.lab.world.peer.namespace, &words, &log)?);
        }
        Ok(())
    }

    /// Tells what became of the peer's call.
    fn called(&mut self) -> Result<()> {
        let Some(call) = &mut self.call else { return Ok(()) };
        let Some(status) = call.ended()? else { return Ok(()) };
        let said = call.printed();
        self.call = None;
        self.reached = said.trim().parse().ok().filter(|_| status.success());
        match self.reached {
            Some(address) => self.say(&format!("        reached {MOBILE} at {address}: a second connection, by name")),
            None => self.say(&format!("        did not reach {MOBILE}: {said}")),
        }
        Ok(())
    }

    /// Waits for the end of a call that still lasts.
    fn hang_up(&mut self) -> Result<()> {
        if let Some(call) = &mut self.call {
            call.wait(Duration::from_secs(15))?;
        }
        self.called()
    }

    /// What a message is, as far as one can tell beside the road. The first byte
    /// tells the messages of the handshake; those of a move are sealed, but
    /// their lengths differ.
    fn name(&self, data: &[u8], to_peer: bool) -> &'static str {
        match (data.first(), to_peer, data.len() == SEALED_TOKEN) {
            (Some(1), ..) => "ACG (hello)",
            (Some(2), ..) => "MCI (hello)",
            (Some(3), ..) => "ACG (finish)",
            _ if self.moving.is_none() => "sealed",
            (_, true, false) => "ACG (move)",
            (_, false, true) => "MCI (challenge)",
            (_, true, true) => "ACG (response)",
            (_, false, false) => "MCI (commit)",
        }
    }

    fn progress(&mut self, now: Instant, length: u64, last: bool) {
        if now < self.told + TELL && !last {
            return;
        }
        self.told = now;
        let filled = (length * 30 / LENGTH as u64) as usize;
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(30 - filled.min(30)));
        self.say_at(now, &format!("[{bar}] {:5.1} MB", length as f64 / 1e6));
    }
}

//! The protocol alone: associations, moves, floods. Prints a table; with
//! `--json FILE` also writes it there. `--quick` has fewer of everything.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a bench")]

mod crowd;
mod end;
mod flood;
mod kernels;
mod memory;
mod pair;

use crowd::Crowd;
use kernels::{Table, Willing};
use pair::Pair;
use std::fmt::Write as _;
use std::time::Duration;

/// What a value is to be.
#[derive(Clone, Copy)]
enum Goal {
    None,
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Default)]
struct Report {
    lines: String,
    json: Vec<String>,
}

impl Report {
    fn add(&mut self, name: &str, value: f64, unit: &str, goal: Goal) {
        let (words, json) = match goal {
            Goal::None => (String::new(), String::new()),
            Goal::AtMost(goal) => judged("at most", goal, value <= goal),
            Goal::AtLeast(goal) => judged("at least", goal, value >= goal),
        };
        let _ = writeln!(self.lines, "{name:<84} {value:>10.2} {unit:<7} {words}");
        self.json.push(format!("{{\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\"{json}}}"));
    }
}

fn judged(word: &str, goal: f64, met: bool) -> (String, String) {
    let verdict = if met { "met" } else { "NOT MET" };
    (format!("goal {word} {goal}: {verdict}"), format!(",\"goal\":{goal},\"met\":{met}"))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let mut report = Report::default();
    many_associations(&mut report, if quick { 5_000 } else { 100_000 });
    many_flows(&mut report, quick);
    print!("{}", report.lines);
    if let Some(at) = arguments.iter().position(|argument| argument == "--json") {
        let body = format!("[\n{}\n]\n", report.json.join(",\n"));
        std::fs::write(&arguments[at + 1], body).unwrap();
    }
}

/// Forged datagrams a second that a host is to bear.
const FLOOD: u32 = 50_000;

fn many_associations(report: &mut Report, count: u32) {
    let idle = Crowd::idle(count.min(20_000), Willing);
    report.add("memory of an association", idle.memory(), "bytes", Goal::AtMost(1000.0));

    let mut crowd = Crowd::new(count, Table::new(2 * count));
    let name = |what: &str| format!("{what}, {count} associations");
    // The first move makes bindings, later ones change them.
    crowd.many_move();
    crowd.one_moves();
    let (stays, moves) = (micros(crowd.many_move()), micros(crowd.one_moves()));
    report.add(&name("a move, at the host that stays"), stays, "us", Goal::AtMost(50.0));
    report.add(&name("a move, at the host that moves"), moves, "us", Goal::AtMost(50.0));
    let slower = stays.max(moves);
    report.add(&name("moves a second on one core"), 1e6 / slower, "", Goal::AtLeast(20_000.0));

    let kinds = flood::kinds(&mut crowd, FLOOD);
    let share = |cost: Duration| cost.as_secs_f64() * 100.0;
    for kind in &kinds {
        let cost = crowd.flood(&kind.datagrams);
        report.add(&format!("{FLOOD} forged a second: {}", kind.name), share(cost), "% core", Goal::AtMost(100.0));
    }
    let quiet = crowd.begin();
    let quiet = crowd.end(quiet);
    let genuine = crowd.begin();
    let flooded = crowd.end(flood::among(&kinds, FLOOD as usize, genuine));
    let cost = share(flooded.saturating_sub(quiet));
    report.add(&name("all kinds mixed, while all peers move and all moves finish"), cost, "% core", Goal::AtMost(50.0));
    report.add("memory of an association with a claim of either end, moved", crowd.memory(), "bytes", Goal::None);
}

fn many_flows(report: &mut Report, quick: bool) {
    for flows in [10_000, 100_000] {
        if quick && flows == 100_000 {
            continue;
        }
        let mut protocol = Pair::new(flows, (Willing, Willing));
        let mut table = Pair::new(flows, (Table::new(flows), Table::new(flows)));
        let name = |what: &str| format!("{what}, {flows} flows");
        let (writes, bytes, reads) = protocol.remembers();
        report.add(&name("writing claims down"), micros(writes) / 1e3, "ms", Goal::None);
        report.add(&name("what is written"), bytes as f64 / f64::from(flows), "bytes a claim", Goal::None);
        report.add(&name("a daemon begins with what was written"), micros(reads) / 1e3, "ms", Goal::None);
        // It does so once a second.
        let looks = (0..5).map(|_| protocol.looks(10_000)).min().unwrap_or_default();
        let share = looks.as_secs_f64() * 100.0;
        report.add(&name("looking at them and at 10000 others, each second"), share, "% core", Goal::None);
        let best = |costs: Vec<pair::Cost>| costs.into_iter().min_by_key(|cost| cost.both).unwrap();
        let protocol = best((0..5).map(|_| protocol.go()).collect());
        // The first move makes bindings.
        table.go();
        let both = best((0..5).map(|_| table.go()).collect());
        let goal = if flows == 10_000 { Goal::AtMost(50.0) } else { Goal::None };
        report.add(&name("a move, protocol at both ends"), micros(protocol.both) / 1e3, "ms", Goal::None);
        report.add(&name("a move, protocol and table at both ends"), micros(both.both) / 1e3, "ms", goal);
        report.add(&name("until the mover sends from its new address"), micros(both.first) / 1e3, "ms", Goal::None);
        report.add(&name("datagrams of a move"), both.datagrams as f64, "", Goal::AtMost(4.0));
        report.add(&name("the longest of them"), both.longest as f64, "bytes", Goal::AtMost(1200.0));
    }
}

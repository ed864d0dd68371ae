//! What the commands print: each as a table and as JSON.

use crate::control::{MoveReport, Outcome, Peer, Status};
use crate::networks::report::{One, Report};
use crate::table::{age, table};
use crate::tuple;
use mobconn_abi::{Alternate, Counter, DISPLACED, HalfState, Info, LOST, Record, Tuple};
use serde::Serialize;
use serde_json::{Value, json};

/// A command's result in both forms.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
}

fn value(what: &impl Serialize) -> Value {
    serde_json::to_value(what).unwrap_or_default()
}

fn end(address: &[u8; 16], port: u16, version: u8) -> String {
    tuple::from_bytes(address, version).map_or_else(|| "?".into(), |ip| std::net::SocketAddr::new(ip, port).to_string())
}

/// The version `major << 16 | minor << 8 | patch` in its usual form.
#[must_use]
pub fn module_version(version: u32) -> String {
    format!("{}.{}.{}", version >> 16, version >> 8 & 0xff, version & 0xff)
}

const fn state(half: &HalfState) -> &'static str {
    match Alternate::from_raw(half.alternate) {
        Some(Alternate::None) => "none",
        Some(Alternate::Pending) => "pending",
        Some(Alternate::PendingHold) => "held",
        Some(Alternate::Grace) => "grace",
        None => "?",
    }
}

/// The bindings, with `uptime` of the host for their ages.
#[must_use]
pub fn flows(records: &[Record], uptime: u64) -> Shown {
    let mut rows = Vec::with_capacity(records.len());
    let mut list = Vec::with_capacity(records.len());
    for record in records {
        let (stack, wire) = (&record.stack, &record.wire);
        let protocol = tuple::protocol_name(stack.protocol);
        let (since, idle) = (uptime.saturating_sub(record.created), uptime.saturating_sub(record.used));
        let [stack_local, stack_remote] = ends(stack);
        let [wire_local, wire_remote] = ends(wire);
        let mut flow = flow_json(record);
        flow["age"] = since.into();
        flow["idle"] = idle.into();
        list.push(flow);
        rows.push(vec![
            protocol,
            stack_local,
            stack_remote,
            wire_local,
            wire_remote,
            state(&record.local).into(),
            state(&record.remote).into(),
            age(since),
            age(idle),
            note(record).into(),
        ]);
    }
    let headings =
        ["PROTO", "STACK_LOCAL", "STACK_REMOTE", "WIRE_LOCAL", "WIRE_REMOTE", "LOCAL", "REMOTE", "AGE", "IDLE", "NOTE"];
    Shown { text: table(&headings, &rows), json: json!({ "flows": list }) }
}

/// Both ends of a side, local first.
#[must_use]
pub fn ends(side: &Tuple) -> [String; 2] {
    [end(&side.local, side.local_port, side.version), end(&side.remote, side.remote_port, side.version)]
}

/// A binding for programs, but for its age.
#[must_use]
pub fn flow_json(record: &Record) -> Value {
    let half = |half: &HalfState| {
        let other = if half.alternate == 0 { None } else { tuple::from_bytes(&half.other, record.wire.version) };
        json!({
            "generation": half.generation,
            "alternate": state(half),
            "address": other,
            "pending_generation": half.pending_generation,
        })
    };
    let side = |tuple| {
        let [local, remote] = ends(tuple);
        json!({ "local": local, "remote": remote })
    };
    json!({
        "protocol": tuple::protocol_name(record.stack.protocol),
        "stack": side(&record.stack),
        "wire": side(&record.wire),
        "local": half(&record.local),
        "remote": half(&record.remote),
        "id": record.id,
        "displaced": record.flags & DISPLACED != 0,
        "lost": record.flags & LOST != 0,
    })
}

/// What is special about a binding.
pub(crate) const fn note(record: &Record) -> &'static str {
    match (record.flags & LOST != 0, record.flags & DISPLACED != 0) {
        (true, _) => "lost",
        (false, true) => "displaced",
        (false, false) => "-",
    }
}

/// The counters.
#[must_use]
pub fn stats(counters: &[(Counter, u64)]) -> Shown {
    let rows: Vec<_> = counters
        .iter()
        .map(|(counter, count)| vec![counter.name().into(), count.to_string(), counter.description().into()])
        .collect();
    let map: serde_json::Map<String, Value> =
        counters.iter().map(|(counter, count)| (counter.name().into(), (*count).into())).collect();
    Shown { text: table(&["COUNTER", "VALUE", "MEANING"], &rows), json: json!({ "stats": map }) }
}

/// A name that a peer gives itself, if names are wanted.
fn name(name: &str, names: bool) -> String {
    if names { name.to_owned() } else { String::new() }
}

/// The associations; in the table with the names of peers, or without.
#[must_use]
pub fn peers(peers: &[Peer], names: bool) -> Shown {
    let rows: Vec<_> = peers
        .iter()
        .map(|peer| {
            vec![
                peer.key.chars().take(16).collect(),
                name(&peer.name, names),
                peer.address.to_string(),
                peer.local.to_string(),
                peer.round_trip_ms.map(|ms| format!("{ms:.1}ms")).unwrap_or_default(),
                format!("{}/{}", peer.confirmed, peer.confirmed + peer.unconfirmed),
                peer.claims.to_string(),
                (peer.moving + peer.pending).to_string(),
                age(peer.heard),
                age(peer.established),
            ]
        })
        .collect();
    let headings = ["KEY", "NAME", "ADDRESS", "LOCAL", "RTT", "CLAIMED", "CLAIMS", "MOVING", "HEARD", "AGE"];
    Shown { text: table(&headings, &rows), json: json!({ "peers": value(&peers) }) }
}

/// The networks of this host.
#[must_use]
pub fn networks(report: &Report) -> Shown {
    let row = |one: &One| {
        let kinds = [(one.deprecated, "deprecated"), (one.temporary, "temporary")];
        let kinds = kinds.into_iter().filter_map(|(is, name)| is.then_some(name));
        let words: Vec<&str> = std::iter::once(one.standing.as_str()).chain(kinds).collect();
        let choice = match one {
            One { chosen: true, by_hand: true, .. } => "by-hand",
            One { chosen: true, .. } => "chosen",
            One { left: true, .. } => "left",
            _ => "",
        };
        vec![
            one.interface.clone(),
            format!("{}/{}", one.address, one.length),
            one.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            choice.to_owned(),
            words.join(",").replace(' ', "-"),
        ]
    };
    let rows: Vec<_> = report.addresses.iter().map(row).collect();
    let mut text = table(&["INTERFACE", "ADDRESS", "ROUTER", "CHOICE", "STATE"], &rows);
    if !report.automatic {
        text.push_str("Connections do not move by themselves: see mobile and automatic in mobctl.conf(5).\n");
    }
    if !report.trouble.is_empty() {
        text.push_str(&format!("{}.\n", report.trouble));
    }
    if !report.prefer.is_empty() {
        text.push_str(&format!("Preferred: {}.\n", report.prefer.join(", ")));
    }
    if let Some(ms) = report.better_in_ms {
        text.push_str(&format!("A better network is there: it is used in {:.1} s, if it stays.\n", ms as f64 / 1e3));
    }
    for (what, list) in [("By their own network leave", &report.steered), ("Kept on lo0", &report.kept)] {
        if !list.is_empty() {
            let list: Vec<String> = list.iter().map(ToString::to_string).collect();
            text.push_str(&format!("{what}: {}.\n", list.join(", ")));
        }
    }
    Shown { text, json: json!({ "networks": value(report) }) }
}

/// The outcome of a move; in the table with the names of peers, or without.
#[must_use]
pub fn moved(report: &MoveReport, names: bool) -> Shown {
    let rows: Vec<_> = report
        .peers
        .iter()
        .map(|one| {
            vec![
                one.peer.chars().take(16).collect(),
                name(&one.name, names),
                one.outcome.name().into(),
                one.flows.to_string(),
                one.refused.to_string(),
                one.interruption_ms.map(|ms| format!("{ms:.3}ms")).unwrap_or_default(),
                one.reason.clone(),
            ]
        })
        .collect();
    let headings = ["PEER", "NAME", "OUTCOME", "MOVED", "REFUSED", "INTERRUPTION", "REASON"];
    let mut text = if report.peers.is_empty() {
        format!("No claimed flow has the address {}: nothing moved.\n", report.old)
    } else {
        table(&headings, &rows)
    };
    if report.peers.iter().any(|one| one.outcome == Outcome::InDoubt) {
        text.push_str("Peers in doubt have not answered: both addresses are kept, and they are asked again.\n");
    }
    Shown { text, json: json!({ "move": value(report) }) }
}

/// How the daemon is, on one line.
#[must_use]
pub fn status_line(status: &Status) -> String {
    let role = if status.mobile { "mobile" } else { "correspondent" };
    let wrong = status.trouble.len() + usize::from(!status.device_error.is_empty());
    format!(
        "{role}, {}, {} peers, {} of {} connections claimed, {} moves in progress, {wrong} troubles",
        last_own_move(status).unwrap_or_else(|| format!("not moved since the daemon began {} ago", age(status.uptime))),
        status.peers,
        status.confirmed,
        status.eligible,
        status.moving,
    )
}

/// Where this host is since when, if it moved.
fn last_own_move(status: &Status) -> Option<String> {
    let last = status.moves.iter().rfind(|one| one.who == "this host")?;
    Some(format!("moved to {} {} ago", last.new.map_or_else(|| "?".into(), |new| new.to_string()), age(last.age)))
}

/// What is wrong and what to do, most important first.
fn wrongs(module: Result<&Info, &str>, daemon: Result<&Status, &str>) -> Vec<(String, String)> {
    let mut wrongs = Vec::new();
    match module {
        Err(why) => wrongs.push(("module".to_owned(), why.to_owned())),
        Ok(info) if info.flows >= info.capacity => wrongs.push((
            "table".to_owned(),
            "full: no further connection can move. Raise net.inet.mobconn.max_flows in /boot/loader.conf".to_owned(),
        )),
        Ok(_) => {}
    }
    match daemon {
        Err(why) => wrongs.push(("daemon".to_owned(), why.to_owned())),
        Ok(status) => {
            if !status.device_error.is_empty() {
                wrongs.push(("device".to_owned(), format!("the daemon has none: {}", status.device_error)));
            }
            for trouble in &status.trouble {
                let what = format!("{} ({} ago)", trouble.what, age(trouble.age));
                let advice = if trouble.advice.is_empty() { String::new() } else { format!(". {}", trouble.advice) };
                wrongs.push((trouble.host.clone(), format!("{what}{advice}")));
            }
        }
    }
    wrongs
}

/// The answer to "am I mobile, since when, and is all well".
fn summary(daemon: Result<&Status, &str>, wrongs: usize) -> String {
    let how = match wrongs {
        0 => "all is well".to_owned(),
        1 => "one thing is wrong, see below".to_owned(),
        count => format!("{count} things are wrong, see below"),
    };
    let who = match daemon {
        Err(_) => return how,
        Ok(status) if status.mobile => last_own_move(status).map_or_else(
            || format!("mobile, not moved for {}", age(status.uptime)),
            |moved| format!("mobile, {moved}"),
        ),
        Ok(_) => "correspondent: answers mobile hosts".to_owned(),
    };
    format!("{who}; {how}")
}

/// The one screen that says how things are. `module` and `daemon` are what is wrong with them when they do not run.
#[must_use]
pub fn status(module: Result<&Info, &str>, daemon: Result<&Status, &str>) -> Shown {
    let mut text = String::new();
    let wrongs = wrongs(module, daemon);
    let mut line = |name: &str, what: String| text.push_str(&format!("{:<13}{what}\n", format!("{name}:")));
    line("state", summary(daemon, wrongs.len()));
    match module {
        Ok(info) => line(
            "module",
            format!("{} loaded, {} of {} bindings", module_version(info.module), info.flows, info.capacity),
        ),
        Err(_) => line("module", "absent".into()),
    }
    match daemon {
        Err(_) => line("daemon", "absent".into()),
        Ok(status) => {
            line("daemon", format!("{} running for {}, process {}", status.version, age(status.uptime), status.pid));
            line("key", status.key.clone());
            let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
            line("listens on", format!("UDP {}", listen.join(", ")));
            if status.mobile {
                line(
                    "connections",
                    format!(
                        "{} to configured peers (of {}), {} claimed",
                        status.eligible, status.connections, status.confirmed
                    ),
                );
            }
            line("peers", format!("{}, {} moves in progress", status.peers, status.moving));
            if let Some(report) = &status.ddns {
                line("name", crate::ddns::command::summary(report));
            }
            if let Some(last) = status.moves.last() {
                let address = |address: Option<std::net::IpAddr>| address.map_or_else(|| "?".into(), |a| a.to_string());
                line(
                    "last move",
                    format!(
                        "{} from {} to {}, {} flows in {:.3} ms, {} ago",
                        last.who,
                        address(last.old),
                        address(last.new),
                        last.flows,
                        last.interruption_ms,
                        age(last.age)
                    ),
                );
            }
        }
    }
    for (what, why) in &wrongs {
        line("wrong", format!("{what}: {why}"));
    }
    let module = match module {
        Ok(info) => json!({
            "loaded": true,
            "version": module_version(info.module),
            "interface": info.version,
            "flows": info.flows,
            "capacity": info.capacity,
            "local_generation": info.local_generation,
            "uptime": info.uptime,
        }),
        Err(why) => json!({ "loaded": false, "error": why }),
    };
    let daemon = match daemon {
        Ok(status) => {
            let mut map = value(status);
            map["running"] = true.into();
            map
        }
        Err(why) => json!({ "running": false, "error": why }),
    };
    let wrong: Vec<Value> = wrongs.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect();
    Shown { text, json: json!({ "status": { "module": module, "daemon": daemon, "wrong": wrong } }) }
}

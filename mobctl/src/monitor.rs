//! `mobctl monitor`: what happens, from the module and from the daemon, as it happens.
//!
//! One thread waits for each of the two; the main thread prints. A source that is not there is waited for: a monitor
//! that was started first sees everything.

use crate::control::{self, News};
use crate::device::Device;
use crate::exit::{Exit, Failure};
use crate::show;
use crate::tuple;
use mobconn_abi::{Event, EventKind, Half};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a source is waited for before it is looked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for an event.
const WAIT: Duration = Duration::from_secs(3);

/// What one of the threads has to say.
#[derive(Debug)]
enum Heard {
    Event(Box<Event>),
    News(News),
    /// A source came or went: which, and why it went.
    Source(&'static str, Result<(), String>),
}

/// Prints what happens until standard output is closed, or `count` things have happened.
///
/// # Errors
/// When printing fails, or no thread can be started.
pub fn run(device: &Path, control: &Path, as_json: bool, count: Option<u64>) -> Result<(), Failure> {
    let (sender, heard) = channel();
    let failed = |error: io::Error| Failure::new(Exit::System, format!("cannot start a thread: {error}"));
    let (path, to) = (device.to_path_buf(), sender.clone());
    thread::Builder::new().name("module".into()).spawn(move || follow_module(&path, &to)).map_err(failed)?;
    let path = control.to_path_buf();
    thread::Builder::new().name("daemon".into()).spawn(move || follow_daemon(&path, &sender)).map_err(failed)?;
    let mut left = count;
    let mut out = io::stdout().lock();
    for heard in heard {
        if left == Some(0) {
            break;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = if as_json { to_json(&heard, now).to_string() } else { to_text(&heard, now) };
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            result => result.map_err(|error| Failure::new(Exit::Io, format!("cannot print: {error}")))?,
        }
        if let (Some(left), false) = (&mut left, matches!(heard, Heard::Source(..))) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// Tells when a source came or went, each once.
struct Source<'a> {
    name: &'static str,
    to: &'a Sender<Heard>,
    said: Option<bool>,
}

impl Source<'_> {
    /// False: nobody listens any more.
    fn is(&mut self, state: Result<(), String>) -> bool {
        let there = state.is_ok();
        self.said.replace(there) == Some(there) || self.to.send(Heard::Source(self.name, state)).is_ok()
    }
}

fn one_line(failure: &Failure) -> String {
    failure.message.clone()
}

fn follow_module(path: &Path, to: &Sender<Heard>) {
    let mut source = Source { name: "module", to, said: None };
    loop {
        // The first call begins to watch; it does not wait.
        let opened = Device::open(path).and_then(|mut device| {
            let first = device.events(Duration::ZERO)?;
            Ok((device, first))
        });
        let why = match opened {
            Err(failure) => one_line(&failure),
            Ok((mut device, mut events)) => {
                if !source.is(Ok(())) {
                    return;
                }
                loop {
                    if events.into_iter().any(|event| to.send(Heard::Event(Box::new(event))).is_err()) {
                        return;
                    }
                    match device.events(WAIT) {
                        Ok(next) => events = next,
                        Err(error) => break one_line(&error.into()),
                    }
                }
            }
        };
        if !source.is(Err(why)) {
            return;
        }
        thread::sleep(AGAIN);
    }
}

fn follow_daemon(path: &Path, to: &Sender<Heard>) {
    let mut source = Source { name: "daemon", to, said: None };
    loop {
        // Whether it is there is known before it tells anything.
        let there = control::ask(path, &control::Request::Status, WAIT);
        let why = match there {
            Err(failure) => one_line(&failure),
            Ok(_) => {
                if !source.is(Ok(())) {
                    return;
                }
                match control::watch(path, |news| to.send(Heard::News(news)).is_ok()) {
                    Ok(()) => "it ended".into(),
                    Err(error) => error.to_string(),
                }
            }
        };
        if !source.is(Err(why)) {
            return;
        }
        thread::sleep(AGAIN);
    }
}

fn half(event: &Event) -> &'static str {
    match u8::try_from(event.half).ok().and_then(Half::from_raw) {
        Some(Half::Local) => "local",
        Some(Half::Remote) => "remote",
        None => "",
    }
}

fn kind(event: &Event) -> &'static str {
    EventKind::from_raw(event.kind).map_or("unknown", EventKind::name)
}

/// Time of day, UTC.
fn clock(now: Duration) -> String {
    let seconds = now.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, now.subsec_millis())
}

fn to_text(heard: &Heard, now: Duration) -> String {
    let clock = clock(now);
    match heard {
        Heard::Event(event) => {
            let [stack_local, stack_remote] = show::ends(&event.record.stack);
            let [wire_local, wire_remote] = show::ends(&event.record.wire);
            let protocol = tuple::protocol_name(event.record.stack.protocol);
            let half = if half(event).is_empty() { String::new() } else { format!("-{}", half(event)) };
            let lost = if event.lost == 0 {
                String::new()
            } else {
                format!("{clock} module {} events were lost: they came faster than they were read\n", event.lost)
            };
            format!(
                "{lost}{clock} module {}{half} {protocol} {stack_local} {stack_remote} as {wire_local} {wire_remote}",
                kind(event)
            )
        }
        Heard::News(news) => format!("{clock} daemon {} {}", news.kind, news.text),
        Heard::Source(name, Ok(())) => format!("{clock} {name} watched"),
        Heard::Source(name, Err(why)) => format!("{clock} {name} absent: {why}"),
    }
}

fn to_json(heard: &Heard, now: Duration) -> Value {
    let time = now.as_micros() as f64 / 1e6;
    match heard {
        Heard::Event(event) => json!({ "event": {
            "source": "module",
            "time": time,
            "kind": kind(event),
            "half": half(event),
            "sequence": event.sequence,
            "lost": event.lost,
            "uptime": event.time as f64 / 1e6,
            "flow": show::flow_json(&event.record),
        }}),
        Heard::News(news) => json!({ "event": {
            "source": "daemon",
            "time": time,
            "kind": news.kind,
            "level": news.level,
            "peer": news.peer,
            "text": news.text,
        }}),
        Heard::Source(name, state) => json!({ "event": {
            "source": name,
            "time": time,
            "kind": if state.is_ok() { "watched" } else { "absent" },
            "text": state.as_ref().err(),
        }}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobconn_abi::{Record, TCP};

    fn event(lost: u64) -> Heard {
        let side =
            |local: &str, remote: &str| tuple::side(TCP, local.parse().unwrap(), remote.parse().unwrap()).unwrap();
        let record = Record {
            stack: side("192.0.2.1:5000", "203.0.113.1:22"),
            wire: side("198.51.100.1:5000", "203.0.113.1:22"),
            id: 3,
            ..Record::default()
        };
        let (kind, half) = (EventKind::Rebound as u32, Half::Local as u32);
        Heard::Event(Box::new(Event { sequence: 7, lost, time: 1_500_000, kind, half, record }))
    }

    #[test]
    fn lines_for_people() {
        let now = Duration::from_millis(86_400_000 + 3_723_004);
        let line =
            "01:02:03.004 module rebound-local tcp 192.0.2.1:5000 203.0.113.1:22 as 198.51.100.1:5000 203.0.113.1:22";
        assert_eq!(to_text(&event(0), now), line);
        let lost = to_text(&event(2), now);
        assert!(lost.starts_with("01:02:03.004 module 2 events were lost") && lost.ends_with(line), "{lost}");
        let absent = Heard::Source("daemon", Err("not running".into()));
        assert_eq!(to_text(&absent, now), "01:02:03.004 daemon absent: not running");
    }

    #[test]
    fn lines_for_programs() {
        let value = to_json(&event(2), Duration::from_millis(2500));
        let event = &value["event"];
        assert_eq!(event["source"], "module");
        assert_eq!((&event["kind"], &event["half"]), (&json!("rebound"), &json!("local")));
        assert_eq!((&event["sequence"], &event["lost"]), (&json!(7), &json!(2)));
        assert_eq!((&event["time"], &event["uptime"]), (&json!(2.5), &json!(1.5)));
        assert_eq!(event["flow"]["wire"]["local"], "198.51.100.1:5000");
        let news = News { kind: "peer-moved".into(), level: "info".into(), peer: "k".into(), text: "t".into() };
        let value = to_json(&Heard::News(news), Duration::ZERO);
        let expected = json!({ "event": {
            "source": "daemon", "time": 0.0, "kind": "peer-moved", "level": "info", "peer": "k", "text": "t",
        }});
        assert_eq!(value, expected);
    }
}

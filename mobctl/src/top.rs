//! `mobctl top`: the flows that were used last, again and again.

use crate::device::Device;
use crate::exit::{Exit, Failure};
use crate::show::{self, ends, note};
use crate::table::{age, table};
use crate::tuple;
use mobconn_abi::{Counter, Info, Record};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Goes to the upper left corner and clears what is below.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";
/// Lines around the flows on one screen.
const FRAME: usize = 5;

/// What was counted between two looks.
struct Rates {
    translated_in: f64,
    translated_out: f64,
    dropped: f64,
}

/// Shows the flows every `interval`, `count` times or for ever; on a terminal as many as it has lines.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn run(device: &Path, interval: Duration, count: Option<u64>) -> Result<(), Failure> {
    let mut device = Device::open(device)?;
    let terminal = io::stdout().is_terminal();
    let mut before = (Instant::now(), device.stats(false)?);
    let mut left = count;
    while left != Some(0) {
        if left != count {
            std::thread::sleep(interval);
        }
        let now = (Instant::now(), device.stats(false)?);
        let rates = rates(&before, &now);
        before = now;
        let (records, info) = (device.flows()?, device.info()?);
        let lines = if terminal { lines().saturating_sub(FRAME).max(1) } else { usize::MAX };
        let text = page(&info, &rates, records, lines);
        let text = if terminal { format!("{CLEAR}{text}") } else { format!("{text}\n") };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result.map_err(|error| Failure::new(Exit::Io, format!("cannot print: {error}")))?,
        }
        left = left.map(|left| left.saturating_sub(1));
    }
    Ok(())
}

/// Lines of the terminal.
fn lines() -> usize {
    std::env::var("LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(24)
}

fn rates(before: &(Instant, Vec<(Counter, u64)>), now: &(Instant, Vec<(Counter, u64)>)) -> Rates {
    let seconds = now.0.duration_since(before.0).as_secs_f64().max(1e-3);
    let sum = |wanted: fn(&str) -> bool| -> f64 {
        let count = |list: &[(Counter, u64)]| -> u64 {
            list.iter().filter(|(counter, _)| wanted(counter.name())).map(|(_, value)| value).sum()
        };
        // Somebody may have set them to zero.
        count(&now.1).saturating_sub(count(&before.1)) as f64 / seconds
    };
    Rates {
        translated_in: sum(|name| name == "translated_in"),
        translated_out: sum(|name| name == "translated_out"),
        dropped: sum(|name| name.starts_with("dropped_")),
    }
}

/// One screen: the flows that were used last come first.
fn page(info: &Info, rates: &Rates, mut records: Vec<Record>, lines: usize) -> String {
    records.sort_by_key(|record| (std::cmp::Reverse(record.used), record.id));
    let rows: Vec<_> = records
        .iter()
        .take(lines)
        .map(|record| {
            let [local, remote] = ends(&record.stack);
            let [wire_local, wire_remote] = ends(&record.wire);
            vec![
                age(info.uptime.saturating_sub(record.used)),
                age(info.uptime.saturating_sub(record.created)),
                tuple::protocol_name(record.stack.protocol),
                local,
                remote,
                wire_local,
                wire_remote,
                note(record).into(),
            ]
        })
        .collect();
    let headings = ["IDLE", "AGE", "PROTO", "STACK_LOCAL", "STACK_REMOTE", "WIRE_LOCAL", "WIRE_REMOTE", "NOTE"];
    format!(
        "mobconn {}: {} of {} bindings\npackets/s: {:.0} received, {:.0} sent translated, {:.0} dropped\n\n{}",
        show::module_version(info.module),
        info.flows,
        info.capacity,
        rates.translated_in,
        rates.translated_out,
        rates.dropped,
        table(&headings, &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobconn_abi::TCP;

    fn record(port: u16, used: u64) -> Record {
        let side = tuple::side(TCP, ([192, 0, 2, 1], port).into(), ([192, 0, 2, 2], 22).into()).unwrap();
        Record { stack: side, wire: side, id: port.into(), created: 10, used, ..Record::default() }
    }

    #[test]
    fn the_busiest_come_first_and_no_more_than_fit() {
        let info = Info { flows: 3, capacity: 9, module: 0x0102, uptime: 100, ..Info::default() };
        let rates = Rates { translated_in: 2.4, translated_out: 0.0, dropped: 1.0 };
        let text = page(&info, &rates, vec![record(1, 20), record(2, 99), record(3, 20)], 2);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..2],
            ["mobconn 0.1.2: 3 of 9 bindings", "packets/s: 2 received, 0 sent translated, 1 dropped"]
        );
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[4].starts_with("1s") && lines[4].contains("192.0.2.1:2 "), "{text}");
        assert!(lines[5].starts_with("1m20s") && lines[5].contains("192.0.2.1:1 "), "{text}");
    }

    #[test]
    fn counters_that_were_set_to_zero_are_no_rate() {
        let at = Instant::now();
        let list = |value| vec![(Counter::TranslatedIn, value), (Counter::DroppedStray, value)];
        let rates = rates(&(at, list(100)), &(at + Duration::from_secs(2), list(10)));
        assert_eq!((rates.translated_in, rates.dropped), (0.0, 0.0));
        let rates = super::rates(&(at, list(100)), &(at + Duration::from_secs(2), list(110)));
        assert_eq!((rates.translated_in, rates.dropped), (5.0, 5.0));
    }
}

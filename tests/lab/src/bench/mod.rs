//! Benches: how long a move interrupts what flows, in worlds like those of the
//! scenarios, each in a process of its own.
//!
//! And how soon the name server knows the new address.
//!
//! Times are the mobile host's, from the moment when its new address was usable:
//! until the first packet left, and until the first one came.

mod interruption;
mod names;
mod outage;
mod warm;

use crate::error::{Doing, Error, Result};
use crate::lab::Places;
use crate::names::Kind;
use crate::program::require;
use crate::{ns, supervise};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use warm::Warm;

/// A bench that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(400);

/// A bench.
struct Bench {
    name: &'static str,
    run: fn(&Places) -> Result<Vec<Row>>,
}

/// All of them.
const ALL: &[Bench] = &[
    Bench { name: "break-0ms", run: |places| interruption::break_before_make(places, 0) },
    Bench { name: "break-10ms", run: |places| interruption::break_before_make(places, 10) },
    Bench { name: "break-50ms", run: |places| interruption::break_before_make(places, 50) },
    Bench { name: "make-0ms", run: |places| interruption::make_before_break(places, 0) },
    Bench { name: "make-10ms", run: |places| interruption::make_before_break(places, 10) },
    Bench { name: "make-50ms", run: |places| interruption::make_before_break(places, 50) },
    Bench { name: "outage-500ms", run: |places| outage::bench(places, Duration::from_millis(500), 5) },
    Bench { name: "outage-5s", run: |places| outage::bench(places, Duration::from_secs(5), 3) },
    Bench { name: "names-bind", run: |places| names::bench(places, Kind::Bind) },
    Bench { name: "names-knot", run: |places| names::bench(places, Kind::Knot) },
    Bench { name: "outage-60s", run: |places| outage::bench(places, Duration::from_secs(60), 1) },
    Bench { name: "linux-60s", run: |places| outage::alone(places, Duration::from_secs(60)) },
];

/// A figure: the median of several, the lowest and the highest.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    value: f64,
    low: f64,
    high: f64,
    unit: &'static str,
    /// The value is to be at most this.
    goal: Option<f64>,
    /// Why it may be more here.
    excuse: Option<&'static str>,
}

/// What a path takes: the figures are to be compared with that, not with what its cables were told to take.
struct Trips {
    trips: Vec<Duration>,
}

impl Trips {
    /// What a move may take beside round trips, milliseconds.
    const ALLOWANCE: f64 = 3.0;

    /// Of what datagrams there and back took.
    fn new(mut trips: Vec<Duration>) -> Self {
        trips.sort();
        Self { trips }
    }

    /// What so many round trips may take, with what a move takes besides.
    fn goal(&self, round_trips: f64) -> f64 {
        let median = self.trips.get(self.trips.len() / 2).copied().unwrap_or_default();
        median.as_secs_f64() * 1e3 * round_trips + Self::ALLOWANCE
    }

    fn row(&self, name: String) -> Row {
        Row::times(name, self.trips.clone(), None)
    }
}

impl Row {
    /// What these times are, in milliseconds.
    fn times(name: String, mut times: Vec<Duration>, goal: Option<f64>) -> Self {
        times.sort();
        let at = |index: usize| times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
        let (value, low, high) = (at(times.len() / 2), at(0), at(times.len().saturating_sub(1)));
        Self { name, value, low, high, unit: "ms", goal, excuse: None }
    }

    /// One number.
    fn number(name: String, value: f64, unit: &'static str, goal: Option<f64>) -> Self {
        Self { name, value, low: value, high: value, unit, goal, excuse: None }
    }

    /// The same, with a goal that cannot always be met here, and why.
    fn unless(mut self, excuse: &'static str) -> Self {
        self.excuse = Some(excuse);
        self
    }

    fn json(&self) -> Value {
        let rounded = |value: f64| (value * 1e3).round() / 1e3;
        let [value, low, high] = [self.value, self.low, self.high].map(rounded);
        let mut row = json!({"name": self.name, "value": value, "low": low, "high": high, "unit": self.unit});
        if let Some(goal) = self.goal {
            row["goal"] = json!(goal);
            row["met"] = json!(self.value <= goal);
            if let (false, Some(excuse)) = (self.value <= goal, self.excuse) {
                row["why"] = json!(excuse);
            }
        }
        row
    }
}

/// Runs one bench in this process and prints its rows, one JSON object a line.
///
/// # Errors
/// What went wrong.
pub fn inside(build: &Path, name: &str) -> Result<()> {
    let bench = ALL.iter().find(|bench| bench.name == name);
    let bench = bench.ok_or_else(|| Error::Program(format!("no bench {name}")))?;
    let places = Places::new(build, &format!("bench-{name}"))?;
    ns::enter()?;
    let _warm = Warm::start()?;
    for row in (bench.run)(&places)? {
        println!("{}", row.json());
    }
    Ok(())
}

/// Runs all benches, or those of these names, prints a table, and writes the
/// rows to `json`. Returns whether all could be measured, and met their goals
/// but for those that cannot be met here.
///
/// # Errors
/// When one cannot be started, or the file cannot be written.
pub fn run(build: &Path, names: &[String], json: Option<&Path>) -> Result<bool> {
    require(&[("ip", "iproute2")])?;
    if let Some(name) = names.iter().find(|name| ALL.iter().all(|bench| bench.name != **name)) {
        let all: Vec<_> = ALL.iter().map(|bench| bench.name).collect();
        return Err(Error::Program(format!("no bench {name}; there are {}", all.join(", "))));
    }
    let mut rows = Vec::new();
    let mut good = true;
    let [untouched, touched] = warm::cost_of_a_page().map(|time| time.as_secs_f64() * 1e6);
    for (what, value) in [("nobody touched for a second", untouched), ("was just touched", touched)] {
        rows.push(Row::number(format!("this machine: touching a page that {what}"), value, "us", None).json());
    }
    rows.iter().for_each(|row| println!("{}", line(row)));
    for bench in ALL.iter().filter(|bench| names.is_empty() || names.iter().any(|name| name == bench.name)) {
        let said = tempfile::NamedTempFile::new().doing("making a file")?;
        let output = || said.as_file().try_clone().map(Stdio::from).doing("duplicating a file");
        let status = supervise::run(build, &["bench", bench.name], Some((output()?, output()?)), LIMIT)?;
        let text = fs::read(said.path()).doing("reading what a bench said")?;
        let text = String::from_utf8_lossy(&text);
        if !status.is_some_and(|status| status.success()) {
            println!("{} FAILED: {text}", bench.name);
            good = false;
        }
        for row in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            println!("{}", line(&row));
            good &= row["met"] != false || !row["why"].is_null();
            rows.push(row);
        }
    }
    if let Some(path) = json {
        let text = format!("{:#}\n", Value::from(rows));
        fs::write(path, text).doing(format_args!("writing {}", path.display()))?;
    }
    Ok(good)
}

/// A row as people read it.
fn line(row: &Value) -> String {
    let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let (low, high) = (number("low"), number("high"));
    let spread = if low == high { String::new() } else { format!("{low:.2} to {high:.2}") };
    let goal = match (row["goal"].as_f64(), row["met"].as_bool()) {
        (Some(goal), Some(true)) => format!("goal at most {goal:.2}: met"),
        (Some(goal), _) => match row["why"].as_str() {
            Some(why) => format!("goal at most {goal:.2}: not met here: {why}"),
            None => format!("goal at most {goal:.2}: NOT MET"),
        },
        _ => String::new(),
    };
    format!("{:<66} {:>9.2} {:<3} {spread:<20} {goal}", text("name"), number("value"), text("unit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_median_and_spread() {
        let times = [5, 1, 9].map(Duration::from_millis).to_vec();
        let row = Row::times("a".to_owned(), times, Some(4.0)).json();
        assert_eq!(
            row,
            json!({"name": "a", "value": 5.0, "low": 1.0, "high": 9.0, "unit": "ms", "goal": 4.0, "met": false})
        );
        let words = line(&row);
        assert!(words.contains("1.00 to 9.00") && words.contains("NOT MET"), "{words}");
        let row = Row::number("b".to_owned(), 0.0, "", Some(0.0)).json();
        assert!(line(&row).ends_with("goal at most 0.00: met"));
        let excused = |value| Row::number("c".to_owned(), value, "", Some(3.0)).unless("it rains").json();
        assert!(line(&excused(4.0)).ends_with("goal at most 3.00: not met here: it rains"));
        assert_eq!((excused(4.0)["met"].as_bool(), excused(3.0)["why"].as_str()), (Some(false), None));
    }
}

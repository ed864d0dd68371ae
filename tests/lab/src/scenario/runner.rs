//! Runs scenarios, each in a process of its own, and adds up.

use super::{ALL, Scenario};
use crate::error::{Doing, Error, Result};
use crate::lab::Places;
use crate::program::require;
use crate::{ns, supervise};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A scenario that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(180);

/// Prints what there is.
pub fn list() {
    for scenario in ALL {
        println!("{:20} {}", scenario.name, scenario.about);
    }
}

/// Runs one scenario in this process and prints its figures.
///
/// # Errors
/// What went wrong.
pub fn inside(build: &Path, name: &str) -> Result<()> {
    let scenario = find(name)?;
    let places = Places::new(build, name)?;
    ns::enter()?;
    for figure in (scenario.run)(&places)? {
        println!("{figure}");
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Scenario> {
    let scenario = ALL.iter().find(|scenario| scenario.name == name);
    scenario.ok_or_else(|| Error::Program(format!("no scenario {name}; mobconn-lab list shows all")))
}

/// Runs the named scenarios, or with `all` every one, and prints what each said
/// and the sum. Returns whether all passed.
///
/// # Errors
/// When there is no such scenario, or it cannot be started.
pub fn run(build: &Path, names: &[String]) -> Result<bool> {
    let chosen: Vec<&Scenario> = match names {
        [all] if all == "all" => ALL.iter().collect(),
        names => names.iter().map(|name| find(name)).collect::<Result<_>>()?,
    };
    require(&[("ip", "iproute2")])?;
    let (mut passed, mut failed) = (0, 0);
    for scenario in chosen {
        let begin = Instant::now();
        let (good, said) = run_process(build, scenario)?;
        let (seconds, verdict) = (begin.elapsed().as_secs_f32(), if good { "ok    " } else { "FAILED" });
        println!("{verdict}  {:20} {seconds:5.1} s  {}", scenario.name, scenario.about);
        for line in said.lines() {
            println!("          {line}");
        }
        *(if good { &mut passed } else { &mut failed }) += 1;
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Runs one scenario as a child. Returns whether it passed, and what it said.
fn run_process(build: &Path, scenario: &Scenario) -> Result<(bool, String)> {
    let said = tempfile::NamedTempFile::new().doing("making a file")?;
    let output = || said.as_file().try_clone().map(Stdio::from).doing("duplicating a file");
    let status = supervise::run(build, &["run", scenario.name], Some((output()?, output()?)), LIMIT)?;
    let text = fs::read(said.path()).doing("reading what a scenario said")?;
    let mut text = String::from_utf8_lossy(&text).into_owned();
    match status {
        Some(status) if status.success() => return Ok((true, text)),
        Some(status) => text += &format!("{status}; logs: {}\n", build.join("lab").join(scenario.name).display()),
        None => text += &format!("still running after {LIMIT:?}: killed\n"),
    }
    Ok((false, text))
}

//! Runs scenarios, each in a process of its own, and adds up.

use super::{ALL, Scenario};
use crate::error::{Doing, Error, Result};
use crate::lab::Places;
use crate::ns;
use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A scenario that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(180);

/// Prints what there is.
pub fn list() {
    for scenario in ALL {
        println!("{:24} {}", scenario.name, scenario.about);
    }
}

/// Runs one scenario in this process and prints its figures.
///
/// # Errors
/// What went wrong.
pub fn run_one(build: &Path, name: &str) -> Result<()> {
    let scenario = ALL.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.ok_or_else(|| Error::Program(format!("no scenario {name}; mobconn-lab list shows all")))?;
    let places = Places::new(build, name)?;
    ns::enter()?;
    for figure in (scenario.run)(&places)? {
        println!("{figure}");
    }
    Ok(())
}

/// Runs the named scenarios, or all, and prints one line each and the sum.
/// Returns whether all passed.
///
/// # Errors
/// When a scenario cannot be started.
pub fn run_all(build: &Path, names: &[String]) -> Result<bool> {
    let chosen: Vec<&Scenario> =
        ALL.iter().filter(|s| names.is_empty() || names.iter().any(|name| name == s.name)).collect();
    let (mut passed, mut failed) = (0, 0);
    for scenario in chosen {
        let begin = Instant::now();
        let (good, said) = run_process(build, scenario)?;
        let seconds = begin.elapsed().as_secs_f32();
        if good {
            passed += 1;
            println!("ok      {:24} {seconds:5.1} s  {}", scenario.name, scenario.about);
        } else {
            failed += 1;
            println!("FAILED  {:24} {seconds:5.1} s  {}", scenario.name, scenario.about);
        }
        for line in said.lines() {
            println!("          {line}");
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Runs one scenario as a child. Returns whether it passed, and what it said.
fn run_process(build: &Path, scenario: &Scenario) -> Result<(bool, String)> {
    let said = tempfile::NamedTempFile::new().doing("making a file")?;
    let output = |file: &File| file.try_clone().doing("duplicating a file");
    let mut child = Command::new(env::current_exe().doing("finding this program")?)
        .args(["--build".as_ref(), build.as_os_str(), "run".as_ref(), scenario.name.as_ref()])
        .stdin(Stdio::null())
        .stdout(output(said.as_file())?)
        .stderr(output(said.as_file())?)
        .spawn()
        .doing("starting a scenario")?;
    let status = wait(&mut child)?;
    let text = fs::read(said.path()).doing("reading what a scenario said")?;
    let mut text = String::from_utf8_lossy(&text).into_owned();
    match status {
        Some(status) if status.success() => return Ok((true, text)),
        Some(status) => text += &format!("{status}; logs: {}\n", build.join("lab").join(scenario.name).display()),
        None => text += &format!("still running after {LIMIT:?}: killed\n"),
    }
    Ok((false, text))
}

/// Waits for the end; `None` when it had to be killed.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().doing("waiting for a scenario")? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            child.kill().doing("ending a scenario")?;
            child.wait().doing("waiting for a scenario")?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

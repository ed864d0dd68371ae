//! The process around a world: it removes what a world leaves behind that
//! ended badly, and ends a world that hangs.

use crate::error::{Doing, Error, Result};
use crate::program::outlived_by_nothing;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The option that says: this process is the world itself.
pub const INSIDE: &str = "--inside";

/// Whether this process was told to end.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Lets Ctrl-C and its like end the world first, so that this process can tidy
/// up after it.
///
/// # Errors
/// When the system refuses.
pub fn outlast_signals() -> Result<()> {
    extern "C" fn note(_: libc::c_int) {
        TOLD.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, so it may run at any time. Programs that are started get the
        // default back.
        unsafe { sigaction(signal, &action) }.doing("catching signals")?;
    }
    Ok(())
}

/// Runs this program again with `arguments`, as the world itself, in a
/// temporary directory that is removed whatever happens. What it prints goes to
/// `output`, or where this process prints. Returns how it ended, or `None` when
/// it had to be killed after `limit`.
///
/// # Errors
/// When it cannot be started, or this process was told to end.
pub fn run(
    build: &Path,
    arguments: &[&str],
    output: Option<(Stdio, Stdio)>,
    limit: Duration,
) -> Result<Option<ExitStatus>> {
    let files = tempfile::Builder::new().prefix("mobconn-lab.").tempdir().doing("making a directory")?;
    let mut command = Command::new(env::current_exe().doing("finding this program")?);
    command.args([OsStr::new(INSIDE), OsStr::new("--build"), build.as_os_str()]).args(arguments);
    command.env("TMPDIR", files.path()).stdin(Stdio::null());
    if let Some((out, err)) = output {
        command.stdout(out).stderr(err);
    }
    let mut child = outlived_by_nothing(&mut command).spawn().doing("starting the world")?;
    wait(&mut child, limit)
}

/// Waits for the end; `None` when it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().doing("waiting for the world")? {
            return Ok(Some(status));
        }
        let told = TOLD.load(Ordering::Relaxed);
        if told || Instant::now() > deadline {
            child.kill().doing("ending the world")?;
            child.wait().doing("waiting for the world")?;
            return if told { Err(Error::Program("interrupted".to_owned())) } else { Ok(None) };
        }
        thread::sleep(Duration::from_millis(10));
    }
}

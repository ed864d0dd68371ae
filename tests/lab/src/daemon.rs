//! `mobctl daemon` on a host of the world.

use crate::cable::Random;
use crate::check;
use crate::error::{Doing, Error, Result};
use crate::host::Host;
use crate::lab::Lab;
use crate::program::Program;
use crate::world::HOME;
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    program: Program,
    control: PathBuf,
}

impl Daemon {
    /// Starts the daemon of `host` with a configuration and keys of its own,
    /// and waits until it answers. Daemons with the same `group` have the same
    /// group key.
    ///
    /// # Errors
    /// When it does not begin.
    pub fn start(lab: &Lab, host: &Host, mobile: bool, group: u64) -> Result<Self> {
        let name = host.namespace.name();
        let file = |what: &str| lab.files().join(format!("{name}.{what}"));
        let (group_key, host_key, config) = (file("group"), file("host"), file("conf"));
        write_key(&group_key, "group-key", 0x6772_6f75_7000 + group)?;
        write_key(&host_key, "host-key", 0x686f_7374_0000 + host.number as u64)?;
        let claims = file("claims");
        let mut text =
            format!("log_level = \"debug\"\ngroup_key = {group_key:?}\nhost_key = {host_key:?}\nclaims = {claims:?}\n");
        if mobile {
            text += &format!("mobile = true\npeers = [\"{}/24\", \"{}/64\"]\n", HOME.v4, HOME.v6);
        }
        if mobile && let Some(names) = &lab.names {
            text += &names.table();
        }
        fs::write(&config, text).doing(format_args!("writing {}", config.display()))?;
        let (device, control, pidfile) = (lab.device(host), file("sock"), file("pid"));
        let program = lab.places.mobctl();
        let [program, device, config, pidfile, socket] =
            [&program, &device, &config, &pidfile, &control].map(|path| path.to_string_lossy());
        let words = [
            &program,
            "--device",
            &device,
            "--config",
            &config,
            "--control",
            &socket,
            "daemon",
            "--foreground",
            "--pidfile",
            &pidfile,
        ];
        let log = lab.places.logs.join(format!("{name}.daemon.log"));
        let mut daemon = Self { program: Program::start(&host.namespace, &words, &log)?, control };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&daemon.control).is_err() {
            if daemon.program.ended()?.is_some() || Instant::now() > deadline {
                return Err(Error::Program(format!(
                    "the daemon of {name} did not begin\n{}",
                    daemon.program.printed()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }

    /// Asks over the control socket, as mobctl does, one JSON object a line.
    ///
    /// # Errors
    /// When there is no answer, or it is an error.
    pub fn ask(&self, request: &Value) -> Result<Value> {
        let mut stream = UnixStream::connect(&self.control).doing("connecting to the daemon")?;
        stream.set_read_timeout(Some(PATIENCE)).doing("setting a timeout")?;
        stream.write_all(format!("{request}\n").as_bytes()).doing("asking the daemon")?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).doing("waiting for the daemon's answer")?;
        let answer: Value = serde_json::from_str(&line)
            .map_err(|e| Error::Check(format!("the daemon's answer to {request} is no JSON ({e}): {line}")))?;
        check!(answer["answer"] != "error", "the daemon's answer to {request} is {answer}");
        Ok(answer)
    }

    /// Waits until `count` of this host's flows are claimed.
    ///
    /// # Errors
    /// [`Error::Check`] when they are not in time.
    pub fn wait_claimed(&self, count: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.ask(&serde_json::json!({"command": "status"}))?;
            if status["confirmed"].as_u64() >= Some(count) {
                return Ok(());
            }
            check!(Instant::now() < deadline, "{count} flows were not claimed in {PATIENCE:?}: {status}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Tells the daemon that this host has moved, and waits for the outcome.
    ///
    /// # Errors
    /// [`Error::Check`] when it does not answer.
    pub fn announce(&self, old: IpAddr, new: IpAddr) -> Result<Value> {
        self.ask(&serde_json::json!({"command": "move", "old": old, "new": new, "timeout_ms": 10_000}))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        self.program.signal(signal)
    }

    /// What it has logged so far.
    #[must_use]
    pub fn logged(&self) -> String {
        self.program.printed()
    }
}

fn write_key(path: &Path, kind: &str, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let digits: String = (0..4).map(|_| format!("{:016x}", random.next_u64())).collect();
    let doing = format!("writing {}", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).doing(&doing)?;
    file.write_all(format!("{kind} {digits}\n").as_bytes()).doing(&doing)
}

//! `mobctl daemon` on a host of the world.

use crate::cable::Random;
use crate::check;
use crate::error::{Doing, Error, Result};
use crate::host::Host;
use crate::lab::Lab;
use crate::program::Program;
use crate::world::{CELL, HOME, WLAN};
use nix::sys::signal::Signal;
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

/// What a daemon is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It only answers.
    Correspondent,
    /// It moves; peers are where the other host of the world is. With a name
    /// server in the world, it keeps its name there.
    Mobile,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    program: Option<Program>,
    words: Vec<String>,
    log: PathBuf,
    control: PathBuf,
    runs: u32,
}

impl Daemon {
    /// Starts the daemon of `host` with a configuration and keys of its own,
    /// and waits until it answers. Daemons with the same `group` have the same
    /// group key.
    ///
    /// # Errors
    /// When it does not begin.
    pub fn start(lab: &Lab, host: &Host, role: Role, group: u64) -> Result<Self> {
        let name = host.namespace.name();
        let file = |what: &str| lab.files().join(format!("{name}.{what}"));
        let (group_key, host_key, config) = (file("group"), file("host"), file("conf"));
        write_key(&group_key, "group-key", 0x6772_6f75_7000 + group)?;
        write_key(&host_key, "host-key", 0x686f_7374_0000 + host.number as u64)?;
        let claims = file("claims");
        let mut text =
            format!("log_level = \"debug\"\ngroup_key = {group_key:?}\nhost_key = {host_key:?}\nclaims = {claims:?}\n");
        if role == Role::Mobile {
            let networks = if host.number == 0 { vec![HOME] } else { vec![WLAN, CELL] };
            let peers: Vec<String> =
                networks.iter().flat_map(|one| [format!("{}/24", one.v4), format!("{}/64", one.v6)]).collect();
            text += &format!("mobile = true\npeers = {peers:?}\n");
            if host.number == 0 {
                text += &lab.mobile_config;
            } else {
                text += "automatic = false\n";
            }
            if let Some(names) = &lab.names {
                text += &names.table(host.number);
            }
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
        let words = words.map(str::to_owned).to_vec();
        let log = lab.places.logs.join(format!("{name}.daemon"));
        let mut daemon = Self { program: None, words, log, control, runs: 0 };
        daemon.go(host)?;
        Ok(daemon)
    }

    /// Starts it, again, with what it had.
    ///
    /// # Errors
    /// When it does not begin.
    pub fn go(&mut self, host: &Host) -> Result<()> {
        self.runs += 1;
        let log = self.log.with_extension(if self.runs == 1 {
            "daemon.log".into()
        } else {
            format!("daemon-{}.log", self.runs)
        });
        let mut program = Program::start(&host.namespace, &self.words, &log)?;
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&self.control).is_err() {
            if program.ended()?.is_some() || Instant::now() > deadline {
                let name = host.namespace.name();
                return Err(Error::Program(format!("the daemon of {name} did not begin\n{}", program.printed())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.program = Some(program);
        Ok(())
    }

    /// Ends it by a signal, SIGKILL included, and waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut program) = self.program.take() else { return Ok(()) };
        program.signal(signal)?;
        program.wait(PATIENCE)?;
        Ok(())
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
        self.announce_for(old, new, Duration::from_secs(10))
    }

    /// As [`Daemon::announce`], and waits only so long.
    ///
    /// # Errors
    /// [`Error::Check`] when it does not answer.
    pub fn announce_for(&self, old: IpAddr, new: IpAddr, timeout: Duration) -> Result<Value> {
        let timeout_ms = timeout.as_millis() as u64;
        self.ask(&serde_json::json!({"command": "move", "old": old, "new": new, "timeout_ms": timeout_ms}))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.program.as_ref().map_or(Ok(()), |program| program.signal(signal))
    }

    /// What it has logged so far, since it was started last.
    #[must_use]
    pub fn logged(&self) -> String {
        self.program.as_ref().map(Program::printed).unwrap_or_default()
    }
}

fn write_key(path: &Path, kind: &str, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let digits: String = (0..4).map(|_| format!("{:016x}", random.next_u64())).collect();
    let doing = format!("writing {}", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).doing(&doing)?;
    file.write_all(format!("{kind} {digits}\n").as_bytes()).doing(&doing)
}

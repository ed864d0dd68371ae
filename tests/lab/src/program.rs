//! Programs started in a host's namespace, and their end.

use crate::error::{Doing, Error, Result};
use crate::ns::Namespace;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A running program. It is ended, by its id, when this is dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Program {
    /// Starts `words` in `namespace`; what it prints goes to `log`.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such program.
    pub fn start<W: AsRef<str>>(namespace: &Namespace, words: &[W], log: &Path) -> Result<Self> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let (name, rest) = words.split_first().ok_or_else(|| Error::Program("no program named".to_owned()))?;
        let output = File::create(log).doing(format_args!("making {}", log.display()))?;
        let errors = output.try_clone().doing("duplicating a file")?;
        let mut command = Command::new(name);
        command.args(rest).env("PATH", search_path()).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = namespace.run(move || outlived_by_nothing(&mut command).spawn())?.map_err(|e| missing(name, e))?;
        Ok(Self { name: words.join(" "), child, output: log.to_owned() })
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().doing(format_args!("waiting for {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Error::Program`] when it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Error::Program(format!("{} still runs after {timeout:?}", self.name)));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end and wants success.
    ///
    /// # Errors
    /// [`Error::Program`] with what it printed.
    pub fn succeed(&mut self, timeout: Duration) -> Result<()> {
        let status = self.wait(timeout)?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Program(format!("{}: {status}\n{}", self.name, self.printed())))
    }

    /// Waits until it listens at `address` in its namespace.
    ///
    /// # Errors
    /// [`Error::Program`] when it ends, or does not listen after ten seconds.
    pub fn wait_listening(&mut self, namespace: &Namespace, address: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let target = address.to_owned();
            if namespace.run(move || TcpStream::connect(target).is_ok())? {
                return Ok(());
            }
            if self.ended()?.is_some() || Instant::now() > deadline {
                return Err(Error::Program(format!("{} does not listen at {address}\n{}", self.name, self.printed())));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(pid(&self.child), signal).doing(format_args!("sending {signal} to {}", self.name))
    }

    /// Asks it to end, and makes it end if it does not within two seconds.
    pub fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Both can only fail when it has ended by itself.
        let _ = kill(pid(&self.child), Signal::SIGTERM);
        if self.wait(Duration::from_secs(2)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Makes the program end when the calling thread does, whatever the reason.
pub fn outlived_by_nothing(command: &mut Command) -> &mut Command {
    let guard = || set_pdeathsig(Signal::SIGKILL).map_err(Into::into);
    // SAFETY: between fork and exec it only makes one system call, and allocates nothing.
    unsafe { command.pre_exec(guard) }
}

fn missing(name: &str, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Error::Missing(format!("the program {name} is missing; install the package that has it"));
    }
    Error::System { doing: format!("starting {name}"), source: error }
}

/// Where programs are searched: as the user has it, and where administrators'
/// programs are.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    path.push(":/usr/sbin:/sbin");
    path
}

/// The file of a program.
fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Makes sure that the programs exist; each comes with the package that has it.
///
/// # Errors
/// [`Error::Missing`] with the packages to install.
pub fn require(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> =
        programs.iter().filter(|(name, _)| find(name).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Missing(format!("packages are missing: {0}; install them (apt-get install {0})", missing.join(" "))))
}

/// Runs a program that ends by itself in `namespace`, with `input`, and returns
/// what it printed.
///
/// It is started without a copy of this process, whose memory would have to be
/// copied page by page where it is written next: in the midst of a move.
///
/// # Errors
/// [`Error::Program`] when it fails, with its own words.
pub fn run<W: AsRef<str>>(namespace: &Namespace, words: &[W], input: &str) -> Result<String> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let (name, rest) = words.split_first().ok_or_else(|| Error::Program("no program named".to_owned()))?;
    let file = find(name).ok_or_else(|| missing(name, std::io::ErrorKind::NotFound.into()))?;
    let mut command = Command::new(file);
    command.args(rest).env("PATH", search_path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = namespace.run(move || command.spawn())?.map_err(|e| missing(name, e))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).doing(format_args!("writing to {name}"))?;
    }
    let output = child.wait_with_output().doing(format_args!("waiting for {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let words = words.join(" ");
    Err(Error::Program(format!(
        "{words} in {}: {}\n{}{}",
        namespace.name(),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )))
}

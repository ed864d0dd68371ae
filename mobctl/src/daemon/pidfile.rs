//! The pidfile: says who is the daemon, and its lock makes sure that there is one only, as pidfile(3) does.

use crate::exit::{Exit, Failure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where it is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/var/run/mobctl.pid";

/// A locked pidfile; removed when dropped.
#[derive(Debug)]
pub(super) struct Pidfile {
    path: PathBuf,
    file: Flock<File>,
}

impl Pidfile {
    /// Opens and locks the file at `path`. The lock goes over to a child process, the parent must not drop this.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let cannot = |error: io::Error| Failure::new(Exit::CannotCreate, format!("{shown}: {error}"));
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path).map_err(cannot)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { path: path.into(), file }),
            Err((_, Errno::EWOULDBLOCK)) => {
                let pid = std::fs::read_to_string(path).unwrap_or_default();
                let pid = pid.trim();
                Err(Failure::new(Exit::Unavailable, format!("the daemon is running already, as process {pid}"))
                    .advise("Stop it first: service mobconn stop"))
            }
            Err((_, errno)) => Err(cannot(errno.into())),
        }
    }

    /// Writes this process's number.
    pub(super) fn write(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        writeln!(&*self.file, "{}", std::process::id())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_daemon_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        std::fs::write(&path, "99999999999 an old one, longer than ours\n").unwrap();
        let mut first = Pidfile::open(&path).unwrap();
        first.write().unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
        let failure = Pidfile::open(&path).unwrap_err();
        assert!(failure.message.contains(&pid), "{failure}");
        drop(first);
        assert!(!path.exists());
        Pidfile::open(&path).unwrap();
    }
}

//! What outlives the daemon: claims, in a file that is replaced as a whole.
//!
//! A stop, a crash or an upgrade then loses none. What changed since the file
//! was written is found again with the peers and the kernel; so it need not be
//! written at once, and never twice while one write lasts. The file is of use
//! until the next boot, so nobody waits for the disk.

use crate::system;
use mobconn_dprp::{Config, Endpoint, Instant, RestoreError, rand_core::CryptoRng};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long changes are gathered before they are written.
const GATHERING: Duration = Duration::from_millis(100);
/// Making a snapshot takes at most this part of the time.
const SHARE: u32 = 50;
/// How long is waited after the file could not be written.
const TROUBLE: Duration = Duration::from_secs(10);
/// Longest file that is read: more than every claim of the largest table.
const LENGTH_MAX: u64 = 1 << 30;

/// The file with the claims.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    /// Names this boot; none when the system does not say: then nothing is remembered.
    boot: Option<Vec<u8>>,
    /// The revision in the file, or on its way there.
    written: Option<u64>,
    due: Option<Instant>,
    pause: Duration,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl Memory {
    /// The memory at `path`.
    pub(super) fn new(path: PathBuf) -> Self {
        let boot = system::boot()
            .map_err(|error| log::warn!("claims are lost when the daemon ends: this boot has no name: {error}"))
            .ok();
        Self { path, boot, written: None, due: None, pause: GATHERING, writing: None }
    }

    /// Goes on at another path.
    pub(super) fn go_to(&mut self, path: &Path) {
        if self.path != path {
            self.finish();
            // What is there would be believed when the daemon begins with the old configuration again.
            let _ = fs::remove_file(&self.path);
            self.path = path.into();
            self.written = None;
        }
    }

    /// An endpoint that goes on where the last daemon ended, or one that begins.
    pub(super) fn recall(
        &self,
        config: Config,
        rng: impl CryptoRng + Clone + Send + 'static,
        now: Instant,
    ) -> Result<Endpoint, RestoreError> {
        let shown = self.path.display();
        let Some(boot) = &self.boot else {
            return Endpoint::new(config, rng, now).map_err(RestoreError::Config);
        };
        let error = match read(&self.path) {
            Ok(snapshot) => match Endpoint::restore(config.clone(), rng.clone(), now, boot, &snapshot) {
                Ok(endpoint) => {
                    let peers = endpoint.peers().count();
                    log::info!("{shown}: claims with {peers} peers are remembered");
                    return Ok(endpoint);
                }
                Err(RestoreError::Config(error)) => return Err(RestoreError::Config(error)),
                Err(RestoreError::OtherBoot) => {
                    log::info!("{shown}: from before this boot: connections and claims are gone");
                    None
                }
                Err(error) => Some(error.to_string()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error {
            log::warn!("{shown}: not used: {error}; what was claimed is claimed anew");
        }
        Endpoint::new(config, rng, now).map_err(RestoreError::Config)
    }

    /// The same endpoint with another configuration; an endpoint that begins when it has another key.
    pub(super) fn convert(
        &self,
        endpoint: &Endpoint,
        config: Config,
        rng: impl CryptoRng + Clone + Send + 'static,
        now: Instant,
    ) -> Result<Endpoint, RestoreError> {
        let boot = self.boot.as_deref().unwrap_or_default();
        match Endpoint::restore(config.clone(), rng.clone(), now, boot, &endpoint.snapshot(boot)) {
            Err(RestoreError::OtherKey) => {
                log::warn!("another host key: what was claimed is claimed anew");
                Endpoint::new(config, rng, now).map_err(RestoreError::Config)
            }
            result => result,
        }
    }

    /// Another endpoint than before is to be remembered, whatever its revision.
    pub(super) fn forget_revision(&mut self) {
        self.written = None;
    }

    /// Writes what has changed, when it is time. Never waits.
    pub(super) fn look(&mut self, now: Instant, endpoint: &Endpoint) {
        let Some(boot) = &self.boot else { return };
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished)
            && let Err(error) = join(self.writing.take())
        {
            log::error!("{}: {error}", self.path.display());
            self.written = None;
            self.due = Some(now.after(TROUBLE));
        }
        if self.written == Some(endpoint.revision()) {
            return;
        }
        let due = *self.due.get_or_insert(now.after(self.pause));
        if now < due || self.writing.is_some() {
            return;
        }
        self.due = None;
        self.written = Some(endpoint.revision());
        let began = std::time::Instant::now();
        let snapshot = endpoint.snapshot(boot);
        self.pause = GATHERING.max(began.elapsed().saturating_mul(SHARE));
        let path = self.path.clone();
        let thread = thread::Builder::new().name("claims".into()).spawn(move || write(&path, &snapshot));
        match thread {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => {
                log::error!("{}: {error}", self.path.display());
                self.written = None;
                self.due = Some(now.after(TROUBLE));
            }
        }
    }

    /// When [`Self::look`] has something to do.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        // A write takes milliseconds.
        let writing = self.writing.as_ref().map(|_| now.after(Duration::from_millis(20)));
        writing.or(self.due)
    }

    /// Writes the last state. The daemon ends.
    pub(super) fn conclude(&mut self, endpoint: &Endpoint) {
        self.finish();
        if let Some(boot) = &self.boot
            && self.written != Some(endpoint.revision())
            && let Err(error) = write(&self.path, &endpoint.snapshot(boot))
        {
            log::error!("{}: {error}", self.path.display());
        }
    }

    fn finish(&mut self) {
        if let Err(error) = join(self.writing.take()) {
            log::error!("{}: {error}", self.path.display());
            self.written = None;
        }
    }
}

fn join(writing: Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    writing.map_or(Ok(()), |writing| writing.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
}

/// The bytes of the file, which nobody but root and this user may have written.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let ours = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
    if !metadata.is_file() || !ours || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("others could have written it"));
    }
    if metadata.len() > LENGTH_MAX {
        return Err(io::Error::other("too long"));
    }
    let mut bytes = Vec::new();
    file.take(LENGTH_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes the file, all or nothing.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // Left by a daemon that was killed. It is made anew, so that no link is followed.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?.write_all(bytes)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobconn_dprp::{GroupKey, HostKey};
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;
    use std::os::unix::fs::PermissionsExt;

    fn config(key: u8) -> Config {
        Config::new(HostKey::from_bytes(&[key; 32]), GroupKey::from_bytes(&[9; 32]))
    }

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(1)
    }

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    /// Lets the write end that has begun.
    fn settle(memory: &mut Memory) {
        while memory.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn it_is_written_when_something_changed_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claims");
        let mut memory = Memory::new(path.clone());
        let endpoint = memory.recall(config(1), rng(), at(0)).unwrap();
        memory.look(at(0), &endpoint);
        assert_eq!((memory.deadline(at(0)), path.exists()), (Some(at(100)), false));
        memory.look(at(100), &endpoint);
        settle(&mut memory);
        memory.look(at(101), &endpoint);
        assert_eq!(memory.deadline(at(101)), None);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let text = fs::read(&path).unwrap();
        let again = Memory::new(path.clone()).recall(config(1), rng(), at(0)).unwrap();
        assert_eq!(again.snapshot(memory.boot.as_ref().unwrap()), text);
        // Nothing is written when nothing changed.
        fs::remove_file(&path).unwrap();
        memory.look(at(5000), &endpoint);
        memory.conclude(&endpoint);
        assert!(!path.exists());
        memory.forget_revision();
        memory.conclude(&endpoint);
        assert_eq!(fs::read(&path).unwrap(), text);
        memory.go_to(&folder.path().join("other"));
        memory.conclude(&endpoint);
        assert!(!path.exists() && folder.path().join("other").exists());
    }

    #[test]
    fn what_is_of_no_use_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claims");
        let memory = || Memory::new(path.clone());
        let mut first = memory();
        let endpoint = first.recall(config(1), rng(), at(0)).unwrap();
        first.conclude(&endpoint);
        let told = |memory: &Memory| {
            let endpoint = memory.recall(config(2), ChaCha20Rng::seed_from_u64(7), at(0)).unwrap();
            endpoint.snapshot(b"x")
        };
        let blank = Endpoint::new(config(2), ChaCha20Rng::seed_from_u64(7), at(0)).unwrap().snapshot(b"x");
        // Of another key, of another boot, spoiled, writable by others, a folder.
        assert_eq!(told(&memory()), blank);
        fs::write(&path, Endpoint::new(config(2), rng(), at(0)).unwrap().snapshot(b"another boot")).unwrap();
        assert_eq!(told(&memory()), blank);
        fs::write(&path, b"nonsense").unwrap();
        assert_eq!(told(&memory()), blank);
        fs::write(&path, Endpoint::new(config(2), rng(), at(0)).unwrap().snapshot(first.boot.as_ref().unwrap()))
            .unwrap();
        assert_ne!(told(&memory()), blank, "this one is good");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(told(&memory()), blank);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(told(&memory()), blank);
        let mut spoiled = config(1);
        spoiled.port = 0;
        assert!(matches!(memory().recall(spoiled, rng(), at(0)), Err(RestoreError::Config(_))));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/claims");
        let mut memory = Memory::new(path.clone());
        let endpoint = memory.recall(config(1), rng(), at(0)).unwrap();
        memory.look(at(0), &endpoint);
        memory.look(at(100), &endpoint);
        settle(&mut memory);
        memory.look(at(200), &endpoint);
        assert_eq!(memory.deadline(at(200)), Some(at(10_200)));
        fs::create_dir(folder.path().join("missing")).unwrap();
        memory.look(at(10_199), &endpoint);
        assert!(memory.writing.is_none());
        memory.look(at(10_200), &endpoint);
        settle(&mut memory);
        assert!(path.exists());
    }

    #[test]
    fn another_configuration_keeps_the_claims_of_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path().join("claims"));
        let endpoint = Endpoint::new(config(1), rng(), at(0)).unwrap();
        let other = || ChaCha20Rng::seed_from_u64(7);
        let kept = memory.convert(&endpoint, Config { mobile: true, ..config(1) }, other(), at(0)).unwrap();
        assert_eq!(kept.snapshot(b"x"), endpoint.snapshot(b"x"), "the same incarnation");
        let new = memory.convert(&endpoint, config(2), other(), at(0)).unwrap();
        assert_eq!(new.snapshot(b"x"), Endpoint::new(config(2), other(), at(0)).unwrap().snapshot(b"x"));
    }
}

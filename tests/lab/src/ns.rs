//! Namespaces: every host of the world has a network of its own.
//!
//! A namespace is held by a thread that lives in it. Work that must happen
//! inside (opening sockets, starting programs, writing sysctls) is sent to that
//! thread; nothing outlives the process.

use crate::error::{Doing, Error, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// Makes the process able to have namespaces of its own: as root directly,
/// otherwise by becoming root of a new user namespace. To be called before any
/// thread starts.
///
/// # Errors
/// [`Error::Missing`] when the system forbids it.
pub fn enter() -> Result<()> {
    let (user, group) = (geteuid(), getegid());
    if !user.is_root() || unshare(CloneFlags::CLONE_NEWNS).is_err() {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(|e| {
            Error::Missing(format!(
                "this system does not let an ordinary user make namespaces ({e}): run as root, or allow it \
                 (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces, \
                 kernel.apparmor_restrict_unprivileged_userns=0)"
            ))
        })?;
        fs::write("/proc/self/setgroups", "deny").doing("writing /proc/self/setgroups")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1")).doing("writing /proc/self/uid_map")?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1")).doing("writing /proc/self/gid_map")?;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .doing("making mounts private")
}

type Job = Box<dyn FnOnce() + Send>;

/// A network and mount namespace, and the thread that lives there.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes a namespace with a loopback interface that is up.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(name: &str) -> Result<Self> {
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
        let (report, made) = channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS);
                let made = result.is_ok();
                let told = report.send(result);
                if made && told.is_ok() {
                    queue.into_iter().for_each(|job| job());
                }
            })
            .doing("starting a thread")?;
        let this = Self { name: name.to_owned(), jobs: Some(jobs), thread: Some(thread) };
        match made.recv() {
            Ok(result) => result.doing(format_args!("making the network namespace of {name}"))?,
            Err(_) => return Err(Error::Program(format!("the thread of {name} ended"))),
        }
        Ok(this)
    }

    /// Name of the host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `job` inside and waits for its result.
    ///
    /// # Errors
    /// [`Error::Program`] when the namespace's thread has ended.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let gone = || Error::Program(format!("the thread of {} ended", self.name));
        let (report, result) = channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Box::new(move || {
            // The caller waits for the answer, so somebody receives it.
            let _ = report.send(job());
        }))
        .map_err(|_| gone())?;
        result.recv().map_err(|_| gone())
    }

    /// Sets a sysctl of the namespace, named as below `/proc/sys`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let (path, value) = (format!("/proc/sys/{name}"), value.to_owned());
        let doing = format!("setting {name} to {value} for {}", self.name);
        self.run(move || fs::write(path, value))?.doing(doing)
    }

    /// Shows `file` as `target` to the programs of this namespace. Nothing
    /// happens where there is no `target`.
    ///
    /// # Errors
    /// When the mount fails.
    pub fn replace_file(&self, file: &Path, target: &str) -> Result<()> {
        if !Path::new(target).exists() {
            return Ok(());
        }
        let (file, target) = (file.to_owned(), target.to_owned());
        let doing = format!("mounting a file over {target}");
        self.run(move || mount(Some(&file), target.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>))?
            .doing(doing)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in a job has already been reported to whoever asked for it.
            let _ = thread.join();
        }
    }
}

//! Delivers the newest wanted addresses, on a thread of its own.
//!
//! The daemon says what it wants and goes on at once. A newer wish interrupts
//! whatever is under way, also a wait for a server that does not answer. What
//! cannot be delivered is kept and tried again.

use super::client::{Client, Target};
use super::config::sorted;
use super::desk::Desk;
use super::store::Store;
use crate::dns::lookup::random;
use crate::dns::transport::{Clock, Wire, system_clock};
use crate::dns::{DnsName, System, Trouble};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the end of the daemon waits for the name to be cleared.
const FAREWELL: Duration = Duration::from_secs(3);
/// Longest wait without anything to do.
const IDLE: Duration = Duration::from_secs(60);

/// How the name is, for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The name.
    pub name: String,
    /// Its zone, once known.
    pub zone: Option<String>,
    /// The servers of the zone, once known, the one in use first.
    pub servers: Vec<SocketAddr>,
    /// The addresses that are to be published.
    pub wanted: Vec<IpAddr>,
    /// Whether they are.
    pub current: bool,
    /// How long ago the last update was accepted, in seconds.
    pub updated: Option<u64>,
    /// From the wish to the accepted update, in milliseconds, for the last update.
    pub took_ms: Option<f64>,
    /// What the last update cost: bytes sent and received, and round trips.
    pub bytes_sent: usize,
    /// See there.
    pub bytes_received: usize,
    /// See there.
    pub round_trips: u32,
    /// Updates that were accepted.
    pub updates: u64,
    /// What is wrong, possibly empty.
    pub trouble: String,
    /// What to do about it, possibly empty.
    pub advice: String,
    /// Seconds until it is tried again.
    pub next_try: Option<u64>,
}

#[derive(Default)]
struct Shared {
    desk: Desk,
    report: Report,
    wanted_at: Option<Instant>,
    updated_at: Option<Instant>,
    /// When the thread has to end.
    end: Option<Instant>,
}

/// Keeps the host's name.
pub struct Keeper {
    shared: Arc<Mutex<Shared>>,
    wake: UnixStream,
    ended: Receiver<()>,
}

impl Keeper {
    /// Begins to keep the name of `target`.
    ///
    /// # Errors
    /// When the system has no thread or no descriptors.
    pub fn start(target: Target) -> io::Result<Self> {
        Self::start_with(target, System::default(), system_clock())
    }

    /// The same with other settings of the system and another clock.
    ///
    /// # Errors
    /// As [`Keeper::start`].
    pub fn start_with(target: Target, system: System, clock: Clock) -> io::Result<Self> {
        let mut shared = Shared::default();
        shared.report.name = target.config.name.to_string();
        let shared = Arc::new(Mutex::new(shared));
        let (wake, sleeper) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        sleeper.set_nonblocking(true)?;
        let (farewell, ended) = channel();
        let worker = Worker::new(target, system, clock, Arc::clone(&shared), sleeper)?;
        thread::Builder::new().name("ddns".into()).spawn(move || worker.run(&farewell))?;
        Ok(Self { shared, wake, ended })
    }

    /// From now on these addresses, and no others, are to be found under the name. Never waits.
    pub fn wanted(&self, addresses: Vec<IpAddr>) {
        let addresses = sorted(addresses);
        let mut shared = lock(&self.shared);
        let now = Instant::now();
        if shared.end.is_none() && shared.desk.want(addresses.clone(), now) {
            shared.wanted_at = Some(now);
            shared.report.wanted = addresses;
            drop(shared);
            self.awake();
        }
    }

    /// A path may be back: what waits for its next try is tried at once.
    pub fn hurry(&self) {
        let waits = lock(&self.shared).desk.hurry(Instant::now());
        if waits {
            self.awake();
        }
    }

    /// How the name is.
    #[must_use]
    pub fn report(&self) -> Report {
        let shared = lock(&self.shared);
        let now = Instant::now();
        let mut report = shared.report.clone();
        report.current = shared.desk.is_done() && shared.desk.wanted().is_some();
        report.updated = shared.updated_at.map(|at| now.saturating_duration_since(at).as_secs());
        report.next_try = shared.desk.due().map(|due| due.saturating_duration_since(now).as_secs());
        report
    }

    /// Removes the addresses of the name, as far as that is possible within three seconds, and ends. The mark stays:
    /// nobody else gets the name.
    pub fn stop(self) {
        let end = Instant::now() + FAREWELL;
        {
            let mut shared = lock(&self.shared);
            let now = Instant::now();
            shared.desk.want(Vec::new(), now);
            shared.desk.hurry(now);
            shared.wanted_at = Some(now);
            shared.report.wanted.clear();
            shared.end = Some(end);
        }
        self.awake();
        // A little longer, so that an answer at the last moment is written down.
        let _ = self.ended.recv_timeout(FAREWELL + Duration::from_millis(500));
    }

    /// Ends at once and leaves the name as it is.
    pub fn abandon(self) {
        self.end_now();
        // Until it has written down what it did.
        let _ = self.ended.recv_timeout(Duration::from_millis(200));
    }

    fn end_now(&self) {
        lock(&self.shared).end = Some(Instant::now());
        self.awake();
    }

    fn awake(&self) {
        // When the pipe is full its reader knows already.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end_now();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    target: Target,
    system: System,
    clock: Clock,
    client: Client,
    shared: Arc<Mutex<Shared>>,
    sleeper: UnixStream,
    store: Store,
    /// What a run before this one left under another name.
    leftover: Option<Store>,
    complaint: String,
}

impl Worker {
    fn new(
        target: Target,
        system: System,
        clock: Clock,
        shared: Arc<Mutex<Shared>>,
        sleeper: UnixStream,
    ) -> io::Result<Self> {
        let name = target.config.name.to_string();
        let store = Store::read(&target.config.state).unwrap_or_default();
        let (store, leftover) = if store.name == name {
            (store, None)
        } else {
            let leftover = Some(store).filter(|store| !store.addresses.is_empty());
            (Store { name, ..Store::default() }, leftover)
        };
        let wire = Wire::new(Arc::clone(&clock), Some(sleeper.try_clone()?));
        let client = Client::new(target.clone(), system.clone(), wire, store.number());
        Ok(Self { target, system, clock, client, shared, sleeper, store, leftover, complaint: String::new() })
    }

    fn run(mut self, farewell: &Sender<()>) {
        loop {
            // Emptied before looking: what comes after is seen the next time.
            while (&self.sleeper).read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
            let now = Instant::now();
            let (job, due, end) = {
                let mut shared = lock(&self.shared);
                let job = shared.desk.job(now);
                if job.is_some() {
                    shared.desk.begun(now);
                }
                (job, shared.desk.due(), shared.end)
            };
            if end.is_some_and(|end| end <= now || due.is_none_or(|due| due > end)) {
                break;
            }
            self.client.wire().end_at(end);
            match job {
                Some(addresses) => self.deliver(addresses),
                None => {
                    let until = due.into_iter().chain(end).min().unwrap_or(now + IDLE);
                    self.sleep(until.saturating_duration_since(now).min(IDLE));
                }
            }
        }
        // Whoever waits for it may have given up.
        let _ = farewell.send(());
    }

    fn sleep(&self, time: Duration) {
        let millis = u16::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.sleeper.as_fd(), PollFlags::POLLIN)];
        // A signal only ends the sleep early.
        let _ = poll(&mut fds, PollTimeout::from(millis));
    }

    /// One try.
    fn deliver(&mut self, addresses: Vec<IpAddr>) {
        let before = self.client.wire().cost;
        // Written down first: after a crash it is known what may be out there.
        let mut may_be: Vec<IpAddr> = self.store.addresses.iter().chain(&addresses).copied().collect();
        may_be = sorted(may_be);
        if may_be != self.store.addresses {
            self.store.addresses = may_be;
            self.write();
        }
        let result = self.client.publish(&addresses);
        let now = Instant::now();
        let cost = self.client.wire().cost;
        match result {
            Ok(()) => {
                self.store.stamp = self.client.stamp().map(|stamp| format!("{stamp:016x}"));
                self.store.addresses.clone_from(&addresses);
                self.write();
                let took = {
                    let mut shared = lock(&self.shared);
                    shared.desk.succeeded(addresses.clone(), now);
                    shared.updated_at = Some(now);
                    let took = shared.wanted_at.map(|at| now.saturating_duration_since(at));
                    let report = &mut shared.report;
                    report.updates += 1;
                    report.took_ms = took.map(|took| took.as_secs_f64() * 1e3);
                    report.bytes_sent = cost.sent - before.sent;
                    report.bytes_received = cost.received - before.received;
                    report.round_trips = cost.round_trips - before.round_trips;
                    report.trouble.clear();
                    report.advice.clear();
                    took
                };
                self.complaint.clear();
                let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let list = if list.is_empty() { "no address".into() } else { list.join(" ") };
                log::info!(
                    "{} is {list}, after {:.1} ms",
                    self.store.name,
                    took.unwrap_or_default().as_secs_f64() * 1e3
                );
                self.clear_leftover();
            }
            Err(Trouble::Interrupted) => lock(&self.shared).desk.interrupted(),
            Err(trouble) => {
                let mut shared = lock(&self.shared);
                shared.desk.failed(now, trouble.is_passing(), random());
                shared.report.trouble = trouble.to_string();
                shared.report.advice = trouble.advice();
                drop(shared);
                // Once, and not at every try.
                if self.complaint != trouble.code() {
                    self.complaint = trouble.code().into();
                    log::warn!("{} is not current: {trouble}. {}", self.store.name, trouble.advice());
                }
            }
        }
        let place = self.client.place();
        let (zone, servers) = (place.map(|place| place.zone.to_string()), place.map(|place| place.servers.clone()));
        let mut shared = lock(&self.shared);
        if let (Some(zone), Some(servers)) = (zone, servers) {
            shared.report.zone = Some(zone);
            shared.report.servers = servers;
        }
    }

    /// Removes what a run before this one left under another name, once; with the key and servers of now.
    fn clear_leftover(&mut self) {
        let Some(leftover) = self.leftover.take() else { return };
        let Ok(name) = DnsName::from_str(&leftover.name) else { return };
        let Ok(wake) = self.sleeper.try_clone() else { return };
        let mut target = self.target.clone();
        if target.config.zone.as_ref().is_some_and(|zone| !name.ends_with(zone)) {
            target.config.zone = None;
        }
        target.config.name = name;
        let wire = Wire::new(Arc::clone(&self.clock), Some(wake));
        let mut client = Client::new(target, self.system.clone(), wire, leftover.number());
        match client.release() {
            Ok(()) => log::info!("{}, this host's name before, has no addresses any more", leftover.name),
            Err(Trouble::Interrupted) => self.leftover = Some(leftover),
            Err(trouble) => {
                log::warn!("{}, this host's name before, may still have its addresses: {trouble}", leftover.name)
            }
        }
    }

    fn write(&self) {
        if let Err(error) = self.store.write(&self.target.config.state) {
            log::warn!("{}: {error}", self.target.config.state.display());
        }
    }
}

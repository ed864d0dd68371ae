//! Names looked up in the background, for a loop that must not wait.
//!
//! [`Resolver::ask`] and [`Resolver::seek`] return at once: what is known while
//! it may be kept, or that it is being asked for. [`Resolver::fd`] becomes
//! readable when answers have come. Entries are kept as long as the DNS says,
//! and no longer; what the servers of a zone themselves say now is not kept at
//! all.

use super::lookup::{self, Found, NotFound};
use super::message::DnsName;
use super::system::System;
use super::transport::{Wire, system_clock};
use super::trouble::Trouble;
use super::zone;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What is known of a name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// These are its addresses. A hint: whoever answers there has yet to prove who it is.
    Addresses(Vec<IpAddr>),
    /// Nothing, for this reason.
    Nothing(String),
    /// It is being asked for.
    Pending,
}

/// How long a trouble with the resolvers is kept: they are not asked more often.
const TROUBLE_TTL: Duration = Duration::from_secs(2);
/// How long a fresh answer is kept: until whoever was told of it has taken it.
const FRESH: Duration = Duration::from_millis(500);
/// How long the servers of a zone are kept.
const SERVERS_TTL: Duration = Duration::from_secs(300);
/// How long the servers of a zone may take for a fresh answer, all together.
const FRESH_PATIENCE: Duration = Duration::from_secs(3);
/// Most names that are remembered.
const NAMES_MAX: usize = 4096;
/// Names that are asked for at the same time: one whose servers are silent must not delay the others.
const WORKERS: usize = 4;

/// A name, and whether the zone's own servers are to be asked.
type Question = (String, bool);

#[derive(Debug)]
struct Entry {
    known: Known,
    until: Instant,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Question, Entry>,
    asked: HashSet<Question>,
    news: Vec<Question>,
    /// The servers of the zones that names are in.
    servers: HashMap<String, (Vec<SocketAddr>, Instant)>,
}

/// Looks names up, on threads of its own.
#[derive(Debug)]
pub struct Resolver {
    state: Arc<Mutex<State>>,
    questions: Sender<Question>,
    ready: UnixStream,
}

impl Resolver {
    /// Begins. The threads end after their last questions when this is dropped.
    ///
    /// # Errors
    /// When the system has no threads or no descriptors.
    pub fn start(system: System) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let (questions, queue) = channel();
        let (ready, signal) = UnixStream::pair()?;
        ready.set_nonblocking(true)?;
        signal.set_nonblocking(true)?;
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..WORKERS {
            let (system, shared, queue) = (system.clone(), Arc::clone(&state), Arc::clone(&queue));
            let signal = signal.try_clone()?;
            thread::Builder::new().name("names".into()).spawn(move || work(&system, &shared, &queue, &signal))?;
        }
        Ok(Self { state, questions, ready })
    }

    /// What `name` stands for, or [`Known::Pending`]. Never waits.
    pub fn ask(&self, name: &str) -> Known {
        self.question((name.to_owned(), false))
    }

    /// What `name` stands for at this moment, whatever was known before: the servers of its zone are asked, and the
    /// system's resolvers when these do not answer. For a name whose known addresses are of no use. To be called about
    /// once a second at most: nothing is kept. Never waits.
    pub fn seek(&self, name: &str) -> Known {
        self.question((name.to_owned(), true))
    }

    fn question(&self, question: Question) -> Known {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if let Some(entry) = state.entries.get(&question).filter(|entry| entry.until > now) {
            return entry.known.clone();
        }
        if state.asked.insert(question.clone()) && self.questions.send(question.clone()).is_err() {
            state.asked.remove(&question);
            return Known::Nothing("the thread that looks names up has ended".into());
        }
        Known::Pending
    }

    /// Readable when [`Resolver::news`] has something to tell.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    /// The names that were answered since the last call, and whether they were sought.
    pub fn news(&self) -> Vec<(String, bool)> {
        while (&self.ready).read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
        std::mem::take(&mut lock(&self.state).news)
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(system: &System, state: &Mutex<State>, queue: &Mutex<Receiver<Question>>, signal: &UnixStream) {
    let mut wire = Wire::new(system_clock(), None);
    loop {
        // The lock is held while waiting: who has it is the next one to get a question.
        let Ok(question) = lock(queue).recv() else { return };
        let (name, fresh) = &question;
        let result =
            if *fresh { sought(&mut wire, system, state, name) } else { lookup::addresses(&mut wire, system, name) };
        let (known, ttl) = match result {
            Ok(Found { addresses, ttl }) => (Known::Addresses(addresses), ttl),
            Err(error) => {
                let ttl = match &error {
                    NotFound::Name => lookup::TTL_MAX,
                    NotFound::Nothing(ttl) => *ttl,
                    NotFound::Trouble(_) => TROUBLE_TTL,
                };
                (Known::Nothing(error.to_string()), ttl)
            }
        };
        // Also when the TTL is zero somebody has to see the answer once: who is told of it asks soon.
        let ttl = if *fresh { FRESH } else { ttl.max(Duration::from_secs(1)) };
        let now = Instant::now();
        let mut state = lock(state);
        state.asked.remove(&question);
        if state.entries.len() >= NAMES_MAX {
            state.entries.retain(|_, entry| entry.until > now);
        }
        if state.entries.len() >= NAMES_MAX {
            state.entries.clear();
        }
        state.entries.insert(question.clone(), Entry { known, until: now + ttl });
        state.news.push(question);
        drop(state);
        // When the pipe is full its reader knows already.
        let _ = (&*signal).write(&[0]);
    }
}

/// The addresses of `name` at this moment.
fn sought(wire: &mut Wire, system: &System, state: &Mutex<State>, name: &str) -> Result<Found, NotFound> {
    let listed = name.parse::<IpAddr>().is_ok() || !system.hosts(name).is_empty();
    if let (false, Ok(owner)) = (listed, DnsName::from_str(name)) {
        wire.end_at(Some(Instant::now() + FRESH_PATIENCE));
        let result = servers(wire, system, state, name, &owner).map_err(NotFound::Trouble).and_then(|servers| {
            wire.follow(None);
            lookup::of_name(wire, &servers, &owner)
        });
        wire.end_at(None);
        match result {
            // An alias into another zone is for the resolvers to follow, and so is what these servers do not say.
            Err(_) => {}
            found => return found,
        }
    }
    lookup::addresses(wire, system, name)
}

/// The servers of the zone that `owner` is in.
fn servers(
    wire: &mut Wire,
    system: &System,
    state: &Mutex<State>,
    name: &str,
    owner: &DnsName,
) -> Result<Vec<SocketAddr>, Trouble> {
    let now = Instant::now();
    if let Some((servers, _)) = lock(state).servers.get(name).filter(|(_, until)| *until > now) {
        return Ok(servers.clone());
    }
    let settings = system.settings();
    wire.follow(Some(&settings));
    let resolvers = settings.servers;
    let (zone, primary) = zone::of(wire, &resolvers, owner, None)?;
    let servers = zone::servers(wire, &resolvers, &zone, primary, system.port)?;
    let mut state = lock(state);
    if state.servers.len() >= NAMES_MAX {
        state.servers.clear();
    }
    state.servers.insert(name.to_owned(), (servers.clone(), now + SERVERS_TTL));
    Ok(servers)
}

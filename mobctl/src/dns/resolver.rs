//! Names looked up in the background, for a loop that must not wait.
//!
//! [`Resolver::ask`] returns at once: what is known while its TTL lasts, or
//! that it is being asked for. [`Resolver::fd`] becomes readable when answers
//! have come. Entries are kept as long as the DNS says, and no longer.

use super::lookup::{self, Found, NotFound};
use super::system::System;
use super::transport::{Wire, system_clock};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
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
/// Most names that are remembered.
const NAMES_MAX: usize = 4096;

#[derive(Debug)]
struct Entry {
    known: Known,
    until: Instant,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    asked: HashSet<String>,
    news: Vec<String>,
}

/// Looks names up, on a thread of its own.
#[derive(Debug)]
pub struct Resolver {
    state: Arc<Mutex<State>>,
    questions: Sender<String>,
    ready: UnixStream,
}

impl Resolver {
    /// Begins. The thread ends after its last question when this is dropped.
    ///
    /// # Errors
    /// When the system has no thread or no descriptors.
    pub fn start(system: System) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let (questions, queue) = channel();
        let (ready, signal) = UnixStream::pair()?;
        ready.set_nonblocking(true)?;
        signal.set_nonblocking(true)?;
        let shared = Arc::clone(&state);
        thread::Builder::new().name("names".into()).spawn(move || work(&system, &shared, &queue, &signal))?;
        Ok(Self { state, questions, ready })
    }

    /// What `name` stands for, or [`Known::Pending`]. Never waits.
    pub fn ask(&self, name: &str) -> Known {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if let Some(entry) = state.entries.get(name).filter(|entry| entry.until > now) {
            return entry.known.clone();
        }
        if state.asked.insert(name.to_owned()) && self.questions.send(name.to_owned()).is_err() {
            state.asked.remove(name);
            return Known::Nothing("the thread that looks names up has ended".into());
        }
        Known::Pending
    }

    /// Readable when [`Resolver::news`] has something to tell.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    /// The names that were answered since the last call.
    pub fn news(&self) -> Vec<String> {
        while (&self.ready).read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
        std::mem::take(&mut lock(&self.state).news)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(system: &System, state: &Mutex<State>, queue: &Receiver<String>, signal: &UnixStream) {
    let mut wire = Wire::new(system_clock(), None);
    while let Ok(name) = queue.recv() {
        let (known, ttl) = match lookup::addresses(&mut wire, system, &name) {
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
        let now = Instant::now();
        let mut state = lock(state);
        state.asked.remove(&name);
        if state.entries.len() >= NAMES_MAX {
            state.entries.retain(|_, entry| entry.until > now);
        }
        if state.entries.len() >= NAMES_MAX {
            state.entries.clear();
        }
        // Also when the TTL is zero somebody has to see the answer once: who is told of it asks soon.
        let until = now + ttl.max(Duration::from_secs(1));
        state.entries.insert(name.clone(), Entry { known, until });
        state.news.push(name);
        drop(state);
        // When the pipe is full its reader knows already.
        let _ = (&*signal).write(&[0]);
    }
}

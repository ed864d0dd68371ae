//! The packet loop: one thread that carries every packet of the world.
//!
//! ```text
//! host's TUN -> kernel.output -> cable -> router's TUN      (up)
//! router's TUN -> cable -> kernel.input -> host's TUN       (down)
//! ```
//!
//! What kernels do on their own (send what was kept, pass up what was queued)
//! is done here, too.
//!
//! The router end of a cable drops what does not come from the cable's own
//! network (BCP 38). Ioctls come from other threads and do not wait for this
//! one: kernels are called here while other threads may be inside them.

use crate::cable::{Direction, Lane, Prefix, Tally};
use crate::error::{Doing, Result};
use crate::kernel::{By, Input, Kernel, Output};
use crate::nat::{Inside, translate};
use crate::packet::addresses;
use crate::resume::{self, Extra, Queue, Sink, Spoken};
use crate::route::Routes;
use crate::tun::{MTU, Tun};
use crate::watch::{Watch, Way};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Packets taken from one device before the others get their turn.
const BATCH: usize = 32;
/// Doublings of a retransmission timer that are taken back at most.
const BACKOFFS: usize = 16;

/// A host as the packet loop knows it.
pub struct End {
    /// Its packet path.
    pub kernel: Arc<dyn Kernel>,
    /// Its routing table.
    pub routes: Routes,
}

/// A cable between a host and the router, ready to be laid.
pub struct Plan {
    /// Index of the host in the list of ends.
    pub host: usize,
    /// The host's device.
    pub device: Tun,
    /// The router's device.
    pub router: Tun,
    /// Sources that the router accepts here.
    pub networks: Vec<Prefix>,
    /// Properties from the host to the router.
    pub up: Lane,
    /// Properties from the router to the host.
    pub down: Lane,
    /// Seed of its losses.
    pub seed: u64,
}

/// Where a cable's ends are.
struct Ends {
    host: usize,
    device: Tun,
    router: Tun,
}

struct Cable {
    networks: Vec<Prefix>,
    plugged: bool,
    /// The router's end translates addresses.
    translated: bool,
    up: Direction,
    down: Direction,
}

impl Cable {
    fn lane(&mut self, way: Way) -> &mut Direction {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

/// A packet under way; earlier ones first, in the order in which they were sent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    number: u64,
    cable: usize,
    up: bool,
    packet: Vec<u8>,
}

struct State {
    cables: Vec<Cable>,
    /// Per host: the cable towards a destination, as the routing table said.
    egress: Vec<HashMap<IpAddr, Option<usize>>>,
    /// Per host: what its connections said and heard.
    spoken: Vec<Spoken>,
    flights: BinaryHeap<Reverse<Flight>>,
    number: u64,
    watch: Watch,
}

/// The packet loop at work. It ends when this is dropped.
pub struct Wire {
    state: Arc<Mutex<State>>,
    extras: Queue,
    wake: Arc<UnixStream>,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Starts the loop over these hosts and cables, which are all out.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(hosts: Vec<End>, plans: Vec<Plan>) -> Result<Self> {
        let mut cables = Vec::new();
        let mut ends = Vec::new();
        for plan in plans {
            cables.push(Cable {
                networks: plan.networks,
                plugged: false,
                translated: false,
                up: Direction::new(plan.up, plan.seed),
                down: Direction::new(plan.down, plan.seed ^ 0x5555),
            });
            ends.push(Ends { host: plan.host, device: plan.device, router: plan.router });
        }
        let egress = hosts.iter().map(|_| HashMap::new()).collect();
        let spoken = hosts.iter().map(|_| Spoken::default()).collect();
        let state = State { cables, egress, spoken, flights: BinaryHeap::new(), number: 0, watch: Watch::default() };
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = UnixStream::pair().doing("making a pair of sockets")?;
        let (wake, woken) = UnixStream::pair().doing("making a pair of sockets")?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).doing("making a socket non-blocking")?;
        }
        let extras = Queue::default();
        let carrier = Carrier { hosts, ends, state: Arc::clone(&state), extras: Arc::clone(&extras), woken };
        let thread = thread::Builder::new()
            .name("wire".to_owned())
            .spawn(move || carrier.run(&stopped))
            .doing("starting the packet loop")?;
        Ok(Self { state, extras, wake: Arc::new(wake), stop: Some(stop), thread: Some(thread) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Where the kernel of a host puts what it does on its own.
    #[must_use]
    pub fn sink(&self, host: usize) -> Sink {
        Sink::new(host, Arc::clone(&self.extras), Arc::clone(&self.wake))
    }

    /// Plugs a cable in or out. What is under way on a cable that is out is lost.
    pub fn plug(&self, cable: usize, plugged: bool) {
        if let Some(cable) = self.lock().cables.get_mut(cable) {
            cable.plugged = plugged;
        }
    }

    /// Whether the router translates the addresses of the network of a cable, from now on.
    pub fn translate(&self, cable: usize, translated: bool) {
        if let Some(cable) = self.lock().cables.get_mut(cable) {
            cable.translated = translated;
        }
    }

    /// Changes the properties of a cable in both directions.
    pub fn set(&self, cable: usize, up: Lane, down: Lane) {
        if let Some(cable) = self.lock().cables.get_mut(cable) {
            cable.up.set(up);
            cable.down.set(down);
        }
    }

    /// What became of the packets of a cable, up and down.
    #[must_use]
    pub fn tally(&self, cable: usize) -> (Tally, Tally) {
        self.lock().cables.get(cable).map(|c| (c.up.tally, c.down.tally)).unwrap_or_default()
    }

    /// A host's routes have changed.
    pub fn rerouted(&self, host: usize) {
        if let Some(egress) = self.lock().egress.get_mut(host) {
            egress.clear();
        }
    }

    /// Looks at, or changes, what was seen on the cables.
    pub fn watch<T>(&self, look: impl FnOnce(&mut Watch) -> T) -> T {
        look(&mut self.lock().watch)
    }

    /// Whether the loop still runs. It ends early only by a panic.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; scenarios ask `alive`.
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Carrier {
    hosts: Vec<End>,
    ends: Vec<Ends>,
    state: Arc<Mutex<State>>,
    extras: Queue,
    woken: UnixStream,
}

impl Carrier {
    fn run(&self, stopped: &UnixStream) {
        // Without it a short delay lasts up to 50 microseconds longer; nothing depends on it.
        let _ = set_timerslack(1);
        let mut buffer = [0; MTU];
        loop {
            let wait = self.land();
            self.extras();
            let mut fds = vec![
                PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
            ];
            for ends in &self.ends {
                fds.push(PollFd::new(ends.device.as_fd(), PollFlags::POLLIN));
                fds.push(PollFd::new(ends.router.as_fd(), PollFlags::POLLIN));
            }
            // An interrupted wait is a short wait.
            let _ = ppoll(&mut fds, wait.map(TimeSpec::from_duration), None);
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if ready.first().is_some_and(|stop| *stop) {
                return;
            }
            // Only the end of the wait matters.
            while (&self.woken).read(&mut buffer).is_ok_and(|length| length > 0) {}
            for (number, ready) in ready.iter().skip(2).enumerate() {
                if *ready {
                    self.collect(number / 2, if number % 2 == 0 { Way::Up } else { Way::Down }, &mut buffer);
                }
            }
        }
    }

    /// Takes what a device has and sends it on its way.
    fn collect(&self, cable: usize, way: Way, buffer: &mut [u8]) {
        let Some(ends) = self.ends.get(cable) else { return };
        let state = &mut *lock(&self.state);
        let device = if way == Way::Up { &ends.device } else { &ends.router };
        for _ in 0..BATCH {
            let Ok(Some(packet)) = device.receive(buffer) else { return };
            let now = Instant::now();
            match way {
                Way::Down => state.enter(cable, way, packet.to_vec(), now),
                Way::Up => self.output(state, ends, cable, packet, now),
            }
        }
    }

    /// Does what kernels wanted done.
    fn extras(&self) {
        loop {
            let next = self.extras.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((number, extra)) = next else { return };
            let state = &mut *lock(&self.state);
            if !matches!(extra, Extra::Deliver(_)) {
                state.watch.told(number, Instant::now());
            }
            match extra {
                Extra::Send(packets, by) => {
                    for packet in packets {
                        if let Some(cable) = self.exit(state, number, None, &by, &packet) {
                            state.enter(cable, Way::Up, packet, Instant::now());
                        }
                    }
                }
                Extra::Deliver(packet) => {
                    self.deliver(state, number, &packet);
                }
                Extra::Resume(local, remote) => self.resume(state, number, local, remote),
            }
        }
    }

    /// Gives the host a packet by whatever device takes one.
    fn deliver(&self, state: &mut State, host: usize, packet: &[u8]) -> bool {
        if let Some(spoken) = state.spoken.get_mut(host) {
            spoken.hears(packet);
        }
        self.ends.iter().filter(|ends| ends.host == host).any(|ends| ends.device.deliver(packet))
    }

    /// Takes the backoff of the connection's timer back, step by step, until it
    /// sends.
    fn resume(&self, state: &mut State, host: usize, local: SocketAddr, remote: SocketAddr) {
        let count = |state: &State| state.spoken.get(host).map_or(0, |spoken| spoken.count(local, remote));
        let before = count(state);
        for _ in 0..BACKOFFS {
            let errors = state.spoken.get(host).map(|spoken| spoken.unreachable(local, remote)).unwrap_or_default();
            let deliver = |error: &Vec<u8>| {
                self.ends.iter().filter(|ends| ends.host == host).any(|ends| ends.device.deliver(error))
            };
            if errors.is_empty() || !errors.iter().all(deliver) {
                return;
            }
            let mut buffer = [0; MTU];
            for (cable, ends) in self.ends.iter().enumerate().filter(|(_, ends)| ends.host == host) {
                while let Ok(Some(packet)) = ends.device.receive(&mut buffer) {
                    self.output(state, ends, cable, packet, Instant::now());
                }
            }
            if count(state) != before {
                return;
            }
        }
    }

    fn output(&self, state: &mut State, ends: &Ends, cable: usize, packet: &[u8], now: Instant) {
        let Some(host) = self.hosts.get(ends.host) else { return };
        if let Some(spoken) = state.spoken.get_mut(ends.host) {
            spoken.sends(packet);
        }
        match host.kernel.output(packet, ends.device.name()) {
            Output::Nothing => {}
            Output::Loop(packet) => {
                ends.device.deliver(&packet);
            }
            Output::TooBig(mtu) => {
                if let Some(error) = resume::too_big(packet, mtu) {
                    ends.device.deliver(&error);
                }
            }
            Output::Send { packets, by } => {
                for packet in packets {
                    if let Some(cable) = self.exit(state, ends.host, Some(cable), &by, &packet) {
                        state.enter(cable, Way::Up, packet, now);
                    }
                }
            }
        }
    }

    /// The cable that a packet leaves by, which came from the device of `cable` if from any.
    fn exit(&self, state: &mut State, number: usize, cable: Option<usize>, by: &By, packet: &[u8]) -> Option<usize> {
        match by {
            By::Device => cable,
            By::Route => self.egress(state, number, self.hosts.get(number)?, packet),
            By::Interface(name) => self.ends.iter().position(|ends| ends.host == number && ends.device.name() == name),
        }
    }

    /// The cable that a packet with a changed destination leaves by.
    fn egress(&self, state: &mut State, number: usize, host: &End, packet: &[u8]) -> Option<usize> {
        let (_, destination) = addresses(packet)?;
        *state.egress.get_mut(number)?.entry(destination).or_insert_with(|| {
            let interface = host.routes.interface(destination)?;
            self.ends.iter().position(|ends| ends.host == number && ends.device.index() == interface)
        })
    }

    /// Hands over what has arrived. Returns how long until the next arrival.
    fn land(&self) -> Option<Duration> {
        let state = &mut *lock(&self.state);
        loop {
            let now = Instant::now();
            match state.flights.peek() {
                None => return None,
                Some(Reverse(flight)) if flight.at > now => return Some(flight.at - now),
                Some(_) => {}
            }
            let Reverse(flight) = state.flights.pop()?;
            self.arrive(state, &flight, now);
        }
    }

    fn arrive(&self, state: &mut State, flight: &Flight, now: Instant) -> Option<()> {
        let ends = self.ends.get(flight.cable)?;
        let way = if flight.up { Way::Up } else { Way::Down };
        let cable = state.cables.get_mut(flight.cable)?;
        let plugged = cable.plugged;
        let source = addresses(&flight.packet).map(|(source, _)| source);
        let foreign = flight.up && !source.is_some_and(|s| cable.networks.iter().any(|n| n.contains(s)));
        let tally = &mut cable.lane(way).tally;
        if !plugged {
            tally.unplugged += 1;
            return None;
        }
        if foreign {
            tally.foreign += 1;
            state.watch.foreign(&flight.packet);
            state.watch.note("foreign", &flight.packet, now);
            return None;
        }
        tally.packets += 1;
        tally.bytes += flight.packet.len() as u64;
        let inside = if flight.up { Inside::Source } else { Inside::Destination };
        let translated = if cable.translated { translate(&flight.packet, inside) } else { flight.packet[..].into() };
        let taken = if flight.up {
            ends.router.deliver(&translated)
        } else {
            state.watch.arrives(&translated, now);
            state.watch.note("arrives", &translated, now);
            match self.hosts.get(ends.host)?.kernel.input(&translated, ends.device.name()) {
                Input::Nothing => true,
                Input::Deliver(packet) => {
                    if let Some(spoken) = state.spoken.get_mut(ends.host) {
                        spoken.hears(&packet);
                    }
                    ends.device.deliver(&packet)
                }
            }
        };
        if !taken {
            state.cables.get_mut(flight.cable)?.lane(way).tally.refused += 1;
        }
        Some(())
    }
}

impl State {
    /// A packet enters a cable.
    fn enter(&mut self, number: usize, way: Way, packet: Vec<u8>, now: Instant) {
        let Some(cable) = self.cables.get_mut(number) else { return };
        if !cable.plugged {
            cable.lane(way).tally.unplugged += 1;
            self.watch.note("unplugged", &packet, now);
            return;
        }
        self.watch.enters(way, &packet, now);
        let Some(at) = cable.lane(way).offer(now, packet.len()) else {
            return self.watch.note("dropped", &packet, now);
        };
        if way == Way::Up {
            self.watch.note("sent", &packet, now);
        }
        self.number += 1;
        self.flights.push(Reverse(Flight { at, number: self.number, cable: number, up: way == Way::Up, packet }));
    }
}

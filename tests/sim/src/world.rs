//! Everything at once: virtual time, and what happens when.

use crate::conn::{self, Conn, Stream};
use crate::flood::Flood;
use crate::frame::Frame;
use crate::host::Host;
use crate::kernel::{Fate, flow as flow_of};
use crate::net::Networks;
use crate::script::{Act, Plan};
use mobconn_dprp::{Event, Flow, News, PORT, Protocol};
use mobconn_engine::Other;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A second.
pub const SECOND: u64 = 1_000_000;

/// Something that will happen.
#[derive(Clone, Debug)]
pub enum What {
    /// A packet arrives wherever its destination is then.
    Arrive(Frame),
    /// The module's task of a host runs.
    Task(usize),
    /// A step of the scenario.
    Act(Act),
    /// The resolver answers a host.
    Resolved(usize, String),
}

/// What became of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Connections, and those of them that were excused.
    pub conns: u64,
    /// Of which nothing was promised.
    pub excused: u64,
    /// Moves that were committed.
    pub moves: u64,
    /// Packets that arrived somewhere.
    pub packets: u64,
    /// Segments that were held, and sent at a commit.
    pub released: u64,
    /// Newcomers that got another port.
    pub displaced: u64,
    /// Wire sides that went to who had proved to be there.
    pub taken: u64,
    /// Commands that a full table refused.
    pub full: u64,
    /// Virtual time, in seconds.
    pub seconds: u64,
}

impl Tally {
    /// Takes in another scenario's.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.conns, other.conns),
            (&mut self.excused, other.excused),
            (&mut self.moves, other.moves),
            (&mut self.packets, other.packets),
            (&mut self.released, other.released),
            (&mut self.displaced, other.displaced),
            (&mut self.taken, other.taken),
            (&mut self.full, other.full),
            (&mut self.seconds, other.seconds),
        ] {
            *sum += more;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conns, excused, moves, packets, released, displaced, taken, full, seconds } = self;
        write!(
            f,
            "{conns} connections ({excused} excused), {moves} moves, {packets} packets ({released} held first), \
             {displaced} newcomers, {taken} taken over, {full} refused for want of room, {} virtual hours",
            seconds / 3600
        )
    }
}

/// The simulation.
pub struct World {
    /// Microseconds since it began.
    pub now: u64,
    queue: BTreeMap<(u64, u64), What>,
    sequence: u64,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The networks.
    pub networks: Networks,
    /// The connections.
    pub conns: Vec<Conn>,
    /// The scenario.
    pub plan: Plan,
    /// What must not be, if it was; the first is the one that counts.
    pub violations: Vec<String>,
    /// The faults are over.
    pub finale: bool,
    /// Figures.
    pub tally: Tally,
    /// Datagrams of strangers, and what they got.
    pub strangers: Flood,
    trace: bool,
}

impl World {
    /// The world of a scenario.
    #[must_use]
    pub fn new(plan: Plan, trace: bool) -> Self {
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            hosts: plan.hosts(),
            networks: plan.networks(),
            conns: Vec::new(),
            violations: Vec::new(),
            finale: false,
            tally: Tally::default(),
            strangers: Flood::default(),
            trace,
            plan: Plan::default(),
        };
        for (at, act) in &plan.acts {
            world.later(*at, What::Act(act.clone()));
        }
        world.plan = plan;
        for h in 0..world.hosts.len() {
            world.settle(h);
        }
        world
    }

    /// Writes a line of the trace.
    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>13.6} {}", self.now as f64 / 1e6, text());
        }
    }

    /// Something that must not be.
    pub fn violation(&mut self, what: String) {
        self.say(|| format!("VIOLATION: {what}"));
        self.violations.push(format!("at {:.6}: {what}", self.now as f64 / 1e6));
    }

    /// Has something happen in so many microseconds.
    pub fn later(&mut self, wait: u64, what: What) {
        self.sequence += 1;
        self.queue.insert((self.now + wait, self.sequence), what);
    }

    /// Lets time pass until `end`, or until something went wrong.
    pub fn run(&mut self, end: u64) {
        while self.violations.is_empty() {
            let event = self.queue.keys().next().copied();
            let host = self.hosts.iter().enumerate().map(|(h, host)| (host.due, h)).min();
            let next = event.map(|(at, _)| at).into_iter().chain(host.map(|(due, _)| due)).min().unwrap_or(u64::MAX);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if let Some((_, what)) = event.filter(|(at, _)| *at == next).and_then(|_| self.queue.pop_first()) {
                self.happen(what);
            } else if let Some((_, h)) = host {
                self.wake(h);
            }
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrive(frame) => self.arrive(frame),
            What::Task(h) => {
                let now = self.hosts[h].clock(self.now);
                let Host { kernel, stack, task, .. } = &mut self.hosts[h];
                *task = false;
                for (frame, again) in kernel.run_task(stack, now) {
                    if again { self.receive(h, frame) } else { self.transmit(h, frame) }
                }
                self.settle(h);
            }
            What::Act(act) => self.act(act),
            What::Resolved(h, name) => {
                let addresses = self.resolve(&name);
                self.say(|| format!("{}: {name} is {addresses:?}", self.name(h)));
                let now = self.now;
                self.hosts[h]
                    .with_daemon(now, |daemon, around| daemon.event(around, Event::Resolved { name, addresses }));
                self.settle(h);
            }
        }
    }

    fn resolve(&self, name: &str) -> Vec<IpAddr> {
        let named = |host: &&Host| host.kind.config.name == name && host.kind.mobconn;
        self.hosts.iter().find(named).map(Host::addresses).unwrap_or_default()
    }

    /// Whether a packet is on its way to an address: who gets the address gets that, too.
    pub(crate) fn is_under_way(&self, address: IpAddr) -> bool {
        self.queue.values().any(|what| matches!(what, What::Arrive(frame) if frame.destination() == Some(address)))
    }

    /// A host does what is due.
    fn wake(&mut self, h: usize) {
        let world = self.now;
        let host = &mut self.hosts[h];
        if host.asleep.is_some() {
            host.due = u64::MAX;
            return;
        }
        let now = host.clock(world);
        host.stack.poll(now);
        if host.sweep_due <= now && host.is_swept() {
            host.sweep_due = now + SECOND;
            let limits = host.kind.habits.limits;
            host.kernel.sweep(&host.stack, limits, now);
        }
        if host.daemon.as_ref().is_some_and(|daemon| daemon.due_at() <= now) {
            host.with_daemon(world, |daemon, around| daemon.due(around));
        }
        self.settle(h);
    }

    /// How a host is called in the trace.
    #[must_use]
    pub fn name(&self, h: usize) -> &str {
        self.hosts.get(h).map_or("?", |host| &host.kind.config.name)
    }

    pub(crate) fn arrive(&mut self, frame: Frame) {
        let Some(to) = frame.destination().filter(|_| frame.has_sound_header()) else {
            return self.say(|| format!("thrown away: {frame}"));
        };
        let Some(h) = self.hosts.iter().position(|host| host.asleep.is_none() && host.has(to)) else {
            return self.say(|| format!("nobody there: {frame}"));
        };
        self.tally.packets += 1;
        self.receive(h, frame);
        self.settle(h);
    }

    /// The IP layer of a host takes in a packet.
    fn receive(&mut self, h: usize, frame: Frame) {
        let now = self.hosts[h].clock(self.now);
        let (origin, sent) = (frame.origin, frame.sent);
        let shown = if self.trace { frame.to_string() } else { String::new() };
        let (mut frame, ours) = if self.hosts[h].kind.mobconn {
            match self.hosts[h].kernel.input(frame, now) {
                Fate::On { frame, ours } => (frame, ours),
                Fate::Ends(why) => return self.say(|| format!("{}: < {shown}: {why}", self.name(h))),
            }
        } else {
            (frame, false)
        };
        (frame.origin, frame.sent) = (origin, sent);
        self.say(|| {
            format!("{}: < {shown}{}", self.name(h), if ours { format!(" as {frame}") } else { String::new() })
        });
        let Some(to) = frame.destination() else { return };
        if !ours && !self.hosts[h].has(to) {
            return;
        }
        let Some(heads) = frame.heads() else { return };
        let flow = heads.flow.mirrored();
        if flow.protocol == Protocol::Udp && flow.local.port() == PORT {
            let Some(data) = frame.payload().map(<[u8]>::to_vec) else { return };
            self.hosts[h].with_daemon(self.now, |daemon, around| {
                daemon.datagram(around, flow.local.ip(), flow.remote, &data);
            });
            return;
        }
        let origin = if self.judge_delivery(h, &frame, &flow) { None } else { origin };
        let host = &mut self.hosts[h];
        host.stack.receive(now, frame);
        for mut answer in host.stack.outgoing() {
            let reset = answer.is_reset();
            let flow = answer.heads().map(|heads| heads.flow);
            answer.origin = flow.and_then(|flow| self.conn_of(h, &flow));
            if reset {
                self.judge_reset(h, origin, &answer);
            }
            self.send(h, answer);
        }
    }

    /// TCP, UDP or the daemon of a host sends a packet.
    fn send(&mut self, h: usize, frame: Frame) {
        let now = self.hosts[h].clock(self.now);
        let origin = frame.origin;
        if !self.hosts[h].kind.mobconn {
            return self.transmit(h, frame);
        }
        let shown = if self.trace { frame.to_string() } else { String::new() };
        match self.hosts[h].kernel.output(frame, now) {
            Fate::On { mut frame, ours } => {
                frame.origin = origin;
                if ours {
                    self.say(|| format!("{}: {shown} becomes", self.name(h)));
                }
                self.transmit(h, frame);
            }
            Fate::Ends(why) => self.say(|| format!("{}: > {shown}: {why}", self.name(h))),
        }
    }

    /// A packet leaves a host.
    fn transmit(&mut self, h: usize, mut frame: Frame) {
        let Some(source) = frame.source() else { return };
        if frame.origin.is_none() {
            // Released: what TCP sent is known by its stack side only.
            frame.origin = frame.heads().and_then(|heads| self.conn_of_wire(h, &heads.flow));
        }
        frame.sent = self.now;
        self.judge_transmission(h, &frame);
        self.watch_strangers(&frame);
        let Some(network) = self.hosts[h].leaves_by(source) else {
            return self.say(|| format!("{}: > {frame}: no network", self.name(h)));
        };
        match self.networks.carry(self.now, network, &frame) {
            Ok(arrivals) => {
                self.say(|| format!("{}: > {frame}", self.name(h)));
                for (delay, copy) in arrivals {
                    self.later(delay, What::Arrive(copy));
                }
            }
            Err(why) => self.say(|| format!("{}: > {frame}: {why}", self.name(h))),
        }
    }

    /// Lets everything of a host come to rest, and finds out when it has to do something again.
    pub fn settle(&mut self, h: usize) {
        if self.hosts[h].asleep.is_some() {
            self.hosts[h].due = u64::MAX;
            return;
        }
        let now = self.hosts[h].clock(self.now);
        for _ in 0..64 {
            let done = conn::run(&mut self.hosts[h], h, &mut self.conns, self.now, self.finale);
            for violation in done.violations {
                self.violation(violation);
            }
            for (flow, data, id) in &done.datagrams {
                let mut frame = Frame::udp(flow.local, flow.remote, data);
                frame.origin = Some(*id);
                self.send(h, frame);
            }
            if done.any {
                self.hosts[h].stack.poll(now);
            }
            let frames = self.hosts[h].stack.outgoing();
            let quiet = frames.is_empty();
            for mut frame in frames {
                frame.origin = frame.heads().and_then(|heads| self.conn_of(h, &heads.flow));
                if frame.is_reset() {
                    self.judge_reset(h, frame.origin, &frame);
                }
                self.send(h, frame);
            }
            let outcome = self.hosts[h].daemon.as_mut().map(|daemon| daemon.outcome()).unwrap_or_default();
            for transmit in &outcome.datagrams {
                let local = transmit.local.or_else(|| {
                    self.hosts[h].addresses().into_iter().rfind(|local| local.is_ipv4() == transmit.remote.is_ipv4())
                });
                // A socket cannot send from an address that the host does not have.
                if let Some(local) = local.filter(|local| self.hosts[h].has(*local)) {
                    self.send(h, Frame::udp(SocketAddr::new(local, PORT), transmit.remote, &transmit.data));
                }
            }
            for news in outcome.news {
                self.say(|| format!("{}: {news:?}", self.name(h)));
                if let News::FlowStays { flow, .. } = &news
                    && let Some(id) = self.conn_of(h, flow)
                {
                    self.excuse(id, "its own kernel refused to prepare its move");
                }
                self.tally.moves += u64::from(matches!(news, News::MoveCommitted { flows: 1.., .. }));
            }
            for name in outcome.queries {
                let wait = 1000 + self.hosts[h].random() % 300_000;
                self.later(wait, What::Resolved(h, name));
            }
            if quiet && !done.any && outcome.datagrams.is_empty() {
                break;
            }
        }
        if self.hosts[h].kernel.attend && !self.hosts[h].task {
            self.hosts[h].task = true;
            let wait = 5 + self.hosts[h].random() % 500;
            self.hosts[h].kernel.attend = false;
            self.later(wait, What::Task(h));
        }
        self.judge_table(h);
        self.set_due(h);
    }

    fn set_due(&mut self, h: usize) {
        let (world, finale) = (self.now, self.finale);
        let app = self
            .conns
            .iter()
            .filter(|conn| conn.excused.is_none() || !finale)
            .filter_map(|conn| conn.due(h, finale))
            .min();
        let host = &mut self.hosts[h];
        let now = host.clock(world);
        let sweep = host.is_swept().then_some(host.sweep_due);
        let daemon = host.daemon.as_ref().map(|daemon| daemon.due_at());
        let own = host.stack.poll_at(now).into_iter().chain(sweep).chain(daemon).min();
        let own = own.map(|at| at.saturating_sub(host.ahead));
        // What is due all the time is looked at every millisecond.
        let app = app.map(|at| if at <= world { world + 20_000 } else { at });
        host.due = own.into_iter().chain(app).min().unwrap_or(u64::MAX).max(world + 100);
    }

    /// The connection that has this stack side at a host.
    #[must_use]
    pub fn conn_of(&self, h: usize, flow: &Flow) -> Option<usize> {
        // A tuple may be used again: the newest counts.
        self.conns.iter().rev().find(|conn| conn.end_at(h, flow).is_some()).map(|conn| conn.id)
    }

    fn conn_of_wire(&self, h: usize, wire: &Flow) -> Option<usize> {
        self.conns
            .iter()
            .rev()
            .find(|conn| {
                conn.ends
                    .iter()
                    .any(|end| end.host == h && end.flow.is_some_and(|flow| self.hosts[h].wire(&flow) == *wire))
            })
            .map(|conn| conn.id)
    }

    /// Opens a connection.
    pub fn open(&mut self, (from, to): (usize, usize), flow: Flow, streams: [Stream; 2]) {
        if self.hosts[from].stack.live().contains_key(&flow) {
            return;
        }
        let index = self.hosts[from].stack.connect(flow);
        let caller = Conn::caller(from, self.hosts[from].boot, flow, index.filter(|_| flow.protocol == Protocol::Tcp));
        self.conns.push(Conn::new(self.conns.len(), &caller, to, streams));
        self.tally.conns += 1;
        let now = self.hosts[from].clock(self.now);
        self.hosts[from].stack.poll(now);
        self.settle(from);
    }

    /// No two bindings of a host accept one wire side.
    fn judge_table(&mut self, h: usize) {
        let kernel = &self.hosts[h].kernel;
        if kernel.control.len() < 2 {
            return;
        }
        let mut seen = BTreeMap::new();
        let (mut cursor, mut twice) = (0, None);
        while let Some(binding) = kernel.control.next(&kernel.engine, cursor) {
            cursor = binding.id;
            let second = |other| match other {
                Other::Pending { address, .. } | Other::Grace { address, .. } => Some(address),
                Other::None => None,
            };
            for local in [Some(binding.wire.local), second(binding.local.other)].into_iter().flatten() {
                for remote in [Some(binding.wire.remote), second(binding.remote.other)].into_iter().flatten() {
                    let side = mobconn_engine::Side { local, remote, ..binding.wire };
                    let counts = !(binding.lost && side == binding.wire);
                    if counts && seen.insert(flow_of(&side), binding.id).is_some_and(|other| other != binding.id) {
                        twice = Some(flow_of(&side));
                    }
                }
            }
        }
        if let Some(twice) = twice {
            self.violation(format!("{}: two bindings accept {twice:?}", self.name(h)));
        }
    }
}

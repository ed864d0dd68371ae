//! The protocol's view of this host: the kernel's table by way of the device, and the host's connections.

use crate::connections::{Connection, Phase};
use crate::device::{ChannelError, Device};
use crate::errno::Errno;
use crate::exit::Failure;
use crate::{system, tuple};
use mobconn_abi::{self as abi, Alternate, Egress, Record, TCP, Tuple};
use mobconn_dprp::{Flow, Half, Host, KernelError, Prefix, Prepared, Protocol};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where the connections come from; another source in tests.
pub(super) type Lister = Box<dyn FnMut() -> io::Result<Vec<Connection>>>;

/// The device, the connections and the bindings.
pub(super) struct KernelHost {
    path: PathBuf,
    device: Option<Device>,
    device_error: String,
    /// The kernel's table has its memory.
    ready: bool,
    list: Lister,
    connections: HashMap<Tuple, Known>,
    listed: Option<Instant>,
    /// A listing has worked.
    known: bool,
    /// What the last listing cost: it bounds how often one is made on demand.
    cost: Duration,
    bindings: Bindings,
    /// Flows from or to these ports are left alone, and so are those from or to these addresses.
    excluded: (Vec<u16>, Vec<Prefix>),
    /// TCP bindings without a connection, and since when.
    orphans: HashMap<Tuple, Instant>,
    /// By which network packets leave, as the kernel was told; `None` while nobody knows what it was told before.
    egress: Option<Egress>,
}

#[derive(Clone, Copy)]
struct Known {
    instance: u64,
    phase: Phase,
    /// The last listing did not have it. A listing that runs beside closing connections can skip a live one, so that a
    /// connection is gone when two in a row did not have it.
    missed: bool,
}

/// What is known of the kernel's table since it last changed.
#[derive(Default)]
struct Bindings {
    /// How many there are, once somebody asked.
    count: Option<u32>,
    /// Questions about single ones.
    asked: u32,
    /// The sides of all of them, if there were many questions.
    all: Option<Sides>,
}

/// Reading the whole table costs as much as asking for one in so many of its bindings.
const LISTING_SHARE: u32 = 4;
/// So many questions are cheap enough in any case.
const QUESTIONS: u32 = 16;

/// Where the answer to a question about one binding is.
enum Source<'a> {
    All(&'a Sides),
    Device(&'a mut Device),
    Nowhere,
}

/// The sides of all bindings, both ways.
struct Sides {
    /// Stack side to the wire side in use.
    wire: HashMap<Tuple, Tuple>,
    /// Every wire side that input accepts to the stack side.
    stack: HashMap<Tuple, Tuple>,
}

impl Sides {
    fn new(records: &[Record]) -> Self {
        let mut sides =
            Self { wire: HashMap::with_capacity(records.len()), stack: HashMap::with_capacity(records.len()) };
        for record in records {
            sides.wire.insert(record.stack, record.wire);
            let second = |half: &abi::HalfState| {
                Alternate::from_raw(half.alternate).filter(|other| *other != Alternate::None).map(|_| half.other)
            };
            for local in [Some(record.wire.local), second(&record.local)].into_iter().flatten() {
                for remote in [Some(record.wire.remote), second(&record.remote)].into_iter().flatten() {
                    sides.stack.insert(Tuple { local, remote, ..record.wire }, record.stack);
                }
            }
        }
        sides
    }
}

impl KernelHost {
    /// Opens the device, which must be there.
    pub(super) fn open(path: PathBuf) -> Result<Self, Failure> {
        let device = Device::open(&path)?;
        Ok(Self::over(path, device, Box::new(system::connections)))
    }

    fn over(path: PathBuf, device: Device, list: Lister) -> Self {
        Self {
            path,
            device: Some(device),
            device_error: String::new(),
            ready: false,
            list,
            connections: HashMap::new(),
            listed: None,
            known: false,
            cost: Duration::ZERO,
            bindings: Bindings::default(),
            excluded: (Vec::new(), Vec::new()),
            orphans: HashMap::new(),
            egress: None,
        }
    }

    /// Why the device does not work now, or nothing.
    pub(super) fn device_error(&self) -> &str {
        &self.device_error
    }

    /// Makes sure of the device, and opens it again when the module was loaded anew. Returns what it says of itself.
    pub(super) fn check_device(&mut self) -> Option<abi::Info> {
        if let Some(device) = &mut self.device {
            match device.info() {
                Ok(info) => return Some(info),
                Err(error) => self.lose_device(error.to_string()),
            }
        }
        match Device::open(&self.path) {
            Ok(mut device) => {
                let info = device.info().ok();
                log::warn!("{} works again", self.path.display());
                self.device_error.clear();
                self.device = Some(device);
                self.egress = None;
                self.bindings = Bindings::default();
                info
            }
            Err(failure) => {
                if self.device_error != failure.message {
                    log::error!("{}", failure.message);
                    self.device_error = failure.message;
                }
                None
            }
        }
    }

    fn lose_device(&mut self, why: String) {
        log::error!("{}: {why}", self.path.display());
        self.device = None;
        self.device_error = why;
        self.ready = false;
        self.bindings = Bindings::default();
    }

    /// There is a peer, so there will be moves: the kernel gets ready for them.
    pub(super) fn get_ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true)
            && let Some(device) = &mut self.device
            && let Err(error) = device.reserve()
        {
            log::warn!("the kernel cannot have memory for its table yet: {error}");
        }
    }

    /// Lists the connections anew. Returns whether that worked, now or before.
    pub(super) fn refresh(&mut self) -> bool {
        let began = Instant::now();
        match (self.list)() {
            Ok(list) => {
                self.merge(list);
                self.known = true;
            }
            Err(error) => log::error!("cannot list the connections: {error}"),
        }
        self.listed = Some(Instant::now());
        self.cost = began.elapsed();
        self.bindings = Bindings::default();
        self.known
    }

    fn merge(&mut self, list: Vec<Connection>) {
        let mut now: HashMap<Tuple, Known> = HashMap::with_capacity(list.len());
        for Connection { tuple, instance, phase } in list {
            let new = Known { instance, phase, missed: false };
            // TIME_WAIT and a new connection can share a tuple for a moment: the live one counts.
            let entry = now.entry(tuple).or_insert(new);
            if phase == Phase::Established {
                *entry = new;
            }
        }
        for (tuple, known) in self.connections.drain() {
            if !known.missed {
                now.entry(tuple).or_insert(Known { missed: true, ..known });
            }
        }
        self.connections = now;
    }

    /// Leaves flows from or to these ports and addresses alone, whoever claims them.
    pub(super) fn exclude(&mut self, ports: &[u16], addresses: &[Prefix]) {
        self.excluded = (ports.into(), addresses.into());
    }

    fn is_excluded(&self, flow: &Flow) -> bool {
        let (ports, addresses) = &self.excluded;
        [flow.local, flow.remote]
            .iter()
            .any(|end| ports.contains(&end.port()) || addresses.iter().any(|prefix| prefix.contains(end.ip())))
    }

    /// The established connections that can move, and how many there were with the excluded ones.
    pub(super) fn flows(&self) -> (Vec<(Flow, u64)>, usize) {
        let mut movable = 0;
        let mut flows = Vec::new();
        for (tuple, known) in &self.connections {
            let Some(flow) = flow(tuple).filter(can_move) else { continue };
            if known.phase == Phase::Established {
                movable += 1;
                if !self.is_excluded(&flow) {
                    flows.push((flow, known.instance));
                }
            }
        }
        flows.sort_unstable_by_key(|(flow, _)| *flow);
        (flows, movable)
    }

    /// What the kernel has prepared and not committed.
    pub(super) fn prepared(&mut self) -> Vec<Prepared> {
        let mut all = Vec::new();
        for record in self.records() {
            let Some(flow) = flow(&record.stack) else { continue };
            let halves =
                [(Half::Local, record.wire.local, record.local), (Half::Remote, record.wire.remote, record.remote)];
            for (half, old, state) in halves {
                let address = |bytes| tuple::from_bytes(bytes, record.wire.version);
                let hold = match Alternate::from_raw(state.alternate) {
                    Some(Alternate::Pending) => false,
                    Some(Alternate::PendingHold) => true,
                    _ => continue,
                };
                if let (Some(old), Some(new)) = (address(&old), address(&state.other)) {
                    all.push(Prepared { flow, half, old, new, generation: state.pending_generation, hold });
                }
            }
        }
        all
    }

    /// Tells the kernel by which network packets leave, if that is another than it was.
    pub(super) fn steer(&mut self, egress: Egress) {
        if self.egress == Some(egress) {
            return;
        }
        let Some(device) = &mut self.device else { return };
        if let Err(error) = device.set_egress(&egress) {
            log::error!("packets leave by the route to their destination only: {error}");
        }
        self.egress = Some(egress);
    }

    /// What the kernel was told last.
    pub(super) fn steered(&self) -> Egress {
        self.egress.unwrap_or_default()
    }

    /// The addresses of this host that connections with a binding know it by.
    pub(super) fn old_addresses(&mut self) -> BTreeSet<IpAddr> {
        let records = self.records();
        records.iter().filter_map(|record| tuple::from_bytes(&record.stack.local, record.stack.version)).collect()
    }

    fn records(&mut self) -> Vec<Record> {
        let Some(device) = &mut self.device else { return Vec::new() };
        let records = device.info().and_then(|info| if info.flows == 0 { Ok(Vec::new()) } else { device.flows() });
        records.unwrap_or_else(|error| {
            self.lose_device(error.to_string());
            Vec::new()
        })
    }

    /// Ends grace that is over, and removes bindings that nobody needs: idle UDP, and TCP without a connection for
    /// `grace` seconds.
    pub(super) fn expire(&mut self, grace: u32, udp_idle: u32) {
        if let Some(device) = &mut self.device {
            match device.expire(grace, udp_idle) {
                Ok((0, 0)) => {}
                Ok((ended, removed)) => log::debug!("{ended} former addresses given up, {removed} bindings removed"),
                Err(error) => return self.lose_device(error.to_string()),
            }
        }
        self.remove_orphans(Duration::from_secs(grace.into()), Instant::now());
    }

    fn remove_orphans(&mut self, patience: Duration, now: Instant) {
        let bound: Vec<Tuple> =
            self.records().iter().map(|record| record.stack).filter(|stack| stack.protocol == TCP).collect();
        let mut orphans = HashMap::new();
        for stack in bound {
            if self.connections.contains_key(&stack) {
                continue;
            }
            let since = self.orphans.get(&stack).copied().unwrap_or(now);
            if now.duration_since(since) < patience {
                orphans.insert(stack, since);
                continue;
            }
            if let Some(device) = &mut self.device {
                // Somebody else may have removed it meanwhile.
                let _ = device.delete_flow(stack);
                self.bindings = Bindings::default();
            }
        }
        self.orphans = orphans;
    }

    /// Where to look one binding up: a move of a few flows must not cost what the table holds, and a move of very many not
    /// a question for each.
    fn source(&mut self) -> Source<'_> {
        if self.bindings.all.is_none() {
            let count = match self.bindings.count {
                Some(count) => count,
                None => {
                    let count = self.device.as_mut().and_then(|device| device.info().ok()).map_or(0, |info| info.flows);
                    *self.bindings.count.insert(count)
                }
            };
            if count == 0 {
                return Source::Nowhere;
            }
            if self.bindings.asked < QUESTIONS + count / LISTING_SHARE {
                self.bindings.asked += 1;
                return self.device.as_mut().map_or(Source::Nowhere, Source::Device);
            }
            self.bindings.all = Some(Sides::new(&self.records()));
        }
        self.bindings.all.as_ref().map_or(Source::Nowhere, Source::All)
    }

    /// What the device said, if it still works.
    fn ask(&mut self, answer: Result<Option<Record>, ChannelError>) -> Option<Record> {
        answer.unwrap_or_else(|error| {
            self.lose_device(error.to_string());
            None
        })
    }

    fn batch(
        &mut self,
        moves: &[(Flow, u32)],
        command: impl FnOnce(&mut Device, &[(Tuple, u32)]) -> Vec<Result<(), Errno>>,
    ) -> Vec<Result<(), KernelError>> {
        self.bindings = Bindings::default();
        let Some(device) = &mut self.device else {
            return vec![Err(KernelError::Other(Errno::ENXIO.0)); moves.len()];
        };
        // A flow that has no tuple gets one that the kernel refuses, so that results stay in order.
        let moves: Vec<_> =
            moves.iter().map(|(flow, generation)| (side(flow).unwrap_or_default(), *generation)).collect();
        command(device, &moves).into_iter().map(|result| result.map_err(kernel_error)).collect()
    }
}

/// Listings on demand take at most a tenth of the time.
const SHARE: u32 = 10;

impl Host for KernelHost {
    fn instance(&mut self, flow: &Flow) -> Option<u64> {
        if self.is_excluded(flow) {
            return None;
        }
        let stack = side(flow)?;
        let established = |known: &&Known| known.phase == Phase::Established;
        if let Some(known) = self.connections.get(&stack).filter(established) {
            return Some(known.instance);
        }
        // It may have begun since the last listing.
        if self.listed.is_none_or(|listed| listed.elapsed() >= self.cost * SHARE) {
            self.refresh();
        }
        self.connections.get(&stack).filter(established).map(|known| known.instance)
    }

    fn wire(&mut self, stack: &Flow) -> Option<Flow> {
        let stack = side(stack)?;
        let answer = match self.source() {
            Source::All(sides) => return sides.wire.get(&stack).and_then(flow),
            Source::Device(device) => device.flow(stack),
            Source::Nowhere => return None,
        };
        self.ask(answer).and_then(|record| flow(&record.wire))
    }

    fn stack(&mut self, wire: &Flow) -> Option<Flow> {
        let wire = side(wire)?;
        let answer = match self.source() {
            Source::All(sides) => return sides.stack.get(&wire).and_then(flow),
            Source::Device(device) => device.flow_of_wire(wire),
            Source::Nowhere => return None,
        };
        self.ask(answer).and_then(|record| flow(&record.stack))
    }

    fn prepare(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.batch(moves, |device, moves| device.prepare(device_half(half), new, hold, moves))
    }

    fn take(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        log::info!("{} flows take the wire sides of others at {new}, where their owner has proved to be", moves.len());
        self.batch(moves, |device, moves| device.take(device_half(half), new, hold, moves))
    }

    fn commit(&mut self, half: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.batch(moves, |device, moves| device.commit(device_half(half), moves))
    }

    fn abort(&mut self, half: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        self.batch(moves, |device, moves| device.abort(device_half(half), moves))
    }
}

const fn device_half(half: Half) -> abi::Half {
    match half {
        Half::Local => abi::Half::Local,
        Half::Remote => abi::Half::Remote,
    }
}

const fn kernel_error(errno: Errno) -> KernelError {
    match errno {
        Errno::ENOENT => KernelError::NotFound,
        Errno::ESTALE => KernelError::Stale,
        Errno::EADDRINUSE => KernelError::Conflict,
        Errno::ENOSPC | Errno::ENOMEM => KernelError::Full,
        Errno(other) => KernelError::Other(other),
    }
}

fn side(flow: &Flow) -> Option<Tuple> {
    let protocol = match flow.protocol {
        Protocol::Tcp => abi::TCP,
        Protocol::Udp => abi::UDP,
    };
    tuple::side(protocol, flow.local, flow.remote).ok()
}

fn flow(side: &Tuple) -> Option<Flow> {
    let protocol = match side.protocol {
        abi::TCP => Protocol::Tcp,
        abi::UDP => Protocol::Udp,
        _ => return None,
    };
    let (local, remote) = tuple::ends(side)?;
    Some(Flow { local, remote, protocol })
}

/// Loopback and link-local flows stay, and so do flows to groups.
fn can_move(flow: &Flow) -> bool {
    [flow.local.ip(), flow.remote.ip()].iter().all(|address| {
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        !(link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
    })
}

#[cfg(test)]
#[path = "../../tests/common/mod.rs"]
mod common;

#[cfg(test)]
mod tests;

//! The daemon: one thread, one loop around the protocol.
//!
//! Datagrams, signals, requests on the control socket and the clock go in; all
//! that the protocol wants done comes out. Nothing in the loop blocks, except
//! for the device and the list of connections, which answer at once.

mod aliases;
mod chronicle;
mod clock;
mod finder;
mod host;
mod logger;
mod memory;
mod moves;
mod names;
mod networks;
pub mod pidfile;
mod roam;
mod server;
mod udp;

use crate::control::{Peer, Request, Response, Status};
use crate::exit::{Exit, Failure};
use crate::settings::Settings;
use chronicle::{Chronicle, printable};
use clock::{Clock, poll_millis};
use finder::Finder;
use host::KernelHost;
use memory::Memory;
use mobconn_dprp::{Config, Endpoint, Event, Instant, News, Prefix, PublicKey, RestoreError};
use moves::Watch;
use names::Names;
use networks::Networks;
use nix::net::if_::InterfaceFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pidfile::Pidfile;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use server::Server;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use udp::Sockets;
use zeroize::Zeroizing;

/// How the daemon is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stay in the foreground and log to standard error.
    pub foreground: bool,
    /// The configuration file.
    pub config: PathBuf,
    /// The control device.
    pub device: PathBuf,
    /// The control socket.
    pub control: PathBuf,
    /// The pidfile.
    pub pidfile: PathBuf,
}

impl Options {
    /// The same with paths that stay right when the daemon goes to the root folder.
    fn absolute(self) -> Result<Self, Failure> {
        let absolute = |path: PathBuf| {
            std::path::absolute(&path)
                .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())))
        };
        Ok(Self {
            foreground: self.foreground,
            config: absolute(self.config)?,
            device: absolute(self.device)?,
            control: absolute(self.control)?,
            pidfile: absolute(self.pidfile)?,
        })
    }
}

/// How often the connections are listed.
const LISTING: Duration = Duration::from_secs(1);
/// How long after a move, besides.
const SOON: Duration = Duration::from_millis(10);
/// How often the table is tidied up.
const TIDYING: Duration = Duration::from_secs(10);
/// Datagrams that are taken from a socket before others have their turn.
const BURST: usize = 64;

/// Runs the daemon until it is told to stop. Without `foreground` this returns in a child of the calling process, whose
/// own end says that the daemon is ready.
///
/// # Errors
/// A [`Failure`] that says what to do, when the daemon cannot begin.
pub fn run(options: Options) -> Result<(), Failure> {
    let options = options.absolute()?;
    // Before there are keys in memory.
    let apart = crate::system::keep_apart();
    let settings = Settings::read(&options.config)?;
    logger::begin(options.foreground, settings.config.log_level);
    if let Err(error) = apart {
        log::warn!("who may trace this process can read its keys: {error}");
    }
    let mut pidfile = Pidfile::open(&options.pidfile)?;
    let signals = Signals::catch()?;
    let mut daemon = Daemon::new(&options, settings)?;
    if !options.foreground {
        nix::unistd::daemon(false, false)
            .map_err(|errno| Failure::new(Exit::System, format!("cannot become a daemon: {errno}")))?;
    }
    pidfile.write().map_err(|error| Failure::new(Exit::Io, format!("{}: {error}", options.pidfile.display())))?;
    log::info!(
        "mobctl {} begins: {} over {}, key {}",
        env!("CARGO_PKG_VERSION"),
        if daemon.settings.config.mobile { "mobile host" } else { "correspondent" },
        crate::system::NAME,
        daemon.settings.protocol.host_key.public()
    );
    daemon.run(&signals)
}

/// Signals as readable streams.
struct Signals {
    stop: UnixStream,
    reload: UnixStream,
    tell: UnixStream,
}

impl Signals {
    fn catch() -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| Failure::new(Exit::System, format!("cannot catch signals: {error}"));
        let catch = |signals: &[i32]| -> std::io::Result<UnixStream> {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            for signal in signals {
                signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
            }
            Ok(reader)
        };
        Ok(Self {
            stop: catch(&[SIGTERM, SIGINT]).map_err(cannot)?,
            reload: catch(&[SIGHUP]).map_err(cannot)?,
            tell: catch(&[crate::system::SIGINFO]).map_err(cannot)?,
        })
    }
}

/// Empties a signal's stream and says whether there was anything.
fn caught(mut stream: &UnixStream) -> bool {
    let mut any = false;
    while stream.read(&mut [0; 16]).is_ok_and(|length| length > 0) {
        any = true;
    }
    any
}

struct Daemon {
    config_path: PathBuf,
    settings: Settings,
    clock: Clock,
    endpoint: Endpoint,
    host: KernelHost,
    sockets: Sockets,
    server: Server,
    chronicle: Chronicle,
    watches: Vec<Watch>,
    names: Names,
    memory: Memory,
    finder: Finder,
    /// Where associations are started to now.
    targets: Vec<Prefix>,
    networks: Networks,
    eligible: usize,
    movable: usize,
    listing_due: Instant,
    tidying_due: Instant,
    stopping: bool,
}

impl Daemon {
    fn new(options: &Options, settings: Settings) -> Result<Self, Failure> {
        let mut host = KernelHost::open(options.device.clone())?;
        host.exclude(&settings.config.exclude_ports, &settings.config.exclude);
        let sockets = Sockets::open(&settings.config.listen, settings.config.port)?;
        let server = Server::open(&options.control)?;
        let networks = Networks::open(&settings.config);
        let clock = Clock::new();
        let memory = Memory::new(settings.config.claims.clone());
        let (config, rng) = protocol(&settings, &mut host)?;
        let endpoint = memory.recall(config, rng, clock.now()).map_err(cannot_begin)?;
        let mut finder = Finder::default();
        finder.follow(&settings.config.peer_names);
        // One listing alone may miss a connection, and a claim that is remembered would end.
        host.refresh();
        let mut daemon = Self {
            config_path: options.config.clone(),
            targets: settings.config.peers.clone(),
            settings,
            endpoint,
            host,
            sockets,
            server,
            chronicle: Chronicle::default(),
            watches: Vec::new(),
            names: Names::default(),
            memory,
            finder,
            networks,
            eligible: 0,
            movable: 0,
            listing_due: clock.now(),
            tidying_due: clock.now(),
            clock,
            stopping: false,
        };
        daemon.resume();
        Ok(daemon)
    }

    /// Takes up what a daemon before this one began: the kernel remembers it.
    fn resume(&mut self) {
        let moves = self.host.prepared();
        self.list_connections();
        if let (false, Ok(addresses)) = (moves.is_empty(), up_addresses()) {
            log::info!("the kernel has {} rebinds prepared that an earlier daemon began", moves.len());
            self.endpoint.handle_event(self.clock.now(), Event::Prepared { moves, addresses }, &mut self.host);
        }
        self.flush(false);
    }

    fn run(&mut self, signals: &Signals) -> Result<(), Failure> {
        self.names.follow(self.settings.ddns.clone());
        self.finder.begin();
        self.look_at_networks();
        while !self.stopping {
            let ready = self.wait(signals)?;
            if caught(&signals.stop) {
                log::info!("stopped by a signal; bindings stay in the kernel");
                break;
            }
            if caught(&signals.reload)
                && let Err(failure) = self.reload()
            {
                log::error!("still with the configuration from before: {failure}");
            }
            if caught(&signals.tell) {
                log::info!("{}", crate::show::status_line(&self.status()));
            }
            if ready.networks && self.networks.changed() {
                self.look_at_networks();
            }
            self.receive(&ready.sockets);
            for (client, request) in self.server.serve(&ready.control) {
                self.serve(client, request);
            }
            if ready.names {
                self.found();
            }
            self.due();
            self.flush(false);
            self.answer_watches();
            self.memory.look(self.clock.now(), &self.endpoint);
        }
        self.memory.conclude(&self.endpoint);
        self.server.drain();
        // Callers should find nobody rather than a stranger.
        self.names.stop();
        Ok(())
    }

    /// Waits for the next thing to do.
    fn wait(&self, signals: &Signals) -> Result<Ready, Failure> {
        let now = self.clock.now();
        let deadlines = [self.listing_due, self.tidying_due].into_iter();
        let deadlines =
            deadlines.chain(self.endpoint.poll_timeout()).chain(self.watches.iter().map(|watch| watch.deadline));
        let deadlines = deadlines.chain(self.memory.deadline(now));
        let deadlines = deadlines.chain(self.networks.deadline());
        let timeout = deadlines.map(|deadline| poll_millis(now, deadline)).min().unwrap_or(u16::MAX);

        let mut fds: Vec<PollFd<'_>> = [&signals.stop, &signals.reload, &signals.tell]
            .map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN))
            .into();
        let first_socket = fds.len();
        fds.extend(self.sockets.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let first_name = fds.len();
        fds.extend(self.finder.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let first_network = fds.len();
        fds.extend(self.networks.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let first_control = fds.len();
        fds.extend(self.server.fds().map(|(fd, flags)| PollFd::new(fd, flags)));
        match poll(&mut fds, PollTimeout::from(timeout)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Failure::new(Exit::System, format!("poll: {errno}"))),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let part = |range: std::ops::Range<usize>| ready.get(range).unwrap_or_default().to_vec();
        Ok(Ready {
            sockets: part(first_socket..first_name),
            names: part(first_name..first_network).contains(&true),
            networks: part(first_network..first_control).contains(&true),
            control: part(first_control..ready.len()),
        })
    }

    fn receive(&mut self, ready: &[bool]) {
        for (index, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            for _ in 0..BURST {
                match self.sockets.receive(index) {
                    Ok(None) => break,
                    Ok(Some(datagram)) => {
                        let now = self.clock.now();
                        self.endpoint.handle_datagram(
                            now,
                            datagram.local,
                            datagram.remote,
                            &datagram.data,
                            &mut self.host,
                        );
                        // An answer leaves before the next datagram is read: it may be a commit. And before what is due
                        // now: it may prove that this host has moved.
                        self.flush(false);
                        self.elapse();
                    }
                    Err(error) => {
                        log::debug!("receiving failed: {error}");
                        break;
                    }
                }
            }
        }
    }

    /// Names of peers were answered.
    fn found(&mut self) {
        for event in self.finder.news() {
            self.endpoint.handle_event(self.clock.now(), event, &mut self.host);
        }
        self.aim();
    }

    /// Associations are started to what is configured, names included.
    fn aim(&mut self) {
        let targets = self.finder.targets(&self.settings.config.peers);
        if targets != self.targets {
            self.targets.clone_from(&targets);
            self.endpoint.aim(targets);
            self.list_connections();
        }
    }

    /// Does what the clock asks for.
    fn due(&mut self) {
        let now = self.clock.now();
        if self.listing_due <= now {
            self.listing_due = now.after(LISTING);
            self.names.look();
            self.aim();
            if self.settings.config.mobile || self.endpoint.peers().next().is_some() {
                self.list_connections();
                self.flush(false);
                self.look_after_watches();
            }
        }
        if self.tidying_due <= now {
            self.tidying_due = now.after(TIDYING);
            if self.host.check_device().is_some_and(|info| info.flows > 0) {
                self.host.refresh();
                self.host.expire(self.settings.config.grace, self.settings.config.udp_idle);
            }
            self.steer();
            self.keep_old_addresses();
        }
        if self.networks.must_look(now) {
            self.look_at_networks();
        }
        let decisions = self.networks.due(self.clock.now());
        self.carry_out(decisions);
        self.elapse();
    }

    /// Does what the protocol wants done by now.
    fn elapse(&mut self) {
        let now = self.clock.now();
        if self.endpoint.poll_timeout().is_some_and(|due| due <= now) {
            self.endpoint.handle_timeout(now, &mut self.host);
        }
    }

    /// Flows that began a moment before a move follow as soon as they are claimed. Listing very many connections takes a
    /// while, and the peer's answer need not wait for it.
    fn list_soon(&mut self) {
        self.listing_due = self.listing_due.min(self.clock.now().after(SOON));
    }

    fn list_connections(&mut self) {
        if !self.host.refresh() {
            // Nothing is known: that does not mean that there is nothing.
            return;
        }
        let (flows, movable) = self.host.flows();
        let targets = &self.targets;
        self.eligible =
            flows.iter().filter(|(flow, _)| targets.iter().any(|prefix| prefix.contains(flow.remote.ip()))).count();
        self.movable = movable;
        self.endpoint.handle_event(self.clock.now(), Event::Flows(flows), &mut self.host);
    }

    /// Sends and tells what the protocol has to send and to tell. `beginning`: of the newest watch's move.
    fn flush(&mut self, beginning: bool) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            if let Err(error) = self.sockets.send(transmit.local, transmit.remote, &transmit.data) {
                // Lost as on any network: the protocol asks again.
                log::debug!("sending to {} failed: {error}", transmit.remote);
            }
        }
        while let Some(name) = self.endpoint.poll_query() {
            self.finder.seek(name);
        }
        let mut replaced = false;
        while let Some(notice) = self.endpoint.poll_notice() {
            self.chronicle.record(&notice);
            self.server.tell(|| chronicle::news(&notice.news));
            replaced |= matches!(notice.news, News::MoveStarted { .. });
            if matches!(notice.news, News::AssociationUp { .. }) {
                self.host.get_ready();
            }
            let newest = self.watches.len().saturating_sub(1);
            for (index, watch) in self.watches.iter_mut().enumerate() {
                watch.learn(&notice.news, beginning && index == newest);
            }
        }
        if replaced {
            self.look_after_watches();
        }
    }

    /// Finds out which moves that somebody waits for are given up.
    fn look_after_watches(&mut self) {
        if self.watches.is_empty() {
            return;
        }
        let live: HashSet<(PublicKey, u32)> = self
            .endpoint
            .peers()
            .flat_map(|peer| peer.moves.into_iter().map(move |one| (peer.key, one.number)))
            .collect();
        for watch in &mut self.watches {
            watch.keep(|peer, number| live.contains(&(*peer, number)));
        }
    }

    fn serve(&mut self, client: u64, request: Request) {
        let response = match request {
            Request::Status => Response::Status(self.status()),
            Request::Peers => Response::Peers { peers: self.peers() },
            Request::Move { old, new, timeout_ms } => match self.begin_move(client, old, new, timeout_ms) {
                Ok(()) => return,
                Err(failure) => Response::failure(failure),
            },
            Request::Watch => return self.server.watch(client),
            Request::Networks => self.report_networks(),
            Request::Poke { interface, routers } => self.poke(interface.as_deref(), &routers),
            Request::Prefer { interfaces } => self.prefer(interfaces),
            Request::Reload => self.reload().map_or_else(Response::failure, |()| Response::Done),
            Request::Stop => {
                log::info!("stopped by mobctl; bindings stay in the kernel");
                self.stopping = true;
                Response::Done
            }
        };
        self.server.answer(client, &response);
    }

    fn begin_move(&mut self, client: u64, old: IpAddr, new: IpAddr, timeout_ms: u64) -> Result<(), Failure> {
        if !self.settings.config.mobile {
            return Err(Failure::new(Exit::Config, "this host is not mobile: it claims no flows that could move")
                .advise(format!(
                    "Set mobile = true and peers in {}, then: service mobconn reload",
                    self.config_path.display()
                )));
        }
        if old == new || old.is_ipv4() != new.is_ipv4() {
            return Err(Failure::new(
                Exit::Data,
                format!("a move goes to another address of the same IP version, not from {old} to {new}"),
            ));
        }
        let addresses = addresses()?;
        let has = |address: IpAddr, wanted: InterfaceFlags| {
            addresses.iter().any(|(each, flags)| *each == address && flags.contains(wanted))
        };
        if !has(new, InterfaceFlags::IFF_UP) {
            return Err(Failure::new(Exit::Data, format!("{new} is no address of this host"))
                .advise("Configure it on an interface first (ifconfig), with a route to the peers"));
        }
        // Before anything else: callers are led to the new address, and to nobody's if the old one is another's by now.
        self.names.moved(old, new);
        // An interface that is not running has lost its link.
        let old_usable = has(old, InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
        self.networks.policy.moved_by_hand(old, new);
        self.steer();
        let now = self.clock.now();
        self.watches.push(Watch::new(client, now.after(Duration::from_millis(timeout_ms)), old, new, old_usable));
        self.endpoint.handle_event(now, Event::Move { old, new, old_usable }, &mut self.host);
        self.flush(true);
        self.list_soon();
        Ok(())
    }

    fn answer_watches(&mut self) {
        let now = self.clock.now();
        let over = |watch: &Watch| watch.is_over() || watch.deadline <= now;
        if !self.watches.iter().any(over) {
            self.watches.retain(|watch| self.server.has(watch.client));
            return;
        }
        let names: HashMap<PublicKey, String> =
            self.endpoint.peers().map(|peer| (peer.key, printable(&peer.name))).collect();
        for watch in self.watches.extract_if(.., |watch| over(watch)) {
            let report = watch.report(|key| names.get(key).cloned().unwrap_or_default());
            self.server.answer(watch.client, &Response::Move(report));
        }
    }

    fn reload(&mut self) -> Result<(), Failure> {
        let new = Settings::read(&self.config_path)?;
        let anew = !self.settings.same_protocol(&new);
        if anew {
            // Associations are made anew; claims stay, and the bindings are the kernel's.
            let (config, rng) = protocol(&new, &mut self.host)?;
            let endpoint = self.memory.convert(&self.endpoint, config, rng, self.clock.now()).map_err(cannot_begin)?;
            self.listen(&new)?;
            self.endpoint = endpoint;
            self.memory.forget_revision();
            self.targets.clone_from(&new.config.peers);
        }
        self.memory.go_to(&new.config.claims);
        self.finder.follow(&new.config.peer_names);
        self.host.exclude(&new.config.exclude_ports, &new.config.exclude);
        log::set_max_level(new.config.log_level);
        self.settings = new;
        self.names.follow(self.settings.ddns.clone());
        self.aim();
        let decisions = self.networks.follow(self.clock.now(), &self.settings.config);
        self.carry_out(decisions);
        self.look_at_networks();
        log::info!("read {} again", self.config_path.display());
        if anew {
            self.resume();
        }
        Ok(())
    }

    /// Listens where `new` says, or where it did before when that cannot be.
    fn listen(&mut self, new: &Settings) -> Result<(), Failure> {
        let place = |settings: &Settings| (settings.config.listen.clone(), settings.config.port);
        let (old_place, new_place) = (place(&self.settings), place(new));
        if old_place == new_place {
            return Ok(());
        }
        // The old sockets may be in the way of the new ones.
        self.sockets = Sockets::none();
        let (sockets, result) = match Sockets::open(&new_place.0, new_place.1) {
            Ok(sockets) => (sockets, Ok(())),
            Err(failure) => (Sockets::open(&old_place.0, old_place.1)?, Err(failure)),
        };
        self.sockets = sockets;
        result
    }

    fn peers(&self) -> Vec<Peer> {
        let now = self.clock.now();
        let peer = |view: mobconn_dprp::PeerView| Peer {
            key: view.key.to_string(),
            name: printable(&view.name),
            address: view.address,
            local: view.local,
            round_trip_ms: view.round_trip.map(|time| time.as_secs_f64() * 1e3),
            confirmed: view.confirmed,
            unconfirmed: view.unconfirmed,
            claims: view.claims,
            moving: view.moves.len(),
            pending: view.pending,
            established: now.since(view.established).as_secs(),
            heard: now.since(view.heard).as_secs(),
        };
        self.endpoint.peers().map(peer).collect()
    }

    fn status(&self) -> Status {
        let now = self.clock.now();
        let (mut peers, mut confirmed, mut moving) = (0, 0, 0);
        for peer in self.endpoint.peers() {
            peers += 1;
            confirmed += peer.confirmed;
            moving += peer.moves.len();
        }
        let counters = self.endpoint.counters();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime: now.since(Instant::from_micros(0)).as_secs(),
            mobile: self.settings.config.mobile,
            key: self.settings.protocol.host_key.public().to_string(),
            listen: self.sockets.addresses(),
            config: self.config_path.display().to_string(),
            device_error: self.host.device_error().into(),
            connections: self.movable,
            eligible: self.eligible,
            confirmed,
            peers,
            moving,
            trouble: self.chronicle.troubles(now),
            moves: self.chronicle.moves(now),
            ddns: self.names.report().map(Box::new),
            datagrams: [
                ("received", counters.received),
                ("sent", counters.sent),
                ("malformed", counters.malformed),
                ("unknown_index", counters.unknown_index),
                ("forged", counters.forged),
                ("replayed", counters.replayed),
                ("nonsense", counters.nonsense),
                ("unwelcome", counters.unwelcome),
                ("limited", counters.limited),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        }
    }
}

/// What poll(2) reported, in the order of the descriptors.
struct Ready {
    sockets: Vec<bool>,
    names: bool,
    networks: bool,
    control: Vec<bool>,
}

/// What the protocol begins with: its configuration, and a generator of random numbers that the system has seeded.
fn protocol(settings: &Settings, host: &mut KernelHost) -> Result<(Config, ChaCha20Rng), Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice())
        .map_err(|error| Failure::new(Exit::System, format!("no random numbers from the system: {error}")))?;
    let mut config = settings.protocol.clone();
    config.generation = host.check_device().map_or(0, |info| info.local_generation);
    Ok((config, ChaCha20Rng::from_seed(*seed)))
}

fn cannot_begin(error: RestoreError) -> Failure {
    Failure::new(Exit::Config, error.to_string())
}

/// The addresses of all interfaces that are up.
///
/// # Errors
/// A [`Failure`] when they cannot be listed.
pub fn up_addresses() -> Result<Vec<IpAddr>, Failure> {
    let up = |(address, flags): (IpAddr, InterfaceFlags)| flags.contains(InterfaceFlags::IFF_UP).then_some(address);
    Ok(addresses()?.into_iter().filter_map(up).collect())
}

/// The addresses of all interfaces, with the flags of these.
fn addresses() -> Result<Vec<(IpAddr, InterfaceFlags)>, Failure> {
    let interfaces = nix::ifaddrs::getifaddrs()
        .map_err(|errno| Failure::new(Exit::System, format!("cannot list the addresses of this host: {errno}")))?;
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
        Some((ip, interface.flags))
    };
    Ok(interfaces.filter_map(address).collect())
}

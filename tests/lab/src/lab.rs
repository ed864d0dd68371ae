//! A scenario's surroundings: the world, the machine with the module, the
//! daemons, and the bill at the end.

use crate::cable::Lane;
use crate::check;
use crate::daemon::{Daemon, Role};
use crate::device;
use crate::error::{Doing, Error, Result};
use crate::host::Host;
use crate::kernel::{Kernel, Without};
use crate::module::{Module, Offload};
use crate::names::NameServer;
use crate::program;
use crate::watch::Resumption;
use crate::world::{Lanes, MOBILE_NODE, World};
use mobconn_abi::{self as abi, Counter};
use mobconn_kpi::{Errno, Machine, Options, Split, Vnet};
use nix::sys::signal::Signal;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use zerocopy::IntoBytes;

/// Where the built files are, and where logs go.
#[derive(Clone, Debug)]
pub struct Places {
    /// Directory with `mobconn.ko` and `host/mobctl`.
    pub build: PathBuf,
    /// Directory for the logs of this scenario.
    pub logs: PathBuf,
}

impl Places {
    /// The places of the scenario `name`; its old logs are removed.
    ///
    /// # Errors
    /// When the directory cannot be made anew.
    pub fn new(build: &Path, name: &str) -> Result<Self> {
        let logs = build.join("lab").join(name);
        if logs.exists() {
            fs::remove_dir_all(&logs).doing(format_args!("removing {}", logs.display()))?;
        }
        fs::create_dir_all(&logs).doing(format_args!("making {}", logs.display()))?;
        let absolute = |path: &Path| fs::canonicalize(path).doing(format_args!("finding {}", path.display()));
        Ok(Self { build: absolute(build)?, logs: absolute(&logs)? })
    }

    fn module(&self) -> PathBuf {
        self.build.join("mobconn.ko")
    }

    /// The program mobctl for this system.
    #[must_use]
    pub fn mobctl(&self) -> PathBuf {
        self.build.join("host/mobctl")
    }
}

/// What the surroundings are like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Whether the hosts have mobconn.
    pub mobconn: bool,
    /// What the interfaces do about checksums.
    pub offload: Offload,
    /// How the machine lays out packets.
    pub split: Split,
    /// The cables wlan, cell, home.
    pub lanes: Lanes,
    /// Seed of losses, layouts and the like.
    pub seed: u64,
}

impl Shape {
    /// Every cable like this, in both directions; packets in arbitrary layouts
    /// and checksum states.
    #[must_use]
    pub fn uniform(lane: Lane) -> Self {
        Self { mobconn: true, offload: Offload::Mixed, split: Split::Arbitrary, lanes: [(lane, lane); 3], seed: 1 }
    }

    /// The same without mobconn.
    #[must_use]
    pub fn without(mut self) -> Self {
        self.mobconn = false;
        self
    }
}

/// The emulated FreeBSD machine with the module; each host is a VNET.
struct Stage {
    machine: Machine,
    vnets: [Vnet; 2],
    modules: [Arc<Module>; 2],
}

/// A scenario's surroundings.
pub struct Lab {
    /// Hosts, cables and router.
    pub world: World,
    /// Where things are.
    pub places: Places,
    daemons: Vec<Daemon>,
    pub(crate) names: Option<NameServer>,
    /// More lines for the configuration of the mobile host's daemon.
    pub mobile_config: String,
    /// A move of the mobile host took the place of one that was prepared.
    pub replaced: bool,
    stage: Option<Stage>,
    /// The peer may move too.
    both_move: bool,
    /// Daemons were restarted: they begin again what was under way.
    restarted: bool,
    logged: bool,
    files: TempDir,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.daemons.clear();
        if !self.logged
            && let Err(e) = self.write_log()
        {
            eprintln!("no log: {e}");
        }
        // A scenario that failed: its own words matter, not what the machine would say about the remains.
        std::mem::forget(self.stage.take());
    }
}

impl Lab {
    /// Makes the surroundings. With mobconn, each host has its device.
    ///
    /// # Errors
    /// When something is missing, or the system or the module refuses.
    pub fn new(places: &Places, shape: &Shape) -> Result<Self> {
        let files = tempfile::Builder::new().prefix("mobconn-lab.").tempdir().doing("making a directory")?;
        let stage = if shape.mobconn { Some(Stage::new(places, shape)?) } else { None };
        let kernel = |host: usize| -> Arc<dyn Kernel> {
            match &stage {
                Some(stage) => Arc::clone(&stage.modules[host]) as Arc<dyn Kernel>,
                None => Arc::new(Without),
            }
        };
        let world = World::new(kernel(0), kernel(1), shape.lanes, shape.seed, files.path())?;
        let lab = Self {
            world,
            places: places.clone(),
            daemons: Vec::new(),
            names: None,
            mobile_config: "automatic = false\n".to_owned(),
            replaced: false,
            stage,
            both_move: false,
            restarted: false,
            logged: false,
            files,
        };
        if shape.mobconn {
            for host in [&lab.world.mobile, &lab.world.peer] {
                device::serve(&lab.device(host), Arc::clone(&host.kernel))?;
            }
        }
        Ok(lab)
    }

    /// The socket that stands for the host's `/dev/mobconn`.
    #[must_use]
    pub fn device(&self, host: &Host) -> PathBuf {
        self.files.path().join(format!("{}.device", host.namespace.name()))
    }

    /// Whether the hosts have mobconn.
    #[must_use]
    pub fn has_mobconn(&self) -> bool {
        self.stage.is_some()
    }

    /// The address that the mobile host has, or would have, on an interface, of
    /// the family of `like`.
    #[must_use]
    pub fn mobile_address(&self, interface: usize, like: IpAddr) -> IpAddr {
        let [v4, v6] = self.world.mobile.interfaces[interface].network.addresses(MOBILE_NODE);
        if like.is_ipv4() { v4 } else { v6 }
    }

    /// A directory that is removed at the end.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// Starts the daemons of both hosts; the mobile one moves to peers in the
    /// peer's network.
    ///
    /// # Errors
    /// When one does not begin.
    pub fn start_daemons(&mut self, groups: [u64; 2]) -> Result<()> {
        self.start_roles([Role::Mobile, Role::Correspondent], groups)
    }

    /// Starts the daemons of both hosts in these roles.
    ///
    /// # Errors
    /// When one does not begin.
    pub fn start_roles(&mut self, roles: [Role; 2], groups: [u64; 2]) -> Result<()> {
        self.both_move = roles == [Role::Mobile; 2];
        for (number, (role, group)) in roles.into_iter().zip(groups).enumerate() {
            let host = if number == 0 { &self.world.mobile } else { &self.world.peer };
            let daemon = Daemon::start(self, host, role, group)?;
            self.daemons.push(daemon);
        }
        Ok(())
    }

    /// The daemon of the host with this number.
    ///
    /// # Errors
    /// [`Error::Check`] when it was not started.
    pub fn daemon(&self, number: usize) -> Result<&Daemon> {
        self.daemons.get(number).ok_or_else(|| Error::Check("no daemon was started".to_owned()))
    }

    /// Ends the daemon of a host by this signal.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end_daemon(&mut self, number: usize, signal: Signal) -> Result<()> {
        self.daemons.get_mut(number).map_or(Ok(()), |daemon| daemon.end(signal))
    }

    /// Starts the daemon of a host again.
    ///
    /// # Errors
    /// When it does not begin.
    pub fn restart_daemon(&mut self, number: usize) -> Result<()> {
        self.restarted = true;
        let host = if number == 0 { &self.world.mobile } else { &self.world.peer };
        self.daemons.get_mut(number).map_or(Ok(()), |daemon| daemon.go(host))
    }

    /// The mobile host's daemon.
    ///
    /// # Errors
    /// [`Error::Check`] when it was not started.
    pub fn mover(&self) -> Result<&Daemon> {
        self.daemon(0)
    }

    /// The command line of the host's mobctl with these arguments.
    #[must_use]
    pub fn mobctl_words(&self, host: &Host, arguments: &[&str]) -> Vec<String> {
        let control = self.files.path().join(format!("{}.sock", host.namespace.name()));
        let [program, device, control] =
            [self.places.mobctl(), self.device(host), control].map(|path| path.to_string_lossy().into_owned());
        let mut words = vec![program, "--device".to_owned(), device, "--control".to_owned(), control];
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words
    }

    /// Runs the host's mobctl with these arguments, and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn mobctl(&self, host: &Host, arguments: &[&str]) -> Result<String> {
        program::run(&host.namespace, &self.mobctl_words(host, arguments), "")
    }

    /// Leaves the network of interface `from` and configures `to`, whose cable
    /// stays out. Returns the old and the new address of the family of `like`.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn change_interface(&self, from: usize, to: usize, like: IpAddr) -> Result<(IpAddr, IpAddr)> {
        let host = &self.world.mobile;
        host.leave(&host.interfaces[from])?;
        host.configure(&host.interfaces[to], MOBILE_NODE)?;
        Ok((self.mobile_address(from, like), self.mobile_address(to, like)))
    }

    /// Plugs the cable of interface `to` in: from now on `new` is usable.
    pub fn plug_in(&self, to: usize, new: IpAddr) {
        let wire = &self.world.wire;
        wire.plug(self.world.mobile.interfaces[to].cable, true);
        wire.watch(|watch| watch.usable(new, Instant::now()));
    }

    /// Leaves one network and joins another. Returns the old and the new
    /// address of the family of `like`; the new one is usable.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn change_network(&self, from: usize, to: usize, like: IpAddr) -> Result<(IpAddr, IpAddr)> {
        let (old, new) = self.change_interface(from, to, like)?;
        self.plug_in(to, new);
        Ok((old, new))
    }

    /// Waits until the last move's flows have been heard again as `heard`
    /// wants.
    ///
    /// # Errors
    /// [`Error::Check`] when they have not been after `timeout`.
    pub fn wait_resumed(&self, timeout: Duration, heard: impl Fn(&Resumption) -> bool) -> Result<Resumption> {
        let deadline = Instant::now() + timeout;
        loop {
            let last = self.world.wire.watch(|watch| watch.moves.last().copied());
            let last = last.ok_or_else(|| Error::Check("nothing has moved".to_owned()))?;
            if heard(&last) {
                return Ok(last);
            }
            check!(Instant::now() < deadline, "not resumed after {timeout:?}: {last:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until a message of DPRP has been seen.
    ///
    /// # Errors
    /// [`Error::Check`] when there was none after `timeout`.
    pub fn wait_messages(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while self.world.wire.watch(|watch| watch.messages.is_empty()) {
            check!(Instant::now() < deadline, "no message of DPRP in {timeout:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// What the module says about itself on a host.
    ///
    /// # Errors
    /// [`Error::Check`] when it does not answer.
    pub fn info(&self, host: &Host) -> Result<abi::Info> {
        let mut info = abi::Info::default();
        call(host, abi::INFO, info.as_mut_bytes())?;
        Ok(info)
    }

    /// The counters of a host.
    ///
    /// # Errors
    /// [`Error::Check`] when the module does not answer.
    pub fn counters(&self, host: &Host) -> Result<Counters> {
        let mut stats = abi::Stats::default();
        call(host, abi::STATS, stats.as_mut_bytes())?;
        check!(stats.count as usize == Counter::ALL.len(), "the module has {} counters", stats.count);
        Ok(Counters(stats.values))
    }

    /// Ends grace at once and removes bindings whose sides are equal. Returns
    /// how many bindings are left.
    ///
    /// # Errors
    /// [`Error::Check`] when the module does not answer.
    pub fn expire(&self, host: &Host) -> Result<u32> {
        call(host, abi::EXPIRE, abi::Expire::default().as_mut_bytes())?;
        Ok(self.info(host)?.flows)
    }

    /// Presents the bill: nothing was reset or spoiled, the counters agree with
    /// each other, no binding is left after a flush, the module unloads, and
    /// the machine finds nothing left behind.
    ///
    /// # Errors
    /// [`Error::Check`] with what is wrong.
    pub fn finish(mut self) -> Result<()> {
        let world = &self.world;
        check!(world.wire.alive(), "the packet loop has ended");
        world.wire.watch(|watch| {
            check!(watch.resets.is_empty(), "RST was seen: {}", watch.resets.join("; "));
            Ok(())
        })?;
        let Some(stage) = &self.stage else { return Ok(()) };
        self.counters_agree()?;
        let live = self.info(&world.mobile)?.flows + self.info(&world.peer)?.flows;
        if live > 0 {
            let refused = stage.machine.kldunload(false);
            check!(refused == Err(Errno::EBUSY), "kldunload with {live} bindings: {refused:?}");
        }
        for (host, module) in [(&world.mobile, &stage.modules[0]), (&world.peer, &stage.modules[1])] {
            let name = host.namespace.name();
            let spoiled = module.spoiled.load(Ordering::Relaxed);
            check!(spoiled == 0, "{name}: {spoiled} packets came up with a wrong checksum");
            host.kernel
                .ioctl(3, abi::FLUSH, &mut [], &mut [])
                .map_err(|e| Error::Check(format!("{name}: flush: {e}")))?;
            let left = self.info(host)?.flows;
            check!(left == 0, "{name}: {left} bindings are left after a flush");
        }
        self.write_log()?;
        self.logged = true;
        let Some(stage) = &self.stage else { return Ok(()) };
        // While packets still come and go, as on a machine in use.
        stage.machine.kldunload(false).map_err(|e| Error::Check(format!("kldunload: {e}")))?;
        let stage = self.stage.take();
        drop(self);
        if let Some(Stage { machine, vnets, modules }) = stage {
            drop(modules);
            vnets.into_iter().for_each(Vnet::destroy);
            let mbufs = machine.mbufs();
            check!(mbufs == 0, "{mbufs} mbufs are left");
            drop(machine);
        }
        Ok(())
    }

    /// Waits until no packet of a bound flow is under way.
    fn wait_quiet(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let read = || -> Result<_> {
            Ok([self.counters(&self.world.mobile)?.text(), self.counters(&self.world.peer)?.text()])
        };
        let mut last = read()?;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = read()?;
            if now == last {
                return Ok(());
            }
            check!(Instant::now() < deadline, "bound flows are never quiet: {now:?}");
            last = now;
        }
    }

    /// What the counters of both hosts must have in common, when only the mobile
    /// host moves.
    fn counters_agree(&self) -> Result<()> {
        self.wait_quiet()?;
        let [mobile, peer] = [&self.world.mobile, &self.world.peer].map(|host| {
            let counters = self.counters(host)?;
            let name = host.namespace.name();
            counters
                .agree(self.info(host)?.flows, self.restarted || self.replaced && host.number == 0)
                .map_err(|what| Error::Check(format!("{name}: {what}")))?;
            Ok::<_, Error>(counters)
        });
        let (mobile, peer) = (mobile?, peer?);
        let both = || format!("mobile: {}; peer: {}", mobile.text(), peer.text());
        // Only a changed destination makes the IP layer run the hook again, and sending what was held. A displaced
        // flow has another port, and is sent to where it is; what is held and goes the old way is not rewritten.
        let (again, released) = (mobile.get(Counter::Again), mobile.get(Counter::Released));
        check!(again <= released || self.both_move, "the mobile host's destinations changed; {}", both());
        let (again, released) = (peer.get(Counter::Again), peer.get(Counter::Released));
        // What turned out to be too big was not sent.
        let out = peer.get(Counter::TranslatedOut) - peer.get(Counter::DroppedTooBig);
        // Nor does the hook look at a packet that is between its two passes when the last flow is removed, as it is by hand.
        let least = out - out.min(peer.get(Counter::FlowRemoved)).min(2);
        let displaced = peer.get(Counter::Displaced) > 0;
        check!(
            (least..=out + released).contains(&again) || (displaced || self.both_move) && again < out,
            "the hook did not see each of the peer's rewritten packets again; {}",
            both()
        );
        for (sender, receiver) in [(&mobile, &peer), (&peer, &mobile)] {
            let (sent, received) = (sender.get(Counter::TranslatedOut), receiver.get(Counter::TranslatedIn));
            // Errors of routers are rewritten too, at most one for each packet that they are about. Strangers have no
            // module.
            let errors = receiver.get(Counter::TranslatedOut);
            check!(
                received <= sent + errors || displaced,
                "more packets were rewritten on receipt than were sent; {}",
                both()
            );
        }
        Ok(())
    }

    /// Writes what was seen to the scenario's log.
    fn write_log(&self) -> Result<()> {
        let mut text = String::new();
        for (cable, name) in ["wlan", "cell", "home"].into_iter().enumerate() {
            let (up, down) = self.world.wire.tally(cable);
            text += &format!("{name} up   {up:?}\n{name} down {down:?}\n");
        }
        self.world.wire.watch(|watch| {
            for movement in &watch.moves {
                text += &format!("{movement:?}\n");
            }
            text += &format!(
                "messages {}\nresets {:#?}\nforeign {:#?}\n",
                watch.messages.len(),
                watch.resets,
                watch.foreign
            );
            text += &format!("milliseconds around the last move:\n{}", watch.trace());
        });
        if let Some(stage) = &self.stage {
            for host in [&self.world.mobile, &self.world.peer] {
                text += &format!("{}: {}\n", host.namespace.name(), self.counters(host)?.text());
            }
            for line in stage.machine.console() {
                text += &format!("console: {line}\n");
            }
        }
        let path = self.places.logs.join("world.log");
        fs::write(&path, text).doing(format_args!("writing {}", path.display()))
    }
}

impl Stage {
    fn new(places: &Places, shape: &Shape) -> Result<Self> {
        let path = places.module();
        check!(path.exists(), "{} is missing: run make first", path.display());
        let machine = Machine::boot(Options { seed: shape.seed, split: shape.split, ..Options::default() });
        machine
            .kldload(&path, &[])
            .map_err(|e| Error::Check(format!("kldload {}: {e}\n{}", path.display(), machine.console().join("\n"))))?;
        let vnets = [machine.vnet_create(), machine.vnet_create()];
        let modules = vnets.map(|vnet| Arc::new(Module::new(vnet, shape.offload)));
        Ok(Self { machine, vnets, modules })
    }
}

fn call(host: &Host, command: u32, argument: &mut [u8]) -> Result<()> {
    host.kernel.ioctl(3, command, argument, &mut []).map_err(|e| {
        Error::Check(format!("{}: the module answers ioctl {command:#x} with error {e}", host.namespace.name()))
    })
}

/// The counters of one host.
#[derive(Clone, Copy, Debug)]
pub struct Counters([u64; abi::STATS_MAX]);

impl Counters {
    /// One counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or_default()
    }

    /// Those that are not zero, as one line.
    #[must_use]
    pub fn text(&self) -> String {
        let nonzero = Counter::ALL.iter().filter(|c| self.get(**c) > 0);
        nonzero.map(|c| format!("{} {}", c.name(), self.get(*c))).collect::<Vec<_>>().join(", ")
    }

    /// Whether they agree with each other and with `flows` bindings now.
    /// `again`: moves may have been prepared again before they ended.
    ///
    /// # Errors
    /// What does not.
    pub fn agree(&self, flows: u32, again: bool) -> std::result::Result<(), String> {
        use Counter as C;
        let living = self.get(C::FlowAdded).checked_sub(self.get(C::FlowRemoved));
        if living != Some(u64::from(flows)) {
            return Err(format!("{flows} bindings, but the counters say {living:?} ({})", self.text()));
        }
        let ended = self.get(C::MoveCommitted) + self.get(C::MoveAborted);
        let prepared = self.get(C::MovePrepared);
        if ended != prepared && !(again && ended < prepared) {
            return Err(format!("moves were prepared and neither committed nor taken back ({})", self.text()));
        }
        for counter in [C::DroppedMemory, C::PassedMalformed, C::RefusedFull, C::RefusedConflict] {
            if self.get(counter) > 0 {
                return Err(format!("{} is not zero ({})", counter.name(), self.text()));
            }
        }
        Ok(())
    }
}

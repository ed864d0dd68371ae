//! The machine and its network stacks, as callers see them.

use crate::cdev::File;
use crate::ip;
use crate::kernel::Kernel;
use crate::mbuf::csum;
use crate::thread::Entry;
use crate::vnet::VnetState;
use crate::{
    Connection, Connections, Errno, Event, Failures, Input, Options, Output, Region, Route, Rx, Split, Timer, Tx,
};
use crate::{clock, connections, fault, linker, pfil, sysctl, variables, vnet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

static UP: Mutex<()> = Mutex::new(());

/// One emulated FreeBSD 14 kernel. A process has at most one at a time: [`Machine::boot`] waits for the last one to be
/// dropped. Dropping it unloads the module and complains about whatever is left.
#[derive(Debug)]
pub struct Machine {
    kernel: &'static Kernel,
    _up: MutexGuard<'static, ()>,
}

/// One virtual network stack (VNET) of the machine: what a jail has. A handle; copies refer to the same one.
#[derive(Clone, Copy, Debug)]
pub struct Vnet(pub(crate) &'static VnetState);

impl PartialEq for Vnet {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Vnet {}

impl Machine {
    /// Boots a machine.
    ///
    /// # Panics
    /// For options out of range.
    #[must_use]
    pub fn boot(options: Options) -> Self {
        assert!((1..=256).contains(&options.cpus), "Options::cpus is 1 to 256");
        // A test that failed left the machine as it was; the next one is a new machine.
        let up = UP.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        fault::install();
        let (cpus, osreldate, memory) = (options.cpus, options.osreldate, options.memory);
        let kernel = Kernel::install(options);
        variables::set("osreldate", osreldate as u64);
        variables::set("physmem", memory >> 12);
        variables::set("mp_ncpus", u64::from(cpus));
        variables::set("mp_maxid", u64::from(cpus) - 1);
        clock::set(None);
        for at in variables::malloc_types() {
            kernel.malloc.register(at);
        }
        let vnet0 = vnet::create();
        assert!(kernel.vnet0.set(vnet0).is_ok(), "a new machine has no VNET");
        Self { kernel, _up: up }
    }

    /// kldload(8): loads the module file at `path`, with these loader tunables in the kernel environment.
    /// `ENOENT` without such a file, `EEXIST` when it is loaded, `ENOEXEC` when it cannot be linked (the console says
    /// why) or its module refuses.
    pub fn kldload(&self, path: &Path, tunables: &[(&str, &str)]) -> Result<(), Errno> {
        linker::load(path, tunables)
    }

    /// kldunload(8) of the module loaded last, with `-f` if `force`. `ENOENT` when there is none, else what the module
    /// answers. Complains about whatever the module leaves behind.
    pub fn kldunload(&self, force: bool) -> Result<(), Errno> {
        linker::unload(force)
    }

    /// The stack of the host itself.
    #[must_use]
    pub fn vnet0(&self) -> Vnet {
        Vnet(self.kernel.vnet0.get().unwrap_or_else(|| unreachable!("boot makes it")))
    }

    /// Makes another stack, as a jail with `vnet` has it.
    #[must_use]
    pub fn vnet_create(&self) -> Vnet {
        let _entry = Entry::new("vnet_alloc", 0, 0);
        Vnet(vnet::create())
    }

    /// Value of a sysctl of the host, as sysctl(8) prints it.
    pub fn sysctl_get(&self, name: &str) -> Result<String, Errno> {
        self.vnet0().sysctl_get(name)
    }

    /// Sets a sysctl of the host, from what one would give sysctl(8).
    pub fn sysctl_set(&self, name: &str, value: &str) -> Result<(), Errno> {
        self.vnet0().sysctl_set(name, value)
    }

    /// Names of the sysctls that begin with `prefix`.
    #[must_use]
    pub fn sysctl_names(&self, prefix: &str) -> Vec<String> {
        self.kernel.sysctls.names(prefix)
    }

    /// Names of the devices below `/dev`.
    #[must_use]
    pub fn devices(&self) -> Vec<String> {
        self.kernel.devices.names()
    }

    /// Changes which allocations fail.
    pub fn set_failures(&self, failures: Failures) {
        self.kernel.failures.set(failures);
    }

    /// Changes how packets are laid out.
    pub fn set_split(&self, split: Split) {
        *self.kernel.split.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = split;
    }

    /// Sets the uptime in seconds, which stays so until it is set again; `None` lets it run with the clock, as at boot.
    pub fn set_uptime(&self, seconds: Option<u64>) {
        clock::set(seconds.map(Duration::from_secs));
    }

    /// Lets so much time pass. A clock that runs is stopped first; from then on time passes only so, until
    /// [`Machine::set_uptime`] lets it run again. Timeouts of taskqueue(9) run in their order, each at its time and to
    /// its end, and reassembly gives up what is too old.
    pub fn advance(&self, by: Duration) {
        clock::advance(by);
    }

    /// Waits until no task of taskqueue(9), no packet of netisr(9) and no epoch callback waits or runs. Timeouts that
    /// are not due yet do not count.
    pub fn quiesce(&self) {
        clock::quiesce();
    }

    /// Enables all of dtrace(1)'s probes that the module loaded last has; returns names and types of arguments.
    #[must_use]
    pub fn enable_probes(&self) -> Vec<(String, Vec<String>)> {
        crate::sdt::enable()
    }

    /// Takes what they said since the last call.
    #[must_use]
    pub fn probes(&self) -> Vec<crate::Fired> {
        self.kernel.probes.take()
    }

    /// Threads that sleep in a read of a device.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.kernel.waiting.sleepers()
    }

    /// Has a signal come to those whose sleep a signal ends; returns how many.
    #[must_use]
    pub fn interrupt(&self) -> usize {
        self.kernel.waiting.interrupt()
    }

    /// Takes what the module and the kernel printed and logged since the last call, one line each.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        let mut console = self.kernel.console.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut console.lines)
    }

    /// mbufs that exist now. 0 when no packet is under way, unless the module keeps some.
    #[must_use]
    pub fn mbufs(&self) -> usize {
        self.kernel.live_mbufs()
    }

    /// Most bytes of stack that module code had in use when it called the kernel, in this process.
    #[must_use]
    pub fn deepest_stack(&self) -> usize {
        crate::stack::deepest()
    }

    /// Bytes that the malloc(9) type of this name has in use.
    #[must_use]
    pub fn memory(&self, malloc_type: &str) -> usize {
        self.kernel.malloc.in_use(malloc_type)
    }

    /// Looks for writes beyond the bounds of memory, mbufs and clusters, and after they were freed; complains.
    pub fn check(&self) {
        self.kernel.malloc.check_all();
        self.kernel.mbufs.check_all();
        self.kernel.clusters.check_all();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.set_failures(Failures::None);
        let others: Vec<_> = {
            let vnets = self.kernel.vnets.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            vnets
                .iter()
                .filter(|v| self.kernel.vnet0.get().is_some_and(|v0| !std::ptr::eq(*v0, **v)))
                .copied()
                .collect()
        };
        for other in others {
            Vnet(other).destroy();
        }
        // A module may refuse; then it stays, and what it holds with it.
        while self.kldunload(true).is_ok() {}
        clock::quiesce();
        self.kernel.tasks.stop();
        self.kernel.netisr.stop();
        self.kernel.callbacks.stop();
        self.kernel.fragments.clear();
        self.check();
        if self.kernel.mbufs.live() > 0 {
            crate::complaint::complain!("the machine shuts down, and {} mbufs are left", self.kernel.mbufs.live());
        }
    }
}

impl Vnet {
    /// Destroys the stack, running the modules' destructors for it.
    ///
    /// # Panics
    /// For the host's own.
    pub fn destroy(self) {
        let vnet0 = crate::kernel::kernel().vnet0.get();
        assert!(vnet0.is_some_and(|vnet0| !std::ptr::eq(*vnet0, self.0)), "the host's own stack stays");
        let _entry = Entry::new("vnet_destroy", 0, 0);
        vnet::destroy(self.0);
    }

    /// Destroys the stack on the thread of the task queue, as the kernel does when the last reference to its jail goes
    /// where nobody may sleep; all timeouts fall due while it does.
    pub fn destroy_in_task(self) {
        let kernel = crate::kernel::kernel();
        kernel.tasks.destroy(kernel, self.0);
    }

    fn alive(&self) -> &'static VnetState {
        assert!(!self.0.is_gone(), "this VNET was destroyed");
        self.0
    }

    /// Addresses of the emulated interfaces.
    pub fn set_local(&self, addresses: &[IpAddr]) {
        self.alive().set_local(addresses);
    }

    /// Replaces the routing table. With an empty one, every packet leaves by the interface that its sender names.
    pub fn set_routes(&self, routes: &[Route]) {
        self.alive().set_routes(routes);
    }

    /// Whether this stack forwards packets for others; it needs routes then.
    pub fn set_forwarding(&self, on: bool) {
        self.alive().set_forwarding(on);
    }

    /// MTU of an interface; 1500 unless set.
    pub fn set_mtu(&self, ifname: &str, mtu: u32) {
        self.alive().ifnet(ifname).set_mtu(i32::try_from(mtu).unwrap_or(i32::MAX));
    }

    /// Index of an interface, which must be no other's.
    pub fn set_index(&self, ifname: &str, index: u16) {
        self.alive().ifnet(ifname).set_index(index);
    }

    /// Whether an interface cuts TCP packets into segments (TSO), which it does unless told otherwise, and of how many
    /// bytes it takes them at most; 0 for no limit.
    pub fn set_tso(&self, ifname: &str, on: bool, limit: u32) {
        let ifnet = self.alive().ifnet(ifname);
        ifnet.set_hwassist(if on { csum::OFFLOADED } else { csum::OFFLOADED & !u64::from(csum::TSO) });
        ifnet.set_tsomax(limit);
    }

    /// Whether TCP's control block of this connection allows TSO.
    #[must_use]
    pub fn uses_tso(&self, connection: &Connection) -> bool {
        connections::uses_tso(self.alive(), connection)
    }

    /// Switches a firewall on or off that passes everything. On, it links itself nearest the wire, as pf(4) does.
    pub fn set_firewall(&self, on: bool) {
        pfil::firewall(self.alive(), on);
    }

    /// Takes what the firewall has seen since the last call: whether it was being sent, and the packet.
    #[must_use]
    pub fn firewall_saw(&self) -> Vec<(bool, Vec<u8>)> {
        std::mem::take(&mut self.alive().firewall.lock().unwrap())
    }

    /// Lets a function say which interface leads to an address, for packets that a module sends on its own and for route
    /// look-ups; `None` for no route. Without one, the routing table says so, and without that all goes by "em0".
    pub fn set_router(&self, router: impl Fn(IpAddr) -> Option<String> + Send + Sync + 'static) {
        self.alive().set_router(Some(Arc::new(router)));
    }

    /// Says which connections this stack has.
    pub fn set_connections(&self, connections: &[Connection]) {
        self.alive().pcbs.set_list(connections);
    }

    /// Lets `source` say which connections this stack has.
    pub fn set_connection_source(&self, source: Arc<dyn Connections>) {
        self.alive().pcbs.set_source(source);
    }

    /// Takes what modules did to TCP's timers since the last call: connection, timer, ticks.
    #[must_use]
    pub fn timers(&self) -> Vec<(Connection, Timer, u32)> {
        self.alive().pcbs.take_timers()
    }

    /// How often modules have looked a connection up.
    #[must_use]
    pub fn lookups(&self) -> u64 {
        self.alive().pcbs.lookups()
    }

    /// Takes the packets that came out of this stack on their own since the last call, in their order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.alive().events.take()
    }

    /// Has such packets told to a function instead, which is called in the midst of the kernel and must not call it.
    pub fn set_listener(&self, listener: impl Fn(Event) + Send + Sync + 'static) {
        self.alive().events.listen(Some(Arc::new(listener)));
    }

    /// Sends an IP packet, as ip_output(9) and ip6_output do. `EINVAL` for what is no IP packet.
    #[must_use]
    pub fn ip_output(&self, packet: &[u8], tx: &Tx<'_>) -> Output {
        ip::send(self.alive(), packet, tx)
    }

    /// Receives an IP packet, as ip_input and ip6_input do.
    #[must_use]
    pub fn ip_input(&self, packet: &[u8], rx: &Rx<'_>) -> Input {
        ip::receive(self.alive(), packet, rx)
    }

    /// Opens `/dev/NAME` as this user, with `fflag` (1 for reading, 2 for writing, or both).
    pub fn open(&self, name: &str, uid: u32, fflag: u32) -> Result<File, Errno> {
        File::open(self.alive(), name, uid, fflag)
    }

    /// Opens `/dev/mobconn` as root, does one ioctl(2), closes it. `argument` is the memory that the ioctl's third
    /// argument points to.
    pub fn ioctl(&self, fflag: u32, command: u32, argument: &mut [u8], regions: &mut [Region]) -> Result<(), Errno> {
        self.open("mobconn", 0, fflag)?.ioctl(command, argument, regions)
    }

    /// Value of a sysctl as this stack sees it.
    pub fn sysctl_get(&self, name: &str) -> Result<String, Errno> {
        sysctl::get(self.alive(), name)
    }

    /// Sets a sysctl from inside this stack.
    pub fn sysctl_set(&self, name: &str, value: &str) -> Result<(), Errno> {
        sysctl::set(self.alive(), name, value)
    }
}

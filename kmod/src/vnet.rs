//! The state of one network stack (vnet(9)): table, counters, hooks.
//!
//! Context: `mobconn_attach` and `mobconn_detach` run in process
//! context with curvnet set, when the module is loaded or unloaded (for each
//! vnet) and when a jail with a vnet begins or ends; they may sleep. Nothing
//! else reaches the vnet's state before the first or after the second: its
//! device commands and sysctls come from threads that live in it, or have
//! been waited for when the module goes.
//!
//! Teardown: unlink the hooks, wait for the packets that are in them, then for
//! the tasks, then free. No epoch callback refers to the module, so none is waited for.

use crate::convert::connection;
use crate::egress::Egress;
use crate::hooks::Hooks;
use crate::packet::{Direction, View};
use crate::park::Park;
use crate::text::log;
use crate::{hook, module, probe, stats};
use alloc::boxed::Box;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use mobconn_abi::Counter;
use mobconn_engine::{Config, Control, Engine, Side, TableError, Version};
use mobconn_sys::{
    CurVnet, NoMemory, OwnedMbuf, Sx, Task, TimeoutTask, arc4random_buf, bells_ring, ffi, in_net_epoch, is_connected,
    microuptime, net_epoch_wait, tcp_no_tso, time_uptime, try_box,
};
use zerocopy::IntoBytes;

unsafe extern "C" {
    /// Of `declare.c`: the vnet's pointer.
    fn mobconn_instance_get(vnet: *mut ffi::vnet) -> *mut c_void;
    fn mobconn_instance_set(vnet: *mut ffi::vnet, instance: *mut c_void);
}

/// The state of one network stack.
pub(crate) struct Instance {
    /// What the packet path reads.
    pub(crate) engine: Engine,
    vnet: Vnet,
    /// By which network packets leave.
    pub(crate) egress: Egress,
    /// Through which packets come.
    pub(crate) hooks: Hooks,
    /// They are to be linked nearest the wire again.
    displaced: AtomicBool,
    /// Its table's hash has a secret.
    keyed: AtomicBool,
    /// What is counted.
    pub(crate) stats: stats::Stats,
    /// Packets that wait for a commit.
    pub(crate) held: Park,
    /// Packets that wait for a port.
    pub(crate) newcomers: Park,
    /// Packets that nobody would cut into segments, whose connections are to
    /// be told.
    pub(crate) uncut: Park,
    control: Sx<Control>,
    /// Some from before the hooks are linked until no packet is in them.
    tasks: Option<Tasks>,
    /// No task is to be enqueued again.
    ending: AtomicBool,
    /// The last binding that the sweep has looked at.
    swept: AtomicU32,
    /// How far the journal is.
    told: AtomicU64,
}

/// What a kernel thread does for an instance.
struct Tasks {
    /// Looks after the packets that wait.
    attend: Task,
    /// Ends what has had its time.
    sweep: TimeoutTask,
}

/// Seconds between two looks at bindings.
const SWEEP_SECONDS: u16 = 1;
/// Bindings that one look takes in, for as long as it keeps writers out.
const SWEEP_COUNT: u32 = 1024;

/// A network stack that is alive as long as its instance.
struct Vnet(*mut ffi::vnet);

// SAFETY: only a name, which the kernel's functions take from any thread.
unsafe impl Send for Vnet {}
// SAFETY: as above.
unsafe impl Sync for Vnet {}

impl Instance {
    // Its frame is gone before the hooks are linked.
    #[inline(never)]
    fn new(vnet: *mut ffi::vnet) -> Result<Self, NoMemory> {
        // The secret is drawn when there is something to hash: at boot, the kernel may have none to give yet.
        let config = Config { capacity: module::max_flows(), key: Default::default() };
        let (engine, control) = mobconn_engine::new(&config).map_err(|_| NoMemory)?;
        Ok(Self {
            engine,
            vnet: Vnet(vnet),
            egress: Egress::new(),
            hooks: Hooks::new()?,
            displaced: AtomicBool::new(false),
            keyed: AtomicBool::new(false),
            stats: stats::Stats::new(),
            held: Park::new()?,
            newcomers: Park::new()?,
            uncut: Park::new()?,
            control: Sx::new(control, c"mobconn")?,
            tasks: None,
            ending: AtomicBool::new(false),
            swept: AtomicU32::new(0),
            told: AtomicU64::new(0),
        })
    }

    /// Makes the tasks of an instance that will stay where it is.
    fn make_tasks(&mut self) -> Result<(), NoMemory> {
        let context = (&raw mut *self).cast();
        // SAFETY: the tasks are dropped, which waits for them, before the instance is.
        let attend = unsafe { Task::new(attend, context) }?;
        // SAFETY: as above.
        let sweep = unsafe { TimeoutTask::new(sweep, context) }?;
        self.tasks = Some(Tasks { attend, sweep });
        Ok(())
    }

    /// Has the packets that wait looked after, soon, in another thread.
    pub(crate) fn attend(&self) {
        if let (Some(tasks), false) = (&self.tasks, self.ending.load(Ordering::Acquire)) {
            tasks.attend.enqueue();
        }
    }

    /// Has the hooks linked nearest the wire again, soon, in another thread.
    #[cold]
    pub(crate) fn hooks_displaced(&self) {
        if !self.displaced.swap(true, Ordering::AcqRel) {
            self.attend();
        }
    }

    /// What the hooks are given.
    fn ruleset(&self) -> *mut c_void {
        (&raw const *self).cast_mut().cast()
    }

    /// Makes the instance's network stack the calling thread's.
    pub(crate) fn enter(&self) -> CurVnet {
        // SAFETY: alive as long as the instance.
        unsafe { CurVnet::set(self.vnet.0) }
    }

    fn sweep_later(&self) {
        if let (Some(tasks), false) = (&self.tasks, self.ending.load(Ordering::Acquire)) {
            tasks.sweep.enqueue_in(SWEEP_SECONDS);
        }
    }

    /// Number of the event that comes next, as readers may see it. Anywhere.
    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// What its readers' bells are called.
    pub(crate) fn name(&self) -> usize {
        (&raw const *self).addr()
    }

    /// The state of the calling thread's network stack.
    ///
    /// # Safety
    /// `thread` is the calling thread, in a device command or a sysctl handler.
    pub(crate) unsafe fn of_thread<'a>(thread: *mut ffi::thread) -> Option<&'a Self> {
        // SAFETY: a living thread (contract).
        let vnet = unsafe { ffi::mobconn_td_to_vnet(thread) };
        // SAFETY: a living thread's vnet is alive.
        let instance = unsafe { mobconn_instance_get(vnet) }.cast::<Self>();
        // SAFETY: null, or alive as long as commands can come, see above.
        unsafe { instance.as_ref() }
    }

    /// Lets `action` look at the table. Sleeps while another thread changes it.
    pub(crate) fn read<R>(&self, action: impl FnOnce(&Control, &Engine) -> R) -> R {
        action(&self.control.xlock(), &self.engine)
    }

    /// Lets `action` change the table, and counts the bindings that come and go.
    pub(crate) fn change<R>(&self, action: impl FnOnce(&mut Control, &Engine) -> R) -> R {
        let mut control = self.control.xlock();
        let before = control.len();
        if !self.keyed.load(Ordering::Relaxed) {
            let mut key = [0; 8];
            arc4random_buf(key.as_mut_bytes());
            self.keyed.store(control.rekey(&self.engine, key), Ordering::Relaxed);
        }
        if control.journal().watchers() != 0 {
            control.set_clock(microuptime());
        }
        let result = action(&mut control, &self.engine);
        let after = control.len();
        let next = control.journal().next();
        let news = self.told.swap(next, Ordering::AcqRel) != next;
        module::bindings_changed(before, after);
        if before == 0 && after != 0 {
            self.sweep_later();
        }
        drop(control);
        if news {
            bells_ring(self.name());
        }
        self.stats.add(Counter::FlowAdded, after.saturating_sub(before));
        self.stats.add(Counter::FlowRemoved, before.saturating_sub(after));
        result
    }
}

/// Makes the instance of the vnet that curvnet is, and links its hooks.
fn attach() -> Result<Box<Instance>, NoMemory> {
    let mut instance = try_box(Instance::new(curvnet())?)?;
    instance.make_tasks()?;
    // SAFETY: the instance stays where it is until an epoch after `mobconn_detach` has unlinked them.
    unsafe { instance.hooks.link(instance.ruleset()) };
    Ok(instance)
}

#[unsafe(no_mangle)]
extern "C" fn mobconn_attach(_: *const c_void) {
    // A refused load runs the vnet initialisers all the same.
    if !module::is_loaded() {
        return;
    }
    match attach() {
        Ok(instance) => {
            let vnet = curvnet();
            // SAFETY: curvnet is alive; nobody reads its pointer yet.
            unsafe { mobconn_instance_set(vnet, Box::into_raw(instance).cast()) };
        }
        Err(NoMemory) => log!(Error, "no memory for the state of a network stack: no connection of it can move"),
    }
}

#[unsafe(no_mangle)]
extern "C" fn mobconn_detach(_: *const c_void) {
    let vnet = curvnet();
    // SAFETY: curvnet is alive.
    let instance = unsafe { mobconn_instance_get(vnet) }.cast::<Instance>();
    if instance.is_null() {
        return;
    }
    // SAFETY: curvnet is alive; no command comes any more.
    unsafe { mobconn_instance_set(vnet, core::ptr::null_mut()) };
    // SAFETY: made by `attach`, and the only pointer besides the hooks', which is not used to change it.
    let mut instance = unsafe { Box::from_raw(instance) };
    instance.ending.store(true, Ordering::Release);
    instance.hooks.unlink();
    net_epoch_wait();
    // Each may have enqueued the other before it could see that all ends.
    if let Some(tasks) = &instance.tasks {
        tasks.sweep.stop();
        tasks.attend.stop();
        tasks.sweep.stop();
    }
    instance.tasks = None;
    instance.change(|control, engine| control.flush(engine));
}

/// Looks after the packets that wait.
unsafe extern "C" fn attend(context: *mut c_void, _pending: c_int) {
    // SAFETY: the task's instance, which waits for the task before it goes.
    let instance = unsafe { &*context.cast::<Instance>() };
    let _vnet = instance.enter();
    if instance.displaced.swap(false, Ordering::AcqRel) {
        // SAFETY: as in `attach`.
        unsafe { instance.hooks.relink(instance.ruleset()) };
    }
    let mut newcomers = instance.newcomers.take();
    for parked in newcomers.drain(..) {
        if let Some(packet) = parked.packet {
            newcomer(instance, packet, parked.version, parked.received);
        }
    }
    let rest = instance.newcomers.put_back(newcomers);
    instance.newcomers.restore(rest);

    let mut uncut = instance.uncut.take();
    for parked in uncut.drain(..) {
        if let Some(packet) = parked.packet {
            no_tso(instance, packet, parked.version);
        }
    }
    let rest = instance.uncut.put_back(uncut);
    instance.uncut.restore(rest);

    let mut held = instance.held.take();
    held.retain_mut(|parked| {
        let packet = parked.packet.take();
        parked.packet = packet.and_then(|packet| in_net_epoch(|| hook::resend(instance, packet, parked.version)));
        parked.packet.is_some()
    });
    let mut rest = instance.held.put_back(held);
    for parked in rest.drain(..) {
        hook::drop_parked(instance, parked, Counter::DroppedHeld);
    }
    instance.held.restore(rest);
}

/// Finds a port for a connection that begins, and lets its packet go on.
fn newcomer(instance: &Instance, packet: OwnedMbuf, version: Version, received: bool) {
    packet.give(|mbuf| {
        let direction = if received { Direction::In } else { Direction::Out };
        let mut view = View::new(mbuf, direction);
        let Some(side) = Engine::newcomer(&mut view, version, received) else { return };
        let mut chance = [0; 2];
        arc4random_buf(&mut chance);
        let outcome = instance.change(|control, engine| {
            let before = control.len();
            let busy = |side: &Side| is_connected(&connection(side));
            control.displace(engine, &side, received, busy, u16::from_ne_bytes(chance), time_uptime())?;
            let made = control.len() > before;
            if made {
                probe::displaced(|| {
                    if received { control.get_by_wire(engine, &side) } else { control.get(engine, &side) }
                });
            }
            Ok::<_, TableError>(made)
        });
        match outcome {
            Ok(made) => instance.stats.add(Counter::Displaced, u32::from(made)),
            Err(_) => {
                hook::count_dropped(instance, &view, version, Counter::DroppedNewcomer);
                return;
            }
        }
        let Some(packet) = view.mbuf.take() else { return };
        in_net_epoch(|| {
            if received {
                hook::receive_again(packet, version);
            } else {
                // What another move holds now is dropped: its sender tries again.
                drop(hook::resend(instance, packet, version));
            }
        });
    });
}

/// Tells the connection of a packet with its wire side to send no more that
/// are to be cut into segments, and to send this one again.
fn no_tso(instance: &Instance, packet: OwnedMbuf, version: Version) {
    let wire = packet.give(|mbuf| Engine::newcomer(&mut View::new(mbuf, Direction::Out), version, false));
    let Some(wire) = wire else { return };
    let binding = instance.read(|control, engine| control.get_by_wire(engine, &wire));
    if binding.is_some_and(|binding| tcp_no_tso(&connection(&binding.stack))) {
        instance.stats.count(Counter::Resumed);
    }
}

/// Ends what has had its time, some bindings at a time.
unsafe extern "C" fn sweep(context: *mut c_void, _pending: c_int) {
    // SAFETY: as for `attend`.
    let instance = unsafe { &*context.cast::<Instance>() };
    let _vnet = instance.enter();
    let from = u64::from(instance.swept.load(Ordering::Relaxed));
    let limits = module::limits();
    let (next, left) = instance.change(|control, engine| {
        let alive = |side: &Side| is_connected(&connection(side));
        let expired = control.expire(engine, time_uptime(), &limits, (from, SWEEP_COUNT), alive);
        (expired.next, control.len())
    });
    instance.swept.store(next as u32, Ordering::Relaxed);
    if instance.hooks.are_others() {
        instance.displaced.store(true, Ordering::Release);
    }
    // Held packets whose binding has ended, and the hooks.
    instance.attend();
    if left != 0 {
        instance.sweep_later();
    }
}

fn curvnet() -> *mut ffi::vnet {
    // SAFETY: reads the calling thread's own state.
    unsafe { ffi::mobconn_curvnet() }
}

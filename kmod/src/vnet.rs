//! The state of one network stack (vnet(9)): table, counters, hooks.
//!
//! Context: `mobconn_attach` and `mobconn_detach` run in process
//! context with curvnet set, when the module is loaded or unloaded (for each
//! vnet) and when a jail with a vnet begins or ends; they may sleep. Nothing
//! else reaches the vnet's state before the first or after the second: its
//! device commands and sysctls come from threads that live in it, or have
//! been waited for when the module goes.
//!
//! Teardown: unlink the hooks, wait for the packets that are in them, then
//! free. No epoch callback refers to the module, so none is waited for.

use crate::text::log;
use crate::{hook, module, stats};
use alloc::boxed::Box;
use core::ffi::c_void;
use mobconn_abi::Counter;
use mobconn_engine::{Config, Control, Engine};
use mobconn_sys::{Errno, Hook, HookArgs, NoMemory, Sx, arc4random_buf, ffi, net_epoch_wait, try_box};
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
    /// What is counted.
    pub(crate) stats: stats::Stats,
    control: Sx<Control>,
}

/// An instance and the hooks through which packets reach it. The hooks come
/// first: they are unlinked before anything else is dropped.
struct Attached {
    hooks: [Option<Hook>; 2],
    instance: Instance,
}

impl Instance {
    fn new() -> Result<Self, NoMemory> {
        let mut config = Config { capacity: module::max_flows(), key: Default::default() };
        arc4random_buf(config.key.as_mut_bytes());
        let (engine, control) = mobconn_engine::new(&config).map_err(|_| NoMemory)?;
        Ok(Self { engine, stats: stats::Stats::new(), control: Sx::new(control, c"mobconn")? })
    }

    /// The state of the calling thread's network stack.
    ///
    /// # Safety
    /// `thread` is the calling thread, in a device command or a sysctl handler.
    pub(crate) unsafe fn of_thread<'a>(thread: *mut ffi::thread) -> Option<&'a Self> {
        // SAFETY: a living thread (contract).
        let vnet = unsafe { ffi::mobconn_td_to_vnet(thread) };
        // SAFETY: a living thread's vnet is alive.
        let attached = unsafe { mobconn_instance_get(vnet) }.cast::<Attached>();
        // SAFETY: null, or alive as long as commands can come, see above.
        unsafe { attached.as_ref() }.map(|attached| &attached.instance)
    }

    /// Lets `action` look at the table. Sleeps while another thread changes it.
    pub(crate) fn read<R>(&self, action: impl FnOnce(&Control, &Engine) -> R) -> R {
        action(&self.control.xlock(), &self.engine)
    }

    /// Lets `action` change the table, and counts the bindings that come and go.
    pub(crate) fn change<R>(&self, action: impl FnOnce(&mut Control, &Engine) -> R) -> R {
        let mut control = self.control.xlock();
        let before = control.len();
        let result = action(&mut control, &self.engine);
        let after = control.len();
        module::bindings_changed(before, after);
        drop(control);
        self.stats.add(Counter::FlowAdded, after.saturating_sub(before));
        self.stats.add(Counter::FlowRemoved, before.saturating_sub(after));
        result
    }
}

/// Makes the instance of the vnet that curvnet is, and links its hooks.
fn attach() -> Result<Box<Attached>, NoMemory> {
    let mut attached = try_box(Attached { hooks: [None, None], instance: Instance::new()? })?;
    let ruleset = (&raw mut attached.instance).cast();
    let heads = [
        HookArgs { head: c"inet", kind: ffi::PFIL_TYPE_IP4, name: c"inet", check: Some(hook::inet), ruleset },
        HookArgs { head: c"inet6", kind: ffi::PFIL_TYPE_IP6, name: c"inet6", check: Some(hook::inet6), ruleset },
    ];
    for (place, head) in attached.hooks.iter_mut().zip(&heads) {
        // SAFETY: curvnet is set, here and in `mobconn_detach`, which waits for an epoch before it frees `ruleset`.
        match unsafe { Hook::link(c"mobconn", head) } {
            Ok(hook) => *place = Some(hook),
            // A kernel may have been built without one of the two protocols.
            Err(Errno(error)) => log!(Warning, "no hook on {}: error {error}", head.head.to_str().unwrap_or("?")),
        }
    }
    Ok(attached)
}

#[unsafe(no_mangle)]
extern "C" fn mobconn_attach(_: *const c_void) {
    // A refused load runs the vnet initialisers all the same.
    if !module::is_loaded() {
        return;
    }
    match attach() {
        Ok(attached) => {
            let vnet = curvnet();
            // SAFETY: curvnet is alive; nobody reads its pointer yet.
            unsafe { mobconn_instance_set(vnet, Box::into_raw(attached).cast()) };
        }
        Err(NoMemory) => log!(Error, "no memory for the state of a network stack: no connection of it can move"),
    }
}

#[unsafe(no_mangle)]
extern "C" fn mobconn_detach(_: *const c_void) {
    let vnet = curvnet();
    // SAFETY: curvnet is alive.
    let attached = unsafe { mobconn_instance_get(vnet) }.cast::<Attached>();
    if attached.is_null() {
        return;
    }
    // SAFETY: curvnet is alive; no command comes any more.
    unsafe { mobconn_instance_set(vnet, core::ptr::null_mut()) };
    // SAFETY: made by `attach`, and the only pointer besides the hooks', which is not used to change it.
    let mut attached = unsafe { Box::from_raw(attached) };
    attached.hooks = [None, None];
    net_epoch_wait();
    attached.instance.change(|control, engine| control.flush(engine));
}

fn curvnet() -> *mut ffi::vnet {
    // SAFETY: reads the calling thread's own state.
    unsafe { ffi::mobconn_curvnet() }
}

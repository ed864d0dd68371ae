//! Load and unload.
//!
//! Context: the module event handler runs in process context, under the
//! kernel linker's lock; it may sleep. The counting functions run anywhere.
//!
//! Order of an unload: refuse if bindings live; take sysctls and device away,
//! which waits for the handlers and commands that run; then (`vnet`) each
//! network stack.

use crate::sysctl;
use crate::text::log;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use mobconn_engine::Limits;
use mobconn_sys::{BRANCH, Device, Errno, NoMemory, OLDEST, SysctlCtx, ffi, osreldate, physical_memory};

unsafe extern "C" {
    /// Of `declare.c`.
    static mut mobconn_cdevsw: ffi::cdevsw;
}

/// Most bindings that `net.inet.mobconn.max_flows` may ask for.
const FLOWS_LIMIT: u32 = 1 << 24;
/// A table takes at most one in so many bytes of the machine's memory.
const MEMORY_SHARE: u64 = 4;
/// About what a binding takes of a table.
const FLOW_BYTES: u64 = 192;

/// `net.inet.mobconn.max_flows`, which sysctl(9) writes whole, as the next.
pub(crate) static MAX_FLOWS: AtomicU32 = AtomicU32::new(65_536);
/// `net.inet.mobconn.grace`, in seconds.
pub(crate) static GRACE: AtomicU32 = AtomicU32::new(60);
/// `net.inet.mobconn.udp_idle`, in seconds.
pub(crate) static UDP_IDLE: AtomicU32 = AtomicU32::new(300);
/// `net.inet.mobconn.force_unload`.
pub(crate) static FORCE_UNLOAD: AtomicU32 = AtomicU32::new(0);

/// What processes can reach; dropping it waits until none is in it.
struct Doors {
    _sysctls: SysctlCtx,
    _device: Device,
}

/// The doors, opened and closed by the event handler only.
struct DoorsCell(UnsafeCell<Option<Doors>>);

// SAFETY: the kernel linker's lock lets one event in at a time.
unsafe impl Sync for DoorsCell {}

static DOORS: DoorsCell = DoorsCell(UnsafeCell::new(None));
static LOADED: AtomicBool = AtomicBool::new(false);
/// Bindings in all network stacks, and commands in progress that may make some.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// No binding may be made any more.
static CLOSING: AtomicBool = AtomicBool::new(false);

/// Whether the load was accepted.
pub(crate) fn is_loaded() -> bool {
    LOADED.load(Ordering::Acquire)
}

/// `net.inet.mobconn.max_flows`, in range.
pub(crate) fn max_flows() -> u32 {
    MAX_FLOWS.load(Ordering::Relaxed)
}

/// When things end.
pub(crate) fn limits() -> Limits {
    Limits { grace: GRACE.load(Ordering::Relaxed), udp_idle: UDP_IDLE.load(Ordering::Relaxed) }
}

/// Keeps the module from being unloaded while a command that may make
/// bindings runs.
pub(crate) struct Making(());

impl Making {
    /// None: the module is on its way out.
    pub(crate) fn begin() -> Option<Self> {
        // Either this sees CLOSING, or the unload sees the count.
        IN_USE.fetch_add(1, Ordering::SeqCst);
        let making = Self(());
        (!CLOSING.load(Ordering::SeqCst)).then_some(making)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        IN_USE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A table had `before` bindings and now has `after`.
pub(crate) fn bindings_changed(before: u32, after: u32) {
    if after >= before {
        IN_USE.fetch_add(after.saturating_sub(before) as usize, Ordering::SeqCst);
    } else {
        IN_USE.fetch_sub(before.saturating_sub(after) as usize, Ordering::SeqCst);
    }
}

/// Whether the running kernel is one that the module was built for. The kernel
/// linker sees to it as well, unless it was told not to.
fn fits() -> bool {
    let running = osreldate();
    let fits = running >= OLDEST && running / 100_000 == BRANCH;
    if !fits {
        log!(
            Error,
            "built for FreeBSD {BRANCH} (kernel {OLDEST} and later of that branch), this kernel is {running}: not \
             loaded; build mobconn for this release"
        );
    }
    fits
}

/// Most bindings that the table of this machine may have: within
/// [`FLOWS_LIMIT`], and so that a full one leaves it most of its memory. The
/// kernel would sooner kill processes than refuse a table that fits just so.
fn most_flows() -> u32 {
    let fitting = physical_memory() / MEMORY_SHARE / FLOW_BYTES;
    u32::try_from(fitting).unwrap_or(FLOWS_LIMIT).clamp(1, FLOWS_LIMIT)
}

/// Corrects a tunable that is out of range.
fn check_max_flows() {
    let (asked, most) = (max_flows(), most_flows());
    let taken = asked.clamp(1, most);
    if asked != taken {
        log!(Warning, "net.inet.mobconn.max_flows={asked} is not within 1 to {most}: {taken} is used");
        MAX_FLOWS.store(taken, Ordering::Relaxed);
    }
}

fn load() -> Result<(), Errno> {
    if !fits() {
        return Err(Errno(ffi::EOPNOTSUPP as c_int));
    }
    let mut sysctls = SysctlCtx::new().map_err(|NoMemory| Errno(ffi::ENOMEM as c_int))?;
    sysctl::add(&mut sysctls).inspect_err(|Errno(error)| log!(Error, "no net.inet.mobconn: error {error}"))?;
    check_max_flows();
    let switch = &raw mut mobconn_cdevsw;
    // SAFETY: the switch is a static of this module, which stays until the device is gone.
    let device = unsafe { Device::make_dev(switch, c"mobconn") };
    let device = device.inspect_err(|Errno(error)| log!(Error, "no /dev/mobconn: error {error}"))?;
    // SAFETY: one event at a time, see `DoorsCell`.
    unsafe { *DOORS.0.get() = Some(Doors { _sysctls: sysctls, _device: device }) };
    LOADED.store(true, Ordering::Release);
    Ok(())
}

/// Whether an unload must be refused now; says so in the log.
fn is_busy() -> bool {
    let used = IN_USE.load(Ordering::SeqCst);
    if used == 0 || FORCE_UNLOAD.load(Ordering::Relaxed) != 0 {
        return false;
    }
    log!(
        Warning,
        "{used} bindings live, so it stays loaded: their connections would break; to unload it all the same, set \
         net.inet.mobconn.force_unload=1"
    );
    true
}

fn unload() -> Result<(), Errno> {
    CLOSING.store(true, Ordering::SeqCst);
    if is_busy() {
        CLOSING.store(false, Ordering::SeqCst);
        return Err(Errno(ffi::EBUSY as c_int));
    }
    // SAFETY: one event at a time, see `DoorsCell`.
    let doors = unsafe { (*DOORS.0.get()).take() };
    drop(doors);
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn mobconn_modevent(_module: *mut c_void, event: c_int, _data: *mut c_void) -> c_int {
    let outcome = match u32::try_from(event) {
        Ok(ffi::MOD_LOAD) => load(),
        Ok(ffi::MOD_QUIESCE) if is_busy() => Err(Errno(ffi::EBUSY as c_int)),
        Ok(ffi::MOD_QUIESCE) | Ok(ffi::MOD_SHUTDOWN) => Ok(()),
        Ok(ffi::MOD_UNLOAD) => unload(),
        _ => Err(Errno(ffi::EOPNOTSUPP as c_int)),
    };
    match outcome {
        Ok(()) => 0,
        Err(Errno(error)) => error,
    }
}

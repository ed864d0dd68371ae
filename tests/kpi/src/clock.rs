//! Time: uptime, ticks, and a clock that tests can move by hand.

use crate::foreign;
use crate::kernel::kernel;
use crate::variables;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const SYMBOLS: &[crate::symbols::Function] =
    crate::symbols![getbinuptime, getmicrouptime, getnanouptime, microuptime];

/// Ticks in a second: `hz`.
pub(crate) const HZ: u64 = 1000;
/// What `ticks` is at boot: it overflows ten minutes later, so that code which forgets that is found.
const TICKS_AT_BOOT: u64 = 0x7fff_ffff - 600 * HZ;

/// Uptime in microseconds that tests set; `u64::MAX` stands for the real clock.
static MANUAL: AtomicU64 = AtomicU64::new(u64::MAX);
/// Ticks shown last; `u64::MAX` until the first call.
static SHOWN: AtomicU64 = AtomicU64::new(u64::MAX);

fn since_start() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The uptime. The kernel's is at least a second when modules run.
pub(crate) fn uptime() -> Duration {
    match MANUAL.load(Ordering::Acquire) {
        u64::MAX => since_start() + Duration::from_secs(1),
        micros => Duration::from_micros(micros),
    }
}

/// Whether the clock is moved by hand.
pub(crate) fn is_manual() -> bool {
    MANUAL.load(Ordering::Acquire) != u64::MAX
}

/// Lets the clock run, or stops it at this uptime; what is due by then is begun.
pub(crate) fn set(uptime: Option<Duration>) {
    MANUAL.store(uptime.map_or(u64::MAX, |d| d.as_micros() as u64), Ordering::Release);
    tick();
    kernel().tasks.clock_moved();
}

/// Moves a clock that stands, or stops one that runs and then moves it. Timeouts run in the order in which they are due,
/// each with the clock at its time and to its end, with all that comes of it.
pub(crate) fn advance(by: Duration) {
    let target = uptime() + by;
    set(Some(uptime()));
    quiesce();
    while let Some(at) = kernel().tasks.next_deadline().filter(|at| *at <= target) {
        set(Some(at.max(uptime())));
        quiesce();
    }
    set(Some(target));
    crate::ip::expire_fragments();
    quiesce();
}

/// Waits until no task, no packet of netisr(9) and no epoch callback waits or runs.
pub(crate) fn quiesce() {
    let kernel = kernel();
    loop {
        let before = (kernel.tasks.runs(), kernel.netisr.runs());
        kernel.tasks.wait_idle();
        kernel.netisr.wait_idle();
        kernel.callbacks.drain();
        if before == (kernel.tasks.runs(), kernel.netisr.runs()) {
            return;
        }
    }
}

/// Brings `time_uptime` and `ticks` up to date, as the clock interrupt does.
pub(crate) fn tick() {
    let now = uptime();
    let ticks = now.as_millis() as u64;
    if SHOWN.swap(ticks, Ordering::Relaxed) != ticks {
        variables::set_time(now.as_secs(), (TICKS_AT_BOOT + ticks) as u32);
    }
}

fn give(to: *mut u8, words: [u64; 2]) {
    // SAFETY: the caller gives a `struct timeval`, `struct timespec` or `struct bintime`: two 64-bit words.
    unsafe { foreign::store(to, words.map(u64::to_le_bytes).as_flattened()) };
}

extern "C" fn getmicrouptime(to: *mut u8) {
    let now = uptime();
    give(to, [now.as_secs(), u64::from(now.subsec_micros())]);
}

extern "C" fn microuptime(to: *mut u8) {
    getmicrouptime(to);
}

extern "C" fn getnanouptime(to: *mut u8) {
    let now = uptime();
    give(to, [now.as_secs(), u64::from(now.subsec_nanos())]);
}

extern "C" fn getbinuptime(to: *mut u8) {
    let now = uptime();
    let fraction = ((u128::from(now.subsec_nanos()) << 64) / 1_000_000_000) as u64;
    give(to, [now.as_secs(), fraction]);
}

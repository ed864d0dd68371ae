//! Small services: time, random numbers, privileges, module registration.

use crate::complaint::complain;
use crate::foreign;
use crate::kernel::kernel;
use crate::layout::{Td, Ucred};
use crate::variables;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    arc4random,
    arc4random_buf,
    priv_check,
    priv_check_cred,
    module_register_init,
    __stack_chk_fail,
    getbinuptime,
    getmicrouptime,
    getnanouptime,
];

/// Uptime in seconds that tests set; `u64::MAX` stands for the real clock.
static MANUAL: AtomicU64 = AtomicU64::new(u64::MAX);
/// `u64::MAX` until the first call.
static SHOWN: AtomicU64 = AtomicU64::new(u64::MAX);

fn since_start() -> std::time::Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Sets the uptime by hand; `None` lets it run with the clock.
pub(crate) fn set_uptime(seconds: Option<u64>) {
    MANUAL.store(seconds.unwrap_or(u64::MAX), Ordering::Release);
    tick();
}

fn uptime() -> std::time::Duration {
    match MANUAL.load(Ordering::Acquire) {
        // The kernel's uptime is at least a second when modules run.
        u64::MAX => since_start() + std::time::Duration::from_secs(1),
        seconds => std::time::Duration::from_secs(seconds),
    }
}

/// Brings `time_uptime` up to date, as the clock interrupt does.
pub(crate) fn tick() {
    let seconds = uptime().as_secs();
    if SHOWN.swap(seconds, Ordering::Relaxed) != seconds {
        variables::set("time_uptime", seconds);
        variables::set("ticks", uptime().as_millis() as u64);
    }
}

extern "C" fn getmicrouptime(to: *mut u8) {
    let now = uptime();
    let words = [now.as_secs(), u64::from(now.subsec_micros())];
    // SAFETY: the caller gives a `struct timeval`: two 64-bit words.
    unsafe { foreign::store(to, words.map(u64::to_le_bytes).as_flattened()) };
}

extern "C" fn getnanouptime(to: *mut u8) {
    let now = uptime();
    let words = [now.as_secs(), u64::from(now.subsec_nanos())];
    // SAFETY: the caller gives a `struct timespec`: two 64-bit words.
    unsafe { foreign::store(to, words.map(u64::to_le_bytes).as_flattened()) };
}

extern "C" fn getbinuptime(to: *mut u8) {
    let now = uptime();
    let fraction = ((u128::from(now.subsec_nanos()) << 64) / 1_000_000_000) as u64;
    // SAFETY: the caller gives a `struct bintime`: two 64-bit words.
    unsafe { foreign::store(to, [now.as_secs(), fraction].map(u64::to_le_bytes).as_flattened()) };
}

extern "C" fn arc4random() -> u32 {
    kernel().rng.word() as u32
}

extern "C" fn arc4random_buf(to: *mut u8, length: usize) {
    let mut bytes = vec![0; length];
    for chunk in bytes.chunks_mut(8) {
        let word = kernel().rng.word().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    // SAFETY: the caller gives `length` bytes.
    unsafe { foreign::store(to, &bytes) };
}

extern "C" fn priv_check(td: *mut u8, privilege: i32) -> i32 {
    // SAFETY: a thread, by the KPI.
    let td = unsafe { Td::new(td) }.unwrap_or_else(|| complain!("priv_check: no thread"));
    priv_check_cred(td.ucred() as *mut u8, privilege)
}

extern "C" fn priv_check_cred(cred: *mut u8, _privilege: i32) -> i32 {
    const EPERM: i32 = 1;
    // SAFETY: credentials, by the KPI.
    let cred = unsafe { Ucred::new(cred) }.unwrap_or_else(|| complain!("priv_check_cred: no credentials"));
    if cred.uid() == 0 { 0 } else { EPERM }
}

extern "C" fn module_register_init(data: *mut u8) {
    crate::linker::register_init(data);
}

extern "C" fn __stack_chk_fail() {
    complain!("stack smashing detected in the module");
}

//! Complaints: misuse of the kernel interface ends the process, loudly.

use std::fmt;
use std::io::Write as _;

/// Says what is wrong and where, then aborts.
#[cold]
pub(crate) fn abort(what: fmt::Arguments<'_>) -> ! {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let during = crate::thread::entry_name();
    let seed = crate::kernel::seed();
    let mut err = std::io::stderr().lock();
    // Nothing is left to do when standard error is gone; the abort is the message then.
    let _ = writeln!(err, "mobconn-kpi: {what}\nmobconn-kpi: during {during}, thread {name}, seed {seed}");
    let _ = err.flush();
    std::process::abort()
}

/// [`abort`] with the arguments of `format!`.
macro_rules! complain {
    ($($argument:tt)*) => { $crate::complaint::abort(format_args!($($argument)*)) };
}
pub(crate) use complain;

//! Faults in module code: what would be a page fault panic in the kernel ends the process with a message.

use std::io::Write as _;
use std::sync::Once;

/// Installs the handler, once for the process.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            let mut action = empty();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
            // SAFETY: a valid action; the handler only prints and aborts.
            let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
            assert!(result == 0, "sigaction: {}", std::io::Error::last_os_error());
        }
    });
}

fn empty() -> libc::sigaction {
    // SAFETY: all zeros is a valid `struct sigaction`.
    unsafe { std::mem::zeroed() }
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the system passes the context of the interrupted code.
    let context = unsafe { &*context };
    let at = context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    // SAFETY: the system passes the information about the signal.
    let info = unsafe { &*info };
    // SAFETY: these signals carry an address.
    let address = unsafe { info.si_addr() } as usize;
    let place = crate::linker::describe(at).unwrap_or_else(|| format!("{at:#x}, outside modules"));
    let touched = crate::linker::describe(address).map_or_else(String::new, |name| format!(" ({name})"));
    let during = crate::thread::entry_name();
    let mut err = std::io::stderr();
    // The process ends here in any case.
    let _ = writeln!(err, "mobconn-kpi: fault (signal {signal}) at {place}, address {address:#x}{touched}");
    let _ = writeln!(err, "mobconn-kpi: during {during}, seed {}", crate::kernel::seed());
    std::process::abort()
}

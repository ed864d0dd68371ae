//! Every complaint fires: a module that does one thing wrong ends the process with the message for it.

#[path = "common/cc.rs"]
mod cc;

use std::path::Path;
use std::process::{Command, Output};

/// What `misuse.c` does for each value of its tunable, in order, and what must be said about it.
const CASES: &[(&str, &str)] = &[
    ("CLEAN", ""),
    ("SLEEP_MALLOC", "malloc: sleeps inside the network epoch"),
    ("SLEEP_SX", "sx_xlock: sleeps inside the network epoch"),
    ("LEAK_MBUF", "mbufs are left"),
    ("FREE_TWICE", "m_freem: use of freed mbuf #"),
    ("USE_FREED", "m_pullup: use of freed mbuf #"),
    ("WRITE_FREED", "was written after it was freed"),
    ("PASS_NULL", "returns PASS with a null mbuf"),
    ("CONSUMED_LEFT", "leaves the mbuf to nobody"),
    ("EPOCH_OPEN", "locks, epoch sections, curvnet were (1, 1, "),
    ("LOCK_HELD", "locks, epoch sections, curvnet were (1, 1, "),
    ("MEMORY_LEFT", "memory type misuse leaked memory on destroy (1 allocations, 100 bytes leaked)"),
    ("HOOK_LEFT", "the hooks [\"misuse:inet"),
    ("DEVICE_LEFT", "its devices [\"misuse0\"] are left"),
    ("BAD_LENGTH", "m_pkthdr.len is "),
    ("MALLOC_BOUNDS", "something wrote beyond the bounds of 24 bytes of \"misuse\""),
    ("MALLOC_TWICE", "is freed twice"),
    ("RECURSION", "mtx_lock: recursion on \"misuse lock\""),
    ("SHARED_WRITE", "something wrote to a cluster that others refer to"),
    ("VNET_MASTER", "fault (signal 11) at check"),
    ("NULL_DEREF", "fault (signal 11) at check"),
    ("LOCK_ORDER", "lock order reversal: \"misuse other lock\" is held, \"misuse lock\" came first elsewhere"),
    ("COUNTER_LEFT", "1 counters are left"),
    ("EPOCH_EXIT", "was not entered with"),
    ("COPYIN_LOCKED", "copyin: sleeps while it holds \"misuse lock\""),
    ("ARGUMENT_BOUNDS", "something wrote beyond the bounds of 4 bytes of \"the kernel's ioctl argument\""),
    ("WRONG_TYPE", "memory of \"misuse\" is freed as another type"),
    ("BAD_VERDICT", "returns 77, which is no verdict"),
    ("PANIC", "panic: testing of 2"),
    ("CURVNET", "locks, epoch sections, curvnet were (1, 1, "),
    ("LOCK_LEFT", "its locks [\"misuse lock\"] are left"),
    ("LOCK_UNINIT", "is not initialised"),
    ("CLUSTER_BOUNDS", "something wrote beyond the bounds of cluster #"),
    ("NO_PKTHDR", "the mbuf has lost its packet header"),
    ("MALLOC_WRITE_FREED", "24 bytes of \"misuse\" were written after they were freed"),
    ("RO_WRITE", "fault (signal 11) at check"),
    ("CALLBACK_LATE", ""),
    ("CRITICAL", "ip6_output returns in a critical section"),
    ("DEEP_STACK", "module code has 7"),
    ("DRAIN_EPOCH", "taskqueue_drain: sleeps inside the network epoch"),
    ("DRAIN_ITSELF", "is drained by the thread that runs tasks, which waits for itself"),
    ("TASK_LEFT", "its tasks ["),
    ("TIMEOUT_LEFT", "its tasks [\"timeout under way at"),
    ("TASK_FREED", "has a timeout under way, and its memory is freed"),
    ("TASK_AGAIN", "was initialised again while it was queued"),
    ("TASK_RAW", "is not initialised"),
    ("TIMEOUT_RAW", "is not initialised"),
    ("TASK_VNET", "a task leaves curvnet set"),
    ("TASK_LOCK", "a task returns with the lock \"misuse lock\" held"),
    ("TASK_QUEUE", "is not taskqueue_thread"),
    ("LOOKUP_HOOK", "in_pcblookup while an inpcb is locked"),
    ("LOOKUP_INFO", "is neither V_tcbinfo nor V_udbinfo of curvnet"),
    ("LOOKUP_FLAGS", "neither or both of INPLOOKUP_RLOCKPCB and INPLOOKUP_WLOCKPCB"),
    ("LOOKUP_LEFT", "sleeps while it holds \"tcpinp\""),
    ("LOOKUP_TWICE", "in_pcblookup while an inpcb is locked"),
    ("PCB_ORDER", "lock order reversal: \"misuse lock\" is held, \"udpinp\" came first elsewhere"),
    ("TIMER_READ", "the inpcb is not write-locked by this thread"),
    ("TIMER_IDLE", "the timer did not run"),
    ("TIMER_LAST", "the connection would be dropped"),
    ("TIMER_UDP", "tcp_timer_activate of a UDP socket"),
    ("QUEUE_BARE", "the packet has no receiving interface"),
    ("QUEUE_PROTOCOL", "protocol 4 is not emulated"),
    ("SEND_BARE", "ip_output outside the network epoch"),
    ("REASS_WHOLE", "ip_reass of a packet that is no fragment"),
    ("FRAG6_OFFSET", "there is no fragment header at such an offset"),
    ("ROUTE_BARE", "fib4_lookup outside the network epoch"),
    ("LOCAL_BARE", "in_localip outside the network epoch"),
    ("RESTORE_BARE", "m_rcvif_restore outside the network epoch"),
    ("UNLOCK_FREE", "mtx_unlock: \"misuse lock\" is not held by this thread"),
];

fn run(module: &Path, mode: usize) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kpi-exercise"))
        .arg(module)
        .arg(format!("debug.misuse={mode}"))
        .output()
        .expect("kpi-exercise")
}

#[test]
fn every_misuse_is_complained_about() {
    use std::os::unix::process::ExitStatusExt as _;
    let module = cc::compile("testmod/misuse.c", "misuse");
    let mut wrong = Vec::new();
    for (mode, (name, message)) in CASES.iter().enumerate() {
        let output = run(&module, mode);
        let said = String::from_utf8_lossy(&output.stderr);
        let aborted = output.status.signal() == Some(6) && said.contains("mobconn-kpi: ");
        let as_expected = if message.is_empty() { output.status.success() } else { aborted && said.contains(message) };
        if !as_expected {
            wrong.push(format!("{name}: {}: {said}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_list_is_that_of_the_module() {
    let source = include_str!("../testmod/misuse.c");
    let list = source.split_once("enum {").and_then(|(_, rest)| rest.split_once('}')).expect("an enum").0;
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    assert_eq!(names, CASES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

//! Loading and unloading the module.

mod common;

use common::{add, flow, ioctl, loaded, module};
use mobconn_abi::{INFO, Info, TCP};
use mobconn_kpi::{Errno, Machine, Options};

fn info(machine: &Machine) -> Info {
    let mut info = Info::default();
    ioctl(&machine.vnet0(), INFO, &mut info, &mut []).expect("INFO");
    info
}

#[test]
fn loads_and_unloads_again_and_again() {
    let machine = Machine::boot(Options::default());
    for round in 0..20 {
        assert_eq!(machine.kldload(&module(), &[]), Ok(()), "round {round}: {:?}", machine.console());
        assert_eq!(machine.kldload(&module(), &[]), Err(Errno::EEXIST));
        assert_eq!(info(&machine).flows, 0);
        let (stack, wire) = flow(round % 2 == 0, TCP, 5000);
        assert_eq!(add(&machine.vnet0(), stack, wire), Ok(()));
        common::unload(&machine);
        assert_eq!(machine.kldunload(false), Err(Errno::ENOENT));
        assert_eq!(machine.vnet0().ioctl(3, INFO, &mut [0; 32], &mut []), Err(Errno::ENOENT));
    }
}

#[test]
fn tells_who_it_is() {
    let machine = loaded(Options::default());
    machine.set_uptime(Some(4711));
    let info = info(&machine);
    assert_eq!((info.version, info.flows, info.capacity, info.reserved), (mobconn_abi::ABI_VERSION, 0, 65_536, 0));
    assert_eq!(info.uptime, 4711);
}

#[test]
fn capacity_is_a_loader_tunable() {
    let machine = Machine::boot(Options::default());
    machine.kldload(&module(), &[("net.inet.mobconn.max_flows", "1k")]).expect("kldload");
    assert_eq!(info(&machine).capacity, 1024);
    assert_eq!(machine.sysctl_get("net.inet.mobconn.max_flows").as_deref(), Ok("1024"));
    assert_eq!(machine.sysctl_set("net.inet.mobconn.max_flows", "5"), Err(Errno::EPERM));
}

#[test]
fn refuses_other_kernels() {
    for (osreldate, fits) in [(1_302_001, false), (1_400_096, false), (1_400_097, true), (1_500_000, false)] {
        let machine = Machine::boot(Options { osreldate, ..Options::default() });
        let result = machine.kldload(&module(), &[]);
        assert_eq!(result.is_ok(), fits, "{osreldate}: {result:?}");
        let console = machine.console();
        assert_eq!(console.iter().any(|line| line.contains("version mismatch")), !fits, "{osreldate}: {console:?}");
    }
}

/// The module looks for itself, should a linker be told not to.
#[test]
fn refuses_other_kernels_that_would_link_it() {
    let mut module = std::fs::read(module()).expect("the module");
    // What it depends on: oldest, preferred and newest kernel.
    let newest = 1_499_999_i32.to_le_bytes();
    let at = module.windows(4).position(|window| window == newest).expect("the newest kernel");
    module[at - 8..at - 4].copy_from_slice(&1_300_000_i32.to_le_bytes());
    module[at..at + 4].copy_from_slice(&1_999_999_i32.to_le_bytes());
    let file = std::env::temp_dir().join(format!("mobconn-kpi-any-{}.ko", std::process::id()));
    std::fs::write(&file, module).expect("a file");
    for (osreldate, fits) in [(1_302_001, false), (1_400_096, false), (1_400_500, true), (1_500_000, false)] {
        let machine = Machine::boot(Options { osreldate, ..Options::default() });
        let result = machine.kldload(&file, &[]);
        assert_eq!(result.is_ok(), fits, "{osreldate}: {result:?}");
        let console = machine.console();
        let says = format!("this kernel is {osreldate}: not loaded");
        assert_eq!(console.iter().any(|line| line.contains(&says)), !fits, "{osreldate}: {console:?}");
        assert_eq!(machine.sysctl_get("net.inet.mobconn.flows").is_ok(), fits);
    }
    std::fs::remove_file(&file).expect("the file");
}

#[test]
fn corrects_a_capacity_that_cannot_be() {
    for (asked, taken) in [("0", 1), ("16777217", 16_777_216), ("4294967295", 16_777_216)] {
        let machine = Machine::boot(Options::default());
        machine.kldload(&module(), &[("net.inet.mobconn.max_flows", asked)]).expect("kldload");
        assert_eq!(info(&machine).capacity, taken);
        assert_eq!(machine.sysctl_get("net.inet.mobconn.max_flows"), Ok(taken.to_string()));
        let console = machine.console();
        assert!(console.iter().any(|line| line.contains(&format!("max_flows={asked} is not within"))), "{console:?}");
    }
}

#[test]
fn leaves_a_small_machine_most_of_its_memory() {
    let machine = Machine::boot(Options { memory: 1 << 30, ..Options::default() });
    machine.kldload(&module(), &[("net.inet.mobconn.max_flows", "16777216")]).expect("kldload");
    let taken = info(&machine).capacity;
    assert!((1_000_000..2_000_000).contains(&taken), "{taken}");
    let console = machine.console();
    assert!(console.iter().any(|line| line.contains(&format!("within 1 to {taken}"))), "{console:?}");
}

#[test]
fn refuses_what_is_no_module() {
    let machine = Machine::boot(Options::default());
    let good = std::fs::read(module()).expect("the module");
    let file = std::env::temp_dir().join(format!("mobconn-kpi-{}.ko", std::process::id()));
    assert_eq!(machine.kldload(&file, &[]), Err(Errno::ENOENT));
    for bytes in [&b"no object"[..], &good[..good.len() / 2], &good[..64], &[]] {
        std::fs::write(&file, bytes).expect("a file");
        assert_eq!(machine.kldload(&file, &[]), Err(Errno::ENOEXEC));
    }
    // A name that no kernel has: the console says which.
    let mut renamed = good.clone();
    let at = renamed.windows(9).position(|w| w == b"m_copyup\0").expect("the name of a function");
    renamed[at..at + 8].copy_from_slice(b"m_foobar");
    std::fs::write(&file, &renamed).expect("a file");
    assert_eq!(machine.kldload(&file, &[]), Err(Errno::ENOEXEC));
    std::fs::remove_file(&file).expect("the file");
    let console = machine.console();
    assert!(console.iter().any(|line| line.contains("symbol m_foobar undefined")), "{console:?}");
}

#[test]
fn every_vnet_has_its_own() {
    let machine = loaded(Options::default());
    let jail = machine.vnet_create();
    let (stack, wire) = flow(false, TCP, 5000);
    add(&jail, stack, wire).expect("FLOW_ADD");
    assert_eq!(info(&machine).flows, 0);
    assert_eq!(jail.sysctl_get("net.inet.mobconn.flows").as_deref(), Ok("1"));
    assert_eq!(machine.sysctl_get("net.inet.mobconn.flows").as_deref(), Ok("0"));
    assert_eq!(add(&machine.vnet0(), stack, wire), Ok(()));
    jail.destroy();
    assert_eq!(machine.sysctl_get("net.inet.mobconn.flows").as_deref(), Ok("1"));
    let later = machine.vnet_create();
    assert_eq!(later.sysctl_get("net.inet.mobconn.flows").as_deref(), Ok("0"));
    add(&later, stack, wire).expect("FLOW_ADD");
    common::unload(&machine);
    later.destroy();
}

#[test]
fn stays_while_bindings_live() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let (stack, wire) = flow(true, TCP, 5000);
    add(&vnet, stack, wire).expect("FLOW_ADD");
    assert_eq!(machine.kldunload(false), Err(Errno::EBUSY));
    assert_eq!(info(&machine).flows, 1);
    common::delete(&vnet, stack).expect("FLOW_DELETE");
    assert_eq!(machine.kldunload(false), Ok(()));
}

#[test]
fn leaves_by_force() {
    let machine = loaded(Options::default());
    let jail = machine.vnet_create();
    for port in 1..2000 {
        let (stack, wire) = flow(port % 2 == 0, TCP, port);
        add(&jail, stack, wire).expect("FLOW_ADD");
    }
    assert!(machine.memory("mobconn") > 0);
    assert_eq!(machine.kldunload(false), Err(Errno::EBUSY));
    common::unload(&machine);
    assert_eq!(machine.memory("mobconn"), 0);
    jail.destroy();
}

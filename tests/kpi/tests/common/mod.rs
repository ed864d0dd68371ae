//! What the tests share: where the module is, tuples, packets, commands.
#![allow(dead_code, reason = "every test program uses a part of it")]

pub(crate) mod moves;
pub(crate) mod packets;

use mobconn_abi::{FlowAdd, FlowDelete, Stats, Tuple};
use mobconn_kpi::{Errno, Machine, Options, Region, Vnet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Open for reading and writing.
pub(crate) const RW: u32 = 3;

/// The module under test: `MOBCONN_KO`, or `build/mobconn.ko` of this workspace.
pub(crate) fn module() -> PathBuf {
    let path = std::env::var_os("MOBCONN_KO")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/mobconn.ko"), PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `make kmod` first", path.display());
    path
}

/// A machine with the module loaded.
pub(crate) fn loaded(options: Options) -> Machine {
    let machine = Machine::boot(options);
    if let Err(error) = machine.kldload(&module(), &[]) {
        panic!("kldload: {error}; console: {:#?}", machine.console());
    }
    machine
}

/// Unloads the module with bindings alive.
pub(crate) fn unload(machine: &Machine) {
    machine.sysctl_set("net.inet.mobconn.force_unload", "1").expect("force_unload");
    machine.kldunload(false).expect("kldunload");
}

/// One command with its argument.
pub(crate) fn ioctl<T: IntoBytes + FromBytes + Immutable>(
    vnet: &Vnet,
    command: u32,
    argument: &mut T,
    regions: &mut [Region],
) -> Result<(), Errno> {
    let mut bytes = argument.as_bytes().to_vec();
    let result = vnet.ioctl(RW, command, &mut bytes, regions);
    *argument = T::read_from_bytes(&bytes).expect("as long as before");
    result
}

/// A side of a flow.
pub(crate) fn tuple(local: &str, local_port: u16, remote: &str, remote_port: u16, protocol: u8) -> Tuple {
    let (local, remote): (IpAddr, IpAddr) = (local.parse().expect("address"), remote.parse().expect("address"));
    let octets = |ip| match ip {
        IpAddr::V4(ip) => {
            let mut wide = [0; 16];
            wide[..4].copy_from_slice(&ip.octets());
            wide
        }
        IpAddr::V6(ip) => ip.octets(),
    };
    Tuple {
        local: octets(local),
        remote: octets(remote),
        local_port,
        remote_port,
        version: if local.is_ipv4() { 4 } else { 6 },
        protocol,
        reserved: [0; 2],
    }
}

/// A flow whose both halves have moved: stack side and wire side. `port` tells flows apart.
pub(crate) fn flow(v6: bool, protocol: u8, port: u16) -> (Tuple, Tuple) {
    if v6 {
        (
            tuple("2001:db8::1", port, "2001:db8::2", 80, protocol),
            tuple("2001:db8:aa::17", port, "2001:db8:bb::99", 80, protocol),
        )
    } else {
        (tuple("10.0.0.1", port, "10.0.0.2", 80, protocol), tuple("172.16.5.17", port, "192.168.77.99", 80, protocol))
    }
}

/// The addresses of a tuple.
pub(crate) fn addresses(tuple: &Tuple) -> (IpAddr, IpAddr) {
    let ip = |octets: &[u8; 16]| {
        if tuple.version == 4 {
            IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
        } else {
            IpAddr::from(*octets)
        }
    };
    (ip(&tuple.local), ip(&tuple.remote))
}

/// Binds a flow.
pub(crate) fn add(vnet: &Vnet, stack: Tuple, wire: Tuple) -> Result<(), Errno> {
    ioctl(vnet, mobconn_abi::FLOW_ADD, &mut FlowAdd { stack, wire, flags: 0, reserved: 0 }, &mut [])
}

/// Takes a binding away.
pub(crate) fn delete(vnet: &Vnet, stack: Tuple) -> Result<(), Errno> {
    ioctl(vnet, mobconn_abi::FLOW_DELETE, &mut FlowDelete { stack, flags: 0, reserved: 0 }, &mut [])
}

/// The counters.
pub(crate) fn stats(vnet: &Vnet) -> Stats {
    let mut stats = Stats::default();
    ioctl(vnet, mobconn_abi::STATS, &mut stats, &mut []).expect("STATS");
    stats
}

/// One counter.
pub(crate) fn count(vnet: &Vnet, counter: mobconn_abi::Counter) -> u64 {
    stats(vnet).values[counter as usize]
}

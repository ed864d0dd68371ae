//! Between the words of the device and those of the engine.

use crate::refusal::Refusal;
use mobconn_abi::{self as abi, Alternate, Event, EventKind, HalfState, Record, Tuple};
use mobconn_engine::{Address, Binding, Entry, Half, HalfView, Other, Protocol, Side, Version, What};
use mobconn_sys::ConnectionSide;

/// The IP version that `raw` stands for.
pub(crate) const fn version(raw: u8) -> Result<Version, Refusal> {
    match raw {
        abi::IPV4 => Ok(Version::V4),
        abi::IPV6 => Ok(Version::V6),
        _ => Err(Refusal::Invalid),
    }
}

/// The half that `raw` stands for.
pub(crate) fn half(raw: u8) -> Result<Half, Refusal> {
    match abi::Half::from_raw(raw) {
        Some(abi::Half::Local) => Ok(Half::Local),
        Some(abi::Half::Remote) => Ok(Half::Remote),
        None => Err(Refusal::Invalid),
    }
}

/// The flag that `raw` stands for.
pub(crate) const fn flag(raw: u32) -> Result<bool, Refusal> {
    match raw {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Refusal::Invalid),
    }
}

/// A tuple from user space as a side. The engine judges addresses and ports.
pub(crate) fn side(tuple: &Tuple) -> Result<Side, Refusal> {
    let protocol = match tuple.protocol {
        abi::TCP => Protocol::Tcp,
        abi::UDP => Protocol::Udp,
        _ => return Err(Refusal::Invalid),
    };
    if tuple.reserved != [0; 2] {
        return Err(Refusal::Invalid);
    }
    Ok(Side {
        local: Address(tuple.local),
        remote: Address(tuple.remote),
        local_port: tuple.local_port,
        remote_port: tuple.remote_port,
        version: version(tuple.version)?,
        protocol,
    })
}

fn tuple(side: &Side) -> Tuple {
    Tuple {
        local: side.local.0,
        remote: side.remote.0,
        local_port: side.local_port,
        remote_port: side.remote_port,
        version: match side.version {
            Version::V4 => abi::IPV4,
            Version::V6 => abi::IPV6,
        },
        protocol: match side.protocol {
            Protocol::Tcp => abi::TCP,
            Protocol::Udp => abi::UDP,
        },
        reserved: [0; 2],
    }
}

/// A side as the kernel's own tables have it.
pub(crate) fn connection(side: &Side) -> ConnectionSide {
    ConnectionSide {
        local: side.local.0,
        remote: side.remote.0,
        local_port: side.local_port.to_be(),
        remote_port: side.remote_port.to_be(),
        is_ipv6: u8::from(side.version == Version::V6),
        is_udp: u8::from(side.protocol == Protocol::Udp),
    }
}

fn half_state(half: &HalfView) -> HalfState {
    let (other, pending_generation, alternate) = match half.other {
        Other::None => ([0; 16], 0, Alternate::None),
        Other::Pending { address, generation, hold: false } => (address.0, generation, Alternate::Pending),
        Other::Pending { address, generation, hold: true } => (address.0, generation, Alternate::PendingHold),
        Other::Grace { address, since: _ } => (address.0, 0, Alternate::Grace),
    };
    HalfState { other, generation: half.generation, pending_generation, alternate: alternate as u8, reserved: [0; 7] }
}

/// A binding as user space sees it.
pub(crate) fn record(binding: &Binding) -> Record {
    Record {
        stack: tuple(&binding.stack),
        wire: tuple(&binding.wire),
        local: half_state(&binding.local),
        remote: half_state(&binding.remote),
        id: binding.id,
        created: u64::from(binding.created),
        used: u64::from(binding.used),
        flags: if binding.displaced { abi::DISPLACED } else { 0 } | if binding.lost { abi::LOST } else { 0 },
        reserved: 0,
    }
}

/// An entry of the journal as user space sees it.
pub(crate) fn event(entry: &Entry, sequence: u64, lost: u64) -> Event {
    let local_or_remote = |half| match half {
        Half::Local => abi::Half::Local as u32,
        Half::Remote => abi::Half::Remote as u32,
    };
    let (kind, half) = match entry.what {
        What::Made => (EventKind::Made, 0),
        What::Displaced => (EventKind::Displaced, 0),
        What::Prepared(half) => (EventKind::Prepared, local_or_remote(half)),
        What::Rebound(half) => (EventKind::Rebound, local_or_remote(half)),
        What::Aborted(half) => (EventKind::Aborted, local_or_remote(half)),
        What::GraceEnded => (EventKind::GraceEnded, 0),
        What::Lost => (EventKind::Lost, 0),
        What::Gone => (EventKind::Gone, 0),
        What::Full => (EventKind::Full, 0),
    };
    Event { sequence, lost, time: entry.at, kind: kind as u32, half, record: record(&entry.binding) }
}

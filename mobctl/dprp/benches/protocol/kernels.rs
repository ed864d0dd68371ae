//! What stands for a host's kernel: one that costs nothing, and the engine's
//! own table.

use mobconn_dprp::{Flow, Half, Host, KernelError, Protocol};
use mobconn_engine::{self as engine, Address, Control, Engine, Prepare, Side, TableError, Version};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

type Results = Vec<Result<(), KernelError>>;

/// Has every connection, and does at once whatever is asked.
pub(crate) struct Willing;

impl Host for Willing {
    fn instance(&mut self, _: &Flow) -> Option<u64> {
        Some(1)
    }
    fn wire(&mut self, _: &Flow) -> Option<Flow> {
        None
    }
    fn stack(&mut self, _: &Flow) -> Option<Flow> {
        None
    }
    fn prepare(&mut self, _: Half, _: IpAddr, _: bool, moves: &[(Flow, u32)]) -> Results {
        vec![Ok(()); moves.len()]
    }
    fn commit(&mut self, _: Half, moves: &[(Flow, u32)]) -> Results {
        vec![Ok(()); moves.len()]
    }
    fn abort(&mut self, _: Half, moves: &[(Flow, u32)]) -> Results {
        vec![Ok(()); moves.len()]
    }
}

/// Has every connection, and the table that the module has. What an ioctl costs besides is not here.
pub(crate) struct Table {
    engine: Engine,
    control: Control,
}

impl Table {
    pub(crate) fn new(capacity: u32) -> Self {
        let key = std::array::from_fn(|i| 0x9e37_79b9_7f4a_7c15_u64.rotate_left(11 * i as u32) ^ 0x1234_5678);
        let (engine, control) = engine::new(&engine::Config { capacity, key }).unwrap();
        Self { engine, control }
    }
}

const fn half(half: Half) -> engine::Half {
    match half {
        Half::Local => engine::Half::Local,
        Half::Remote => engine::Half::Remote,
    }
}

fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address(v6.octets()),
    }
}

fn side(flow: &Flow) -> Side {
    Side {
        local: address(flow.local.ip()),
        remote: address(flow.remote.ip()),
        local_port: flow.local.port(),
        remote_port: flow.remote.port(),
        version: if flow.local.is_ipv4() { Version::V4 } else { Version::V6 },
        protocol: match flow.protocol {
            Protocol::Tcp => engine::Protocol::Tcp,
            Protocol::Udp => engine::Protocol::Udp,
        },
    }
}

fn flow(side: &Side) -> Flow {
    let ip = |address: Address| match side.version {
        Version::V4 => IpAddr::from(Ipv4Addr::from(*address.0.first_chunk::<4>().unwrap())),
        Version::V6 => IpAddr::from(Ipv6Addr::from(address.0)),
    };
    Flow {
        local: SocketAddr::new(ip(side.local), side.local_port),
        remote: SocketAddr::new(ip(side.remote), side.remote_port),
        protocol: match side.protocol {
            engine::Protocol::Tcp => Protocol::Tcp,
            engine::Protocol::Udp => Protocol::Udp,
        },
    }
}

const fn error(error: TableError) -> KernelError {
    match error {
        TableError::Stale => KernelError::Stale,
        TableError::NotFound => KernelError::NotFound,
        TableError::Conflict => KernelError::Conflict,
        TableError::Full | TableError::NoMemory => KernelError::Full,
        _ => KernelError::Other(0),
    }
}

impl Host for Table {
    fn instance(&mut self, _: &Flow) -> Option<u64> {
        Some(1)
    }
    fn wire(&mut self, stack: &Flow) -> Option<Flow> {
        self.control.get(&self.engine, &side(stack)).map(|binding| flow(&binding.wire))
    }
    fn stack(&mut self, wire: &Flow) -> Option<Flow> {
        self.control.get_by_wire(&self.engine, &side(wire)).map(|binding| flow(&binding.stack))
    }
    fn prepare(&mut self, which: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Results {
        let new = address(new);
        let each = |(flow, generation): &(Flow, u32)| {
            let prepare = Prepare { half: half(which), new, generation: *generation, hold, take: false };
            self.control.prepare(&self.engine, &side(flow), &prepare, |_| false, 1).map_err(error)
        };
        moves.iter().map(each).collect()
    }
    fn commit(&mut self, which: Half, moves: &[(Flow, u32)]) -> Results {
        let each = |(flow, generation): &(Flow, u32)| {
            let done = self.control.commit(&self.engine, &side(flow), half(which), *generation, 1);
            done.map(|_| ()).map_err(error)
        };
        moves.iter().map(each).collect()
    }
    fn abort(&mut self, which: Half, moves: &[(Flow, u32)]) -> Results {
        let each = |(flow, generation): &(Flow, u32)| {
            let done = self.control.abort(&self.engine, &side(flow), half(which), *generation);
            done.map(|_| ()).map_err(error)
        };
        moves.iter().map(each).collect()
    }
}

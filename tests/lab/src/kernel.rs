//! What stands between a host's IP layer and its cables.

use crate::diag::Diag;
use crate::resume::Sink;
use crate::route::Routes;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use mobconn_kpi::Region;

/// What became of a packet on its way out.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// It leaves.
    Send {
        /// The packet as it travels, or its fragments.
        packets: Vec<Vec<u8>>,
        /// Which way.
        by: By,
    },
    /// It is for this host.
    Loop(Vec<u8>),
    /// It does not leave, because it is longer than this and must not be cut.
    TooBig(u16),
    /// It does not leave.
    Nothing,
}

/// Which way packets leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// As the host's routing table said.
    Device,
    /// Their destination is another one now: the routing table is asked again.
    Route,
    /// By this interface, whatever the routing table says.
    Interface(String),
}

/// What became of a packet on its way in.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// It is for this host.
    Deliver(Vec<u8>),
    /// It goes no further.
    Nothing,
}

/// Where a host is: what its kernel asks there.
#[derive(Debug)]
pub struct Place {
    /// Its connections.
    pub connections: Arc<Diag>,
    /// Its routing table.
    pub routes: Routes,
    /// Its interfaces: index and name.
    pub interfaces: Vec<(u32, String)>,
    /// Where to put what the kernel does on its own.
    pub sink: Sink,
}

/// The packet path and the device of one host.
pub trait Kernel: Send + Sync {
    /// `ip_output`, `ip6_output`: `packet` is what the host sends.
    fn output(&self, packet: &[u8], interface: &str) -> Output;
    /// `ip_input`, `ip6_input`: `packet` is what came over the cable.
    fn input(&self, packet: &[u8], interface: &str) -> Input;
    /// The host is there.
    fn join(&self, place: Place);
    /// The host's addresses are now these.
    fn set_local(&self, addresses: &[IpAddr]);
    /// An interface takes packets of so many bytes.
    fn set_mtu(&self, interface: &str, mtu: u32);
    /// An ioctl on `/dev/mobconn`; the error is FreeBSD's errno.
    ///
    /// # Errors
    /// What the module says.
    fn ioctl(&self, fflag: u32, command: u32, argument: &mut [u8], regions: &mut [Region]) -> Result<(), u32>;
    /// Opens `/dev/mobconn` to read events.
    ///
    /// # Errors
    /// FreeBSD's errno.
    fn open(&self) -> Result<Box<dyn Reader>, u32> {
        Err(ENXIO)
    }
}

/// An open device from which events are read.
pub trait Reader {
    /// poll(2) for so long, then read(2).
    ///
    /// # Errors
    /// FreeBSD's errno; `EAGAIN` when there is nothing.
    fn read(&self, wait: Duration, buffer: &mut [u8]) -> Result<usize, u32>;
}

/// A host without mobconn.
#[derive(Debug)]
pub struct Without;

/// FreeBSD's `ENXIO`: there is no such device.
const ENXIO: u32 = 6;

impl Kernel for Without {
    fn output(&self, packet: &[u8], _: &str) -> Output {
        Output::Send { packets: vec![packet.to_vec()], by: By::Device }
    }

    fn input(&self, packet: &[u8], _: &str) -> Input {
        Input::Deliver(packet.to_vec())
    }

    fn join(&self, _: Place) {}

    fn set_local(&self, _: &[IpAddr]) {}

    fn set_mtu(&self, _: &str, _: u32) {}

    fn ioctl(&self, _: u32, _: u32, _: &mut [u8], _: &mut [Region]) -> Result<(), u32> {
        Err(ENXIO)
    }
}

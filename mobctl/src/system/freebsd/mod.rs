//! FreeBSD: `/dev/mobconn`, the sysctl tree, and what its sockets offer.

mod call;
mod watcher;

pub use watcher::Watcher;

use crate::connections::{Connection, ListError, pcblist};
use crate::device::Channel;
use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, setsockopt, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;

/// What stands behind the control device.
pub const NAME: &str = "FreeBSD kernel module";

/// The signal that asks for a line about how things are.
pub const SIGINFO: i32 = libc::SIGINFO;

/// Opens the control device.
///
/// # Errors
/// Those of open(2).
pub fn open_channel(path: &Path) -> io::Result<Box<dyn Channel>> {
    Ok(Box::new(call::IoctlChannel::open(path)?))
}

/// The TCP connections and connected UDP sockets of this host or VNET jail.
///
/// # Errors
/// Those of sysctl(3), and lists that make no sense.
pub fn connections() -> io::Result<Vec<Connection>> {
    let mut connections = list(c"net.inet.tcp.pcblist", pcblist::parse_tcp)?;
    connections.extend(list(c"net.inet.udp.pcblist", pcblist::parse_udp)?);
    Ok(connections)
}

fn list(name: &std::ffi::CStr, parse: fn(&[u8]) -> Result<Vec<Connection>, ListError>) -> io::Result<Vec<Connection>> {
    // The list may grow between asking for its size and reading it.
    let mut attempts = 0;
    loop {
        match parse(&call::sysctl(name)?) {
            Err(ListError::Truncated) if attempts < 3 => attempts += 1,
            result => return result.map_err(io::Error::other),
        }
    }
}

/// What tells this boot of the system from every other one.
///
/// # Errors
/// Those of sysctl(3).
pub fn boot() -> io::Result<Vec<u8>> {
    call::sysctl(c"kern.boot_id")
}

/// From now on nobody traces this process or gets its memory in a core dump, and what it starts gains no privilege.
///
/// # Errors
/// Those of procctl(2).
pub fn keep_apart() -> io::Result<()> {
    call::procctl(libc::PROC_TRACE_CTL, libc::PROC_TRACE_CTL_DISABLE)?;
    call::procctl(libc::PROC_NO_NEW_PRIVS_CTL, libc::PROC_NO_NEW_PRIVS_ENABLE)
}

/// Gives the loopback interface an address, or takes it away.
///
/// # Errors
/// What ifconfig(8) says.
pub fn alias(address: IpAddr, add: bool) -> io::Result<()> {
    let (family, length) = if address.is_ipv4() { ("inet", 32) } else { ("inet6", 128) };
    let (text, prefix) = (address.to_string(), format!("{address}/{length}"));
    let (address, verb) = if add { (&prefix, "alias") } else { (&text, "-alias") };
    super::run("/sbin/ifconfig", &["lo0", family, address, verb])
}

/// Makes an IPv4 socket tell the destination of what it receives.
///
/// # Errors
/// Those of setsockopt(2).
pub fn announce_destination4(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Ipv4RecvDstAddr, &true)?)
}

/// The destination that a control message tells.
#[must_use]
pub fn destination4(message: &ControlMessageOwned) -> Option<Ipv4Addr> {
    match message {
        ControlMessageOwned::Ipv4RecvDstAddr(address) => Some(Ipv4Addr::from(address.s_addr.to_ne_bytes())),
        _ => None,
    }
}

/// The source address of a datagram to be sent.
#[derive(Debug)]
pub struct Source4(libc::in_addr);

impl Source4 {
    /// From `source`.
    #[must_use]
    pub const fn new(source: Ipv4Addr) -> Self {
        Self(libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) })
    }

    /// As a control message.
    #[must_use]
    pub const fn message(&self) -> ControlMessage<'_> {
        ControlMessage::Ipv4SendSrcAddr(&self.0)
    }
}

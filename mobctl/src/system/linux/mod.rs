//! Not FreeBSD: a user-space host stands in for the kernel module, and the connections are Linux's.

mod watcher;

pub use watcher::Watcher;

use crate::connections::{Connection, inet_diag};
use crate::device::{Channel, SocketChannel};
use mobconn_abi::{TCP, UDP};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv,
    sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// What stands behind the control device.
pub const NAME: &str = "user-space host";

/// The signal that asks for a line about how things are; Linux has no SIGINFO.
pub const SIGINFO: i32 = libc::SIGUSR1;

/// Connects to the socket that the user-space host has in place of the device.
///
/// # Errors
/// Those of connect(2).
pub fn open_channel(path: &Path) -> io::Result<Box<dyn Channel>> {
    Ok(Box::new(SocketChannel::open(path)?))
}

/// The TCP connections and connected UDP sockets of this network namespace.
///
/// # Errors
/// Those of the netlink socket, and answers that make no sense.
pub fn connections() -> io::Result<Vec<Connection>> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    let mut buffer = vec![0; 65_536];
    let mut connections = Vec::new();
    let kinds = [(inet_diag::INET, TCP), (inet_diag::INET6, TCP), (inet_diag::INET, UDP), (inet_diag::INET6, UDP)];
    for (sequence, (family, protocol)) in (1..).zip(kinds) {
        let request = inet_diag::request(family, protocol, sequence);
        sendto(netlink.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        loop {
            let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let datagram = buffer.get(..length).unwrap_or_default();
            if inet_diag::parse(datagram, protocol, sequence, &mut connections).map_err(io::Error::other)? {
                break;
            }
        }
    }
    Ok(connections)
}

/// What tells this boot of the system from every other one.
///
/// # Errors
/// Those of reading it.
pub fn boot() -> io::Result<Vec<u8>> {
    Ok(std::fs::read("/proc/sys/kernel/random/boot_id")?.trim_ascii().to_vec())
}

/// From now on nobody traces this process or gets its memory in a core dump, and what it starts gains no privilege.
///
/// # Errors
/// Those of prctl(2).
pub fn keep_apart() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Gives the loopback interface an address, or takes it away.
///
/// # Errors
/// What ip(8) says.
pub fn alias(address: IpAddr, add: bool) -> io::Result<()> {
    let prefix = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    super::run("ip", &["address", if add { "add" } else { "del" }, &prefix, "dev", "lo"])
}

/// Makes an IPv4 socket tell the destination of what it receives.
///
/// # Errors
/// Those of setsockopt(2).
pub fn announce_destination4(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?)
}

/// The destination that a control message tells.
#[must_use]
pub fn destination4(message: &ControlMessageOwned) -> Option<Ipv4Addr> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())),
        _ => None,
    }
}

/// The source address of a datagram to be sent.
#[derive(Debug)]
pub struct Source4(libc::in_pktinfo);

impl Source4 {
    /// From `source`.
    #[must_use]
    pub const fn new(source: Ipv4Addr) -> Self {
        let address = libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
        Self(libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: libc::in_addr { s_addr: 0 } })
    }

    /// As a control message.
    #[must_use]
    pub const fn message(&self) -> ControlMessage<'_> {
        ControlMessage::Ipv4PacketInfo(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_holds_keys_is_kept_apart() {
        super::keep_apart().unwrap();
        assert_eq!(nix::sys::prctl::get_dumpable(), Ok(false));
        assert_eq!(nix::sys::prctl::get_no_new_privs(), Ok(true));
    }
}

//! rtnetlink(7): what changes, and how things are.

use crate::networks::{Snapshot, rtnetlink};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Tells that interfaces, addresses or routes changed.
#[derive(Debug)]
pub struct Watcher(OwnedFd);

impl Watcher {
    /// Begins to watch this network namespace.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, rtnetlink::GROUPS))?;
        Ok(Self(netlink))
    }

    /// For poll(2).
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes what was told. Whether anything may have changed: also when more was told than could be kept.
    #[must_use]
    pub fn changed(&self) -> bool {
        let mut buffer = [0; 8192];
        let mut changed = false;
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(_) | Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                Err(_) => return changed,
            }
        }
    }

    /// How things are now.
    ///
    /// # Errors
    /// Those of a netlink socket, and answers that make no sense.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        let netlink =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
        let mut snapshot = Snapshot::default();
        let mut buffer = vec![0; 65_536];
        for (sequence, kind) in (1..).zip(rtnetlink::DUMPS) {
            let request = rtnetlink::request(kind, sequence);
            sendto(netlink.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
            loop {
                let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
                let datagram = buffer.get(..length).unwrap_or_default();
                let ended = rtnetlink::parse(datagram, sequence, &mut snapshot);
                if ended.map_err(|errno| io::Error::other(format!("rtnetlink: error {errno}")))? {
                    break;
                }
            }
        }
        Ok(snapshot)
    }
}

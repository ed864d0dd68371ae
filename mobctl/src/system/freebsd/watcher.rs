//! route(4): what changes; sysctl(3): how things are.

use super::call;
use crate::networks::{Snapshot, routesock};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Tells that interfaces, addresses or routes changed.
#[derive(Debug)]
pub struct Watcher(Socket);

impl Watcher {
    /// Begins to watch this host or VNET jail.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::from(libc::PF_ROUTE), Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        // More room for bursts; the system's own limit is fine too.
        let _ = socket.set_recv_buffer_size(1 << 18);
        Ok(Self(socket))
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
                Ok(length) => changed |= routesock::is_change(buffer.get(..length).unwrap_or_default()),
                Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                Err(_) => return changed,
            }
        }
    }

    /// How things are now.
    ///
    /// # Errors
    /// Those of sysctl(3) and of the socket for IPv6 flags.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let list = |family, which| call::sysctl_number(&[libc::CTL_NET, libc::PF_ROUTE, 0, family, which, 0]);
        routesock::interfaces(&list(0, libc::NET_RT_IFLIST)?, &mut snapshot);
        for family in [libc::AF_INET, libc::AF_INET6] {
            routesock::routes(&list(family, libc::NET_RT_DUMP)?, &mut snapshot);
        }
        // A kernel may have been built without IPv6.
        if let Ok(routers) = call::sysctl(c"net.inet6.icmp6.nd6_drlist") {
            routesock::routers(&routers, &mut snapshot);
        }
        flags(&mut snapshot);
        Ok(snapshot)
    }
}

/// Asks for the flags of every IPv6 address; one that went meanwhile keeps none.
fn flags(snapshot: &mut Snapshot) {
    let Ok(socket) = Socket::new(Domain::IPV6, Type::DGRAM, None) else { return };
    let names: Vec<(u32, String)> = snapshot.interfaces.iter().map(|i| (i.index, i.name.clone())).collect();
    for address in &mut snapshot.addresses {
        let IpAddr::V6(ip) = address.ip else { continue };
        let Some((_, name)) = names.iter().find(|(index, _)| *index == address.interface) else { continue };
        if ip.is_unicast_link_local() {
            continue;
        }
        if let Ok(flags) = call::in6_flags(&socket, name, ip) {
            routesock::flags(flags, address);
        }
    }
}

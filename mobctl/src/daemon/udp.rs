//! The daemon's UDP sockets: they know on which address a datagram arrived and send from the address they are told.

use crate::exit::{Exit, Failure};
use crate::system;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Longest datagram that is looked at; the protocol's are shorter.
const LENGTH_MAX: usize = 2048;

/// One socket for each address listened on.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<(SocketAddr, Socket)>,
}

/// A datagram that arrived.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) local: IpAddr,
    pub(super) remote: SocketAddr,
    pub(super) data: Vec<u8>,
}

impl Sockets {
    /// No socket at all.
    pub(super) const fn none() -> Self {
        Self { sockets: Vec::new() }
    }

    /// Binds `port` on each address.
    pub(super) fn open(listen: &[IpAddr], port: u16) -> Result<Self, Failure> {
        let mut sockets = Vec::new();
        let mut unsupported = None;
        for &address in listen {
            let address = SocketAddr::new(address, port);
            match open(address) {
                Ok(socket) => sockets.push((address, socket)),
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    log::warn!("not listening on {address}: {error}");
                    unsupported = Some((address, error));
                }
                Err(error) => return Err(failure(address, &error)),
            }
        }
        match unsupported {
            Some((address, error)) if sockets.is_empty() => Err(failure(address, &error)),
            _ => Ok(Self { sockets }),
        }
    }

    /// The addresses and ports that are bound.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(address, _)| *address).collect()
    }

    /// For poll(2), in the order of [`Self::receive`]'s index.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|(_, socket)| socket.as_fd())
    }

    /// The next datagram of a socket; `None` when there is none now.
    pub(super) fn receive(&self, index: usize) -> io::Result<Option<Datagram>> {
        let Some((bound, socket)) = self.sockets.get(index) else {
            return Ok(None);
        };
        loop {
            match receive(socket, bound.ip()) {
                Ok(Some(datagram)) => return Ok(Some(datagram)),
                // Too long, or without a destination: not ours.
                Ok(None) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends `data` to `remote`, from `local` if given.
    pub(super) fn send(&self, local: Option<IpAddr>, remote: SocketAddr, data: &[u8]) -> io::Result<()> {
        let suits = |bound: &SocketAddr| {
            bound.is_ipv4() == remote.is_ipv4()
                && (bound.ip().is_unspecified() || local.is_none_or(|local| bound.ip() == local))
        };
        let Some((_, socket)) = self.sockets.iter().find(|(bound, _)| suits(bound)) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let data = [IoSlice::new(data)];
        let fd = socket.as_raw_fd();
        match (local, remote) {
            (Some(IpAddr::V4(local)), SocketAddr::V4(remote)) => {
                let source = system::Source4::new(local);
                sendmsg(fd, &data, &[source.message()], MsgFlags::empty(), Some(&SockaddrIn::from(remote)))?;
            }
            (Some(IpAddr::V6(local)), SocketAddr::V6(remote)) => {
                let source =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
                let source = [ControlMessage::Ipv6PacketInfo(&source)];
                sendmsg(fd, &data, &source, MsgFlags::empty(), Some(&SockaddrIn6::from(remote)))?;
            }
            (None, remote) => {
                sendmsg(fd, &data, &[], MsgFlags::empty(), Some(&SockaddrStorage::from(remote)))?;
            }
            _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
        }
        Ok(())
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    match address {
        SocketAddr::V4(_) => system::announce_destination4(&socket)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
    }
    // More room for bursts; the system's own limit is fine too.
    let _ = socket.set_recv_buffer_size(1 << 20);
    socket.bind(&address.into())?;
    Ok(socket)
}

fn receive(socket: &Socket, bound: IpAddr) -> Result<Option<Datagram>, Errno> {
    let mut data = vec![0; LENGTH_MAX];
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(&mut data)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let mut local = (!bound.is_unspecified()).then_some(bound);
    for item in message.cmsgs()? {
        match &item {
            ControlMessageOwned::Ipv6PacketInfo(info) => local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into()),
            other => local = system::destination4(other).map(IpAddr::V4).or(local),
        }
    }
    let remote = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
    });
    let (length, truncated) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
    let (Some(local), Some(remote), false) = (local, remote, truncated) else {
        return Ok(None);
    };
    data.truncate(length);
    Ok(Some(Datagram { local, remote, data }))
}

fn failure(address: SocketAddr, error: &io::Error) -> Failure {
    let failure = Failure::new(Exit::System, format!("cannot listen on UDP {address}: {error}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => failure.advise("Is another mobctl daemon running? See mobctl status"),
        io::ErrorKind::AddrNotAvailable => {
            failure.advise("The address is on no interface: change listen in the configuration")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn wait(sockets: &Sockets) -> Datagram {
        for _ in 0..100 {
            let mut fds: Vec<_> = sockets.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut fds, PollTimeout::from(100u8)).unwrap();
            for index in 0..sockets.sockets.len() {
                if let Some(datagram) = sockets.receive(index).unwrap() {
                    return datagram;
                }
            }
        }
        panic!("no datagram in 10 s");
    }

    /// A pair of sockets for every address, on ports of the system's choice.
    fn any(listen: &str) -> (Sockets, u16) {
        let mut sockets = Sockets::open(&[listen.parse().unwrap()], 0).unwrap();
        let port = sockets.sockets[0].1.local_addr().unwrap().as_socket().unwrap().port();
        sockets.sockets[0].0.set_port(port);
        (sockets, port)
    }

    fn round(listen: &str, near: &str, far: &str) {
        let (near, far): (IpAddr, IpAddr) = (near.parse().unwrap(), far.parse().unwrap());
        let ((here, here_port), (there, there_port)) = (any(listen), any(listen));
        here.send(Some(near), SocketAddr::new(far, there_port), b"hello").unwrap();
        let got = wait(&there);
        assert_eq!((got.local, got.remote), (far, SocketAddr::new(near, here_port)));
        assert_eq!(got.data, b"hello");
        there.send(Some(got.local), got.remote, &[7; 1200]).unwrap();
        let got = wait(&here);
        assert_eq!((got.local, got.remote), (near, SocketAddr::new(far, there_port)));
        assert_eq!(got.data, [7; 1200]);
    }

    // FreeBSD has only 127.0.0.1 on lo0, other systems all of 127.0.0.0/8.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_source_is_chosen_and_the_destination_known() {
        round("0.0.0.0", "127.0.0.2", "127.0.0.3");
    }

    #[test]
    fn ipv4_and_ipv6_alike() {
        round("0.0.0.0", "127.0.0.1", "127.0.0.1");
        round("::", "::1", "::1");
    }

    #[test]
    fn a_source_that_is_not_ours_is_an_error_and_no_more() {
        let (sockets, port) = any("0.0.0.0");
        assert!(sockets.send(Some([192, 0, 2, 1].into()), SocketAddr::new([127, 0, 0, 1].into(), port), b"x").is_err());
        assert!(sockets.send(None, "[::1]:9".parse().unwrap(), b"x").is_err());
        assert!(
            sockets.send(Some(Ipv6Addr::LOCALHOST.into()), SocketAddr::new([127, 0, 0, 1].into(), port), b"x").is_err()
        );
        sockets.send(None, SocketAddr::new([127, 0, 0, 1].into(), port), b"y").unwrap();
        assert_eq!(wait(&sockets).data, b"y");
    }

    #[test]
    fn what_is_too_long_is_dropped() {
        let (sockets, port) = any("0.0.0.0");
        let to = SocketAddr::new([127, 0, 0, 1].into(), port);
        sockets.send(None, to, &[1; LENGTH_MAX + 1]).unwrap();
        sockets.send(None, to, &[2; 3]).unwrap();
        assert_eq!(wait(&sockets).data, [2; 3]);
    }

    #[test]
    fn a_port_in_use_says_so() {
        let (_sockets, port) = any("127.0.0.1");
        let failure = Sockets::open(&[[127, 0, 0, 1].into()], port).unwrap_err();
        assert!(failure.advice.contains("another mobctl"), "{failure}");
        let failure = Sockets::open(&["192.0.2.1".parse().unwrap()], 0).unwrap_err();
        assert!(failure.advice.contains("no interface"), "{failure}");
    }
}

//! Asking a namespace which connections it has, through sock_diag(7).
//!
//! FreeBSD's module asks its kernel; here Linux has the connections, and Linux
//! answers.

use crate::error::{Doing, Result};
use crate::ns::Namespace;
use crate::resume::Sink;
use mobconn_kpi::{Connection, Connections, Query, TcpStack, Timer};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// Length of `struct nlmsghdr`, of `struct inet_diag_req_v2`, of `struct inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;
const LISTEN: u8 = 10;

/// FreeBSD's `TCPS_*` of Linux's states, which begin at 1.
const STATES: [u8; 13] = [0, 4, 2, 3, 6, 9, 10, 0, 5, 8, 1, 7, 3];

/// The connections of one namespace.
pub struct Diag {
    socket: Mutex<OwnedFd>,
    sink: Sink,
}

impl fmt::Debug for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Diag").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Diag {
    /// Those of `namespace`. `sink` is told which connection is to send again.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn new(namespace: &Namespace, sink: Sink) -> Result<Self> {
        let open =
            || socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag);
        Ok(Self { socket: Mutex::new(namespace.run(open)?.doing("opening the list of connections")?), sink })
    }

    /// The socket that the kernel would give a packet of this tuple to.
    fn ask(&self, query: &Query) -> Option<Connection> {
        let request = request(query);
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        send(socket.as_raw_fd(), &request, MsgFlags::empty()).ok()?;
        let mut answer = [0; 4096];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
        connection(answer.get(..length)?, query.protocol)
    }
}

impl Connections for Diag {
    fn find(&self, query: &Query) -> Option<Connection> {
        // Linux answers with listeners and unconnected sockets, too.
        self.ask(query).filter(|connection| query.matches(connection))
    }

    fn timer(&self, connection: &Connection, timer: Timer, _ticks: u32) {
        if timer == Timer::Retransmit {
            self.sink.resume(connection.local, connection.remote);
        }
    }
}

fn request(query: &Query) -> Vec<u8> {
    let family = if query.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family as u8, query.protocol, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    // A UDP socket is looked for as a packet to it is, source first.
    let sides = if query.protocol == 17 { [query.remote, query.local] } else { [query.local, query.remote] };
    for side in sides {
        request.extend(side.port().to_be_bytes());
    }
    for side in sides {
        request.extend(wide(side.ip()));
    }
    request.extend(0_u32.to_ne_bytes());
    request.extend([0xff; 8]);
    request
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut wide = [0; 16];
            wide[..4].copy_from_slice(&address.octets());
            wide
        }
    }
}

/// What an `inet_diag_msg` says; `None` for an error, or a listener.
fn connection(answer: &[u8], protocol: u8) -> Option<Connection> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let body = answer.get(HEADER..).filter(|body| kind == SOCK_DIAG_BY_FAMILY && body.len() >= MESSAGE)?;
    let [family, state, timer, retransmits] = *body.first_chunk()?;
    if protocol == 6 && state == LISTEN {
        return None;
    }
    let end = |port: usize, address: usize| -> Option<SocketAddr> {
        let port = u16::from_be_bytes(body.get(port..port + 2)?.try_into().ok()?);
        let wide: [u8; 16] = body.get(address..address + 16)?.try_into().ok()?;
        let ip = match i32::from(family) {
            libc::AF_INET => Ipv4Addr::new(wide[0], wide[1], wide[2], wide[3]).into(),
            _ => {
                let wide = Ipv6Addr::from(wide);
                wide.to_ipv4_mapped().map_or(IpAddr::V6(wide), IpAddr::V4)
            }
        };
        Some(SocketAddr::new(ip, port))
    };
    let (local, remote) = (end(4, 8)?, end(6, 24)?);
    Some(Connection {
        protocol,
        local,
        remote,
        state: *STATES.get(usize::from(state))?,
        stack: TcpStack::Default,
        rexmt: protocol == 6 && timer == 1,
        persist: protocol == 6 && timer == 4,
        rxtshift: retransmits.into(),
        instance: u64::from(u32::from_ne_bytes(body.get(44..48)?.try_into().ok()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn here() -> Diag {
        let open = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag);
        Diag { socket: Mutex::new(open.expect("a socket")), sink: Sink::nowhere() }
    }

    #[test]
    fn connections_are_found_and_listeners_are_not() {
        let diag = here();
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(loopback).expect("a port");
            let target = listener.local_addr().expect("an address");
            let mut near = TcpStream::connect(target).expect("a connection");
            near.write_all(b"x").expect("room");
            let local = near.local_addr().expect("an address");
            let query = Query { protocol: 6, local, remote: target, wildcard: false };
            let found = diag.find(&query).expect("the connection");
            assert_eq!((found.local, found.remote, found.state), (local, target, 4));
            let other = SocketAddr::new(target.ip(), target.port() ^ 1);
            assert_eq!(diag.find(&Query { remote: other, ..query }), None);
            assert_eq!(diag.find(&Query { local: target, remote: other, ..query }), None, "only a listener");
        }
    }

    #[test]
    fn udp_sockets_are_found_by_what_they_are_connected_to() {
        let diag = here();
        let [near, far] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a port"));
        let (local, remote) = (near.local_addr().expect("an address"), far.local_addr().expect("an address"));
        let query = Query { protocol: 17, local, remote, wildcard: false };
        assert_eq!(diag.find(&query), None, "not connected");
        assert!(diag.find(&Query { wildcard: true, ..query }).is_some());
        near.connect(remote).expect("a route");
        assert_eq!(diag.find(&query).map(|found| (found.local, found.remote)), Some((local, remote)));
    }
}

//! Asking a namespace's routing table where a destination is.
//!
//! FreeBSD looks the route up again after a hook changed a packet's
//! destination; here Linux's table answers, through rtnetlink.

use crate::error::{Doing, Result};
use crate::ns::Namespace;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
/// Length of `struct nlmsghdr`, and of `struct rtmsg`.
const HEADER: usize = 16;
const ROUTE: usize = 12;

/// A question to one namespace's routing table.
#[derive(Debug)]
pub struct Routes(Mutex<OwnedFd>);

impl Routes {
    /// Opens the table of `namespace`.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        let open = || socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute);
        Ok(Self(Mutex::new(namespace.run(open)?.doing("opening the routing table")?)))
    }

    /// Index of the interface that a packet to `destination` leaves by; `None`
    /// without a route.
    #[must_use]
    pub fn interface(&self, destination: IpAddr) -> Option<u32> {
        let (family, address) = match destination {
            IpAddr::V4(a) => (libc::AF_INET, a.octets().to_vec()),
            IpAddr::V6(a) => (libc::AF_INET6, a.octets().to_vec()),
        };
        let mut request = Vec::with_capacity(64);
        let total = u32::try_from(HEADER + ROUTE + 4 + address.len()).ok()?;
        request.extend(total.to_ne_bytes());
        request.extend(RTM_GETROUTE.to_ne_bytes());
        request.extend(NLM_F_REQUEST.to_ne_bytes());
        request.extend([0; 8]);
        request.extend([u8::try_from(family).ok()?, u8::try_from(address.len() * 8).ok()?]);
        request.extend([0; ROUTE - 2]);
        request.extend(u16::try_from(4 + address.len()).ok()?.to_ne_bytes());
        request.extend(RTA_DST.to_ne_bytes());
        request.extend(address);
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        send(socket.as_raw_fd(), &request, MsgFlags::empty()).ok()?;
        let mut answer = [0; 4096];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
        outgoing(answer.get(..length)?)
    }
}

/// `RTA_OIF` of an `RTM_NEWROUTE` message.
fn outgoing(message: &[u8]) -> Option<u32> {
    if ne16(message, 4)? != RTM_NEWROUTE {
        return None;
    }
    let mut rest = message.get(HEADER + ROUTE..)?;
    loop {
        let (length, kind) = (usize::from(ne16(rest, 0)?), ne16(rest, 2)?);
        if kind == RTA_OIF {
            return Some(u32::from_ne_bytes(rest.get(4..8)?.try_into().ok()?));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn ne16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

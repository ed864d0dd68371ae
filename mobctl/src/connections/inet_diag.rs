//! Linux's netlink(7) sock_diag(7): the requests and the answers.
//!
//! A request is dumped for one address family and one protocol. The socket's
//! cookie is the instance.

use super::{Connection, ListError, Phase, bytes};
use crate::tuple;
use mobconn_abi::TCP;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const NLMSG_HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

/// `AF_INET`.
pub const INET: u8 = 2;
/// `AF_INET6`.
pub const INET6: u8 = 10;

const REQUEST: usize = NLMSG_HEADER + 56;
const MESSAGE: usize = 72;

const STATE: usize = 1;
const SPORT: usize = 4;
const DPORT: usize = 6;
const SRC: usize = 8;
const DST: usize = 24;
const COOKIE: usize = 44;

const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// The states that are asked for, as bits.
const STATES: u32 = 1 << ESTABLISHED
    | 1 << FIN_WAIT1
    | 1 << FIN_WAIT2
    | 1 << TIME_WAIT
    | 1 << CLOSE_WAIT
    | 1 << LAST_ACK
    | 1 << CLOSING;

/// The dump request for `family` ([`INET`] or [`INET6`]) and `protocol`.
#[must_use]
pub fn request(family: u8, protocol: u8, sequence: u32) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    let header = [
        &(REQUEST as u32).to_ne_bytes()[..],
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &0u32.to_ne_bytes(),
        &[family, protocol, 0, 0],
        &STATES.to_ne_bytes(),
    ];
    for (byte, value) in request.iter_mut().zip(header.concat()) {
        *byte = value;
    }
    request
}

/// Reads one datagram of the answer to `sequence`, adds what it lists to `connections`, and says whether the answer is
/// complete.
///
/// # Errors
/// [`ListError`].
pub fn parse(
    mut datagram: &[u8],
    protocol: u8,
    sequence: u32,
    connections: &mut Vec<Connection>,
) -> Result<bool, ListError> {
    while !datagram.is_empty() {
        let length = bytes::ne32(datagram, 0).ok_or(ListError::Truncated)? as usize;
        if length < NLMSG_HEADER {
            return Err(ListError::BadLength(length as u64));
        }
        let message = datagram.get(..length).ok_or(ListError::Truncated)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        if bytes::ne32(message, 8) != Some(sequence) {
            // The rest of an answer that was given up.
            continue;
        }
        let body = message.get(NLMSG_HEADER..).unwrap_or_default();
        match bytes::array(message, 4).map(u16::from_ne_bytes) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                let negative = bytes::array(body, 0).map(i32::from_ne_bytes).ok_or(ListError::Truncated)?;
                return Err(ListError::Refused(negative.saturating_neg()));
            }
            Some(SOCK_DIAG_BY_FAMILY) => {
                if body.len() < MESSAGE {
                    return Err(ListError::BadLength(length as u64));
                }
                connections.extend(connection(body, protocol));
            }
            _ => {}
        }
    }
    Ok(false)
}

/// The connection of a `struct inet_diag_msg`; `None` when it is not connected.
fn connection(message: &[u8], protocol: u8) -> Option<Connection> {
    let family = *message.first()?;
    let phase = match *message.get(STATE)? {
        TIME_WAIT => Phase::Waiting,
        ESTABLISHED => Phase::Established,
        FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT | LAST_ACK | CLOSING if protocol == TCP => Phase::Established,
        _ => return None,
    };
    let address = |offset| -> Option<IpAddr> {
        let raw: [u8; 16] = bytes::array(message, offset)?;
        match family {
            INET => {
                let [a, b, c, d, ..] = raw;
                Some(Ipv4Addr::new(a, b, c, d).into())
            }
            INET6 => Some(Ipv6Addr::from(raw).into()),
            _ => None,
        }
    };
    let local = SocketAddr::new(address(SRC)?, bytes::be16(message, SPORT)?);
    let remote = SocketAddr::new(address(DST)?, bytes::be16(message, DPORT)?);
    if remote.ip().is_unspecified() || local.ip().is_unspecified() {
        return None;
    }
    let tuple = tuple::side(protocol, local, remote).ok()?;
    // Two 32-bit words, the low one first.
    let cookie = u64::from(bytes::ne32(message, COOKIE)?) | u64::from(bytes::ne32(message, COOKIE + 4)?) << 32;
    Some(Connection { tuple, instance: cookie, phase })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobconn_abi::UDP;
    use proptest::prelude::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((NLMSG_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(2u16.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(4711u32.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn socket(family: u8, state: u8, local: &str, remote: &str, cookie: u64) -> Vec<u8> {
        let mut body = vec![0; MESSAGE];
        body[0] = family;
        body[STATE] = state;
        for (end, address_at, port_at) in [(local, SRC, SPORT), (remote, DST, DPORT)] {
            let end: SocketAddr = end.parse().unwrap();
            body[port_at..port_at + 2].copy_from_slice(&end.port().to_be_bytes());
            match end.ip() {
                IpAddr::V4(v4) => body[address_at..address_at + 4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => body[address_at..address_at + 16].copy_from_slice(&v6.octets()),
            }
        }
        body[COOKIE..COOKIE + 4].copy_from_slice(&(cookie as u32).to_ne_bytes());
        body[COOKIE + 4..COOKIE + 8].copy_from_slice(&((cookie >> 32) as u32).to_ne_bytes());
        body
    }

    /// What a Linux 6.18 kernel answered to `request(INET, TCP, 7)` in a network namespace with one connection from
    /// 192.0.2.1 to 198.51.100.9, both of its ends there.
    const GOLDEN: [&str; 2] = [
        "7c000000140002000700000088070000020100000016b3f8c6336409000000000000000000000000c0000201000000000000\
         0000000000000000000001000000000000000000000000000000000000000000000091080400050008000000000008000f00\
         000000000c001500010000000000000006001600520000007c00000014000200070000008807000002010000b3f80016c000\
         0201000000000000000000000000c63364090000000000000000000000000000000002000000000000000000000000000000\
         000000000000000090080400050008000000000008000f00000000000c00150001000000000000000600160052000000",
        "1400000003000200070000008807000000000000",
    ];

    fn golden(index: usize) -> Vec<u8> {
        let digits = GOLDEN[index].as_bytes();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn golden_bytes() {
        let mut found = Vec::new();
        assert_eq!(parse(&golden(0), TCP, 7, &mut found), Ok(false));
        assert_eq!(parse(&golden(1), TCP, 7, &mut found), Ok(true));
        let (near, far) = ("192.0.2.1:46072".parse().unwrap(), "198.51.100.9:22".parse().unwrap());
        let established =
            |tuple: Result<_, _>, instance| Connection { tuple: tuple.unwrap(), instance, phase: Phase::Established };
        assert_eq!(found, [established(tuple::side(TCP, far, near), 1), established(tuple::side(TCP, near, far), 2)]);
    }

    #[test]
    fn a_request_is_what_the_kernel_expects() {
        let bytes = request(INET6, UDP, 3);
        assert_eq!(bytes[..4], 72u32.to_ne_bytes());
        assert_eq!(bytes[4..8], [20u16.to_ne_bytes(), 0x301u16.to_ne_bytes()].concat()[..]);
        assert_eq!(bytes[16..20], [10, 17, 0, 0]);
        assert_eq!(bytes[20..24], 0b1011_0111_0010u32.to_ne_bytes());
        assert_eq!(bytes[24..], [0; 48]);
    }

    #[test]
    fn several_messages_then_done() {
        let mut bytes = message(20, 5, &socket(INET6, 8, "[2001:db8::1]:22", "[2001:db8::2]:40000", 1 << 40 | 3));
        bytes.extend(message(20, 5, &socket(INET6, 6, "[::ffff:192.0.2.1]:22", "[::ffff:192.0.2.2]:9", 4)));
        bytes.extend(message(20, 4, &socket(INET, 1, "192.0.2.1:1", "192.0.2.2:2", 5)));
        bytes.extend(message(20, 5, &socket(INET, 2, "192.0.2.1:3", "192.0.2.2:4", 6)));
        bytes.extend(message(20, 5, &socket(INET, 1, "192.0.2.1:3", "0.0.0.0:0", 6)));
        bytes.extend(message(3, 5, &[0; 4]));
        let mut found = Vec::new();
        assert_eq!(parse(&bytes, TCP, 5, &mut found), Ok(true));
        let shown: Vec<_> =
            found.iter().map(|c| (tuple::ends(&c.tuple).unwrap().0.to_string(), c.instance, c.phase)).collect();
        assert_eq!(
            shown,
            [("[2001:db8::1]:22".into(), 1 << 40 | 3, Phase::Established), ("192.0.2.1:22".into(), 4, Phase::Waiting),]
        );
    }

    #[test]
    fn errors_are_errors() {
        let mut found = Vec::new();
        let refused = message(2, 5, &(-1i32).to_ne_bytes());
        assert_eq!(parse(&refused, TCP, 5, &mut found), Err(ListError::Refused(1)));
        assert_eq!(parse(&message(20, 5, &[0; 71]), TCP, 5, &mut found), Err(ListError::BadLength(87)));
        assert_eq!(parse(&refused[..18], TCP, 5, &mut found), Err(ListError::Truncated));
        assert_eq!(parse(&[15, 0, 0, 0, 0, 0], TCP, 5, &mut found), Err(ListError::BadLength(15)));
        assert_eq!(parse(&[1, 2], TCP, 5, &mut found), Err(ListError::Truncated));
        assert_eq!(found, []);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..200) {
            let mut found = Vec::new();
            let _ = parse(&noise, TCP, 5, &mut found);
            let mut bytes = message(20, 5, &socket(INET, 1, "192.0.2.1:1", "192.0.2.2:2", 5));
            bytes.extend(message(20, 5, &socket(INET6, 1, "[2001:db8::1]:1", "[2001:db8::2]:2", 5)));
            for (byte, new) in bytes.iter_mut().skip(at).zip(&noise) {
                *byte = *new;
            }
            let _ = parse(&bytes, UDP, 5, &mut found);
            for connection in found {
                prop_assert!(tuple::ends(&connection.tuple).is_some());
            }
        }
    }
}

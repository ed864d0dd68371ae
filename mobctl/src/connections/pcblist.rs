//! FreeBSD's `net.inet.tcp.pcblist` and `net.inet.udp.pcblist`.
//!
//! A `struct xinpgen`, one `struct xtcpcb` (TCP) or `struct xinpcb` (UDP) for
//! each socket, and a `struct xinpgen` again. Each begins with its own length.
//! The offsets are those of FreeBSD 14 on amd64; [`LAYOUT`] lists them for the
//! test that asks the C compiler.

use super::{Connection, ListError, Phase, bytes};
use crate::tuple;
use mobconn_abi::{TCP, UDP};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const XINPGEN: usize = 64;
const XINPCB: usize = 400;
const XTCPCB: usize = 744;

const XT_INP: usize = 8;
const T_STATE: usize = 568;

const FPORT: usize = 252;
const LPORT: usize = 254;
const FADDR: usize = 256;
const LADDR: usize = 272;
const GENCNT: usize = 296;
const VFLAG: usize = 392;

const INP_IPV4: u8 = 1;
const INP_IPV6: u8 = 2;

const TCPS_ESTABLISHED: u32 = 4;
const TCPS_CLOSE_WAIT: u32 = 5;
const TCPS_FIN_WAIT_1: u32 = 6;
const TCPS_CLOSING: u32 = 7;
const TCPS_LAST_ACK: u32 = 8;
const TCPS_FIN_WAIT_2: u32 = 9;
const TCPS_TIME_WAIT: u32 = 10;

/// The numbers above, each with the C expression that it must equal.
pub const LAYOUT: &[(&str, usize)] = &[
    ("sizeof(struct xinpgen)", XINPGEN),
    ("offsetof(struct xinpgen, xig_len)", 0),
    ("sizeof(struct xinpcb)", XINPCB),
    ("offsetof(struct xinpcb, xi_len)", 0),
    ("offsetof(struct xinpcb, inp_inc.inc_ie.ie_fport)", FPORT),
    ("offsetof(struct xinpcb, inp_inc.inc_ie.ie_lport)", LPORT),
    ("offsetof(struct xinpcb, inp_inc.inc_ie.ie_dependfaddr)", FADDR),
    ("offsetof(struct xinpcb, inp_inc.inc_ie.ie_dependladdr)", LADDR),
    ("offsetof(struct in_addr_4in6, ia46_addr4)", 12),
    ("offsetof(struct xinpcb, inp_gencnt)", GENCNT),
    ("offsetof(struct xinpcb, inp_vflag)", VFLAG),
    ("sizeof(struct xtcpcb)", XTCPCB),
    ("offsetof(struct xtcpcb, xt_len)", 0),
    ("offsetof(struct xtcpcb, xt_inp)", XT_INP),
    ("offsetof(struct xtcpcb, t_state)", T_STATE),
    ("INP_IPV4", INP_IPV4 as usize),
    ("INP_IPV6", INP_IPV6 as usize),
    ("TCPS_ESTABLISHED", TCPS_ESTABLISHED as usize),
    ("TCPS_CLOSE_WAIT", TCPS_CLOSE_WAIT as usize),
    ("TCPS_FIN_WAIT_1", TCPS_FIN_WAIT_1 as usize),
    ("TCPS_CLOSING", TCPS_CLOSING as usize),
    ("TCPS_LAST_ACK", TCPS_LAST_ACK as usize),
    ("TCPS_FIN_WAIT_2", TCPS_FIN_WAIT_2 as usize),
    ("TCPS_TIME_WAIT", TCPS_TIME_WAIT as usize),
];

/// Reads the bytes of `net.inet.tcp.pcblist`.
///
/// # Errors
/// [`ListError`], when this is no such list or not all of it.
pub fn parse_tcp(list: &[u8]) -> Result<Vec<Connection>, ListError> {
    parse(list, XTCPCB, |record| {
        let phase = match bytes::ne32(record, T_STATE)? {
            TCPS_ESTABLISHED | TCPS_CLOSE_WAIT | TCPS_FIN_WAIT_1 | TCPS_CLOSING | TCPS_LAST_ACK | TCPS_FIN_WAIT_2 => {
                Phase::Established
            }
            TCPS_TIME_WAIT => Phase::Waiting,
            _ => return None,
        };
        connection(record.get(XT_INP..)?, TCP, phase)
    })
}

/// Reads the bytes of `net.inet.udp.pcblist`. Only connected sockets are listed.
///
/// # Errors
/// [`ListError`], when this is no such list or not all of it.
pub fn parse_udp(list: &[u8]) -> Result<Vec<Connection>, ListError> {
    parse(list, XINPCB, |record| connection(record, UDP, Phase::Established))
}

fn parse(
    list: &[u8],
    record_length: usize,
    decode: impl Fn(&[u8]) -> Option<Connection>,
) -> Result<Vec<Connection>, ListError> {
    let mut rest = advance(list, XINPGEN)?.1;
    let mut connections = Vec::new();
    loop {
        match bytes::ne64(rest, 0) {
            Some(length) if length == XINPGEN as u64 => {
                // Bytes behind the trailer are of a longer list that was in the buffer before.
                advance(rest, XINPGEN)?;
                return Ok(connections);
            }
            _ => {
                let (record, after) = advance(rest, record_length)?;
                connections.extend(decode(record));
                rest = after;
            }
        }
    }
}

/// Splits off one structure, whose own idea of its length must be `length`.
fn advance(list: &[u8], length: usize) -> Result<(&[u8], &[u8]), ListError> {
    match bytes::ne64(list, 0) {
        None => Err(ListError::Truncated),
        Some(own) if own != length as u64 => Err(ListError::BadLength(own)),
        Some(_) => list.split_at_checked(length).ok_or(ListError::Truncated),
    }
}

/// The connection of a `struct xinpcb`; `None` when it is not connected.
fn connection(xinpcb: &[u8], protocol: u8, phase: Phase) -> Option<Connection> {
    let vflag = *xinpcb.get(VFLAG)?;
    let address = |offset| -> Option<IpAddr> {
        let raw: [u8; 16] = bytes::array(xinpcb, offset)?;
        if vflag & INP_IPV4 != 0 {
            // struct in_addr_4in6: the address is in the last four bytes.
            let [.., a, b, c, d] = raw;
            return Some(Ipv4Addr::new(a, b, c, d).into());
        }
        (vflag & INP_IPV6 != 0).then(|| Ipv6Addr::from(raw).into())
    };
    let local = SocketAddr::new(address(LADDR)?, bytes::be16(xinpcb, LPORT)?);
    let remote = SocketAddr::new(address(FADDR)?, bytes::be16(xinpcb, FPORT)?);
    if remote.ip().is_unspecified() || local.ip().is_unspecified() {
        return None;
    }
    let tuple = tuple::side(protocol, local, remote).ok()?;
    Some(Connection { tuple, instance: bytes::ne64(xinpcb, GENCNT)?, phase })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A list as a kernel would write it, from (state, vflag, local, remote, gencnt).
    fn list(records: &[(u32, u8, &str, &str, u64)], tcp: bool) -> Vec<u8> {
        let mut bytes = vec![0; XINPGEN];
        bytes[..8].copy_from_slice(&(XINPGEN as u64).to_ne_bytes());
        for (state, vflag, local, remote, gencnt) in records {
            let (length, start) = if tcp { (XTCPCB, XT_INP) } else { (XINPCB, 0) };
            let mut record = vec![0; length];
            record[start..start + 8].copy_from_slice(&(XINPCB as u64).to_ne_bytes());
            record[..8].copy_from_slice(&(length as u64).to_ne_bytes());
            for (end, address_at, port_at) in [(local, LADDR, LPORT), (remote, FADDR, FPORT)] {
                let end: SocketAddr = end.parse().unwrap();
                let at = start + address_at;
                match end.ip() {
                    IpAddr::V4(v4) => record[at + 12..at + 16].copy_from_slice(&v4.octets()),
                    IpAddr::V6(v6) => record[at..at + 16].copy_from_slice(&v6.octets()),
                }
                let at = start + port_at;
                record[at..at + 2].copy_from_slice(&end.port().to_be_bytes());
            }
            record[start + GENCNT..start + GENCNT + 8].copy_from_slice(&gencnt.to_ne_bytes());
            record[start + VFLAG] = *vflag;
            if tcp {
                record[T_STATE..T_STATE + 4].copy_from_slice(&state.to_ne_bytes());
            }
            bytes.extend_from_slice(&record);
        }
        bytes.extend_from_within(..XINPGEN);
        bytes
    }

    fn shown(connections: &[Connection]) -> Vec<(String, u64, Phase)> {
        connections
            .iter()
            .map(|c| {
                let (local, remote) = tuple::ends(&c.tuple).unwrap();
                (format!("{local} {remote}"), c.instance, c.phase)
            })
            .collect()
    }

    /// What a FreeBSD 14.0-STABLE kernel had in net.inet.tcp.pcblist and net.inet.udp.pcblist, while sockstat(1) said:
    /// three connections of which both ends are on that host, one of them IPv4 on an IPv6 socket (port 7003), and the
    /// sockets that listen for them; two pairs of connected UDP sockets, one with an IPv4 address on an IPv6 socket (7004).
    #[test]
    fn golden_bytes() {
        let sides = |list: Vec<Connection>| -> Vec<String> {
            assert!(list.iter().all(|connection| connection.phase == Phase::Established));
            let mut instances: Vec<u64> = list.iter().map(|connection| connection.instance).collect();
            instances.sort_unstable();
            instances.dedup();
            assert_eq!(instances.len(), list.len());
            let mut sides: Vec<String> = shown(&list).into_iter().map(|(side, ..)| side).collect();
            sides.sort_unstable();
            sides
        };
        assert_eq!(
            sides(parse_tcp(include_bytes!("../../tests/golden/freebsd-14-tcp.pcblist")).unwrap()),
            [
                "192.0.2.1:40000 198.51.100.9:7000",
                "192.0.2.1:40003 198.51.100.9:7003",
                "198.51.100.9:7000 192.0.2.1:40000",
                "198.51.100.9:7003 192.0.2.1:40003",
                "[2001:db8:9::9]:7001 [2001:db8::1]:40001",
                "[2001:db8::1]:40001 [2001:db8:9::9]:7001",
            ]
        );
        assert_eq!(
            sides(parse_udp(include_bytes!("../../tests/golden/freebsd-14-udp.pcblist")).unwrap()),
            [
                "192.0.2.1:40002 198.51.100.9:7002",
                "192.0.2.1:40004 198.51.100.9:7004",
                "192.0.2.1:7004 192.0.2.1:40004",
                "198.51.100.9:7002 192.0.2.1:40002",
            ]
        );
    }

    #[test]
    fn tcp_connections_of_both_versions() {
        let bytes = list(
            &[
                (4, INP_IPV4, "192.0.2.1:22", "198.51.100.9:50000", 7),
                (9, INP_IPV6, "[2001:db8::1]:80", "[2001:db8::2]:1025", u64::MAX),
                (10, INP_IPV4, "192.0.2.1:22", "198.51.100.9:50001", 9),
                (1, INP_IPV4, "0.0.0.0:22", "0.0.0.0:0", 1),
                (1, INP_IPV6, "[::]:22", "[::]:0", 2),
                (2, INP_IPV4, "192.0.2.1:4000", "198.51.100.9:22", 3),
                (3, INP_IPV4, "192.0.2.1:22", "198.51.100.9:50002", 0),
                (0, INP_IPV4, "192.0.2.1:4001", "198.51.100.9:22", 4),
                (77, INP_IPV4, "192.0.2.1:4002", "198.51.100.9:22", 5),
            ],
            true,
        );
        assert_eq!(
            shown(&parse_tcp(&bytes).unwrap()),
            [
                ("192.0.2.1:22 198.51.100.9:50000".into(), 7, Phase::Established),
                ("[2001:db8::1]:80 [2001:db8::2]:1025".into(), u64::MAX, Phase::Established),
                ("192.0.2.1:22 198.51.100.9:50001".into(), 9, Phase::Waiting),
            ]
        );
    }

    #[test]
    fn a_mapped_connection_is_ipv4() {
        // An IPv6 socket with an IPv4 connection has INP_IPV4; should one ever keep INP_IPV6, its address says so.
        let bytes = list(&[(4, INP_IPV6, "[::ffff:192.0.2.1]:22", "[::ffff:192.0.2.2]:1234", 7)], true);
        assert_eq!(shown(&parse_tcp(&bytes).unwrap())[0].0, "192.0.2.1:22 192.0.2.2:1234");
    }

    #[test]
    fn only_connected_udp_sockets() {
        let bytes = list(
            &[
                (0, INP_IPV4, "192.0.2.1:500", "198.51.100.9:500", 3),
                (0, INP_IPV4, "0.0.0.0:514", "0.0.0.0:0", 4),
                (0, INP_IPV4 | INP_IPV6, "0.0.0.0:9434", "0.0.0.0:0", 5),
                (0, 0, "192.0.2.1:501", "198.51.100.9:500", 6),
            ],
            false,
        );
        let found = parse_udp(&bytes).unwrap();
        assert_eq!(shown(&found), [("192.0.2.1:500 198.51.100.9:500".into(), 3, Phase::Established)]);
        assert_eq!(found[0].tuple.protocol, UDP);
    }

    #[test]
    fn an_empty_list_and_a_stale_tail() {
        let mut bytes = list(&[], true);
        assert_eq!(parse_tcp(&bytes), Ok(vec![]));
        bytes.extend([0xa5; 100]);
        assert_eq!(parse_tcp(&bytes), Ok(vec![]));
    }

    #[test]
    fn another_kernels_list_is_refused() {
        let mut bytes = list(&[(4, INP_IPV4, "192.0.2.1:22", "198.51.100.9:50000", 7)], true);
        bytes[XINPGEN..XINPGEN + 8].copy_from_slice(&752u64.to_ne_bytes());
        assert_eq!(parse_tcp(&bytes), Err(ListError::BadLength(752)));
        assert_eq!(
            parse_udp(&list(&[(4, INP_IPV4, "192.0.2.1:22", "198.51.100.9:5", 7)], true)),
            Err(ListError::BadLength(744))
        );
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = list(&[(4, INP_IPV4, "192.0.2.1:22", "198.51.100.9:50000", 7)], true);
        for length in 0..bytes.len() {
            assert_eq!(parse_tcp(&bytes[..length]), Err(ListError::Truncated), "{length} bytes");
        }
        assert_eq!(parse_tcp(&bytes).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..4000), at in 0usize..2000) {
            let _ = parse_tcp(&noise);
            let mut bytes = list(&[(4, INP_IPV4, "192.0.2.1:22", "198.51.100.9:5", 7), (4, INP_IPV6, "[2001:db8::1]:1", "[2001:db8::2]:2", 8)], true);
            for (byte, new) in bytes.iter_mut().skip(at).zip(&noise) {
                *byte = *new;
            }
            for connection in parse_tcp(&bytes).into_iter().flatten() {
                prop_assert!(connection.tuple.local_port != 0 && connection.tuple.remote_port != 0);
                prop_assert!(tuple::ends(&connection.tuple).is_some());
            }
            let _ = parse_udp(&bytes);
        }
    }
}

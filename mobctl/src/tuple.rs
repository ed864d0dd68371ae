//! Flows between the forms that people type, the standard library's and the device's.

use mobconn_abi::{IPV4, IPV6, TCP, Tuple, UDP};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A transport protocol that flows can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }
}

/// Why a pair of addresses is no side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideError {
    /// One address is IPv4, the other IPv6.
    MixedVersions,
    /// A port is 0.
    PortZero,
    /// An address has a zone: link-local flows cannot move.
    Zone,
}

impl fmt::Display for SideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MixedVersions => "one address is IPv4, the other IPv6",
            Self::PortZero => "port 0 is no port of a flow",
            Self::Zone => "an address with a zone (%interface) is link-local and cannot move",
        })
    }
}

/// The address in the device's form: IPv4 in the first four bytes.
#[must_use]
pub fn to_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address that `bytes` stand for under IP `version`; `None` for another version.
#[must_use]
pub fn from_bytes(bytes: &[u8; 16], version: u8) -> Option<IpAddr> {
    match version {
        IPV4 => {
            let [a, b, c, d, ..] = *bytes;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        IPV6 => Some(IpAddr::V6(Ipv6Addr::from(*bytes))),
        _ => None,
    }
}

/// The device's version number of `address`.
#[must_use]
pub const fn version(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => IPV4,
        IpAddr::V6(_) => IPV6,
    }
}

/// One side of a flow. IPv4-mapped IPv6 addresses become IPv4, which is what travels.
///
/// # Errors
/// When the pair cannot be a side.
pub fn side(protocol: u8, local: SocketAddr, remote: SocketAddr) -> Result<Tuple, SideError> {
    for address in [local, remote] {
        if address.port() == 0 {
            return Err(SideError::PortZero);
        }
        if let SocketAddr::V6(v6) = address
            && v6.scope_id() != 0
        {
            return Err(SideError::Zone);
        }
    }
    let (local_ip, remote_ip) = (local.ip().to_canonical(), remote.ip().to_canonical());
    if version(local_ip) != version(remote_ip) {
        return Err(SideError::MixedVersions);
    }
    Ok(Tuple {
        local: to_bytes(local_ip),
        remote: to_bytes(remote_ip),
        local_port: local.port(),
        remote_port: remote.port(),
        version: version(local_ip),
        protocol,
        reserved: [0; 2],
    })
}

/// Local and remote end of `tuple`; `None` when its version is none.
#[must_use]
pub fn ends(tuple: &Tuple) -> Option<(SocketAddr, SocketAddr)> {
    let local = from_bytes(&tuple.local, tuple.version)?;
    let remote = from_bytes(&tuple.remote, tuple.version)?;
    Some((SocketAddr::new(local, tuple.local_port), SocketAddr::new(remote, tuple.remote_port)))
}

/// `tcp`, `udp`, or the number of a protocol that is neither.
#[must_use]
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        TCP => "tcp".into(),
        UDP => "udp".into(),
        other => other.to_string(),
    }
}

/// Reads `address:port`, with IPv6 addresses in brackets.
///
/// # Errors
/// A sentence that says what is wrong with `text`.
pub fn parse_end(text: &str) -> Result<SocketAddr, String> {
    if let Ok(end) = text.parse::<SocketAddr>() {
        return if end.port() == 0 { Err("port 0 is no port of a flow".into()) } else { Ok(end) };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(match address {
            IpAddr::V4(_) => format!("the port is missing: write {text}:PORT"),
            IpAddr::V6(_) => format!("the port is missing: write [{text}]:PORT"),
        });
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("expected ADDRESS:PORT, for example 192.0.2.1:22 or [2001:db8::1]:22".into());
    };
    if port.parse::<u16>().is_err() {
        return Err(format!("\"{port}\" is no port (1 to 65535)"));
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address before a port needs brackets: [{host}]:{port}"));
    }
    Err(format!("\"{host}\" is no address: names are not looked up here, write the address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> SocketAddr {
        parse_end(text).unwrap()
    }

    #[test]
    fn ends_are_read_in_both_versions() {
        assert_eq!(end("192.0.2.1:22"), "192.0.2.1:22".parse().unwrap());
        assert_eq!(end("[2001:db8::1]:22"), "[2001:db8::1]:22".parse().unwrap());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("192.0.2.1", "write 192.0.2.1:PORT"),
            ("2001:db8::1", "write [2001:db8::1]:PORT"),
            ("host.example:22", "\"host.example\" is no address"),
            ("192.0.2.1:0", "port 0"),
            ("192.0.2.1:65536", "\"65536\" is no port"),
            ("192.0.2.1:ssh", "\"ssh\" is no port"),
            ("2001:db8:1:2:3:4:5:6:22", "brackets: [2001:db8:1:2:3:4:5:6]:22"),
            ("nonsense", "expected ADDRESS:PORT"),
            ("", "expected ADDRESS:PORT"),
        ] {
            let message = parse_end(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn a_side_is_checked() {
        let v4 = end("192.0.2.1:22");
        assert_eq!(side(TCP, v4, end("[2001:db8::1]:22")), Err(SideError::MixedVersions));
        assert_eq!(side(TCP, v4, SocketAddr::new(v4.ip(), 0)), Err(SideError::PortZero));
        assert_eq!(side(TCP, end("[fe80::1%1]:22"), end("[fe80::2%1]:22")), Err(SideError::Zone));
    }

    #[test]
    fn a_mapped_side_is_ipv4() {
        let tuple = side(UDP, end("[::ffff:192.0.2.1]:5"), end("[::ffff:198.51.100.2]:6")).unwrap();
        assert_eq!(tuple.version, IPV4);
        assert_eq!(tuple.protocol, UDP);
        assert_eq!(tuple.local, [192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ends(&tuple), Some((end("192.0.2.1:5"), end("198.51.100.2:6"))));
    }

    #[test]
    fn an_ipv6_side_keeps_its_bytes() {
        let (local, remote) = (end("[2001:db8::1]:1"), end("[2001:db8::2]:65535"));
        let tuple = side(TCP, local, remote).unwrap();
        assert_eq!(tuple.version, IPV6);
        assert_eq!(ends(&tuple), Some((local, remote)));
        assert_eq!(ends(&Tuple { version: 5, ..tuple }), None);
    }
}

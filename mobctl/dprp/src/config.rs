//! What the administrator decides.

use crate::key::{GroupKey, HostKey, PublicKey};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// The UDP port of DPRP.
pub const PORT: u16 = 9434;
/// Most group keys of one configuration.
pub const GROUP_KEYS_MAX: usize = 8;
/// Longest host name in bytes.
pub const NAME_MAX: usize = 255;

/// Configuration of an [`Endpoint`](crate::Endpoint).
#[derive(Clone, Debug)]
pub struct Config {
    /// This host's identity.
    pub host_key: HostKey,
    /// The group keys, 1 to [`GROUP_KEYS_MAX`]. The first is used for starting associations, all of them are accepted:
    /// to change a key, add the new one everywhere, then put it first, then remove the old one.
    pub group_keys: Vec<GroupKey>,
    /// Hosts to associate with; empty: every member of the group.
    pub pinned: Vec<PublicKey>,
    /// Where associations are started to, if `mobile`: the addresses that the host's flows lead to.
    pub targets: Vec<Prefix>,
    /// Whether this host starts associations, claims its flows and moves them. Another one answers, and
    /// renews what it has.
    pub mobile: bool,
    /// UDP port of the peers.
    pub port: u16,
    /// This host's name in the DNS, told to peers: at most [`NAME_MAX`] visible ASCII characters, may be
    /// empty.
    pub name: String,
    /// Highest generation of a local half in the kernel's table: moves are numbered from the next one on.
    pub generation: u32,
    /// Intervals.
    pub timers: Timers,
    /// Bounds on what peers can make this host remember.
    pub limits: Limits,
}

impl Config {
    /// A configuration that only answers members of the group.
    #[must_use]
    pub fn new(host_key: HostKey, group_key: GroupKey) -> Self {
        Self {
            host_key,
            group_keys: vec![group_key],
            pinned: Vec::new(),
            targets: Vec::new(),
            mobile: false,
            port: PORT,
            name: String::new(),
            generation: 0,
            timers: Timers::default(),
            limits: Limits::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.group_keys.is_empty() || self.group_keys.len() > GROUP_KEYS_MAX {
            return Err(ConfigError::GroupKeys);
        }
        if self.name.len() > NAME_MAX || !self.name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::Name);
        }
        if self.port == 0 {
            return Err(ConfigError::Port);
        }
        if self.generation == u32::MAX {
            return Err(ConfigError::Generation);
        }
        Ok(())
    }
}

/// Intervals of the protocol. The defaults suit everybody; tests and odd links may want others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// First retransmission to a peer whose round trip is not known.
    pub retry: Duration,
    /// Longest interval between retransmissions.
    pub retry_cap: Duration,
    /// First wait after a host did not answer at all; doubles up to `silence_cap`.
    pub silence: Duration,
    /// Longest wait before such a host is tried again.
    pub silence_cap: Duration,
    /// First wait before a claim that was refused is tried again; doubles up to `silence_cap`.
    pub claim_retry: Duration,
    /// How often a claimer asks whether its peer still knows it.
    pub ping: Duration,
    /// How long a correspondent keeps a move prepared without hearing from the mover.
    pub pending: Duration,
    /// How long a handshake may take at the side that answers.
    pub half_open: Duration,
    /// How long an association without any claim is kept.
    pub idle: Duration,
    /// How long keys are used.
    pub rekey: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            retry: Duration::from_millis(100),
            retry_cap: Duration::from_secs(10),
            silence: Duration::from_secs(60),
            silence_cap: Duration::from_secs(3600),
            claim_retry: Duration::from_secs(1),
            ping: Duration::from_secs(25),
            pending: Duration::from_secs(20),
            half_open: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            rekey: Duration::from_secs(7200),
        }
    }
}

/// Bounds on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Associations.
    pub peers: usize,
    /// Handshakes begun by others and not finished; also batches of claims that wait for their proof.
    pub half_open: usize,
    /// Handshakes begun by this host and not finished.
    pub dials: usize,
    /// Claims of one peer, and this host's claims towards one peer.
    pub claims: usize,
    /// Hosts remembered as not answering.
    pub silent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { peers: 131_072, half_open: 1024, dials: 1024, claims: 131_072, silent: 4096 }
    }
}

/// Why a configuration cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// There is no group key, or there are more than [`GROUP_KEYS_MAX`].
    GroupKeys,
    /// The host name is longer than [`NAME_MAX`] bytes, or has bytes that are not visible ASCII.
    Name,
    /// The port is 0.
    Port,
    /// The generations of the kernel's table are used up.
    Generation,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GroupKeys => write!(f, "there must be 1 to {GROUP_KEYS_MAX} group keys"),
            Self::Name => write!(f, "the host name is longer than {NAME_MAX} bytes or not plain ASCII"),
            Self::Port => f.write_str("the port is 0"),
            Self::Generation => f.write_str("the generations of the flow table are used up: flush the table"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// An address prefix such as `192.0.2.0/24` or `2001:db8::/32`. A bare address
/// is a prefix of full length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A prefix is not written as `address/length`, or has bits set below its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPrefix;

impl fmt::Display for BadPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prefix is written as address/length, with no bits set below its length")
    }
}

impl std::error::Error for BadPrefix {}

impl Prefix {
    /// The prefix of `length` bits of `address`, whose other bits must be zero.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, BadPrefix> {
        let prefix = Self { address, length };
        if length > Self::bits(address) || prefix.masked(address) != Self::number(address) {
            return Err(BadPrefix);
        }
        Ok(prefix)
    }

    /// Its address; the bits beyond its length are zero.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits count.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` lies in this prefix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == Self::number(self.address)
    }

    const fn bits(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        }
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let below = u32::from(Self::bits(address).saturating_sub(self.length));
        Self::number(address).checked_shr(below).and_then(|kept| kept.checked_shl(below)).unwrap_or(0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| BadPrefix)?;
        let length = length.map_or(Ok(Self::bits(address)), |l| l.parse().map_err(|_| BadPrefix))?;
        Self::new(address, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_contain_what_they_should() -> Result<(), Box<dyn std::error::Error>> {
        let v4: Prefix = "192.0.2.128/25".parse()?;
        assert!(v4.contains("192.0.2.200".parse()?));
        assert!(!v4.contains("192.0.2.100".parse()?));
        assert!(!v4.contains("::192.0.2.200".parse()?));
        let all: Prefix = "0.0.0.0/0".parse()?;
        assert!(all.contains("255.255.255.255".parse()?));
        assert!(!all.contains("::".parse()?));
        let v6: Prefix = "2001:db8::/33".parse()?;
        assert!(v6.contains("2001:db8:7fff::1".parse()?));
        assert!(!v6.contains("2001:db8:8000::1".parse()?));
        let everything: Prefix = "::/0".parse()?;
        assert!(everything.contains("ff02::1".parse()?));
        let host: Prefix = "2001:db8::1".parse()?;
        assert_eq!(host.to_string(), "2001:db8::1/128");
        assert!(host.contains("2001:db8::1".parse()?) && !host.contains("2001:db8::".parse()?));
        Ok(())
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for text in ["", "/", "192.0.2.1/24", "192.0.2.0/33", "::/129", "192.0.2.0/-1", "192.0.2.0/", "x/8"] {
            assert_eq!(text.parse::<Prefix>(), Err(BadPrefix), "{text}");
        }
    }

    #[test]
    fn configuration_is_checked() {
        let good = Config::new(HostKey::from_bytes(&[1; 32]), GroupKey::from_bytes(&[2; 32]));
        assert_eq!(good.check(), Ok(()));
        let none = Config { group_keys: Vec::new(), ..good.clone() };
        assert_eq!(none.check(), Err(ConfigError::GroupKeys));
        let many = Config { group_keys: vec![GroupKey::from_bytes(&[2; 32]); 9], ..good.clone() };
        assert_eq!(many.check(), Err(ConfigError::GroupKeys));
        let name = Config { name: "x".repeat(256), ..good.clone() };
        assert_eq!(name.check(), Err(ConfigError::Name));
        let escape = Config { name: "x\u{1b}[2J".into(), ..good.clone() };
        assert_eq!(escape.check(), Err(ConfigError::Name));
        let port = Config { port: 0, ..good.clone() };
        assert_eq!(port.check(), Err(ConfigError::Port));
        let spent = Config { generation: u32::MAX, ..good };
        assert_eq!(spent.check(), Err(ConfigError::Generation));
    }
}

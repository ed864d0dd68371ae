//! What the system is set to: resolv.conf(5) and hosts(5).

use super::lookup::random;
use super::message::DnsName;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Where the settings are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// hosts(5).
    pub hosts: PathBuf,
    /// The port of the servers in resolv.conf, which cannot say so.
    pub port: u16,
}

impl Default for System {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into(), port: 53 }
    }
}

/// What resolv.conf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The resolvers to ask, in this order; never empty.
    pub servers: Vec<SocketAddr>,
    /// What is appended to names, in this order.
    pub search: Vec<DnsName>,
    /// With so many dots a name is first asked for as it is.
    pub ndots: usize,
    /// How long each server is waited for, and how often, if it says so.
    pub tries: Option<Vec<Duration>>,
    /// Every question begins with another server.
    pub rotate: bool,
}

impl System {
    /// Reads resolv.conf. Without one, or without servers in it, the resolver is this host; without a domain in it, the
    /// domain is that of this host's name.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let mut settings = parse(&read(&self.resolv_conf), self.port);
        if settings.search.is_empty() {
            let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
            settings.search.extend(domain_of(&name));
        }
        if settings.rotate {
            let first = random() as usize % settings.servers.len().max(1);
            settings.servers.rotate_left(first);
        }
        settings
    }

    /// The addresses of `name` in the hosts file.
    #[must_use]
    pub fn hosts(&self, name: &str) -> Vec<IpAddr> {
        hosts(&read(&self.hosts), name)
    }
}

/// The text of a file, as far as it is one; the empty one if it cannot be read.
fn read(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// At most so many servers, and domains to search, as resolv.conf(5) says.
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;
/// The most that options can ask for, as in the C library.
const NDOTS_MAX: u8 = 15;
const TIMEOUT_MAX: u8 = 30;
const ATTEMPTS_MAX: u8 = 5;
/// What the C library does without options.
const TIMEOUT: u8 = 5;
const ATTEMPTS: u8 = 2;

/// What the text of a resolv.conf says, for servers with this port. Whatever makes no sense is ignored.
#[must_use]
pub fn parse(text: &str, port: u16) -> Settings {
    let mut settings = Settings { servers: Vec::new(), search: Vec::new(), ndots: 1, tries: None, rotate: false };
    let (mut timeout, mut attempts) = (None, None);
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") if settings.servers.len() < SERVERS_MAX => {
                settings.servers.extend(words.next().and_then(|word| server(word, port)));
            }
            // The last of these lines counts.
            Some("search" | "domain") => {
                settings.search = words.filter_map(|word| DnsName::from_str(word).ok()).take(SEARCH_MAX).collect();
            }
            Some("options") => {
                for word in words {
                    let (option, value) = word.split_once(':').unwrap_or((word, ""));
                    match (option, value.parse::<u8>()) {
                        ("ndots", Ok(value)) => settings.ndots = value.min(NDOTS_MAX).into(),
                        ("timeout", Ok(value)) => timeout = Some(value.clamp(1, TIMEOUT_MAX)),
                        ("attempts", Ok(value)) => attempts = Some(value.clamp(1, ATTEMPTS_MAX)),
                        ("rotate", _) => settings.rotate = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if timeout.is_some() || attempts.is_some() {
        let wait = Duration::from_secs(timeout.unwrap_or(TIMEOUT).into());
        settings.tries = Some(vec![wait; attempts.unwrap_or(ATTEMPTS).into()]);
    }
    if settings.servers.is_empty() {
        settings.servers.push(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    settings
}

/// The domain that a host with this name is in, if it is in one.
fn domain_of(name: &str) -> Option<DnsName> {
    DnsName::from_str(name.split_once('.')?.1).ok().filter(|domain| !domain.is_root())
}

/// An address, possibly `fe80::1%em0`.
fn server(word: &str, port: u16) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse().ok()?, port));
    };
    let scope = zone.parse().ok().or_else(|| nix::net::if_::if_nametoindex(zone).ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, port, 0, scope).into())
}

fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn resolv_conf() {
        let text = "# c\nnameserver 192.0.2.53 # one\nnameserver 2001:db8::53\nnameserver x\ndomain a.example\n\
                    search example.org sub.example.org\noptions edns0 ndots:2 timeout:1\noptions attempts:3 rotate ndots:x\nnameserver fe80::1%1\nnameserver 192.0.2.99\n";
        let settings = parse(text, 53);
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:53", "[fe80::1%1]:53"]);
        assert_eq!(
            settings.search.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["example.org", "sub.example.org"]
        );
        assert_eq!((settings.ndots, settings.rotate), (2, true));
        assert_eq!(settings.tries, Some(vec![Duration::from_secs(1); 3]));
        let nothing = parse("", 5353);
        assert_eq!((nothing.servers, nothing.ndots), (vec!["127.0.0.1:5353".parse().unwrap()], 1));
        assert_eq!((nothing.tries, nothing.rotate), (None, false));
        // As far as the C library goes, and no further.
        for (options, seconds, attempts) in [
            ("timeout:99 attempts:99", 30, 5),
            ("timeout:0", 1, 2),
            ("attempts:1", 5, 1),
            ("timeout:300 attempts:4", 5, 4),
        ] {
            let tries = parse(&format!("options {options}"), 53).tries;
            assert_eq!(tries, Some(vec![Duration::from_secs(seconds); attempts]), "{options}");
        }
    }

    #[test]
    fn the_domain_of_the_host_is_searched_when_no_other_is() {
        let domain = |name: &str| domain_of(name).map(|domain| domain.to_string());
        assert_eq!(domain("laptop.example.org").as_deref(), Some("example.org"));
        assert_eq!((domain("laptop"), domain("laptop."), domain("a..b"), domain("")), (None, None, None, None));
    }

    #[test]
    fn with_rotate_every_server_is_first_sometimes() {
        let folder = tempfile::tempdir().unwrap();
        let resolv_conf = folder.path().join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions rotate\nsearch a\n").unwrap();
        let system = System { resolv_conf, ..System::default() };
        let first: std::collections::HashSet<_> = (0..64).map(|_| system.settings().servers[0]).collect();
        assert_eq!(first.len(), 2);
    }

    #[test]
    fn hosts_file() {
        let text =
            "127.0.0.1 localhost\n::1 localhost\n192.0.2.1 Peer.Example.org peer # peer2\nx peer\n192.0.2.1 peer\n";
        let found = |name: &str| hosts(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(found("peer.example.org."), ["192.0.2.1"]);
        assert_eq!(found("peer"), ["192.0.2.1"]);
        assert!(found("peer2").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", words in "(nameserver|search|options|domain) [-%:.a-z0-9 ]{0,40}") {
            let _ = hosts(&text, &text);
            let _ = parse(&text, 53);
            let _ = parse(&words, 53);
        }
    }
}

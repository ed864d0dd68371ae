//! The table `[ddns]` of the configuration, and which addresses it publishes.

use crate::config::Check;
use crate::dns::DnsName;
use mobconn_dprp::Prefix;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use toml::Spanned;

/// Where the key is when the configuration does not say.
pub const DEFAULT_KEY: &str = "/usr/local/etc/mobconn/ddns.key";
/// Where it is kept what was published, when the configuration does not say.
pub const DEFAULT_STATE: &str = "/var/db/mobctl.ddns";
/// How long others may keep the records, in seconds, when the configuration does not say.
pub const DEFAULT_TTL: u32 = 30;

/// How the host's name is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name.
    pub name: DnsName,
    /// The zone that it is in; found by SOA otherwise.
    pub zone: Option<DnsName>,
    /// The servers that take updates; the zone's own otherwise.
    pub servers: Vec<SocketAddr>,
    /// The key file.
    pub key: PathBuf,
    /// How long others may keep the records, in seconds.
    pub ttl: u32,
    /// The interfaces whose addresses are published; empty: all.
    pub interfaces: Vec<String>,
    /// Where addresses must be in to be published; empty: everywhere but in private networks.
    pub publish: Vec<Prefix>,
    /// The name is this host's alone, so that no mark is needed.
    pub owned: bool,
    /// Where it is kept what was published.
    pub state: PathBuf,
}

/// The table as serde sees it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    name: Option<Spanned<String>>,
    zone: Option<Spanned<String>>,
    servers: Option<Vec<Spanned<String>>>,
    key: Option<Spanned<String>>,
    ttl: Option<Spanned<i64>>,
    interfaces: Option<Vec<String>>,
    publish: Option<Vec<Spanned<String>>>,
    owned: Option<bool>,
    state: Option<Spanned<String>>,
}

/// Checks the table. `name` is what the file says outside it.
pub(crate) fn check(check: &mut Check<'_>, raw: Spanned<Raw>, name: &str) -> Option<Config> {
    let at = raw.span();
    let raw = raw.into_inner();
    let own = match &raw.name {
        Some(own) => check.name(own).and_then(|text| dns_name(check, &own.span(), &text)),
        None if name.is_empty() => {
            check.fault(&at, "[ddns] needs a name, for example name = \"laptop.example.org\"");
            None
        }
        None => dns_name(check, &at, name),
    };
    let zone = raw.zone.as_ref().and_then(|zone| dns_name(check, &zone.span(), zone.get_ref()));
    if let (Some(own), Some(zone)) = (&own, &zone)
        && !own.ends_with(zone)
    {
        check.fault(&raw.zone.as_ref().map_or(at.clone(), Spanned::span), format!("{own} is not in the zone {zone}"));
    }
    if let Some(own) = &own
        && super::mark::place(own).is_none()
    {
        check.fault(&at, format!("{own} is too long: the name _mobconn.{own} must exist too"));
    }
    let servers = raw.servers.unwrap_or_default().iter().filter_map(|item| server(check, item)).collect();
    let mut path = |value: Option<Spanned<String>>, default: &str| {
        value.map_or_else(|| Some(default.into()), |path| check.path(&path.span(), path.get_ref()))
    };
    let (key, state) = (path(raw.key, DEFAULT_KEY), path(raw.state, DEFAULT_STATE));
    let ttl = raw.ttl.map_or(Some(DEFAULT_TTL), |ttl| check.number(&ttl, "ttl", 0, 86_400));
    let publish = check.prefixes(&raw.publish.unwrap_or_default());
    Some(Config {
        name: own?,
        zone,
        servers,
        key: key?,
        ttl: ttl?,
        interfaces: raw.interfaces.unwrap_or_default(),
        publish,
        owned: raw.owned.unwrap_or_default(),
        state: state?,
    })
}

fn dns_name(check: &mut Check<'_>, at: &Range<usize>, text: &str) -> Option<DnsName> {
    let name = DnsName::from_str(text).ok().filter(|name| !name.is_root());
    if name.is_none() {
        check.fault(at, format!("\"{text}\" is no name in the DNS"));
    }
    name
}

fn server(check: &mut Check<'_>, item: &Spanned<String>) -> Option<SocketAddr> {
    let text = item.get_ref();
    let server = text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 53)));
    let server =
        server.filter(|server| server.port() != 0 && !server.ip().is_multicast() && !server.ip().is_unspecified());
    if server.is_none() {
        check.fault(
            &item.span(),
            format!("\"{text}\" is no address of a name server, for example \"192.0.2.53\" or \"[2001:db8::53]:5353\""),
        );
    }
    server
}

impl Config {
    /// Whether an address of this interface is published. Never one that means nothing elsewhere.
    #[must_use]
    pub fn publishes(&self, interface: &str, address: IpAddr) -> bool {
        let listed = self.interfaces.is_empty() || self.interfaces.iter().any(|one| one == interface);
        let place = match self.publish.as_slice() {
            [] => !is_private(address),
            prefixes => prefixes.iter().any(|prefix| prefix.contains(address)),
        };
        listed && place && is_usable(address)
    }
}

/// Whether others can reach a host there at all.
fn is_usable(address: IpAddr) -> bool {
    let anywhere = !address.is_loopback() && !address.is_multicast() && !address.is_unspecified();
    anywhere
        && match address {
            IpAddr::V4(address) => !address.is_link_local() && !address.is_broadcast(),
            IpAddr::V6(address) => !address.is_unicast_link_local() && address.to_ipv4_mapped().is_none(),
        }
}

/// Whether every network has strangers at this address: RFC 1918, RFC 6598, RFC 4193.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || matches!(address.octets(), [100, 64..=127, ..]),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

/// The addresses of this host that are published: of interfaces that are up and have a link.
///
/// # Errors
/// When the system does not list them.
pub fn published(config: &Config) -> nix::Result<Vec<IpAddr>> {
    use nix::net::if_::InterfaceFlags;
    let flags = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let mut list = Vec::new();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address.filter(|_| interface.flags.contains(flags)) else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let address = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
        list.extend(address.filter(|address| config.publishes(&interface.interface_name, *address)));
    }
    Ok(sorted(list))
}

/// The same addresses, each once, in order.
#[must_use]
pub fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(table: &str) -> super::Config {
        Config::parse(&format!("[ddns]\n{table}")).unwrap().ddns.unwrap()
    }

    #[test]
    fn everything_set() {
        let config = parse(
            r#"name = "laptop.example.org"
               zone = "example.org."
               servers = ["192.0.2.53", "192.0.2.54:5353", "2001:db8::53", "[2001:db8::54]:5353"]
               key = "/k/ddns.key"
               ttl = 60
               interfaces = ["em0", "wlan0"]
               publish = ["10.0.0.0/8"]
               owned = true
               state = "/s/ddns""#,
        );
        assert_eq!(config.name.to_string(), "laptop.example.org");
        assert_eq!(config.zone.unwrap().to_string(), "example.org");
        let servers: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.53:53", "192.0.2.54:5353", "[2001:db8::53]:53", "[2001:db8::54]:5353"]);
        assert_eq!((config.ttl, config.owned), (60, true));
        assert_eq!((config.key, config.state), ("/k/ddns.key".into(), "/s/ddns".into()));
    }

    #[test]
    fn the_name_of_the_host_will_do() {
        let config = Config::parse("name = \"laptop.example.org\"\n[ddns]\n").unwrap().ddns.unwrap();
        assert_eq!((config.name.to_string().as_str(), config.ttl), ("laptop.example.org", 30));
        assert_eq!(Config::parse("name = \"laptop.example.org\"").unwrap().ddns, None);
    }

    #[test]
    fn faults_have_their_line() {
        for (table, line, part) in [
            ("", 1, "needs a name"),
            ("name = \"a b\"", 2, "no name of a host"),
            ("name = \"a.example.org\"\nzone = \"example.net\"", 3, "not in the zone"),
            ("name = \"a.example.org\"\nzone = \"ample.org\"", 3, "not in the zone"),
            ("name = \"a.example\"\nzone = \".\"", 3, "no name in the DNS"),
            ("name = \"a.example\"\n\nservers = [\n\"192.0.2.1\",\n\"ns.example\"]", 6, "\"ns.example\" is no address"),
            ("name = \"a.example\"\nservers = [\"192.0.2.1:0\"]", 3, "no address"),
            ("name = \"a.example\"\nkey = \"k\"", 3, "no absolute path"),
            ("name = \"a.example\"\nttl = -1", 3, "ttl must be 0 to 86400"),
            ("name = \"a.example\"\npublish = [\"10.0.0.1/8\"]", 3, "is no prefix"),
            ("name = \"a.example\"\nsecret = \"x\"", 3, "unknown field `secret`"),
        ] {
            let faults = Config::parse(&format!("[ddns]\n{table}")).unwrap_err();
            assert_eq!(faults.len(), 1, "{table}: {faults:?}");
            assert_eq!(faults[0].line, line, "{table}: {faults:?}");
            assert!(faults[0].message.contains(part), "{table}: {faults:?}");
        }
    }

    #[test]
    fn what_is_published() {
        let everywhere = parse("name = \"a.example\"");
        let chosen = parse(
            "name = \"a.example\"\ninterfaces = [\"em0\"]\npublish = [\"10.0.0.0/8\", \"fe80::/10\", \"2001:db8::/32\"]",
        );
        for (address, by_default, if_chosen) in [
            ("192.0.2.1", true, false),
            ("2001:db8::1", true, true),
            ("10.1.2.3", false, true),
            ("172.16.0.1", false, false),
            ("192.168.1.1", false, false),
            ("100.64.0.1", false, false),
            ("fd00::1", false, false),
            ("127.0.0.1", false, false),
            ("::1", false, false),
            ("169.254.1.1", false, false),
            ("fe80::1", false, false),
            ("::ffff:192.0.2.1", false, false),
            ("0.0.0.0", false, false),
            ("255.255.255.255", false, false),
            ("224.0.0.1", false, false),
        ] {
            let parsed = address.parse().unwrap();
            assert_eq!(everywhere.publishes("em1", parsed), by_default, "{address}");
            assert_eq!(chosen.publishes("em0", parsed), if_chosen, "{address}");
            assert!(!chosen.publishes("em1", parsed), "{address}");
        }
    }
}

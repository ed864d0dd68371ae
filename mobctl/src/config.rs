//! The configuration file, see mobctl.conf(5).

use crate::ddns;
use crate::exit::{Exit, Failure};
use mobconn_dprp::{GROUP_KEYS_MAX, NAME_MAX, PORT, Prefix, PublicKey};
use serde::Deserialize;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/etc/mobconn/mobctl.conf";
/// Where the host key is when the configuration does not say.
pub const DEFAULT_HOST_KEY: &str = "/usr/local/etc/mobconn/host.key";
/// Where the group key is when the configuration does not say.
pub const DEFAULT_GROUP_KEY: &str = "/usr/local/etc/mobconn/group.key";
/// Where claims are kept over a restart when the configuration does not say.
pub const DEFAULT_CLAIMS: &str = "/var/run/mobctl.claims";

/// A configuration whose every field was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether this host starts associations and moves.
    pub mobile: bool,
    /// Where associations are started to.
    pub peers: Vec<Prefix>,
    /// Names in the DNS of hosts to which associations are started too.
    pub peer_names: Vec<String>,
    /// Addresses whose flows are left alone, local or remote.
    pub exclude: Vec<Prefix>,
    /// Ports whose flows are left alone, local or remote.
    pub exclude_ports: Vec<u16>,
    /// The group key files, the one to use first.
    pub group_keys: Vec<PathBuf>,
    /// The host key file.
    pub host_key: PathBuf,
    /// Where claims are kept over a restart of the daemon.
    pub claims: PathBuf,
    /// UDP port of the protocol.
    pub port: u16,
    /// Addresses to listen on.
    pub listen: Vec<IpAddr>,
    /// Keys of the hosts to associate with; empty: every member of the group.
    pub pins: Vec<PublicKey>,
    /// This host's name in the DNS, possibly empty.
    pub name: String,
    /// What is logged.
    pub log_level: log::LevelFilter,
    /// Seconds for which the address before a move is still accepted.
    pub grace: u32,
    /// Seconds after which an idle UDP binding is removed; 0: never.
    pub udp_idle: u32,
    /// Whether connections move by themselves.
    pub automatic: bool,
    /// Interfaces to use, the best first; empty: as the system's routes prefer.
    pub prefer: Vec<String>,
    /// Interfaces never to use.
    pub ignore: Vec<String>,
    /// Seconds for which a better network must have been there before connections move to it.
    pub hold_down: u32,
    /// Whether old IPv4 addresses are kept on the loopback interface while connections know them.
    pub keep_old_address: bool,
    /// How this host's name in the DNS is kept, if it is.
    pub ddns: Option<ddns::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mobile: false,
            peers: Vec::new(),
            peer_names: Vec::new(),
            exclude: Vec::new(),
            exclude_ports: Vec::new(),
            group_keys: vec![DEFAULT_GROUP_KEY.into()],
            host_key: DEFAULT_HOST_KEY.into(),
            claims: DEFAULT_CLAIMS.into(),
            port: PORT,
            listen: vec![IpAddr::from([0; 4]), IpAddr::from([0u16; 8])],
            pins: Vec::new(),
            name: String::new(),
            log_level: log::LevelFilter::Info,
            grace: 60,
            udp_idle: 300,
            automatic: true,
            prefer: Vec::new(),
            ignore: Vec::new(),
            hold_down: 5,
            keep_old_address: false,
            ddns: None,
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// The file as serde sees it; values are checked later, where their line is known.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    mobile: Option<bool>,
    peers: Option<Spanned<Vec<Spanned<String>>>>,
    exclude: Option<Vec<Spanned<String>>>,
    exclude_ports: Option<Vec<Spanned<i64>>>,
    group_key: Option<Spanned<OneOrMany>>,
    host_key: Option<Spanned<String>>,
    claims: Option<Spanned<String>>,
    port: Option<Spanned<i64>>,
    listen: Option<Spanned<Vec<Spanned<String>>>>,
    pins: Option<Vec<Spanned<String>>>,
    name: Option<Spanned<String>>,
    log_level: Option<Spanned<String>>,
    grace: Option<Spanned<i64>>,
    udp_idle: Option<Spanned<i64>>,
    automatic: Option<bool>,
    prefer: Option<Vec<Spanned<String>>>,
    ignore: Option<Vec<Spanned<String>>>,
    hold_down: Option<Spanned<i64>>,
    keep_old_address: Option<bool>,
    ddns: Option<Spanned<ddns::config::Raw>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the path of a key file, or a list of such paths")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// A [`Failure`] that names every fault with its line.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::new(Exit::Config, format!("{shown}: no such file")).advise(format!(
                "Copy mobctl.conf.sample, which lies beside {DEFAULT_PATH}, and edit it; see mobctl.conf(5)"
            )),
            io::ErrorKind::PermissionDenied => {
                Failure::new(Exit::NoPermission, format!("{shown}: permission denied")).advise("Run mobctl as root")
            }
            io::ErrorKind::InvalidData => Failure::new(Exit::Config, format!("{shown}: not a text in UTF-8")),
            _ => Failure::new(Exit::Io, format!("{shown}: {error}")),
        })?;
        Self::parse(&text).map_err(|faults| {
            let lines: Vec<String> = faults.iter().map(|fault| format!("{shown}: {fault}")).collect();
            Failure::new(Exit::Config, lines.join("\n"))
        })
    }

    /// Checks the text of a configuration.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the text; a text that is no TOML ends at its first fault.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let at = error.span().unwrap_or(0..0);
            vec![Fault { line: line(text, &at), message: error.message().trim_end().replace('\n', "; ") }]
        })?;
        let mut check = Check { text, faults: Vec::new() };
        let config = check.all(raw);
        check.faults.sort_by_key(|fault| fault.line);
        if check.faults.is_empty() { Ok(config) } else { Err(check.faults) }
    }
}

fn line(text: &str, at: &Range<usize>) -> usize {
    text.bytes().take(at.start).filter(|&byte| byte == b'\n').count() + 1
}

pub(crate) struct Check<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn all(&mut self, raw: Raw) -> Config {
        let defaults = Config::default();
        let name = raw.name.and_then(|name| self.name(&name)).unwrap_or_default();
        let (peers, peer_names) = raw.peers.as_ref().map(|list| self.peers(list.get_ref())).unwrap_or_default();
        let config = Config {
            mobile: raw.mobile.unwrap_or_default(),
            peers,
            peer_names,
            exclude: self.prefixes(&raw.exclude.unwrap_or_default()),
            exclude_ports: raw
                .exclude_ports
                .unwrap_or_default()
                .iter()
                .filter_map(|port| self.number(port, "a port", 1, u16::MAX))
                .collect(),
            group_keys: raw.group_key.map_or(defaults.group_keys, |keys| self.group_keys(keys)),
            host_key: raw
                .host_key
                .and_then(|path| self.path(&path.span(), path.get_ref()))
                .unwrap_or(defaults.host_key),
            claims: raw.claims.and_then(|path| self.path(&path.span(), path.get_ref())).unwrap_or(defaults.claims),
            port: raw.port.and_then(|port| self.number(&port, "port", 1, u16::MAX)).unwrap_or(defaults.port),
            listen: raw.listen.map_or(defaults.listen, |list| self.addresses(&list)),
            pins: raw.pins.unwrap_or_default().iter().filter_map(|pin| self.pin(pin)).collect(),
            ddns: raw.ddns.and_then(|table| ddns::config::check(self, table, &name)),
            name,
            log_level: raw.log_level.and_then(|level| self.level(&level)).unwrap_or(defaults.log_level),
            grace: raw.grace.and_then(|grace| self.number(&grace, "grace", 1, 86_400)).unwrap_or(defaults.grace),
            udp_idle: raw
                .udp_idle
                .and_then(|idle| self.number(&idle, "udp_idle", 0, 86_400))
                .unwrap_or(defaults.udp_idle),
            automatic: raw.automatic.unwrap_or(defaults.automatic),
            prefer: self.interfaces(raw.prefer.as_deref().unwrap_or_default()),
            ignore: self.interfaces(raw.ignore.as_deref().unwrap_or_default()),
            hold_down: raw
                .hold_down
                .and_then(|hold| self.number(&hold, "hold_down", 0, 3_600))
                .unwrap_or(defaults.hold_down),
            keep_old_address: raw.keep_old_address.unwrap_or(defaults.keep_old_address),
        };
        if let Some(both) = raw.prefer.iter().flatten().find(|item| config.ignore.contains(item.get_ref())) {
            self.fault(&both.span(), format!("\"{}\" is preferred and ignored", both.get_ref()));
        }
        if config.mobile && raw.peers.as_ref().is_none_or(|list| list.get_ref().is_empty()) {
            let at = raw.peers.map_or_else(|| self.text.find("mobile").map_or(0..0, |at| at..at), |list| list.span());
            self.fault(&at, "a mobile host needs peers, for example peers = [\"203.0.113.0/24\"]: the networks of the hosts that run mobconn");
        }
        config
    }

    pub(crate) fn fault(&mut self, at: &Range<usize>, message: impl Into<String>) {
        self.faults.push(Fault { line: line(self.text, at), message: message.into() });
    }

    pub(crate) fn number<T: TryFrom<i64> + fmt::Display + Copy>(
        &mut self,
        value: &Spanned<i64>,
        what: &str,
        min: i64,
        max: T,
    ) -> Option<T>
    where
        i64: From<T>,
    {
        let number = *value.get_ref();
        if (min..=i64::from(max)).contains(&number) {
            return T::try_from(number).ok();
        }
        self.fault(&value.span(), format!("{what} must be {min} to {max}, not {number}"));
        None
    }

    pub(crate) fn prefixes(&mut self, list: &[Spanned<String>]) -> Vec<Prefix> {
        let mut prefixes = Vec::new();
        for item in list {
            match item.get_ref().parse() {
                Ok(prefix) => prefixes.push(prefix),
                Err(error) => self.fault(
                    &item.span(),
                    format!(
                        "\"{}\" is no prefix: {error}, for example \"203.0.113.0/24\" or \"2001:db8::/32\"",
                        item.get_ref()
                    ),
                ),
            }
        }
        prefixes
    }

    /// Prefixes, and names of hosts.
    fn peers(&mut self, list: &[Spanned<String>]) -> (Vec<Prefix>, Vec<String>) {
        let (mut prefixes, mut names) = (Vec::new(), Vec::new());
        for item in list {
            let text = item.get_ref();
            // No top-level domain is a number.
            let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
            match text.parse() {
                Ok(prefix) => prefixes.push(prefix),
                Err(_) if is_name(text) && last.bytes().any(|byte| byte.is_ascii_alphabetic()) => {
                    names.push(text.clone());
                }
                Err(error) => self.fault(
                    &item.span(),
                    format!(
                        "\"{text}\" is no name of a host and no prefix: {error}, for example \"203.0.113.0/24\", \"2001:db8::/32\" or \"desk.example.org\""
                    ),
                ),
            }
        }
        (prefixes, names)
    }

    pub(crate) fn path(&mut self, at: &Range<usize>, path: &str) -> Option<PathBuf> {
        if path.starts_with('/') {
            return Some(path.into());
        }
        self.fault(at, format!("\"{path}\" is no absolute path: the daemon runs in the root folder"));
        None
    }

    fn group_keys(&mut self, keys: Spanned<OneOrMany>) -> Vec<PathBuf> {
        let at = keys.span();
        let paths = match keys.into_inner() {
            OneOrMany::One(path) => vec![path],
            OneOrMany::Many(paths) => paths,
        };
        if paths.is_empty() || paths.len() > GROUP_KEYS_MAX {
            self.fault(&at, format!("group_key must name 1 to {GROUP_KEYS_MAX} files, not {}", paths.len()));
        }
        paths.iter().filter_map(|path| self.path(&at, path)).collect()
    }

    fn addresses(&mut self, list: &Spanned<Vec<Spanned<String>>>) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for item in list.get_ref() {
            let text = item.get_ref();
            match text.parse::<IpAddr>() {
                Err(_) => self.fault(
                    &item.span(),
                    format!("\"{text}\" is no IP address (\"0.0.0.0\" is every IPv4 one, \"::\" every IPv6 one)"),
                ),
                Ok(address) if address.is_multicast() || address.to_canonical() != address => {
                    self.fault(&item.span(), format!("\"{text}\" is no address of an interface"));
                }
                Ok(address) if addresses.contains(&address) => {
                    self.fault(&item.span(), format!("\"{text}\" stands here twice"))
                }
                Ok(address) => addresses.push(address),
            }
        }
        for any in addresses.iter().filter(|address| address.is_unspecified()) {
            if addresses.iter().any(|other| other != any && other.is_ipv4() == any.is_ipv4()) {
                self.fault(&list.span(), format!("\"{any}\" already means every address of its family"));
            }
        }
        if list.get_ref().is_empty() {
            self.fault(&list.span(), "listen is empty: leave it out to listen on every address");
        }
        addresses
    }

    fn pin(&mut self, item: &Spanned<String>) -> Option<PublicKey> {
        item.get_ref()
            .parse()
            .map_err(|error| {
                self.fault(
                    &item.span(),
                    format!(
                        "\"{}\" is no public key: {error}; that host shows its own with: mobctl keygen public",
                        item.get_ref()
                    ),
                )
            })
            .ok()
    }

    pub(crate) fn name(&mut self, item: &Spanned<String>) -> Option<String> {
        let name = item.get_ref();
        if is_name(name) {
            return Some(name.clone());
        }
        self.fault(&item.span(), format!("\"{name}\" is no name of a host, for example \"laptop.example.org\""));
        None
    }

    fn interfaces(&mut self, list: &[Spanned<String>]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for item in list {
            let name = item.get_ref();
            if name.is_empty() || name.len() > 15 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
                self.fault(&item.span(), format!("\"{name}\" is no name of an interface, for example \"em0\""));
            } else if names.contains(name) {
                self.fault(&item.span(), format!("\"{name}\" stands here twice"));
            } else {
                names.push(name.clone());
            }
        }
        names
    }

    fn level(&mut self, item: &Spanned<String>) -> Option<log::LevelFilter> {
        Some(match item.get_ref().as_str() {
            "error" => log::LevelFilter::Error,
            "warning" => log::LevelFilter::Warn,
            "info" => log::LevelFilter::Info,
            "debug" => log::LevelFilter::Debug,
            other => {
                self.fault(
                    &item.span(),
                    format!("log_level must be \"error\", \"warning\", \"info\" or \"debug\", not \"{other}\""),
                );
                return None;
            }
        })
    }
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= NAME_MAX && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_a_correspondent_with_defaults() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn the_sample_is_right() {
        let sample = include_str!("../mobctl.conf.sample");
        let config = Config::parse(sample).unwrap();
        assert_eq!(config, Config::default(), "what the sample sets is the default");
        // Every line that is commented out is an example which must be right too.
        let uncommented: String = sample
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
                    .unwrap_or(line)
            })
            .fold(String::new(), |text, line| text + line + "\n");
        let config = Config::parse(&uncommented).unwrap();
        assert!(config.mobile && !config.peers.is_empty() && !config.pins.is_empty() && config.ddns.is_some());
    }

    #[test]
    fn everything_set() {
        let text = r#"
            mobile = true
            peers = ["203.0.113.0/24", "2001:db8::1", "desk.example.org", "server"]
            exclude = ["10.0.0.0/8"]
            claims = "/k/claims"
            exclude_ports = [53, 5353]
            group_key = ["/k/new.key", "/k/old.key"]
            host_key = "/k/host.key"
            port = 19434
            listen = ["192.0.2.1", "::"]
            pins = ["8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"]
            name = "laptop.example.org"
            log_level = "debug"
            grace = 5
            udp_idle = 0
            automatic = false
            prefer = ["em0", "wlan0"]
            ignore = ["tun0"]
            hold_down = 0
            keep_old_address = true
        "#;
        let config = Config::parse(text).unwrap();
        assert!(config.mobile);
        assert_eq!(
            config.peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["203.0.113.0/24", "2001:db8::1/128"]
        );
        assert_eq!(config.peer_names, ["desk.example.org", "server"]);
        assert_eq!(config.exclude.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8"]);
        assert_eq!(config.claims, PathBuf::from("/k/claims"));
        assert_eq!(config.exclude_ports, [53, 5353]);
        assert_eq!(config.group_keys, [PathBuf::from("/k/new.key"), "/k/old.key".into()]);
        assert_eq!(config.port, 19434);
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.pins.len(), 1);
        assert_eq!((config.log_level, config.grace, config.udp_idle), (log::LevelFilter::Debug, 5, 0));
        assert_eq!((config.automatic, config.hold_down, config.keep_old_address), (false, 0, true));
        assert_eq!((config.prefer.join(" "), config.ignore.join(" ")), ("em0 wlan0".into(), "tun0".into()));
    }

    #[test]
    fn faults_have_their_line() {
        for (text, line, part) in [
            ("\nmobil = true", 2, "unknown field `mobil`"),
            ("mobile = \"yes\"", 1, "expected a boolean"),
            ("mobile = true", 1, "needs peers"),
            ("port = 1\n\nmobile = true\npeers = []", 4, "needs peers"),
            (
                "peers = [\n  \"203.0.113.0/24\",\n  \"203.0.113.1/24\",\n]",
                3,
                "\"203.0.113.1/24\" is no name of a host and no prefix",
            ),
            ("peers = [\"203.0.113.256\"]", 1, "no prefix"),
            ("peers = [\"desk.example.org/24\"]", 1, "no prefix"),
            ("exclude = [\"desk.example.org\"]", 1, "\"desk.example.org\" is no prefix"),
            ("claims = \"claims\"", 1, "no absolute path"),
            ("peers = \"203.0.113.0/24\"", 1, "expected a sequence"),
            ("\n\nport = 0", 3, "port must be 1 to 65535, not 0"),
            ("port = 65536", 1, "not 65536"),
            ("port = 1.5", 1, "expected"),
            ("exclude_ports = [\n22,\n-1]", 3, "a port must be 1 to 65535, not -1"),
            ("listen = [\"224.0.0.1\"]", 1, "no address of an interface"),
            ("listen = [\"::ffff:192.0.2.1\"]", 1, "no address of an interface"),
            ("listen = [\"em0\"]", 1, "\"em0\" is no IP address"),
            ("listen = [\n\"::\",\n\"::\"]", 3, "twice"),
            ("listen = [\"::\", \"2001:db8::1\"]", 1, "already means every address"),
            ("listen = []", 1, "leave it out"),
            ("host_key = \"host.key\"", 1, "no absolute path"),
            ("group_key = []", 1, "1 to 8 files, not 0"),
            ("group_key = 5", 1, "path of a key file"),
            ("pins = [\n\"abc\"]", 2, "\"abc\" is no public key"),
            ("name = \"a b\"", 1, "no name of a host"),
            ("name = \"\"", 1, "no name of a host"),
            ("log_level = \"loud\"", 1, "not \"loud\""),
            ("prefer = [\"em0\",\n\"em0\"]", 2, "twice"),
            ("ignore = [\"\"]", 1, "no name of an interface"),
            ("prefer = [\"a\",\n\"b\"]\nignore = [\"b\"]", 2, "preferred and ignored"),
            ("hold_down = 3601", 1, "hold_down must be 0 to 3600"),
            ("automatic = 1", 1, "expected a boolean"),
            ("grace = 0", 1, "grace must be 1 to 86400, not 0"),
            ("udp_idle = 86401", 1, "udp_idle must be 0 to 86400"),
            ("port = 1\nport = 2", 2, "duplicate key"),
            ("port 1", 1, ""),
            ("port = 1\n[x]\ny = 1", 2, "unknown field `x`"),
        ] {
            let faults = Config::parse(text).unwrap_err();
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
            assert_eq!(faults[0].line, line, "{text}: {faults:?}");
            assert!(faults[0].message.contains(part), "{text}: {faults:?}");
        }
    }

    #[test]
    fn all_faults_at_once_in_order() {
        let faults = Config::parse("port = 0\ngrace = 0\npeers = [\"x/\"]\nname = \"-\\n\"").unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", key in "(port|peers|exclude|listen|pins|name|grace|group_key)", value in "[-0-9\\[\\]\",.:/a-f]*") {
            let _ = Config::parse(&text);
            let _ = Config::parse(&format!("{key} = {value}"));
        }
    }
}

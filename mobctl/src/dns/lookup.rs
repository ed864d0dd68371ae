//! A host's addresses by its name, asked of the system's resolvers.

use super::message::{Answer, Data, DnsName, Request, query};
use super::system::{Settings, System};
use super::transport::Wire;
use super::trouble::Trouble;
use domain::base::iana::{OptRcode, Rtype};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The addresses, IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
    /// How long that may be kept.
    pub ttl: Duration,
}

/// Why a name stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// That is no name.
    Name,
    /// There is no such name, or it has no address; that may be believed for so long.
    Nothing(Duration),
    /// The resolvers did not say.
    Trouble(Trouble),
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("no name of a host"),
            Self::Nothing(_) => f.write_str("the name does not exist, or has no address"),
            Self::Trouble(trouble) => trouble.fmt(f),
        }
    }
}

impl std::error::Error for NotFound {}

/// The longest that an answer is kept, whatever its TTL.
pub const TTL_MAX: Duration = Duration::from_secs(86_400);
/// How long is believed what the hosts file says, which has no TTL.
const HOSTS_TTL: Duration = Duration::from_secs(10);
/// How long it is believed that there is nothing when the answer does not say.
const NOTHING_TTL: Duration = Duration::from_secs(5);
/// Aliases that are followed.
const ALIASES_MAX: usize = 8;

/// The addresses of `name`: an address stands for itself; then hosts(5), then the resolvers of resolv.conf(5) with its
/// search list.
///
/// # Errors
/// [`NotFound`].
pub fn addresses(wire: &mut Wire, system: &System, name: &str) -> Result<Found, NotFound> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(Found { addresses: vec![address], ttl: TTL_MAX });
    }
    let listed = system.hosts(name);
    if !listed.is_empty() {
        return Ok(Found { addresses: listed, ttl: HOSTS_TTL });
    }
    let settings = system.settings();
    wire.follow(Some(&settings));
    let mut nothing = NOTHING_TTL;
    for candidate in candidates(name, &settings).ok_or(NotFound::Name)? {
        match of_name(wire, &settings.servers, &candidate) {
            Err(NotFound::Nothing(ttl)) => nothing = ttl,
            result => return result,
        }
    }
    Err(NotFound::Nothing(nothing))
}

/// The names that `name` may mean.
fn candidates(name: &str, settings: &Settings) -> Option<Vec<DnsName>> {
    let plain = DnsName::from_str(name).ok().filter(|plain| !plain.is_root())?;
    if name.ends_with('.') {
        return Some(vec![plain]);
    }
    let short = name.matches('.').count() < settings.ndots;
    let mut list: Vec<DnsName> =
        settings.search.iter().filter_map(|domain| DnsName::from_str(&format!("{name}.{domain}")).ok()).collect();
    list.insert(if short { list.len() } else { 0 }, plain);
    Some(list)
}

/// The addresses of exactly this name, of both families.
///
/// # Errors
/// [`NotFound`].
pub fn of_name(wire: &mut Wire, servers: &[SocketAddr], name: &DnsName) -> Result<Found, NotFound> {
    let mut found = Found { addresses: Vec::new(), ttl: TTL_MAX };
    let mut nothing = TTL_MAX;
    for rtype in [Rtype::A, Rtype::AAAA] {
        let answer = ask(wire, servers, name, rtype).map_err(NotFound::Trouble)?;
        match read(&answer, name, rtype) {
            Ok(one) => {
                found.addresses.extend(one.addresses);
                found.ttl = found.ttl.min(one.ttl);
            }
            Err(ttl) => nothing = nothing.min(ttl),
        }
        if answer.rcode == OptRcode::NXDOMAIN {
            break;
        }
    }
    if found.addresses.is_empty() { Err(NotFound::Nothing(nothing)) } else { Ok(found) }
}

/// Asks one resolver after the other until one has an answer.
///
/// # Errors
/// The [`Trouble`] that tells most.
pub fn ask(wire: &mut Wire, servers: &[SocketAddr], name: &DnsName, rtype: Rtype) -> Result<Answer, Trouble> {
    let mut worst: Option<Trouble> = None;
    for server in servers {
        let request: Request = query(random_id(), name, rtype, true, None).map_err(|_| Trouble::TooMany)?;
        let trouble = match wire.ask(&request, *server) {
            Ok(answer) if matches!(answer.rcode, OptRcode::NOERROR | OptRcode::NXDOMAIN) => return Ok(answer),
            Ok(answer) => Trouble::Refused(*server, answer.rcode, name.clone()),
            Err(Trouble::Interrupted) => return Err(Trouble::Interrupted),
            Err(trouble) => trouble,
        };
        if worst.as_ref().is_none_or(|worst| worst.weight() < trouble.weight()) {
            worst = Some(trouble);
        }
    }
    Err(worst.unwrap_or_else(|| Trouble::NoServer(name.clone())))
}

/// The addresses that an answer tells, along its aliases; or how long there is none (RFC 2308).
///
/// # Errors
/// How long it may be believed that there is none.
pub fn read(answer: &Answer, name: &DnsName, rtype: Rtype) -> Result<Found, Duration> {
    // With the topmost bit it is none, RFC 2181 section 8.
    let seconds =
        |ttl: u32| Duration::from_secs(i32::try_from(ttl).unwrap_or_default().unsigned_abs().into()).min(TTL_MAX);
    let mut ttl = TTL_MAX;
    let mut owner = name.clone();
    for _ in 0..ALIASES_MAX {
        let alias = answer.answers.iter().find_map(|record| match &record.data {
            Data::Cname(target) if record.owner == owner => Some((target.clone(), record.ttl)),
            _ => None,
        });
        let Some((target, kept)) = alias else { break };
        ttl = ttl.min(seconds(kept));
        owner = target;
    }
    let mut addresses = Vec::new();
    for record in answer.answers.iter().filter(|record| record.owner == owner) {
        if let Some(address) = record.data.address().filter(|address| address.is_ipv4() == (rtype == Rtype::A)) {
            addresses.push(address);
            ttl = ttl.min(seconds(record.ttl));
        }
    }
    if !addresses.is_empty() {
        return Ok(Found { addresses, ttl });
    }
    let believed = answer.authority.iter().find_map(|record| match record.data {
        Data::Soa { negative, .. } => Some(seconds(negative.min(record.ttl))),
        _ => None,
    });
    Err(believed.unwrap_or(NOTHING_TTL))
}

/// A number that nobody guesses who does not see the question.
#[must_use]
pub fn random_id() -> u16 {
    random() as u16
}

/// 64 random bits of the system; zero where it has none, which then only makes guessing easier.
#[must_use]
pub fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::message::Record;
    use super::*;

    fn name(text: &str) -> DnsName {
        DnsName::from_str(text).unwrap()
    }

    fn answer(answers: Vec<Record>, authority: Vec<Record>) -> Answer {
        let rcode = OptRcode::NOERROR;
        Answer { rcode, truncated: false, authoritative: false, answers, authority, additional: Vec::new() }
    }

    fn record(owner: &str, ttl: u32, data: Data) -> Record {
        Record { owner: name(owner), ttl, data }
    }

    #[test]
    fn the_shortest_ttl_along_the_aliases_counts() {
        let records = vec![
            record("a.example", 300, Data::Cname(name("B.example"))),
            record("other.example", 1, Data::A([192, 0, 2, 66].into())),
            record("b.example", 20, Data::Cname(name("c.example"))),
            record("c.example", 60, Data::A([192, 0, 2, 1].into())),
            record("C.example", 60, Data::A([192, 0, 2, 2].into())),
        ];
        let found = read(&answer(records, Vec::new()), &name("a.example"), Rtype::A).unwrap();
        assert_eq!(found.addresses, [IpAddr::from([192, 0, 2, 1]), [192, 0, 2, 2].into()]);
        assert_eq!(found.ttl, Duration::from_secs(20));
        for (ttl, seconds) in [(0, 0), (u32::MAX, 0), (1 << 31, 0), (86_401, 86_400)] {
            let records = vec![record("a.example", ttl, Data::A([192, 0, 2, 1].into()))];
            let found = read(&answer(records, Vec::new()), &name("a.example"), Rtype::A).unwrap();
            assert_eq!(found.ttl, Duration::from_secs(seconds), "{ttl}");
        }
    }

    #[test]
    fn a_ring_of_aliases_ends() {
        let records = vec![
            record("a.example", 300, Data::Cname(name("b.example"))),
            record("b.example", 300, Data::Cname(name("a.example"))),
        ];
        assert!(read(&answer(records, Vec::new()), &name("a.example"), Rtype::A).is_err());
    }

    #[test]
    fn nothing_is_believed_as_long_as_the_zone_says() {
        let soa = Data::Soa { primary: name("ns.example"), serial: 1, negative: 7 };
        let nothing = answer(Vec::new(), vec![record("example", 3600, soa)]);
        assert_eq!(read(&nothing, &name("a.example"), Rtype::A), Err(Duration::from_secs(7)));
        assert_eq!(read(&answer(Vec::new(), Vec::new()), &name("a.example"), Rtype::A), Err(NOTHING_TTL));
    }

    #[test]
    fn the_search_list() {
        let settings =
            Settings { search: vec![name("example.org"), name("example.net")], ..super::super::system::parse("", 53) };
        let list = |text: &str| -> Vec<String> {
            candidates(text, &settings).unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(list("peer"), ["peer.example.org", "peer.example.net", "peer"]);
        assert_eq!(list("peer.example"), ["peer.example", "peer.example.example.org", "peer.example.example.net"]);
        assert_eq!(list("peer."), ["peer"]);
        for text in ["", ".", "a..b", &"a".repeat(64)] {
            assert_eq!(candidates(text, &settings), None, "{text}");
        }
    }
}

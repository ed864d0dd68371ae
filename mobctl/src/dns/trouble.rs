//! What can go wrong with the DNS, and what to do about it.

use super::message::DnsName;
use crate::exit::{Exit, Failure};
use domain::base::iana::OptRcode;
use std::fmt;
use std::net::SocketAddr;

/// What is in the way of claiming a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Another host with mobconn, with this mark.
    Host(String),
    /// Addresses that no mark of ours belongs to.
    Addresses,
    /// A DHCP server, which left its own mark (RFC 4701).
    Dhcp,
    /// The name is an alias of another one.
    Alias,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server does not answer.
    Silent(SocketAddr),
    /// The server cannot be reached, for this reason.
    Unreachable(SocketAddr, String),
    /// What the server answers cannot be read.
    Garbage(SocketAddr),
    /// The server does not know the key with this name.
    BadKey(SocketAddr, String),
    /// The server has another secret, or another algorithm, for the key with this name.
    BadSignature(SocketAddr, String),
    /// The server's clock is so many seconds ahead of this host's.
    BadTime(SocketAddr, i64),
    /// The server wants longer signatures than the key with this name makes.
    BadTruncation(SocketAddr, String),
    /// What the server answers is not signed, although it says that all is well.
    Unsigned(SocketAddr),
    /// The signature of what the server answers is wrong.
    Forged(SocketAddr),
    /// The server refuses, with this code.
    Refused(SocketAddr, OptRcode, DnsName),
    /// Somebody else has the name.
    Taken(DnsName, Holder),
    /// The mark changes whenever it is looked at.
    Unsteady(DnsName),
    /// No zone is found that the name is in.
    NoZone(DnsName),
    /// No address is found of any server of the zone.
    NoServer(DnsName),
    /// More addresses than one message holds.
    TooMany,
    /// The wanted state has changed meanwhile.
    Interrupted,
}

impl Trouble {
    /// Whether waiting for a moment may help, without anybody doing anything.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Silent(_) | Self::Unreachable(..) | Self::Garbage(_) | Self::Unsteady(_) | Self::Interrupted => true,
            Self::Refused(_, code, _) => matches!(*code, OptRcode::SERVFAIL),
            Self::NoZone(_) | Self::NoServer(_) => true,
            _ => false,
        }
    }

    /// Whether another server of the zone may do better.
    #[must_use]
    pub const fn is_of_the_server(&self) -> bool {
        !matches!(
            self,
            Self::Taken(..)
                | Self::Unsteady(_)
                | Self::NoZone(_)
                | Self::NoServer(_)
                | Self::TooMany
                | Self::Interrupted
        )
    }

    /// How much it tells: of the troubles with several servers the one that tells most is shown.
    #[must_use]
    pub const fn weight(&self) -> u8 {
        match self {
            Self::Interrupted => 9,
            Self::BadTime(..) => 8,
            Self::BadKey(..) | Self::BadSignature(..) | Self::BadTruncation(..) => 7,
            Self::Refused(_, OptRcode::REFUSED, _) => 6,
            Self::Refused(..) => 5,
            Self::Forged(_) | Self::Unsigned(_) => 4,
            Self::Garbage(_) => 3,
            Self::Unreachable(..) => 2,
            _ => 1,
        }
    }

    /// A word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Silent(_) => "silent",
            Self::Unreachable(..) => "unreachable",
            Self::Garbage(_) => "garbage",
            Self::BadKey(..) => "badkey",
            Self::BadSignature(..) => "badsig",
            Self::BadTime(..) => "badtime",
            Self::BadTruncation(..) => "badtrunc",
            Self::Unsigned(_) => "unsigned",
            Self::Forged(_) => "forged",
            Self::Refused(_, code, _) => match *code {
                OptRcode::FORMERR => "formerr",
                OptRcode::SERVFAIL => "servfail",
                OptRcode::NXDOMAIN => "nxdomain",
                OptRcode::NOTIMP => "notimp",
                OptRcode::YXDOMAIN => "yxdomain",
                OptRcode::YXRRSET => "yxrrset",
                OptRcode::NXRRSET => "nxrrset",
                OptRcode::NOTAUTH => "notauth",
                OptRcode::NOTZONE => "notzone",
                OptRcode::REFUSED => "refused",
                _ => "other",
            },
            Self::Taken(..) => "taken",
            Self::Unsteady(_) => "unsteady",
            Self::NoZone(_) => "nozone",
            Self::NoServer(_) => "noserver",
            Self::TooMany => "toomany",
            Self::Interrupted => "interrupted",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Silent(server) => format!(
                "Check the path and the firewalls: UDP and TCP port {} of {} must let this host through",
                server.port(),
                server.ip()
            ),
            Self::Unreachable(..) => "Check this host's routes and that the name server runs".into(),
            Self::Garbage(_) => "Check servers in [ddns]: that is no name server, or something on the way changes what it says".into(),
            Self::BadKey(_, key) => format!(
                "Give the server the key \"{key}\" and let it change these records (BIND: a key clause in named.conf and update-policy in the zone, then rndc reconfig; Knot: a key and an acl with action: [update, query]), or name another key file in [ddns]"
            ),
            Self::BadSignature(_, key) => format!(
                "Copy the key \"{key}\" anew: secret and algorithm must be the same at both ends"
            ),
            Self::BadTime(..) => "Set this host's clock (service ntpd onestart, or ntpd -gq), or the server's, whichever is wrong; TSIG allows a difference of 300 seconds".into(),
            Self::BadTruncation(_, key) => format!(
                "Give the server the algorithm of the key \"{key}\" without a number of bits behind it, or make a new key with tsig-keygen -a hmac-sha512"
            ),
            Self::Unsigned(_) | Self::Forged(_) => "Somebody may be answering in the server's place. Check servers in [ddns], and what lies between".into(),
            Self::Refused(_, code, zone) => refused(*code, zone),
            Self::Taken(name, holder) => match holder {
                Holder::Host(_) => format!(
                    "Give this host another name; or, if that host is gone or this one has a new host key, remove the mark: nsupdate, then update delete _mobconn.{name}. TXT"
                ),
                Holder::Addresses => format!(
                    "Give this host another name; or, if the addresses there are old ones of this host, remove them (nsupdate: update delete {name}. A and AAAA), or set owned = true in [ddns]"
                ),
                Holder::Dhcp => "Let either the DHCP server or mobctl keep the name: switch the one off, or set owned = true in [ddns]".into(),
                Holder::Alias => format!("Give this host another name, or remove the CNAME record of {name}"),
            },
            Self::Unsteady(_) => "Two programs with this host's key seem to update it: find the other one".into(),
            Self::NoZone(_) => "Check name in [ddns] and this host's name servers in /etc/resolv.conf, or set zone and servers in [ddns]".into(),
            Self::NoServer(_) => "Set servers in [ddns]".into(),
            Self::TooMany => "Publish fewer: see interfaces and publish in [ddns]".into(),
            Self::Interrupted => String::new(),
        }
    }

    /// As the failure of a command.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let exit = match self {
            Self::BadTime(..) | Self::BadKey(..) | Self::BadSignature(..) | Self::BadTruncation(..) | Self::TooMany => {
                Exit::Config
            }
            Self::Refused(_, code, _) => match *code {
                OptRcode::REFUSED => Exit::NoPermission,
                OptRcode::NOTAUTH | OptRcode::NOTZONE | OptRcode::NXDOMAIN => Exit::Config,
                _ => Exit::Unavailable,
            },
            Self::Garbage(_) | Self::Unsigned(_) | Self::Forged(_) => Exit::Protocol,
            Self::Taken(..) => Exit::NoPermission,
            Self::NoZone(_) | Self::NoServer(_) => Exit::NoHost,
            Self::Silent(_) | Self::Unreachable(..) | Self::Unsteady(_) | Self::Interrupted => Exit::Temporary,
        };
        Failure::new(exit, self.to_string()).advise(self.advice())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(server) => write!(f, "the name server {server} does not answer"),
            Self::Unreachable(server, why) => write!(f, "the name server {server} cannot be reached: {why}"),
            Self::Garbage(server) => write!(f, "what the name server {server} answers makes no sense"),
            Self::BadKey(server, key) => {
                write!(f, "the name server {server} does not know the key \"{key}\", or not for these records (BADKEY)")
            }
            Self::BadSignature(server, key) => {
                write!(f, "the name server {server} has another secret for the key \"{key}\" (BADSIG)")
            }
            Self::BadTime(server, ahead) => write!(
                f,
                "this host's clock is {} seconds {} that of the name server {server} (BADTIME)",
                ahead.unsigned_abs(),
                if *ahead > 0 { "behind" } else { "ahead of" }
            ),
            Self::BadTruncation(server, key) => {
                write!(f, "the name server {server} wants longer signatures of the key \"{key}\" (BADTRUNC)")
            }
            Self::Unsigned(server) => write!(f, "an answer of the name server {server} is not signed"),
            Self::Forged(server) => write!(f, "the signature of what the name server {server} answers is wrong"),
            Self::Refused(server, code, zone) => {
                write!(f, "the name server {server} answers {code} for the zone {zone}")
            }
            Self::Taken(name, Holder::Host(mark)) => write!(f, "{name} belongs to another host, with the mark {mark}"),
            Self::Taken(name, Holder::Addresses) => write!(f, "{name} has addresses that this host did not put there"),
            Self::Taken(name, Holder::Dhcp) => write!(f, "{name} is kept by a DHCP server"),
            Self::Taken(name, Holder::Alias) => write!(f, "{name} is an alias (CNAME) of another name"),
            Self::Unsteady(name) => write!(f, "the mark of {name} changes all the time"),
            Self::NoZone(name) => write!(f, "no zone found that {name} is in"),
            Self::NoServer(zone) => write!(f, "no address found of the name servers of {zone}"),
            Self::TooMany => f.write_str("more addresses than one update holds"),
            Self::Interrupted => f.write_str("the addresses changed meanwhile"),
        }
    }
}

impl std::error::Error for Trouble {}

/// What to do about a server that answers with this code: RFC 1035, RFC 2136 section 2.2.
fn refused(code: OptRcode, zone: &DnsName) -> String {
    match code {
        OptRcode::FORMERR => "That server cannot read the update. See its log; if it says nothing, something on the way changes messages: look for a proxy of DNS, and set servers in [ddns] to the servers themselves".into(),
        OptRcode::SERVFAIL => format!(
            "See the server's log; often it may not write the file or the journal of the zone {zone}, or the folder that they are in, or the zone could not be loaded"
        ),
        OptRcode::NXDOMAIN => format!("That server has no zone {zone}: set zone in [ddns] to the zone that the name is in, and servers to its servers"),
        OptRcode::NOTIMP => "That server knows no dynamic update: set servers in [ddns] to the zone's primary server".into(),
        OptRcode::REFUSED => format!(
            "Let the key change these records: in BIND update-policy, in Knot an acl with action: [update, query], of the zone {zone}. If that server does not serve the zone, set zone and servers in [ddns]"
        ),
        OptRcode::YXDOMAIN => format!("A record above the name stands for everything below it, usually a DNAME record: remove it from the zone {zone}, or give this host another name"),
        OptRcode::YXRRSET | OptRcode::NXRRSET => format!("Something else changes the same records of the zone {zone} at the same time: find it, for example in the server's log"),
        OptRcode::NOTAUTH | OptRcode::NOTZONE => format!(
            "Set zone in [ddns] to the zone that the name is in, and servers to its servers: that one does not serve {zone}"
        ),
        _ => "That is no answer to an update. See the server's log, and check servers in [ddns]: it may be another kind of server".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::str::FromStr;

    fn troubles() -> Vec<Trouble> {
        let server: SocketAddr = "192.0.2.53:53".parse().unwrap();
        let name = || DnsName::from_str("laptop.example.org").unwrap();
        let mut list = vec![
            Trouble::Silent(server),
            Trouble::Unreachable(server, "no route".into()),
            Trouble::Garbage(server),
            Trouble::BadKey(server, "key".into()),
            Trouble::BadSignature(server, "key".into()),
            Trouble::BadTime(server, 4000),
            Trouble::BadTruncation(server, "key".into()),
            Trouble::Unsigned(server),
            Trouble::Forged(server),
            Trouble::Unsteady(name()),
            Trouble::NoZone(name()),
            Trouble::NoServer(name()),
            Trouble::TooMany,
        ];
        let holders = [Holder::Host("mark".into()), Holder::Addresses, Holder::Dhcp, Holder::Alias];
        list.extend(holders.map(|holder| Trouble::Taken(name(), holder)));
        // Four bits in the header, and eight more by EDNS.
        list.extend((1..=4095).map(|code| Trouble::Refused(server, OptRcode::masked_from_int(code), name())));
        list
    }

    #[test]
    fn every_trouble_says_what_to_do() {
        let mut said: HashSet<(String, String)> = HashSet::new();
        for trouble in troubles() {
            let (words, advice) = (trouble.to_string(), trouble.advice());
            assert!(
                words.len() > 15 && advice.len() > 15 && !trouble.code().is_empty(),
                "{trouble:?}: {words}; {advice}"
            );
            // A sentence each, ended by who prints them.
            assert!(!words.ends_with('.') && !advice.ends_with('.'), "{trouble:?}: {words}; {advice}");
            assert!(advice.starts_with(|first: char| first.is_uppercase()), "{trouble:?}: {advice}");
            let failure = trouble.failure();
            assert!(failure.message == words && failure.advice == advice && failure.exit as u8 >= 64, "{trouble:?}");
            assert!(said.insert((words, advice)), "{trouble:?} says the same as another one");
        }
    }

    #[test]
    fn every_code_of_an_update_has_its_own_word_and_advice() {
        let server: SocketAddr = "[2001:db8::53]:53".parse().unwrap();
        let zone = DnsName::from_str("example.org").unwrap();
        for (code, word, part) in [
            (OptRcode::FORMERR, "formerr", "proxy"),
            (OptRcode::SERVFAIL, "servfail", "journal"),
            (OptRcode::NXDOMAIN, "nxdomain", "no zone example.org"),
            (OptRcode::NOTIMP, "notimp", "primary server"),
            (OptRcode::REFUSED, "refused", "update-policy"),
            (OptRcode::YXDOMAIN, "yxdomain", "DNAME"),
            (OptRcode::YXRRSET, "yxrrset", "same time"),
            (OptRcode::NXRRSET, "nxrrset", "same time"),
            (OptRcode::NOTAUTH, "notauth", "does not serve example.org"),
            (OptRcode::NOTZONE, "notzone", "does not serve example.org"),
            (OptRcode::BADVERS, "other", "another kind of server"),
        ] {
            let trouble = Trouble::Refused(server, code, zone.clone());
            assert_eq!(trouble.code(), word);
            assert!(trouble.advice().contains(part), "{code}: {}", trouble.advice());
            assert!(trouble.to_string().contains(&code.to_string()), "{trouble}");
        }
    }
}

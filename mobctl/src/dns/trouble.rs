//! What can go wrong with the DNS, and what to do about it.

use super::message::DnsName;
use crate::exit::{Exit, Failure};
use domain::base::iana::Rcode;
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
    /// What the server answers is not signed, although it says that all is well.
    Unsigned(SocketAddr),
    /// The signature of what the server answers is wrong.
    Forged(SocketAddr),
    /// The server refuses, with this code.
    Refused(SocketAddr, Rcode, DnsName),
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
            Self::Refused(_, code, _) => matches!(*code, Rcode::SERVFAIL),
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
            Self::BadKey(..) | Self::BadSignature(..) => 7,
            Self::Refused(_, Rcode::REFUSED, _) => 6,
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
            Self::Unsigned(_) => "unsigned",
            Self::Forged(_) => "forged",
            Self::Refused(_, code, _) => match *code {
                Rcode::FORMERR => "formerr",
                Rcode::SERVFAIL => "servfail",
                Rcode::NXDOMAIN => "nxdomain",
                Rcode::NOTIMP => "notimp",
                Rcode::YXDOMAIN => "yxdomain",
                Rcode::YXRRSET => "yxrrset",
                Rcode::NXRRSET => "nxrrset",
                Rcode::NOTAUTH => "notauth",
                Rcode::NOTZONE => "notzone",
                _ => "refused",
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
            Self::Unsigned(_) | Self::Forged(_) => "Somebody may be answering in the server's place. Check servers in [ddns], and what lies between".into(),
            Self::Refused(_, code, zone) => match *code {
                Rcode::REFUSED => format!(
                    "Let the key change these records: in BIND update-policy, in Knot an acl with action: [update, query], of the zone {zone}. If that server does not serve the zone, set zone and servers in [ddns]"
                ),
                Rcode::NOTAUTH | Rcode::NOTZONE => format!(
                    "Set zone in [ddns] to the zone that the name is in, and servers to its servers: that one does not serve {zone}"
                ),
                Rcode::NOTIMP => "That server knows no dynamic update: set servers in [ddns] to the zone's primary server".into(),
                Rcode::SERVFAIL => "See the server's log; often it may not write the zone's file or journal, or the folder that they are in".into(),
                Rcode::FORMERR => "The server does not understand the update; see its log".into(),
                _ => "See the server's log".into(),
            },
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
            Self::BadTime(..) | Self::BadKey(..) | Self::BadSignature(..) | Self::TooMany => Exit::Config,
            Self::Refused(_, code, _) => match *code {
                Rcode::REFUSED => Exit::NoPermission,
                Rcode::NOTAUTH | Rcode::NOTZONE => Exit::Config,
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

//! The update transaction, and what its answers mean.

use super::config::{Config, sorted};
use super::mark::{self, Identity, Mark};
use super::place::{self, Place};
use crate::dns::lookup::{random, random_id};
use crate::dns::message::{Answer, Data, DnsName, Edit, Prerequisite, Request, TooLong, query, update};
use crate::dns::transport::Wire;
use crate::dns::{Holder, System, Trouble, TsigKey};
use crate::exit::Failure;
use domain::base::iana::{OptRcode, Rtype};
use mobconn_dprp::PublicKey;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// What is kept current, and with which key.
#[derive(Clone, Debug)]
pub struct Target {
    /// The configuration.
    pub config: Config,
    /// The key, of which nothing but its name is ever shown.
    pub key: TsigKey,
    /// This host's public key.
    pub host: PublicKey,
}

impl Target {
    /// Reads the key that the configuration names, for the host with this public key.
    ///
    /// # Errors
    /// A [`Failure`] that says what to do.
    pub fn new(config: Config, host: &PublicKey) -> Result<Self, Failure> {
        let key = super::key::read(&config.key)?;
        Ok(Self { config, key, host: *host })
    }

    /// Who this host is under the name.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::new(&self.host, &self.config.name)
    }
}

/// The records of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Addresses with their TTL in seconds.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Whose the name is; nobody's that has no mark.
    pub mark: Option<Identity>,
    /// The name that this one is an alias of.
    pub alias: Option<DnsName>,
}

/// A server that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The server.
    pub server: SocketAddr,
    /// How long it took to answer, or what is wrong.
    pub result: Result<Duration, Trouble>,
}

/// What is known of the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Not looked at yet.
    Unknown,
    /// There is none.
    Free,
    /// This host's, with this stamp.
    Ours(u64),
}

/// How long a check of the servers may take, finding them included.
const CHECK: Duration = Duration::from_secs(20);

/// How often a transaction is begun anew because the mark had changed.
const ROUNDS: u32 = 4;

/// Keeps the records of one name.
pub struct Client {
    target: Target,
    mark_name: DnsName,
    system: System,
    wire: Wire,
    place: Option<Place>,
    known: Known,
}

impl Client {
    /// For `target`, over `wire`. `stamp`: of the mark that this host left last, if it remembers.
    #[must_use]
    pub fn new(target: Target, system: System, wire: Wire, stamp: Option<u64>) -> Self {
        // A configuration with a name too long for that was refused.
        let mark_name = mark::place(&target.config.name).unwrap_or_else(|| target.config.name.clone());
        let known = stamp.map_or(Known::Unknown, Known::Ours);
        Self { target, mark_name, system, wire, place: None, known }
    }

    /// The way to the servers.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// The stamp of the mark that this host left, as far as it knows.
    #[must_use]
    pub fn stamp(&self) -> Option<u64> {
        match self.known {
            Known::Ours(stamp) => Some(stamp),
            Known::Unknown | Known::Free => None,
        }
    }

    /// Zone and servers, once they are known.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Finds zone and servers, unless they are known.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn locate(&mut self) -> Result<Place, Trouble> {
        if let Some(place) = &self.place {
            return Ok(place.clone());
        }
        let place = place::find(&mut self.wire, &self.system, &self.target.config)?;
        self.place = Some(place.clone());
        Ok(place)
    }

    /// Makes these the addresses of the name, and no others, in one transaction. None: the name is kept without
    /// addresses.
    ///
    /// # Errors
    /// [`Trouble`]; then all or nothing of it was done.
    pub fn publish(&mut self, addresses: &[IpAddr]) -> Result<(), Trouble> {
        let addresses = sorted(addresses.to_vec());
        self.transact(|target, mark_name, stamp| {
            let (config, name) = (&target.config, &target.config.name);
            let mut edits: Vec<Edit> = [Rtype::A, Rtype::AAAA].map(|rtype| Edit::Delete(name.clone(), rtype)).into();
            edits.extend(addresses.iter().map(|address| Edit::Address(name.clone(), config.ttl, *address)));
            if !config.owned {
                let mark = Mark { identity: target.identity(), stamp };
                edits.push(Edit::Delete(mark_name.clone(), Rtype::TXT));
                edits.push(Edit::Text(mark_name.clone(), config.ttl, mark.strings()));
            }
            Some(edits)
        })
    }

    /// Removes the addresses of the name and this host's mark, so that anybody may have the name.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn release(&mut self) -> Result<(), Trouble> {
        if !self.target.config.owned {
            // Without a mark there is nothing of this host to be removed.
            self.read_mark()?;
            if self.known == Known::Free {
                return Ok(());
            }
        }
        self.transact(|target, mark_name, _| {
            let name = &target.config.name;
            let mut edits: Vec<Edit> = [Rtype::A, Rtype::AAAA].map(|rtype| Edit::Delete(name.clone(), rtype)).into();
            if !target.config.owned {
                edits.push(Edit::Delete(mark_name.clone(), Rtype::TXT));
            }
            Some(edits)
        })?;
        self.known = Known::Free;
        Ok(())
    }

    /// The records of the name, from the servers that take its updates.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn look(&mut self) -> Result<Seen, Trouble> {
        let name = self.target.config.name.clone();
        let mut seen = Seen { addresses: Vec::new(), mark: None, alias: None };
        for rtype in [Rtype::A, Rtype::AAAA] {
            let answer = self.ask(&name, rtype)?;
            for record in answer.answers.iter().filter(|record| record.owner == name) {
                match &record.data {
                    Data::Cname(target) => seen.alias = Some(target.clone()),
                    data => seen.addresses.extend(data.address().map(|address| (address, record.ttl))),
                }
            }
        }
        seen.mark = self.marks()?.map(|mark| mark.identity);
        Ok(seen)
    }

    /// Asks every server whether it would take an update, without changing anything: a signed question, then a signed
    /// update that removes what no host can have. Within 20 seconds.
    ///
    /// # Errors
    /// [`Trouble`] with finding the servers.
    pub fn check(&mut self) -> Result<Vec<Checked>, Trouble> {
        let deadline = Instant::now() + CHECK;
        self.wire.end_at(Some(deadline));
        let place = self.locate();
        self.wire.end_at(None);
        let place = place?;
        // One that is silent must not use up the time of the others.
        let check = |server: &SocketAddr| {
            let mut wire = Wire::new(self.wire.clock(), None);
            wire.end_at(Some(deadline));
            let began = Instant::now();
            let result = self.check_one(&mut wire, &place.zone, *server).map(|()| began.elapsed());
            Checked { server: *server, result }
        };
        Ok(std::thread::scope(|scope| {
            let checks: Vec<_> = place.servers.iter().map(|server| scope.spawn(move || check(server))).collect();
            checks.into_iter().filter_map(|check| check.join().ok()).collect()
        }))
    }

    fn check_one(&self, wire: &mut Wire, zone: &DnsName, server: SocketAddr) -> Result<(), Trouble> {
        let refused = |code| Trouble::Refused(server, code, zone.clone());
        let request = self.make(|id, key| query(id, zone, Rtype::SOA, false, key))?;
        let answer = wire.ask(&request, server)?;
        if answer.rcode != OptRcode::NOERROR {
            return Err(refused(answer.rcode));
        }
        let apex = |data: &Data| matches!(data, Data::Soa { .. });
        if !answer.answers.iter().any(|record| record.owner == *zone && apex(&record.data)) {
            return Err(refused(OptRcode::NOTAUTH));
        }
        let (name, mark_name, owned) = (&self.target.config.name, &self.mark_name, self.target.config.owned);
        let mut edits: Vec<Edit> = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            .map(|address| Edit::DeleteAddress(name.clone(), address))
            .into();
        if !owned {
            edits.push(Edit::DeleteText(mark_name.clone(), vec![b"no mark".to_vec()]));
        }
        let request = self.make(|id, key| update(id, zone, &[], &edits, key))?;
        match wire.ask(&request, server)?.rcode {
            OptRcode::NOERROR => Ok(()),
            code => Err(refused(code)),
        }
    }

    /// Carries out what `edits` says for a new stamp, under the prerequisite that the name is this host's or free.
    fn transact(&mut self, edits: impl Fn(&Target, &DnsName, u64) -> Option<Vec<Edit>>) -> Result<(), Trouble> {
        let mut code = OptRcode::NOERROR;
        for _ in 0..ROUNDS {
            if self.known == Known::Unknown && !self.target.config.owned {
                self.read_mark()?;
            }
            let stamp = random();
            let Some(edits) = edits(&self.target, &self.mark_name, stamp) else { return Ok(()) };
            let prerequisites = self.prerequisites();
            let answer = self.at_servers(
                |id, key, zone| update(id, zone, &prerequisites, &edits, key),
                |rcode| {
                    matches!(
                        rcode,
                        OptRcode::NOERROR
                            | OptRcode::NXRRSET
                            | OptRcode::YXRRSET
                            | OptRcode::NXDOMAIN
                            | OptRcode::YXDOMAIN
                    )
                },
            )?;
            code = answer.rcode;
            if code == OptRcode::NOERROR {
                self.known = Known::Ours(stamp);
                return Ok(());
            }
            if self.target.config.owned {
                return Err(Trouble::Taken(self.target.config.name.clone(), Holder::Alias));
            }
            // Somebody else changed it, or the answer to this very update was lost and it came twice.
            self.read_mark()?;
            match self.known {
                Known::Ours(found) if found == stamp => return Ok(()),
                Known::Free => self.look_for_others()?,
                Known::Ours(_) | Known::Unknown => {}
            }
        }
        let place = self.place.as_ref();
        Err(match (code, place.and_then(|place| Some((place.servers.first()?, &place.zone)))) {
            // Nothing of what was demanded: it is not the mark that is in the way.
            (OptRcode::NXDOMAIN | OptRcode::YXDOMAIN, Some((server, zone))) => {
                Trouble::Refused(*server, code, zone.clone())
            }
            _ => Trouble::Unsteady(self.target.config.name.clone()),
        })
    }

    /// What must hold for an update to be done.
    fn prerequisites(&self) -> Vec<Prerequisite> {
        let name = &self.target.config.name;
        let absent = |rtype| Prerequisite::Absent(name.clone(), rtype);
        match self.known {
            // A record of another type beside an alias would silently be ignored, RFC 2136 section 3.4.2.2.
            _ if self.target.config.owned => vec![absent(Rtype::CNAME)],
            Known::Ours(stamp) => {
                let mark = Mark { identity: self.target.identity(), stamp };
                vec![Prerequisite::Text(self.mark_name.clone(), mark.strings())]
            }
            Known::Free | Known::Unknown => {
                let mut list: Vec<_> = [Rtype::A, Rtype::AAAA, Rtype::CNAME, Rtype::DHCID].map(absent).into();
                list.push(Prerequisite::Absent(self.mark_name.clone(), Rtype::TXT));
                list
            }
        }
    }

    /// Looks at the mark.
    ///
    /// # Errors
    /// [`Trouble::Taken`] when it is another host's.
    fn read_mark(&mut self) -> Result<(), Trouble> {
        self.known = match self.marks()? {
            None => Known::Free,
            Some(mark) if mark.identity == self.target.identity() => Known::Ours(mark.stamp),
            Some(mark) => {
                self.known = Known::Unknown;
                let holder = Holder::Host(mark.identity.to_string());
                return Err(Trouble::Taken(self.target.config.name.clone(), holder));
            }
        };
        Ok(())
    }

    fn marks(&mut self) -> Result<Option<Mark>, Trouble> {
        let mark_name = self.mark_name.clone();
        let answer = self.ask(&mark_name, Rtype::TXT)?;
        let strings = answer.answers.iter().find_map(|record| match &record.data {
            Data::Text(strings) if record.owner == mark_name => Some(strings.clone()),
            _ => None,
        });
        match strings {
            None => Ok(None),
            // A text that is no mark of ours is somebody else's too.
            Some(strings) => Mark::parse(&strings).map(Some).ok_or_else(|| {
                let text: String = strings.concat().iter().take(40).map(|byte| shown(*byte)).collect();
                Trouble::Taken(self.target.config.name.clone(), Holder::Host(text))
            }),
        }
    }

    /// Finds what is at a name that has no mark.
    ///
    /// # Errors
    /// [`Trouble::Taken`] when there is anything that this host must not touch.
    fn look_for_others(&mut self) -> Result<(), Trouble> {
        let name = self.target.config.name.clone();
        for rtype in [Rtype::CNAME, Rtype::DHCID, Rtype::A, Rtype::AAAA] {
            let answer = self.ask(&name, rtype)?;
            let holder =
                answer.answers.iter().filter(|record| record.owner == name).find_map(|record| match &record.data {
                    Data::Cname(_) => Some(Holder::Alias),
                    Data::Other(Rtype::DHCID) => Some(Holder::Dhcp),
                    data => data.address().map(|_| Holder::Addresses),
                });
            if let Some(holder) = holder {
                return Err(Trouble::Taken(name, holder));
            }
        }
        Ok(())
    }

    /// Asks the servers that take updates: they know the newest.
    fn ask(&mut self, name: &DnsName, rtype: Rtype) -> Result<Answer, Trouble> {
        self.at_servers(
            |id, key, _| query(id, name, rtype, false, key),
            |rcode| matches!(rcode, OptRcode::NOERROR | OptRcode::NXDOMAIN),
        )
    }

    /// Asks one server after the other until one gives an answer that is one. That server is asked first from then on.
    fn at_servers(
        &mut self,
        make: impl Fn(u16, Option<(&TsigKey, u64)>, &DnsName) -> Result<Request, TooLong>,
        is_answer: impl Fn(OptRcode) -> bool,
    ) -> Result<Answer, Trouble> {
        let place = self.locate()?;
        let trouble = match self.at_place(&place, &make, &is_answer) {
            Err(trouble) if trouble.is_of_the_server() => trouble,
            result => return result,
        };
        // Perhaps the zone has other servers by now. If nobody says so the path is what is missing: when it is back,
        // these servers are asked at once.
        match place::find(&mut self.wire, &self.system, &self.target.config) {
            Ok(found) if !found.is_same(&place) => {
                self.place = Some(found.clone());
                self.at_place(&found, &make, &is_answer)
            }
            Err(Trouble::Interrupted) => Err(Trouble::Interrupted),
            _ => Err(trouble),
        }
    }

    fn at_place(
        &mut self,
        place: &Place,
        make: &impl Fn(u16, Option<(&TsigKey, u64)>, &DnsName) -> Result<Request, TooLong>,
        is_answer: &impl Fn(OptRcode) -> bool,
    ) -> Result<Answer, Trouble> {
        let mut worst: Option<Trouble> = None;
        for (number, server) in place.servers.iter().enumerate() {
            let request = self.make(|id, key| make(id, key, &place.zone))?;
            let trouble = match self.wire.ask(&request, *server) {
                Ok(answer) if is_answer(answer.rcode) => {
                    if let Some(place) = &mut self.place {
                        place.servers.rotate_left(number);
                    }
                    return Ok(answer);
                }
                Ok(answer) => Trouble::Refused(*server, answer.rcode, place.zone.clone()),
                // A refusal that is not signed knows only what was asked for.
                Err(Trouble::Refused(server, code, _)) => Trouble::Refused(server, code, place.zone.clone()),
                Err(trouble) if trouble.is_of_the_server() => trouble,
                Err(trouble) => return Err(trouble),
            };
            if worst.as_ref().is_none_or(|worst| worst.weight() < trouble.weight()) {
                worst = Some(trouble);
            }
        }
        Err(worst.unwrap_or(Trouble::NoServer(place.zone.clone())))
    }

    fn make(
        &self,
        make: impl FnOnce(u16, Option<(&TsigKey, u64)>) -> Result<Request, TooLong>,
    ) -> Result<Request, Trouble> {
        make(random_id(), Some((&self.target.key, self.wire.now()))).map_err(|TooLong| Trouble::TooMany)
    }
}

fn shown(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { byte.into() } else { '?' }
}

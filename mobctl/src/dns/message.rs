//! Messages: queries (RFC 1035) and updates (RFC 2136), signed with TSIG (RFC 8945), and what their answers mean.
//!
//! Bytes in, bytes out: no socket, no clock. The crate `domain` writes, reads, signs and verifies.

use super::tsig::{self, TsigKey};
use domain::base::iana::{Class, Opcode, OptRcode, Rtype};
use domain::base::message_builder::{AdditionalBuilder, PushError, StaticCompressor};
use domain::base::name::{Name, ToName};
use domain::base::rdata::UnknownRecordData;
use domain::base::record::ParsedRecord;
use domain::base::{Message, MessageBuilder, ParsedName};
use domain::rdata::tsig::Time48;
use domain::rdata::{A, Aaaa, Cname, Ns, Soa, Txt};
use domain::tsig::{ClientTransaction, ValidationError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A name that ends at the root.
pub type DnsName = Name<Vec<u8>>;

/// The data of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name that this one is an alias of.
    Cname(DnsName),
    /// A server of the zone.
    Ns(DnsName),
    /// The beginning of a zone: its primary server, its serial number, and how long "no such record" may be kept.
    Soa {
        /// The primary server.
        primary: DnsName,
        /// The serial number.
        serial: u32,
        /// Seconds, RFC 2308.
        negative: u32,
    },
    /// Strings.
    Text(Vec<Vec<u8>>),
    /// Anything else.
    Other(Rtype),
}

impl Data {
    /// The address, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::A(address) => Some((*address).into()),
            Self::Aaaa(address) => Some((*address).into()),
            _ => None,
        }
    }
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub owner: DnsName,
    /// How long it may be kept, in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
}

/// What an update demands to be true before anything of it is done, RFC 2136 section 2.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prerequisite {
    /// There is no record of this type at this name (2.4.3).
    Absent(DnsName, Rtype),
    /// The only TXT record at this name has these strings (2.4.2).
    Text(DnsName, Vec<Vec<u8>>),
}

/// One change, RFC 2136 section 2.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Delete all records of this type (2.5.2).
    Delete(DnsName, Rtype),
    /// Delete this address and no other record (2.5.4).
    DeleteAddress(DnsName, IpAddr),
    /// Delete the TXT record with these strings and no other record (2.5.4).
    DeleteText(DnsName, Vec<Vec<u8>>),
    /// Add an address (2.5.1), with a TTL in seconds.
    Address(DnsName, u32, IpAddr),
    /// Add a TXT record (2.5.1), with a TTL in seconds.
    Text(DnsName, u32, Vec<Vec<u8>>),
}

/// A message to be sent, and what is needed to know its answer.
#[derive(Clone, Debug)]
pub struct Request {
    /// The bytes.
    pub bytes: Vec<u8>,
    id: u16,
    opcode: Opcode,
    question: (DnsName, Rtype),
    signed: Option<(ClientTransaction<TsigKey>, TsigKey)>,
}

/// An answer that belongs to its request. When the request was signed, so was the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub rcode: OptRcode,
    /// Whether it was cut short.
    pub truncated: bool,
    /// Whether it comes from a server of the zone.
    pub authoritative: bool,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section.
    pub additional: Vec<Record>,
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// It belongs to no question of ours: nobody who saw the question sent it.
    Foreign,
    /// It cannot be read.
    Garbage,
    /// It is not signed although the request was. It says this; anybody could have written that.
    Unsigned(OptRcode),
    /// The server does not know the key (BADKEY). Not signed, for want of a key.
    BadKey,
    /// The server finds the signature wrong: another secret (BADSIG). Not signed either.
    BadSignature,
    /// The server's clock is so many seconds ahead of this host's (BADTIME). Signed by the server.
    BadTime(i64),
    /// The server wants longer signatures (BADTRUNC). Signed by the server.
    BadTruncation,
    /// Its own signature is wrong.
    Forged,
}

/// A message that cannot be made: more records than a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl From<PushError> for TooLong {
    fn from(_: PushError) -> Self {
        Self
    }
}

type Target = StaticCompressor<Vec<u8>>;

fn begin(id: u16, opcode: Opcode) -> Result<MessageBuilder<Target>, TooLong> {
    let target = StaticCompressor::new(Vec::with_capacity(512));
    let mut builder = MessageBuilder::from_target(target).map_err(|_| TooLong)?;
    builder.header_mut().set_id(id);
    builder.header_mut().set_opcode(opcode);
    Ok(builder)
}

fn finish(
    mut message: AdditionalBuilder<Target>,
    id: u16,
    opcode: Opcode,
    question: (DnsName, Rtype),
    key: Option<(&TsigKey, u64)>,
) -> Result<Request, TooLong> {
    let signed = match key {
        Some((key, now)) => {
            let now = Time48::from_u64(now & TIME_MASK);
            Some((ClientTransaction::request(key.clone(), &mut message, now)?, key.clone()))
        }
        None => None,
    };
    let bytes = message.finish().into_target();
    if bytes.len() > usize::from(u16::MAX) {
        return Err(TooLong);
    }
    Ok(Request { bytes, id, opcode, question, signed })
}

/// TSIG has 48 bits for the time.
const TIME_MASK: u64 = (1 << 48) - 1;

/// Asks for the records of a type. `recursive`: of a resolver, which is to ask further. With a key and the time in
/// seconds since 1970 the query is signed.
///
/// # Errors
/// [`TooLong`]; not with names that exist.
pub fn query(
    id: u16,
    name: &DnsName,
    rtype: Rtype,
    recursive: bool,
    key: Option<(&TsigKey, u64)>,
) -> Result<Request, TooLong> {
    let mut builder = begin(id, Opcode::QUERY)?;
    builder.header_mut().set_rd(recursive);
    let mut question = builder.question();
    question.push((name, rtype))?;
    let mut additional = question.additional();
    // EDNS (RFC 6891), with a size that no path has to fragment.
    additional.opt(|opt| {
        opt.set_udp_payload_size(1232);
        Ok(())
    })?;
    finish(additional, id, Opcode::QUERY, (name.clone(), rtype), key)
}

/// An update of `zone`: all of it or nothing.
///
/// # Errors
/// [`TooLong`], when there are thousands of addresses.
pub fn update(
    id: u16,
    zone: &DnsName,
    prerequisites: &[Prerequisite],
    edits: &[Edit],
    key: Option<(&TsigKey, u64)>,
) -> Result<Request, TooLong> {
    let raw = |rtype, bytes: Vec<u8>| UnknownRecordData::from_octets(rtype, bytes).map_err(|_| TooLong);
    let mut section = begin(id, Opcode::UPDATE)?.question();
    section.push((zone, Rtype::SOA))?;
    let mut section = section.answer();
    for prerequisite in prerequisites {
        match prerequisite {
            Prerequisite::Absent(name, rtype) => {
                section.push((name, Class::NONE, 0, raw(*rtype, Vec::new())?))?;
            }
            Prerequisite::Text(name, strings) => {
                section.push((name, Class::IN, 0, raw(Rtype::TXT, text(strings)?)?))?;
            }
        }
    }
    let mut section = section.authority();
    for edit in edits {
        match edit {
            Edit::Delete(name, rtype) => section.push((name, Class::ANY, 0, raw(*rtype, Vec::new())?))?,
            Edit::DeleteAddress(name, address) => {
                let (rtype, bytes) = address_data(*address);
                section.push((name, Class::NONE, 0, raw(rtype, bytes)?))?;
            }
            Edit::DeleteText(name, strings) => {
                section.push((name, Class::NONE, 0, raw(Rtype::TXT, text(strings)?)?))?;
            }
            Edit::Address(name, ttl, address) => {
                let (rtype, bytes) = address_data(*address);
                section.push((name, Class::IN, *ttl, raw(rtype, bytes)?))?;
            }
            Edit::Text(name, ttl, strings) => {
                section.push((name, Class::IN, *ttl, raw(Rtype::TXT, text(strings)?)?))?;
            }
        }
    }
    finish(section.additional(), id, Opcode::UPDATE, (zone.clone(), Rtype::SOA), key)
}

fn address_data(address: IpAddr) -> (Rtype, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (Rtype::A, address.octets().to_vec()),
        IpAddr::V6(address) => (Rtype::AAAA, address.octets().to_vec()),
    }
}

/// TXT data, RFC 1035 section 3.3.14.
fn text(strings: &[Vec<u8>]) -> Result<Vec<u8>, TooLong> {
    let mut bytes = Vec::new();
    for string in strings {
        bytes.push(u8::try_from(string.len()).map_err(|_| TooLong)?);
        bytes.extend_from_slice(string);
    }
    Ok(bytes)
}

impl Request {
    /// What is asked for; of an update the zone.
    #[must_use]
    pub fn question(&self) -> &DnsName {
        &self.question.0
    }

    /// Whether it is signed.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.signed.is_some()
    }

    /// What a received datagram, or a message of a stream, means as an answer. `now` in seconds since 1970.
    ///
    /// # Errors
    /// Why it is none.
    pub fn decode(&self, bytes: &[u8], now: u64) -> Result<Answer, Nonsense> {
        let mut message = Message::try_from_octets(bytes.to_vec()).map_err(|_| Nonsense::Garbage)?;
        let header = message.header();
        if header.id() != self.id || !header.qr() || header.opcode() != self.opcode {
            return Err(Nonsense::Foreign);
        }
        let rcode = message.opt_rcode();
        // A server that could not even read the question need not repeat it, nor one that answers an update.
        match message.sole_question() {
            Ok(question) if *question.qname() == self.question.0 && question.qtype() == self.question.1 => {}
            _ if message.header_counts().qdcount() == 0
                && (rcode != OptRcode::NOERROR || self.opcode == Opcode::UPDATE) => {}
            _ => return Err(Nonsense::Foreign),
        }
        if let Some((transaction, key)) = &self.signed {
            tsig::complaint(&message, &self.bytes, key)?;
            transaction.answer(&mut message, Time48::from_u64(now & TIME_MASK)).map_err(|error| match error {
                ValidationError::ServerUnsigned => Nonsense::Unsigned(rcode),
                ValidationError::ServerBadKey => Nonsense::BadKey,
                ValidationError::ServerBadSig => Nonsense::BadSignature,
                ValidationError::FormErr => Nonsense::Garbage,
                _ => Nonsense::Forged,
            })?;
        }
        let garbage = |_| Nonsense::Garbage;
        let truncated = header.tc();
        let mut answer = Answer {
            rcode,
            truncated,
            authoritative: header.aa(),
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        };
        // What is left of a message that was cut short is of no use, and nor are the sections of an update's answer.
        if !truncated && self.opcode == Opcode::QUERY {
            answer.answers = records(message.answer().map_err(garbage)?)?;
            answer.authority = records(message.authority().map_err(garbage)?)?;
            answer.additional = records(message.additional().map_err(garbage)?)?;
        }
        Ok(answer)
    }
}

fn records(section: domain::base::message::RecordSection<'_, Vec<u8>>) -> Result<Vec<Record>, Nonsense> {
    let mut list = Vec::new();
    for record in section {
        let record = record.map_err(|_| Nonsense::Garbage)?;
        if record.class() != Class::IN {
            continue;
        }
        let owner = record.owner().to_vec();
        list.push(Record { owner, ttl: record.ttl().as_secs(), data: data(&record).ok_or(Nonsense::Garbage)? });
    }
    Ok(list)
}

fn data(record: &ParsedRecord<'_, Vec<u8>>) -> Option<Data> {
    type P<'a> = ParsedName<&'a [u8]>;
    Some(match record.rtype() {
        Rtype::A => Data::A(record.to_record::<A>().ok()??.data().addr()),
        Rtype::AAAA => Data::Aaaa(record.to_record::<Aaaa>().ok()??.data().addr()),
        Rtype::CNAME => Data::Cname(record.to_record::<Cname<P<'_>>>().ok()??.data().cname().to_vec()),
        Rtype::NS => Data::Ns(record.to_record::<Ns<P<'_>>>().ok()??.data().nsdname().to_vec()),
        Rtype::SOA => {
            let record = record.to_record::<Soa<P<'_>>>().ok()??;
            let soa = record.data();
            Data::Soa { primary: soa.mname().to_vec(), serial: soa.serial().into(), negative: soa.minimum().as_secs() }
        }
        Rtype::TXT => {
            let record = record.to_record::<Txt<&[u8]>>().ok()??;
            Data::Text(record.data().iter().map(<[u8]>::to_vec).collect())
        }
        other => Data::Other(other),
    })
}

impl Request {
    /// The name of the key that it is signed with; empty if it is not.
    #[must_use]
    pub fn key_name(&self) -> String {
        self.signed.as_ref().map(|(_, key)| key.name().to_string()).unwrap_or_default()
    }
}

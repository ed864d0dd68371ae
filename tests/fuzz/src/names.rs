//! Target `names`.

use arbitrary::{Arbitrary, Unstructured};
use domain::base::iana::{Class, OptRcode, Rcode, Rtype};
use domain::base::message_builder::AdditionalBuilder;
use domain::base::rdata::UnknownRecordData;
use domain::base::{Message, MessageBuilder, StaticCompressor};
use domain::rdata::tsig::Time48;
use domain::tsig::{Algorithm, KeyName, ServerTransaction};
use mobctl::ddns::key;
use mobctl::ddns::mark::Mark;
use mobctl::dns::message::{Answer, Data, DnsName, Edit, Nonsense, Record, Request, query, update};
use mobctl::dns::{TsigKey, lookup, system};
use std::str::FromStr;
use std::time::Duration;

/// When everything was sent, in seconds since 1970.
const NOW: u64 = 1_764_000_000;
/// What the clocks may differ by.
const FUDGE: u64 = 300;
const ID: u16 = 0x4d43;

/// What was asked for.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Asked {
    Plain(Family),
    Signed(Family),
    Update,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn rtype(self) -> Rtype {
        match self {
            Self::V4 => Rtype::A,
            Self::V6 => Rtype::AAAA,
        }
    }
}

/// One of a few names, so that they meet.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Whose {
    Asked,
    SameInCapitals,
    Alias,
    Another,
    Zone,
}

impl Whose {
    fn name(self) -> DnsName {
        let text = match self {
            Self::Asked => "laptop.example.org",
            Self::SameInCapitals => "LAPTOP.Example.org",
            Self::Alias => "alias.example.org",
            Self::Another => "another.example.net",
            Self::Zone => "example.org",
        };
        DnsName::from_str(text).expect("a name")
    }
}

/// A record of the answer.
#[derive(Arbitrary, Debug)]
struct Item {
    owner: Whose,
    ttl: u32,
    /// Not of the class IN.
    foreign: bool,
    what: What,
}

#[derive(Arbitrary, Debug)]
enum What {
    A([u8; 4]),
    Aaaa([u8; 16]),
    Cname(Whose),
    Ns(Whose),
    Soa(Whose, u32, u32),
    Text(Vec<u8>, Option<Vec<u8>>),
    Dhcid(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Case {
    asked: Asked,
    code: u8,
    truncated: bool,
    sections: [Vec<Item>; 3],
    /// What somebody on the way does to it.
    edits: Vec<(u16, u8)>,
    cut: Option<u16>,
}

/// Runs the target: the first byte says what the rest is.
pub(crate) fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => {
            if let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(rest)) {
                answer(&case);
            }
        }
        1 => anything(rest),
        2 => key_file(rest),
        _ => texts(rest),
    }
}

fn own_key() -> TsigKey {
    let name = KeyName::from_str("laptop-key").expect("a name");
    TsigKey::new(Algorithm::Sha256, b"a secret that only the two know", name).expect("a key")
}

fn request(asked: Asked, key: &TsigKey) -> Request {
    let name = Whose::Asked.name();
    let signed = Some((key, NOW));
    let made = match asked {
        Asked::Plain(family) => query(ID, &name, family.rtype(), true, None),
        Asked::Signed(family) => query(ID, &name, family.rtype(), false, signed),
        Asked::Update => update(ID, &Whose::Zone.name(), &[], &[Edit::Delete(name, Rtype::A)], signed),
    };
    made.expect("a short message")
}

/// An answer as a server makes it: read as it was meant; changed on the way, never read as anything else.
fn answer(case: &Case) {
    let key = own_key();
    let request = request(case.asked, &key);
    let signed = request.is_signed();
    let Some((bytes, meant)) = made(case, &request, &key) else { return };
    assert_eq!(request.decode(&bytes, NOW), Ok(meant.clone()), "{case:?}");
    if signed {
        for late in [NOW + FUDGE + 1, NOW - FUDGE - 1] {
            assert!(request.decode(&bytes, late).is_err(), "valid for ever");
        }
        let another = self::request(case.asked, &key_with(b"another secret, of somebody else"));
        assert!(another.decode(&bytes, NOW).is_err(), "signed with another key");
    }
    let mut bent = bytes;
    if let Some(cut) = case.cut {
        bent.truncate(usize::from(cut) % (bent.len() + 1));
    }
    let length = bent.len();
    for (at, bits) in case.edits.iter().filter(|_| length > 0) {
        bent[usize::from(*at) % length] ^= bits;
    }
    match request.decode(&bent, NOW) {
        // Only what says nothing of its own may have been changed.
        Ok(read) if signed => assert_eq!(read, meant, "{case:?}"),
        Ok(read) => plausible(&bent, &read, case.asked),
        Err(error) => {
            if matches!(error, Nonsense::BadTime(_) | Nonsense::BadTruncation) {
                panic!("believed without a signature: {error:?}");
            }
        }
    }
}

/// The answer that the case describes, and how it is to be read; none if it does not fit into a message.
fn made(case: &Case, request: &Request, key: &TsigKey) -> Option<(Vec<u8>, Answer)> {
    let code = Rcode::masked_from_int(case.code);
    // With this code a server speaks of the signature.
    let code = if code == Rcode::NOTAUTH { Rcode::REFUSED } else { code };
    let mut asked = Message::from_octets(request.bytes.clone()).expect("a message");
    let transaction = ServerTransaction::request(key, &mut asked, Time48::from_u64(NOW)).expect("signed with this key");
    let target = StaticCompressor::new(Vec::new());
    let mut builder = MessageBuilder::from_target(target).expect("room").start_answer(&asked, code).ok()?;
    builder.header_mut().set_tc(case.truncated);
    let [answers, authority, additional] = &case.sections;
    answers.iter().try_for_each(|item| item.push(|record| builder.push(record)))?;
    let mut builder = builder.authority();
    authority.iter().try_for_each(|item| item.push(|record| builder.push(record)))?;
    let mut builder: AdditionalBuilder<_> = builder.additional();
    additional.iter().try_for_each(|item| item.push(|record| builder.push(record)))?;
    if let Some(transaction) = transaction {
        transaction.answer(&mut builder, Time48::from_u64(NOW)).ok()?;
    }
    let bytes = builder.finish().into_target();
    let told = !case.truncated && !matches!(case.asked, Asked::Update);
    let records = |items: &[Item]| -> Vec<Record> {
        items.iter().filter(|item| told && !item.foreign).map(Item::record).collect()
    };
    let mut meant = Answer {
        rcode: OptRcode::from_rcode(code),
        truncated: case.truncated,
        authoritative: false,
        answers: records(answers),
        authority: records(authority),
        additional: records(additional),
    };
    // The signature is a record too, of no class that counts.
    meant.additional.truncate(additional.len());
    (bytes.len() <= usize::from(u16::MAX)).then_some((bytes, meant))
}

fn key_with(secret: &[u8]) -> TsigKey {
    TsigKey::new(Algorithm::Sha256, secret, KeyName::from_str("laptop-key").expect("a name")).expect("a key")
}

type Pushed = (DnsName, Class, u32, UnknownRecordData<Vec<u8>>);

impl Item {
    fn push<E>(&self, push: impl FnOnce(Pushed) -> Result<(), E>) -> Option<()> {
        let class = if self.foreign { Class::CH } else { Class::IN };
        let (rtype, bytes) = self.what.bytes();
        let data = UnknownRecordData::from_octets(rtype, bytes).ok()?;
        push((self.owner.name(), class, self.ttl, data)).ok()
    }

    fn record(&self) -> Record {
        Record { owner: self.owner.name(), ttl: self.ttl, data: self.what.data() }
    }
}

impl What {
    /// As RFC 1035 writes it.
    fn bytes(&self) -> (Rtype, Vec<u8>) {
        let named = |whose: &Whose| whose.name().as_slice().to_vec();
        match self {
            Self::A(address) => (Rtype::A, address.to_vec()),
            Self::Aaaa(address) => (Rtype::AAAA, address.to_vec()),
            Self::Cname(whose) => (Rtype::CNAME, named(whose)),
            Self::Ns(whose) => (Rtype::NS, named(whose)),
            Self::Soa(whose, serial, negative) => {
                let numbers = [*serial, 3600, 600, 86_400, *negative].map(u32::to_be_bytes).concat();
                (Rtype::SOA, [named(whose), named(&Whose::Zone), numbers].concat())
            }
            Self::Text(..) => {
                let Data::Text(strings) = self.data() else { unreachable!("of its kind") };
                (Rtype::TXT, strings.iter().flat_map(|text| [&[text.len() as u8], text.as_slice()].concat()).collect())
            }
            Self::Dhcid(bytes) => (Rtype::DHCID, bytes.clone()),
        }
    }

    fn data(&self) -> Data {
        match self {
            Self::A(address) => Data::A((*address).into()),
            Self::Aaaa(address) => Data::Aaaa((*address).into()),
            Self::Cname(whose) => Data::Cname(whose.name()),
            Self::Ns(whose) => Data::Ns(whose.name()),
            Self::Soa(whose, serial, negative) => {
                Data::Soa { primary: whose.name(), serial: *serial, negative: *negative }
            }
            Self::Text(first, second) => {
                let short = |text: &Vec<u8>| text.iter().take(255).copied().collect();
                Data::Text(std::iter::once(first).chain(second).map(short).collect())
            }
            Self::Dhcid(_) => Data::Other(Rtype::DHCID),
        }
    }
}

/// Any bytes: without the secret nobody answers a signed request, and an unsigned one only as it was asked.
fn anything(bytes: &[u8]) {
    let key = own_key();
    for asked in [Asked::Signed(Family::V4), Asked::Update] {
        match request(asked, &key).decode(bytes, NOW) {
            Ok(_) | Err(Nonsense::BadTime(_) | Nonsense::BadTruncation) => panic!("believed without a signature"),
            Err(_) => {}
        }
    }
    for family in [Family::V4, Family::V6] {
        let asked = Asked::Plain(family);
        if let Ok(read) = request(asked, &key).decode(bytes, NOW) {
            plausible(bytes, &read, asked);
        }
    }
}

/// What must hold for every answer that is believed.
fn plausible(bytes: &[u8], read: &Answer, asked: Asked) {
    let count = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    assert_eq!(bytes[..2], ID.to_be_bytes());
    assert_eq!(bytes[2] & 0xf8, 0x80, "an answer to a query");
    assert_eq!(read.rcode.rcode().to_int(), bytes[3] & 15);
    assert!(read.answers.len() <= count(6) && read.authority.len() <= count(8) && read.additional.len() <= count(10));
    let Asked::Plain(family) = asked else { panic!("only unsigned answers may be changed") };
    if let Ok(found) = lookup::read(read, &Whose::Asked.name(), family.rtype()) {
        assert!(!found.addresses.is_empty() && found.ttl <= lookup::TTL_MAX);
        for address in found.addresses {
            assert_eq!(address.is_ipv4(), matches!(family, Family::V4));
            assert!(read.answers.iter().any(|record| record.data.address() == Some(address)));
        }
    }
}

/// A key that is accepted can sign, and is strong enough.
fn key_file(bytes: &[u8]) {
    for name in ["ddns.key", "Klaptop.+163+00001.private"] {
        match key::parse(bytes, name) {
            Ok(key) => {
                assert!(matches!(key.algorithm(), Algorithm::Sha256 | Algorithm::Sha384 | Algorithm::Sha512));
                let shown = key.name().to_string();
                assert!(!shown.is_empty() && shown == shown.to_lowercase(), "{shown}");
                let request = query(ID, &Whose::Asked.name(), Rtype::A, false, Some((&key, NOW)));
                assert!(request.expect("a short message").is_signed());
            }
            Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error:?}"),
        }
    }
}

/// resolv.conf(5), and the strings of a mark.
fn texts(bytes: &[u8]) {
    let settings = system::parse(&String::from_utf8_lossy(bytes), 53);
    assert!((1..=3).contains(&settings.servers.len()) && settings.search.len() <= 6 && settings.ndots <= 15);
    if let Some(tries) = settings.tries {
        assert!((1..=5).contains(&tries.len()));
        assert!(tries.iter().all(|wait| (Duration::from_secs(1)..=Duration::from_secs(30)).contains(wait)));
    }
    let strings: Vec<Vec<u8>> = bytes.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
    if let Some(mark) = Mark::parse(&strings) {
        assert_eq!(mark.strings(), strings);
    }
}

//! TSIG keys (RFC 8945), and the one signature that the crate `domain` does not verify.

use super::message::Nonsense;
use domain::base::Message;
use domain::base::iana::{Rcode, TsigRcode};
use domain::base::name::ParsedName;
use domain::rdata::tsig::{Time48, Tsig};
use domain::tsig::{Algorithm, Key, KeyName, NewKeyError};
use std::fmt;
use std::sync::Arc;

/// A key with its name. Neither `Debug` nor anything else shows the secret.
#[derive(Clone)]
pub struct TsigKey(Arc<Inner>);

struct Inner {
    key: Key,
    /// The same secret once more: the other one signs only whole messages.
    mac: ring::hmac::Key,
}

impl TsigKey {
    /// Of a secret.
    ///
    /// # Errors
    /// Not with signatures of full length.
    pub fn new(algorithm: Algorithm, secret: &[u8], name: KeyName) -> Result<Self, NewKeyError> {
        let hash = match algorithm {
            Algorithm::Sha1 => ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => ring::hmac::HMAC_SHA256,
            Algorithm::Sha384 => ring::hmac::HMAC_SHA384,
            Algorithm::Sha512 => ring::hmac::HMAC_SHA512,
        };
        let key = Key::new(algorithm, secret, name, None, None)?;
        Ok(Self(Arc::new(Inner { key, mac: ring::hmac::Key::new(hash, secret) })))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        self.0.key.name()
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.0.key.algorithm()
    }
}

impl AsRef<Key> for TsigKey {
    fn as_ref(&self) -> &Key {
        &self.0.key
    }
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TsigKey({}, {})", self.name(), self.algorithm())
    }
}

type Record<'a> = domain::base::Record<ParsedName<&'a [u8]>, Tsig<&'a [u8], ParsedName<&'a [u8]>>>;

/// What the TSIG record of a refusal says that the code of the message does not.
///
/// BADTIME and BADTRUNC are signed, the former with six bytes of the server's own time behind (RFC 8945 section 5.2.3).
/// The crate takes these for eight when it verifies, so that they are verified here.
///
/// # Errors
/// What it says, or that it is somebody else who says so.
pub(super) fn complaint(message: &Message<Vec<u8>>, request: &[u8], key: &TsigKey) -> Result<(), Nonsense> {
    if message.header().rcode() != Rcode::NOTAUTH {
        return Ok(());
    }
    let Some((start, record)) = last(message) else { return Ok(()) };
    let tsig = record.data();
    let complaint = match tsig.error() {
        TsigRcode::BADTIME => {
            let server = tsig.other_time().ok_or(Nonsense::Garbage)?;
            Nonsense::BadTime(difference(tsig.time_signed(), server))
        }
        TsigRcode::BADTRUNC => Nonsense::BadTruncation,
        _ => return Ok(()),
    };
    let known = record.owner() == key.name() && *tsig.algorithm() == key.algorithm().to_name();
    Err(if known && is_signed(message, start, tsig, request, key) { complaint } else { Nonsense::Forged })
}

/// The last additional record, if it is a TSIG record, and where it begins.
fn last<Octs: AsRef<[u8]> + ?Sized>(message: &Message<Octs>) -> Option<(usize, Record<'_>)> {
    let message = Message::from_slice(message.as_slice()).ok()?;
    let before = message.header_counts().arcount().checked_sub(1)?;
    let mut section = message.additional().ok()?;
    for _ in 0..before {
        section.next()?.ok()?;
    }
    let start = section.pos();
    Some((start, section.next()?.ok()?.into_record().ok()??))
}

/// Whether `message`, whose TSIG record begins at `start`, has the signature that answers the one of `request`, RFC 8945
/// section 4.3.
fn is_signed(
    message: &Message<Vec<u8>>,
    start: usize,
    tsig: &Tsig<&[u8], ParsedName<&[u8]>>,
    request: &[u8],
    key: &TsigKey,
) -> bool {
    let Some((_, asked)) = Message::from_slice(request).ok().and_then(last) else { return false };
    let (asked, other) = (*asked.data().mac(), *tsig.other());
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    // As it was before the record was added.
    let mut plain = message.as_slice().get(..start).unwrap_or_default().to_vec();
    if let Some(id) = plain.first_chunk_mut() {
        *id = tsig.original_id().to_be_bytes();
    }
    if let Some(count) = plain.get_mut(10..12) {
        count.copy_from_slice(&message.header_counts().arcount().wrapping_sub(1).to_be_bytes());
    }
    let mut context = ring::hmac::Context::with_key(&key.0.mac);
    context.update(&length(asked));
    context.update(asked);
    context.update(&plain);
    // The lengths of labels are below every letter.
    context.update(&key.name().as_slice().to_ascii_lowercase());
    // Class ANY, and no TTL.
    context.update(&[0, 255, 0, 0, 0, 0]);
    context.update(key.algorithm().to_name().as_slice());
    context.update(&tsig.time_signed().into_octets());
    context.update(&tsig.fudge().to_be_bytes());
    context.update(&tsig.error().to_int().to_be_bytes());
    context.update(&length(other));
    context.update(other);
    let (expected, found) = (context.sign(), *tsig.mac());
    let differs = expected.as_ref().iter().zip(found).fold(0, |differs, (a, b)| differs | (a ^ b));
    // In constant time, whatever the signature is.
    expected.as_ref().len() == found.len() && std::hint::black_box(differs) == 0
}

/// Seconds from `client` to `server`.
fn difference(client: Time48, server: Time48) -> i64 {
    let seconds = |time: Time48| time.into_octets().iter().fold(0i64, |sum, byte| sum << 8 | i64::from(*byte));
    seconds(server).saturating_sub(seconds(client))
}

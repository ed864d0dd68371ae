//! Keys: the group's, the host's, and what the world may see of it.

use curve25519_dalek::montgomery::MontgomeryPoint;
use rand_core::CryptoRng;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Length in bytes of every key here.
pub const KEY_LENGTH: usize = 32;

/// The key that all members of a group share. It admits to the conversation;
/// it does not say who speaks. Overwritten when dropped, never shown.
#[derive(Clone)]
pub struct GroupKey(Zeroizing<[u8; KEY_LENGTH]>);

impl GroupKey {
    /// The key made of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_LENGTH]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// A new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
        rng.fill_bytes(bytes.as_mut_slice());
        Self(bytes)
    }

    /// The secret bytes, for the key file.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupKey(..)")
    }
}

/// A host's private key (X25519). It is the host's identity. Overwritten when
/// dropped, never shown.
#[derive(Clone)]
pub struct HostKey {
    secret: Zeroizing<[u8; KEY_LENGTH]>,
    /// Computed once: every handshake wants it, also one that somebody forges.
    public: PublicKey,
}

impl HostKey {
    /// The key made of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_LENGTH]) -> Self {
        Self { secret: Zeroizing::new(*bytes), public: PublicKey(MontgomeryPoint::mul_base_clamped(*bytes).to_bytes()) }
    }

    /// A new key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
        rng.fill_bytes(bytes.as_mut_slice());
        Self::from_bytes(&bytes)
    }

    /// The secret bytes, for the key file.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LENGTH] {
        &self.secret
    }

    /// The public key that belongs to this one.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKey(..)")
    }
}

/// A host's public key: its name in the protocol. Written as 64 hexadecimal
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; KEY_LENGTH]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A public key is not written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKey;

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a public key has 64 hexadecimal digits")
    }
}

impl std::error::Error for BadKey {}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let digits = text.as_bytes();
        if digits.len() != 2 * KEY_LENGTH {
            return Err(BadKey);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok()).ok_or(BadKey);
        let mut key = [0; KEY_LENGTH];
        for (byte, pair) in key.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = (value(pair[0])? << 4) | value(pair[1])?;
        }
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key pair of Alice in RFC 7748, section 6.1.
    #[test]
    fn public_key_as_in_rfc_7748() {
        let private: PublicKey =
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a".parse().unwrap_or(PublicKey([0; 32]));
        let public = HostKey::from_bytes(&private.0).public();
        assert_eq!(public.to_string(), "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    }

    #[test]
    fn text_round_trip_and_refusal() {
        let key = PublicKey(std::array::from_fn(|i| u8::try_from(i * 7).unwrap_or(0)));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("".parse::<PublicKey>(), Err(BadKey));
        assert_eq!("g".repeat(64).parse::<PublicKey>(), Err(BadKey));
        assert_eq!("+1".repeat(32).parse::<PublicKey>(), Err(BadKey));
        assert_eq!("ab".repeat(33).parse::<PublicKey>(), Err(BadKey));
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = format!("{:?} {:?}", HostKey::from_bytes(&[0xa5; 32]), GroupKey::from_bytes(&[0xa5; 32]));
        assert_eq!(text, "HostKey(..) GroupKey(..)");
    }
}

//! The mark that says whose a name is: a TXT record at `_mobconn.NAME` (an attribute leaf, RFC 8552), as DHCP servers
//! leave a DHCID record (RFC 4701).
//!
//! It has three strings: `mobconn1`, the host's identity, and a stamp that every update replaces by another random one.
//! The identity is a hash of the host's public key and the name: it tells a stranger nothing, and whoever has the key
//! can check it.

use crate::dns::DnsName;
use mobconn_dprp::PublicKey;
use std::fmt;
use std::str::FromStr;

/// The first string.
const VERSION: &[u8] = b"mobconn1";

/// Whose a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity([u8; 16]);

impl Identity {
    /// Of the host with this public key, for this name.
    #[must_use]
    pub fn new(host: &PublicKey, name: &DnsName) -> Self {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(b"mobconn ddns mark 1\0");
        hash.update(&host.0);
        hash.update(name.to_string().to_ascii_lowercase().as_bytes());
        let digest = hash.finish();
        Self(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose the name is.
    pub identity: Identity,
    /// Of the last update.
    pub stamp: u64,
}

impl Mark {
    /// The strings of the TXT record.
    #[must_use]
    pub fn strings(&self) -> Vec<Vec<u8>> {
        vec![VERSION.to_vec(), self.identity.to_string().into_bytes(), format!("{:016x}", self.stamp).into_bytes()]
    }

    /// The mark that these strings are; nothing else is one.
    #[must_use]
    pub fn parse(strings: &[Vec<u8>]) -> Option<Self> {
        let [VERSION, identity, stamp] = strings.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] else { return None };
        let (identity, stamp) = (str::from_utf8(identity).ok()?, str::from_utf8(stamp).ok()?);
        let mark = Self {
            identity: Identity(u128::from_str_radix(identity, 16).ok()?.to_be_bytes()),
            stamp: u64::from_str_radix(stamp, 16).ok()?,
        };
        // Only this form: a prerequisite compares bytes.
        (mark.strings() == strings).then_some(mark)
    }
}

/// Where the mark of a name is; nowhere for names that are too long.
#[must_use]
pub fn place(name: &DnsName) -> Option<DnsName> {
    DnsName::from_str(&format!("_mobconn.{name}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> DnsName {
        DnsName::from_str(text).unwrap()
    }

    #[test]
    fn an_identity_is_of_a_host_and_a_name() {
        let identity = Identity::new(&PublicKey([1; 32]), &name("a.example"));
        assert_eq!(identity, Identity::new(&PublicKey([1; 32]), &name("A.Example.")));
        assert_ne!(identity, Identity::new(&PublicKey([2; 32]), &name("a.example")));
        assert_ne!(identity, Identity::new(&PublicKey([1; 32]), &name("b.example")));
        assert_eq!(identity.to_string().len(), 32);
    }

    #[test]
    fn the_place() {
        assert_eq!(place(&name("laptop.example.org")), Some(name("_mobconn.laptop.example.org")));
        let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(60));
        assert_eq!(place(&name(&long)), None);
    }

    proptest! {
        #[test]
        fn a_mark_comes_back(identity: [u8; 16], stamp: u64) {
            let mark = Mark { identity: Identity(identity), stamp };
            prop_assert_eq!(Mark::parse(&mark.strings()), Some(mark));
        }

        #[test]
        fn nothing_else_is_one(strings in proptest::collection::vec("[+0-9a-fA-F]{0,40}", 0..5)) {
            let mut strings: Vec<Vec<u8>> = strings.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(Mark::parse(&strings), None);
            if let Some(first) = strings.first_mut() {
                *first = VERSION.to_vec();
            }
            if let Some(mark) = Mark::parse(&strings) {
                prop_assert_eq!(mark.strings(), strings);
            }
        }
    }
}

//! Cookies: under a flood of Hellos a host remembers and computes nothing for
//! an address before that address has shown that it receives.

use crate::time::Instant;
use crate::wire::Cookie;
use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Mac};
use rand_core::CryptoRng;
use std::net::SocketAddr;
use zeroize::Zeroizing;

/// A cookie is good for this many microseconds, and then for as many again.
const EPOCH: u64 = 60_000_000;

/// Makes and checks cookies. The secret is this endpoint's alone.
pub(crate) struct Baker(Zeroizing<[u8; 32]>);

impl Baker {
    pub(crate) fn new(rng: &mut dyn CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut_slice());
        Self(secret)
    }

    fn mac(&self, remote: SocketAddr, epoch: u64) -> Option<Blake2sMac256> {
        let mut mac = <Blake2sMac256 as KeyInit>::new_from_slice(self.0.as_slice()).ok()?;
        mac.update(&epoch.to_be_bytes());
        mac.update(&remote.port().to_be_bytes());
        match remote {
            SocketAddr::V4(v4) => mac.update(&v4.ip().octets()),
            SocketAddr::V6(v6) => mac.update(&v6.ip().octets()),
        }
        Some(mac)
    }

    /// A cookie for whoever receives at `remote`.
    pub(crate) fn bake(&self, now: Instant, remote: SocketAddr) -> Option<Cookie> {
        let mac = self.mac(remote, now.as_micros() / EPOCH)?.finalize_fixed();
        mac.first_chunk().copied()
    }

    /// Whether this is a cookie of ours for `remote`, and not too old.
    pub(crate) fn is_good(&self, now: Instant, remote: SocketAddr, cookie: &Cookie) -> bool {
        let epoch = now.as_micros() / EPOCH;
        let good = |epoch| self.mac(remote, epoch).is_some_and(|mac| mac.verify_truncated_left(cookie).is_ok());
        good(epoch) || epoch.checked_sub(1).is_some_and(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn a_cookie_is_good_for_one_address_and_a_while() {
        let baker = Baker::new(&mut ChaCha20Rng::seed_from_u64(1));
        let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
        let remote = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let cookie = baker.bake(at(10), remote("192.0.2.1:9434")).expect("a cookie");
        for (when, whose, good) in [
            (10, "192.0.2.1:9434", true),
            (119, "192.0.2.1:9434", true),
            (120, "192.0.2.1:9434", false),
            (10, "192.0.2.1:9435", false),
            (10, "192.0.2.2:9434", false),
            (10, "[2001:db8::1]:9434", false),
        ] {
            assert_eq!(baker.is_good(at(when), remote(whose), &cookie), good, "{when} {whose}");
        }
        let other = Baker::new(&mut ChaCha20Rng::seed_from_u64(2));
        assert!(!other.is_good(at(10), remote("192.0.2.1:9434"), &cookie));
        assert!(!baker.is_good(at(10), remote("192.0.2.1:9434"), &[0; 16]));
    }
}

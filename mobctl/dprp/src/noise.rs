//! Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s, through snow, with secrets that are
//! overwritten and randomness that the caller gives.

use crate::key::{GroupKey, HostKey, KEY_LENGTH, PublicKey};
use crate::wire::{DATAGRAM_MAX, TAG, VERSION};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use curve25519_dalek::montgomery::MontgomeryPoint;
use rand_core::CryptoRng;
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use std::fmt;
use std::sync::Mutex;
use zeroize::{Zeroize, Zeroizing};

const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";
/// Binds name and version of the protocol into every handshake.
const PROLOGUE: [u8; 14] = *b"mobconn DPRP \x01";
const _: () = assert!(PROLOGUE[13] == VERSION);

type Secret = Zeroizing<[u8; KEY_LENGTH]>;

/// The ephemeral key of one end of one handshake.
#[derive(Clone)]
pub(crate) struct Ephemeral(Secret);

impl Ephemeral {
    pub(crate) fn draw(rng: &mut dyn CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; KEY_LENGTH]);
        rng.fill_bytes(secret.as_mut_slice());
        Self(secret)
    }
}

/// One end of a handshake.
pub(crate) struct Handshake(Box<HandshakeState>);

impl Handshake {
    /// `None` only if snow does not know the pattern.
    pub(crate) fn new(initiator: bool, host: &HostKey, group: &GroupKey, ephemeral: &Ephemeral) -> Option<Self> {
        let params: NoiseParams = PATTERN.parse().ok()?;
        let resolver = Resolver { ephemeral: Mutex::new(Some(ephemeral.clone())), host: host.clone() };
        let builder = Builder::with_resolver(params, Box::new(resolver))
            .local_private_key(host.expose())
            .and_then(|builder| builder.psk(0, group.expose()))
            .and_then(|builder| builder.prologue(&PROLOGUE))
            .ok()?;
        let state = if initiator { builder.build_initiator() } else { builder.build_responder() };
        state.ok().map(|state| Self(Box::new(state)))
    }

    /// The next message, with this payload.
    pub(crate) fn write(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut message = vec![0; DATAGRAM_MAX];
        let length = self.0.write_message(payload, &mut message).ok()?;
        message.truncate(length);
        Some(message)
    }

    /// The payload of the peer's message. After `None` the genuine message can still be read, unless
    /// [`Self::is_spoiled`].
    pub(crate) fn read(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let mut payload = vec![0; message.len()];
        let length = self.0.read_message(message, &mut payload).ok()?;
        payload.truncate(length);
        Some(payload)
    }

    /// Whether reading the third message failed after its first part was right. snow has then mixed a new key that it
    /// does not take back, and would refuse the genuine message: the state must be rebuilt.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.0.get_remote_static().is_some() && !self.0.is_handshake_finished()
    }

    /// The peer's public key, once read.
    pub(crate) fn remote(&self) -> Option<PublicKey> {
        self.0.get_remote_static().and_then(|key| key.try_into().ok()).map(PublicKey)
    }

    /// The transport keys, after the third message.
    pub(crate) fn finish(mut self) -> Option<Transport> {
        if !self.0.is_handshake_finished() {
            return None;
        }
        let (mut first, mut second) = self.0.dangerously_get_raw_split();
        let (seal, open) = if self.0.is_initiator() { (&first, &second) } else { (&second, &first) };
        let transport = Transport { seal: Zeroizing::new(*seal), open: Zeroizing::new(*open) };
        first.zeroize();
        second.zeroize();
        Some(transport)
    }
}

/// The keys of an association, one for each direction: what snow would keep, in 64 bytes. The caller never uses a counter
/// twice.
pub(crate) struct Transport {
    seal: Secret,
    open: Secret,
}

impl Transport {
    pub(crate) fn seal(&self, counter: u64, message: &[u8]) -> Option<Vec<u8>> {
        is_allowed(counter)?;
        let mut sealed = Vec::with_capacity(message.len().checked_add(TAG)?);
        sealed.extend_from_slice(message);
        let cipher = ChaCha20Poly1305::new((&*self.seal).into());
        let tag = cipher.encrypt_in_place_detached((&nonce(counter)).into(), &[], &mut sealed).ok()?;
        sealed.extend_from_slice(&tag);
        Some(sealed)
    }

    pub(crate) fn open(&self, counter: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        is_allowed(counter)?;
        let (body, tag) = sealed.split_last_chunk::<TAG>()?;
        let mut message = body.to_vec();
        let cipher = ChaCha20Poly1305::new((&*self.open).into());
        cipher.decrypt_in_place_detached((&nonce(counter)).into(), &[], &mut message, tag.into()).ok()?;
        Some(message)
    }
}

/// The last counter is reserved (Noise, section 5.1).
fn is_allowed(counter: u64) -> Option<()> {
    (counter != u64::MAX).then_some(())
}

/// The nonce that Noise makes of a counter.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport(..)")
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handshake(..)")
    }
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemeral(..)")
    }
}

/// Gives snow its primitives.
struct Resolver {
    ephemeral: Mutex<Option<Ephemeral>>,
    host: HostKey,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        let drawn = self.ephemeral.lock().ok()?.take()?;
        Some(Box::new(Once(Some(drawn))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519 { own: Some(self.host.clone()), ..X25519::default() })),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::<ChaChaPoly>::default()),
            _ => None,
        }
    }
}

/// Yields the ephemeral key, once: a handshake needs no other randomness.
struct Once(Option<Ephemeral>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let drawn = self.0.take().filter(|drawn| drawn.0.len() == dest.len()).ok_or(Error::Rng)?;
        dest.copy_from_slice(drawn.0.as_slice());
        Ok(())
    }
}

/// X25519 (RFC 7748) whose private key is overwritten when dropped.
#[derive(Default)]
struct X25519 {
    private: Secret,
    public: [u8; KEY_LENGTH],
    /// The host's key, whose public half need not be computed.
    own: Option<HostKey>,
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LENGTH
    }

    fn priv_len(&self) -> usize {
        KEY_LENGTH
    }

    fn set(&mut self, private: &[u8]) {
        let Ok(private) = private.try_into().map(Zeroizing::<[u8; KEY_LENGTH]>::new) else { return };
        let own = self.own.take().filter(|own| *own.expose() == *private);
        self.public = own.unwrap_or_else(|| HostKey::from_bytes(&private)).public().0;
        self.private = private;
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        rng.try_fill_bytes(self.private.as_mut_slice())?;
        self.public = MontgomeryPoint::mul_base_clamped(*self.private).to_bytes();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_slice()
    }

    /// Refuses points of low order: the result would not depend on the private key (RFC 7748, section 6.1).
    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk::<KEY_LENGTH>().ok_or(Error::Dh)?;
        let shared = Zeroizing::new(MontgomeryPoint(*public).mul_clamped(*self.private).to_bytes());
        if shared.iter().fold(0, |any, byte| any | byte) == 0 {
            return Err(Error::Dh);
        }
        out.get_mut(..KEY_LENGTH).ok_or(Error::Dh)?.copy_from_slice(shared.as_slice());
        Ok(())
    }
}

/// ChaCha20-Poly1305 (RFC 8439) with Noise's nonces, whose key is overwritten when dropped.
#[derive(Default)]
struct ChaChaPoly {
    key: Secret,
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_LENGTH]) {
        self.key = Zeroizing::new(*key);
    }

    /// snow has checked that `out` has room for the plaintext and a tag.
    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let Some((body, rest)) = out.split_at_mut_checked(plaintext.len()) else { return 0 };
        body.copy_from_slice(plaintext);
        let cipher = ChaCha20Poly1305::new((&*self.key).into());
        let sealed = cipher.encrypt_in_place_detached((&nonce(counter)).into(), authtext, body);
        match (sealed, rest.first_chunk_mut::<TAG>()) {
            (Ok(tag), Some(room)) => {
                *room = tag.into();
                plaintext.len().saturating_add(TAG)
            }
            _ => {
                body.zeroize();
                0
            }
        }
    }

    fn decrypt(&self, counter: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let (sealed, tag) = ciphertext.split_last_chunk::<TAG>().ok_or(Error::Decrypt)?;
        let body = out.get_mut(..sealed.len()).ok_or(Error::Decrypt)?;
        body.copy_from_slice(sealed);
        ChaCha20Poly1305::new((&*self.key).into())
            .decrypt_in_place_detached((&nonce(counter)).into(), authtext, body, tag.into())
            .map_err(|_| Error::Decrypt)?;
        Ok(sealed.len())
    }
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;

use super::*;
use crate::wire::{Answer, Finish, HELLO_LENGTH, HELLO_PAYLOAD, Hello};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

struct Ends {
    initiator: Handshake,
    responder: Handshake,
}

fn host(byte: u8) -> HostKey {
    HostKey::from_bytes(&[byte; 32])
}

fn ends(group_initiator: u8, group_responder: u8) -> Option<Ends> {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let group = |byte| GroupKey::from_bytes(&[byte; 32]);
    Some(Ends {
        initiator: Handshake::new(true, &host(1), &group(group_initiator), &Ephemeral::draw(&mut rng))?,
        responder: Handshake::new(false, &host(2), &group(group_responder), &Ephemeral::draw(&mut rng))?,
    })
}

#[test]
fn handshake_and_transport() -> Result<(), &'static str> {
    let Ends { mut initiator, mut responder } = ends(9, 9).ok_or("ends")?;
    let hello = initiator.write(b"one").ok_or("hello")?;
    assert_eq!(responder.read(&hello).as_deref(), Some(&b"one"[..]));
    let answer = responder.write(b"two").ok_or("answer")?;
    assert_eq!(initiator.read(&answer).as_deref(), Some(&b"two"[..]));
    let finish = initiator.write(b"three").ok_or("finish")?;
    assert_eq!(responder.read(&finish).as_deref(), Some(&b"three"[..]));
    assert_eq!(initiator.remote(), Some(host(2).public()));
    assert_eq!(responder.remote(), Some(host(1).public()));

    let (near, far) = (initiator.finish().ok_or("near")?, responder.finish().ok_or("far")?);
    let sealed = near.seal(5, b"message").ok_or("seal")?;
    assert_eq!(sealed.len(), 7 + TAG);
    assert_eq!(far.open(5, &sealed).as_deref(), Some(&b"message"[..]));
    assert_eq!(far.open(4, &sealed), None, "another counter");
    assert_eq!(near.open(5, &sealed), None, "reflected to its sender");
    assert_eq!(far.open(5, sealed.get(..10).ok_or("short")?), None, "shorter than a tag");
    for i in 0..sealed.len() {
        let mut corrupt = sealed.clone();
        corrupt[i] ^= 1;
        assert_eq!(far.open(5, &corrupt), None, "byte {i}");
    }
    assert_eq!(near.seal(u64::MAX, b""), None, "the last counter is reserved");
    Ok(())
}

#[test]
fn another_group_is_not_understood() -> Result<(), &'static str> {
    let Ends { mut initiator, mut responder } = ends(9, 8).ok_or("ends")?;
    let hello = initiator.write(b"").ok_or("hello")?;
    assert_eq!(responder.read(&hello), None);
    Ok(())
}

#[test]
fn forged_messages_leave_the_genuine_one_readable() -> Result<(), &'static str> {
    let Ends { mut initiator, mut responder } = ends(9, 9).ok_or("ends")?;
    let hello = initiator.write(b"").ok_or("hello")?;
    responder.read(&hello).ok_or("read hello")?;
    let answer = responder.write(b"").ok_or("answer")?;
    for i in 0..answer.len() {
        let mut forged = answer.clone();
        forged[i] ^= 0x10;
        assert_eq!(initiator.read(&forged), None, "byte {i}");
    }
    initiator.read(&answer).ok_or("the genuine answer")?;
    let finish = initiator.write(b"payload").ok_or("finish")?;
    let key_part = KEY_LENGTH + TAG;
    for i in 0..key_part {
        let mut forged = finish.clone();
        forged[i] ^= 0x10;
        assert_eq!(responder.read(&forged), None, "byte {i}");
        assert!(!responder.is_spoiled(), "byte {i}");
    }
    let mut forged = finish.clone();
    forged[key_part] ^= 1;
    assert_eq!(responder.read(&forged), None);
    assert!(responder.is_spoiled(), "snow keeps the key that it mixed");
    assert_eq!(responder.read(&finish), None, "if this is read, snow takes keys back and `is_spoiled` can go");
    Ok(())
}

#[test]
fn points_of_low_order_are_refused() {
    let mut own = X25519::default();
    own.set(&[7; 32]);
    let mut out = [0; 32];
    let one = std::array::from_fn::<u8, 32, _>(|i| u8::from(i == 0));
    for point in [[0; 32], one] {
        assert!(own.dh(&point, &mut out).is_err());
    }
    assert!(own.dh(&host(3).public().0, &mut out).is_ok());
}

/// Alice's and Bob's shared secret in RFC 7748, section 6.1.
#[test]
fn shared_secret_as_in_rfc_7748() -> Result<(), crate::key::BadKey> {
    let bytes = |text: &str| text.parse().map(|PublicKey(bytes)| bytes);
    let mut alice = X25519::default();
    alice.set(&bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")?);
    let bob = bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")?;
    let mut out = [0; 32];
    assert!(alice.dh(&bob, &mut out).is_ok());
    assert_eq!(out, bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")?);
    Ok(())
}

/// The longest Answer is not longer than a Hello, so that a forged source gets no more than was sent.
#[test]
fn lengths_of_the_handshake() -> Result<(), &'static str> {
    let Ends { mut initiator, mut responder } = ends(9, 9).ok_or("ends")?;
    let hello = initiator.write(&Hello { sender: 1, cookie: [0; 16] }.write()).ok_or("hello")?;
    assert_eq!((HELLO_PAYLOAD, hello.len() + 4), (348, HELLO_LENGTH));
    responder.read(&hello).ok_or("read")?;
    let longest = Answer {
        sender: 1,
        incarnation: 1,
        seen: std::net::Ipv6Addr::LOCALHOST.into(),
        name: "x".repeat(crate::config::NAME_MAX),
    };
    let answer = responder.write(&longest.write()).ok_or("answer")?;
    assert_eq!(answer.len() + 8, 389);
    initiator.read(&answer).ok_or("read")?;
    let finish = Finish { incarnation: 1, source: std::net::Ipv6Addr::LOCALHOST.into(), name: longest.name };
    assert_eq!(initiator.write(&finish.write()).ok_or("finish")?.len() + 8, 353);
    Ok(())
}

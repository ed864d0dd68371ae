//! Datagrams: what stands in the clear, and what the handshake carries inside.
//! Formats: `PROTOCOL.md`, section "Datagrams".

use crate::codec::{Reader, Writer};
use crate::config::NAME_MAX;
use std::net::IpAddr;

/// Version of the protocol, in every datagram and in the prologue of every handshake.
pub(crate) const VERSION: u8 = 1;
/// Longest datagram.
pub(crate) const DATAGRAM_MAX: usize = 1200;
/// Length of every Hello: at least that of the longest Answer.
pub(crate) const HELLO_LENGTH: usize = 400;
/// Length of the tag that authenticated encryption adds.
pub(crate) const TAG: usize = 16;
/// What a sealed datagram adds to its message: header, receiver, counter, tag.
pub(crate) const OVERHEAD: usize = 4 + 4 + 8 + TAG;
/// Longest message in a sealed datagram.
pub(crate) const MESSAGE_MAX: usize = DATAGRAM_MAX - OVERHEAD;
/// Length of the payload of a Hello: header, ephemeral key and tag are not in it.
pub(crate) const HELLO_PAYLOAD: usize = HELLO_LENGTH - 4 - 32 - TAG;

const HELLO: u8 = 1;
const ANSWER: u8 = 2;
const FINISH: u8 = 3;
const SEALED: u8 = 4;
const RETRY: u8 = 5;

/// A proof that its bearer receives at an address, checked without remembering anything.
pub(crate) type Cookie = [u8; 16];

/// A datagram, taken apart as far as that goes without keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// ACG (hello): first handshake message.
    Hello { noise: &'a [u8] },
    /// MCI (hello): second handshake message.
    Answer { receiver: u32, noise: &'a [u8] },
    /// ACG (finish): third handshake message.
    Finish { receiver: u32, noise: &'a [u8] },
    /// Everything after the handshake.
    Sealed { receiver: u32, counter: u64, sealed: &'a [u8] },
    /// MCI (cookie): under load, instead of an Answer.
    Retry { receiver: u32, cookie: Cookie },
}

impl<'a> Packet<'a> {
    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Self> {
        if datagram.len() > DATAGRAM_MAX {
            return None;
        }
        let mut reader = Reader::new(datagram);
        let [kind, VERSION, 0, 0] = reader.array()? else { return None };
        match kind {
            HELLO => (datagram.len() == HELLO_LENGTH).then(|| Self::Hello { noise: reader.rest() }),
            ANSWER => Some(Self::Answer { receiver: reader.u32()?, noise: reader.rest() }),
            FINISH => Some(Self::Finish { receiver: reader.u32()?, noise: reader.rest() }),
            SEALED => Some(Self::Sealed { receiver: reader.u32()?, counter: reader.u64()?, sealed: reader.rest() }),
            RETRY => {
                let retry = Self::Retry { receiver: reader.u32()?, cookie: reader.array()? };
                reader.end(retry)
            }
            _ => None,
        }
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut writer = Writer(Vec::with_capacity(DATAGRAM_MAX));
        match *self {
            Self::Hello { noise } => writer.bytes(&[HELLO, VERSION, 0, 0]).bytes(noise),
            Self::Answer { receiver, noise } => writer.bytes(&[ANSWER, VERSION, 0, 0]).u32(receiver).bytes(noise),
            Self::Finish { receiver, noise } => writer.bytes(&[FINISH, VERSION, 0, 0]).u32(receiver).bytes(noise),
            Self::Sealed { receiver, counter, sealed } => {
                writer.bytes(&[SEALED, VERSION, 0, 0]).u32(receiver).u64(counter).bytes(sealed)
            }
            Self::Retry { receiver, cookie } => writer.bytes(&[RETRY, VERSION, 0, 0]).u32(receiver).bytes(&cookie),
        };
        writer.0
    }
}

/// Payload of a Hello: the initiator's index, a cookie or zeros, and zeros up to [`HELLO_PAYLOAD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) sender: u32,
    pub(crate) cookie: Cookie,
}

impl Hello {
    pub(crate) fn write(self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u32(self.sender).bytes(&self.cookie);
        writer.0.resize(HELLO_PAYLOAD, 0);
        writer.0
    }

    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let (sender, cookie) = (reader.u32()?, reader.array()?);
        let padded = payload.len() == HELLO_PAYLOAD && reader.rest().iter().all(|byte| *byte == 0);
        padded.then_some(Self { sender, cookie })
    }
}

/// Payload of an Answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The responder's index.
    pub(crate) sender: u32,
    /// Drawn when the responder's daemon began: another one means that it has forgotten claims and moves.
    pub(crate) incarnation: u64,
    /// Where the Hello came from, as the responder sees it.
    pub(crate) seen: IpAddr,
    /// The responder's name, possibly empty.
    pub(crate) name: String,
}

impl Answer {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u32(self.sender).u64(self.incarnation).address(self.seen);
        write_name(&mut writer, &self.name);
        writer.0
    }

    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let (sender, incarnation, seen) = (reader.u32()?, reader.u64()?, reader.address()?);
        let name = read_name(&mut reader)?;
        reader.end(Self { sender, incarnation, seen, name })
    }
}

/// Payload of a Finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finish {
    /// As in [`Answer`], the initiator's.
    pub(crate) incarnation: u64,
    /// Where this comes from, as the initiator knows it.
    pub(crate) source: IpAddr,
    /// The initiator's name, possibly empty.
    pub(crate) name: String,
}

impl Finish {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.incarnation).address(self.source);
        write_name(&mut writer, &self.name);
        writer.0
    }

    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let (incarnation, source) = (reader.u64()?, reader.address()?);
        let name = read_name(&mut reader)?;
        reader.end(Self { incarnation, source, name })
    }
}

fn write_name(writer: &mut Writer, name: &str) {
    let name = name.as_bytes();
    let length = name.len().min(NAME_MAX);
    writer.list(name.get(..length).unwrap_or_default(), |w, byte| {
        w.u8(*byte);
    });
}

fn read_name(reader: &mut Reader<'_>) -> Option<String> {
    let length = reader.u8()?;
    let bytes = reader.slice(usize::from(length))?;
    // Names are printed in logs and on terminals.
    bytes.iter().all(|byte| byte.is_ascii_graphic()).then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

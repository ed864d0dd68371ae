//! The decoders, for fuzzing: they are not part of the interface.

use crate::message::Message;
use crate::wire::{Answer, DATAGRAM_MAX, Finish, Hello, MESSAGE_MAX, Packet};

/// Gives `data` to every decoder.
///
/// # Panics
/// When something that was accepted would have been written otherwise.
pub fn decoders(data: &[u8]) {
    if let Some(packet) = Packet::parse(data) {
        assert!(data.len() <= DATAGRAM_MAX);
        assert_eq!(packet.write(), data);
    }
    if let Some(message) = Message::parse(data) {
        assert_eq!(message.write(), data);
        // Every decoder is fed by one that bounds the length.
        assert!(data.len() <= MESSAGE_MAX || Message::parse(&message.write()).is_some());
    }
    if let Some(hello) = Hello::parse(data) {
        assert_eq!(hello.write(), data);
    }
    if let Some(answer) = Answer::parse(data) {
        assert_eq!(answer.write(), data);
    }
    if let Some(finish) = Finish::parse(data) {
        assert_eq!(finish.write(), data);
    }
}

/// Makes the checksum of a snapshot right, whatever was done to the rest.
pub fn repair(snapshot: &mut [u8]) {
    let head = crate::store::MAGIC.len();
    if let Some((sum, body)) = snapshot.get_mut(head..).and_then(|rest| rest.split_first_chunk_mut::<4>()) {
        *sum = crate::store::crc32(body).to_be_bytes();
    }
}

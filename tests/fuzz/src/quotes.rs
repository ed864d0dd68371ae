//! Target `quotes`.

use crate::oracle::{judge_error, sum};
use crate::packet::{Bytes, Shape, reversed};
use crate::table::{Command, Pick, Table, local};
use arbitrary::{Arbitrary, Unstructured};
use mobconn_engine::{Address, Side, Verdict, Version};

#[derive(Arbitrary, Debug)]
struct Case {
    commands: Vec<Command>,
    errors: Vec<Message>,
}

/// An error message.
#[derive(Arbitrary, Debug)]
struct Message {
    flow: Pick,
    received: bool,
    kind: u8,
    code: u8,
    /// The quoted packet.
    shape: Shape,
    /// Bytes of it that are quoted.
    length: u16,
    /// Quoted in another message in turn.
    nested: bool,
    split: u8,
    edits: Vec<(u16, u8)>,
}

/// Runs the target.
pub(crate) fn run(data: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut table = Table::new(6);
    case.commands.iter().for_each(|command| table.command(command));
    case.errors.iter().for_each(|message| fire(&table, message));
}

/// An ICMP message with right checksums.
fn message(version: Version, kind: u8, code: u8, from: &Address, to: &Address, quote: &[u8]) -> Vec<u8> {
    let mut icmp = vec![kind, code, 0, 0, 0, 0, 5, 0];
    icmp.extend(quote);
    let mut packet = match version {
        Version::V4 => {
            let mut header = vec![0x45, 0];
            header.extend(((20 + icmp.len()) as u16).to_be_bytes());
            header.extend([0, 9, 0, 0, 64, 1, 0, 0]);
            header.extend(&from.0[..4]);
            header.extend(&to.0[..4]);
            let check = !sum(&header);
            header[10..12].copy_from_slice(&check.to_be_bytes());
            let check = !sum(&icmp);
            icmp[2..4].copy_from_slice(&check.to_be_bytes());
            header
        }
        Version::V6 => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((icmp.len() as u16).to_be_bytes());
            header.extend([58, 64]);
            header.extend(from.0);
            header.extend(to.0);
            let pseudo = [&from.0[..], &to.0, &(icmp.len() as u32).to_be_bytes(), &[0, 58], &icmp].concat();
            let check = !sum(&pseudo);
            icmp[2..4].copy_from_slice(&check.to_be_bytes());
            header
        }
    };
    packet.extend(icmp);
    packet
}

impl Message {
    /// The message about the packet of `side`.
    fn build(&self, side: &Side) -> Vec<u8> {
        let version = side.version;
        // What is received was sent by us; what we send was received.
        let (quoted, from, to) = if self.received {
            (*side, local(version, 77), side.local)
        } else {
            (reversed(side), side.local, side.remote)
        };
        let mut quote = self.shape.build(&quoted);
        quote.truncate(usize::from(self.length));
        let message_of = |quote: &[u8]| message(version, self.kind, self.code, &from, &to, quote);
        if self.nested { message_of(&message_of(&quote)) } else { message_of(&quote) }
    }
}

fn fire(table: &Table, error: &Message) {
    let side = error.flow.side();
    let built = error.build(&side);
    let mut bytes = built.clone();
    for (at, value) in &error.edits {
        if let Some(byte) = bytes.get_mut(usize::from(*at)) {
            *byte = *value;
        }
    }
    let mut packet = Bytes::new(bytes.clone());
    packet.contiguous = usize::from(error.split);
    let verdict = if error.received {
        table.engine.input(&mut packet, side.version, table.now)
    } else {
        table.engine.output(&mut packet, side.version, table.now)
    };
    if verdict != Verdict::Translated {
        return assert_eq!(packet.bytes, bytes, "{verdict:?}, and changed");
    }
    if bytes != built {
        let kind = bytes.get(if side.version == Version::V4 { 9 } else { 6 });
        if matches!(kind, Some(1 | 58)) {
            judge_error(&bytes, &packet.bytes, !error.received);
        }
        return;
    }
    judge_error(&bytes, &packet.bytes, !error.received);
    assert!(!error.nested, "an error about an error");
    // A whole checksum field, or none: of half a field nothing right can be said.
    let other = if error.received {
        table.control.get_by_wire(&table.engine, &side).map(|owner| owner.stack)
    } else {
        table.control.get(&table.engine, &side).map(|binding| binding.wire)
    };
    let Some(other) = other else { return };
    let quoted = packet.bytes.len().saturating_sub(built.len().saturating_sub(usize::from(error.length)));
    if error.shape.is_plain() && quoted >= 64 && error.length >= 64 {
        let expected = if error.received {
            // The message's own addresses stay.
            let mut quote = error.shape.build(&other);
            quote.truncate(usize::from(error.length));
            message(side.version, error.kind, error.code, &local(side.version, 77), &side.local, &quote)
        } else {
            error.build(&other)
        };
        assert_eq!(packet.bytes, expected, "not what the other side would have quoted");
    }
}

//! Target `packets`.

use crate::oracle::{Layout, is_sound, judge_error, judge_segment, turned};
use crate::packet::{Bytes, Shape, reversed};
use crate::table::{Command, Pick, Table, chosen};
use arbitrary::{Arbitrary, Unstructured};
use mobconn_engine::{Checksum, DropReason, Engine, Verdict, Version};

#[derive(Arbitrary, Debug)]
struct Case {
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Command(Command),
    Packet(Shot),
    Raw { bytes: Vec<u8>, v6: bool, received: bool, split: u8 },
}

/// A packet to be translated.
#[derive(Arbitrary, Debug)]
struct Shot {
    flow: Pick,
    received: bool,
    shape: Shape,
    split: u8,
    state: u8,
    sum: u16,
    fail: bool,
    /// For newcomers: which ports are busy, and a random number.
    busy: u8,
    chance: u16,
    /// Bytes changed afterwards.
    edits: Vec<(u16, u8)>,
}

/// Runs the target.
pub(crate) fn run(data: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let mut table = Table::new(6);
    for step in &case.steps {
        match step {
            Step::Command(command) => {
                table.command(command);
                let _ = table.bindings();
            }
            Step::Packet(shot) => fire(&mut table, shot),
            Step::Raw { bytes, v6, received, split } => {
                let version = if *v6 { Version::V6 } else { Version::V4 };
                let mut packet = Bytes::new(bytes.clone());
                packet.contiguous = usize::from(*split);
                let verdict = translate(&table, &mut packet, version, *received);
                judge(bytes, &packet, verdict, *received);
            }
        }
    }
}

fn translate(table: &Table, packet: &mut Bytes, version: Version, received: bool) -> Verdict {
    if received {
        table.engine.input(packet, version, table.now)
    } else {
        table.engine.output(packet, version, table.now)
    }
}

/// What holds for every packet.
fn judge(before: &[u8], after: &Bytes, verdict: Verdict, received: bool) {
    if verdict != Verdict::Translated {
        assert_eq!(after.bytes, before, "{verdict:?}, and changed");
        assert!(verdict != Verdict::Gone || after.fail, "gone without need");
        return;
    }
    let layout = Layout::of(before, 0).expect("what was translated has headers");
    if matches!(layout.protocol, 1 | 58) {
        judge_error(before, &after.bytes, !received);
    } else {
        judge_segment(before, &after.bytes, after.state == Checksum::Pseudo);
    }
}

fn fire(table: &mut Table, shot: &Shot) {
    let side = shot.flow.side();
    let mut bytes = shot.shape.build(&if shot.received { reversed(&side) } else { side });
    let mut edited = false;
    for (at, value) in &shot.edits {
        if let Some(byte) = bytes.get_mut(usize::from(*at)) {
            edited |= *byte != *value;
            *byte = *value;
        }
    }
    let mut packet = Bytes::new(bytes.clone());
    packet.contiguous = usize::from(shot.split);
    packet.fail = shot.fail;
    packet.sum = shot.sum;
    packet.state = match (shot.state % 3, shot.received) {
        (1, false) => Checksum::Pseudo,
        (1, true) => Checksum::DataValid,
        _ => Checksum::Complete,
    };
    let version = packet.version();
    let mut verdict = translate(table, &mut packet, version, shot.received);
    judge(&bytes, &packet, verdict, shot.received);
    if verdict == Verdict::Displace && displaced(table, shot, &mut packet) {
        verdict = translate(table, &mut packet, version, shot.received);
        judge(&bytes, &packet, verdict, shot.received);
        assert_ne!(verdict, Verdict::Displace, "displaced for ever");
    }
    if packet.state == Checksum::DataValid {
        judge_data_valid(&bytes, &packet, shot.sum, verdict);
    }
    if verdict == Verdict::Translated && packet.state == Checksum::Complete {
        judge_back(table, shot, &bytes, &packet);
    }
    if edited || !shot.shape.is_plain() || shot.fail {
        return;
    }
    let after = Layout::of(&packet.bytes, 0).and_then(|layout| layout.side(&packet.bytes)).expect("plain");
    let after = if shot.received { reversed(&after) } else { after };
    if shot.received {
        match table.control.get_by_wire(&table.engine, &side) {
            Some(owner) if verdict == Verdict::Translated => assert_eq!(after, owner.stack, "of another flow"),
            Some(owner) => {
                let excused = matches!(verdict, Verdict::Drop(_) | Verdict::Displace);
                assert!(owner.stack == side || excused, "{verdict:?}");
            }
            None => assert!(matches!(verdict, Verdict::Pass | Verdict::Drop(_) | Verdict::Displace), "{verdict:?}"),
        }
    } else {
        match table.control.get(&table.engine, &side) {
            Some(binding) if verdict == Verdict::Translated => {
                assert_eq!(after, binding.wire);
                let owner = table.control.get_by_wire(&table.engine, &after).expect("an owner");
                assert_eq!(owner.id, binding.id, "sent with another flow's wire side");
            }
            Some(binding) => {
                let kept = matches!(verdict, Verdict::Hold { .. } | Verdict::Drop(DropReason::Stray));
                assert!(binding.wire == side || kept, "{verdict:?}");
            }
            None => assert!(matches!(verdict, Verdict::Pass | Verdict::Displace | Verdict::Drop(DropReason::Stray))),
        }
    }
}

/// Makes room for the packet's connection; whether it may be tried again.
fn displaced(table: &mut Table, shot: &Shot, packet: &mut Bytes) -> bool {
    packet.fail = false;
    let side = Engine::newcomer(packet, packet.version(), shot.received).expect("a newcomer has a side");
    let before = table.control.len();
    let busy = |side: &mobconn_engine::Side| chosen(side, shot.busy);
    let done = table.control.displace(&table.engine, &side, shot.received, busy, shot.chance, table.now).is_ok();
    assert!(done || table.control.len() == before, "refused, and yet done");
    done
}

/// What the hardware summed, the segment, stays what the packet has.
fn judge_data_valid(before: &[u8], after: &Bytes, sum: u16, verdict: Verdict) {
    let layout = Layout::of(before, 0).filter(|layout| matches!(layout.protocol, 6 | 17));
    let (Verdict::Translated, Some(layout)) = (verdict, layout) else {
        return assert_eq!(after.sum, sum, "the sum of an untouched packet");
    };
    if layout.protocol == 17 && before[layout.check()] == [0, 0] {
        return;
    }
    let rest = |bytes: &[u8], sum: u16| {
        // Minus what was summed: the same before and after.
        let [a, b] = (!sum).to_be_bytes();
        crate::oracle::sum(
            &[&bytes[layout.transport..layout.end], &[0; 1][..(layout.end - layout.transport) % 2], &[a, b]].concat(),
        )
    };
    assert_eq!(rest(before, sum), rest(&after.bytes, after.sum), "the hardware's sum");
}

/// The packet goes back through the other direction, as if the other end had turned it round.
fn judge_back(table: &Table, shot: &Shot, before: &[u8], there: &Bytes) {
    if Layout::of(before, 0).is_none_or(|layout| matches!(layout.protocol, 1 | 58)) {
        return;
    }
    let mut back = Bytes::new(turned(&there.bytes));
    let version = there.version();
    let verdict = translate(table, &mut back, version, !shot.received);
    if shot.received {
        // The flow may be held, or have another wire side in use than the one that it accepted.
        if verdict == Verdict::Translated {
            judge_segment(&turned(&there.bytes), &back.bytes, false);
        }
        return;
    }
    let layout = Layout::of(before, 0).expect("what was translated has headers");
    let flags = if layout.protocol == 6 { before[layout.transport + 13] } else { 0 };
    // What comes back is another packet: one that begins or ends a connection may be judged otherwise.
    if flags & 0x06 != 0 && matches!(verdict, Verdict::Displace | Verdict::Drop(DropReason::PendingRst)) {
        return;
    }
    assert_eq!(verdict, Verdict::Translated, "the way back");
    let home = turned(&back.bytes);
    if is_sound(before) {
        assert_eq!(home, before, "there and back");
    } else {
        judge_segment(before, &home, false);
    }
}

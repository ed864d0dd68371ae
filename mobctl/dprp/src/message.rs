//! Messages: what a sealed datagram holds.
//! Formats: `PROTOCOL.md`, section "Messages".

use crate::codec::{Range, Reader, Writer, version};
use crate::host::{Flow, Protocol};
use crate::notice::{ClaimStatus, MoveRefusal, Refusal};
use crate::wire::MESSAGE_MAX;
use std::net::{IpAddr, SocketAddr};

/// A proof that its sender received what was sent to an address.
pub(crate) type Token = [u8; 16];

/// Most ranges in one message.
pub(crate) const RANGES_MAX: usize = 128;
/// Most bundles that one move names.
pub(crate) const BUNDLES_MAX: usize = 32;
/// Most refused ranges in one part of a commit.
pub(crate) const REFUSED_MAX: usize = 128;
/// Length of the fields of a Claim before its flows.
const CLAIM_HEAD: usize = 1 + 4 + 2 + 1;

/// Flows of this family that fit one Claim.
pub(crate) const fn claim_capacity(v4: bool) -> usize {
    (MESSAGE_MAX - CLAIM_HEAD) / if v4 { 1 + 2 + 2 + 4 + 4 } else { 1 + 2 + 2 + 16 + 16 }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The responder has the association. Also answers a repeated Finish.
    Ready,
    /// Is the association still known?
    Ping { nonce: u32 },
    /// It is.
    Pong { nonce: u32 },
    /// ACG (claim): the flows get the numbers `first`, `first + 1`, ...
    Claim { first: u32, bundle: u16, flows: Vec<Flow> },
    /// MCI (challenge) of a claim.
    ClaimChallenge { first: u32, token: Token },
    /// ACG (response) of a claim.
    ClaimProof { first: u32, token: Token },
    /// MCI (commit) of a claim: what became of each flow.
    ClaimAck { first: u32, statuses: Vec<ClaimStatus> },
    /// These claims have ended.
    Release { serial: u32, ranges: Vec<Range> },
    /// Taken note.
    Released { serial: u32 },
    /// ACG (move).
    Move(Move),
    /// MCI (challenge). `refused`: how many of the selected claims do not take part; of the others, input accepts the new
    /// wire side from now on.
    MoveChallenge { number: u32, token: Token, refused: u32 },
    /// ACG (response).
    MoveResponse { number: u32, token: Token },
    /// MCI (commit): one of `parts` parts.
    MoveCommit { number: u32, part: u16, parts: u16, refused: Vec<(Range, Stays)> },
    /// MCI (refusal): nothing moves.
    MoveRefused { number: u32, reason: MoveRefusal },
}

/// What a mover asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) number: u32,
    /// The mover can still be reached at `old`.
    pub(crate) old_usable: bool,
    pub(crate) old: IpAddr,
    pub(crate) new: IpAddr,
    pub(crate) former: Option<Former>,
    pub(crate) selection: Selection,
}

/// The move that a mover was about to complete when it moved on: the token proves that it received at that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Former {
    pub(crate) number: u32,
    pub(crate) token: Token,
}

/// Which claims move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of these bundles but those in `except`: `count` claims, whose numbers sum up to `digest`.
    Bundles { bundles: Vec<u16>, except: Vec<Range>, count: u32, digest: u64 },
    /// Exactly these.
    Listed { ranges: Vec<Range> },
}

impl Selection {
    /// Whether it means no claims at all: such a move only tells an address.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Bundles { count: 0, .. })
    }
}

/// Digest of a set of claim numbers: it tells whether two ends mean the same set. Not secret, not a hash against an
/// adversary: both numbers are the mover's own.
pub(crate) fn digest(ids: impl IntoIterator<Item = u32>) -> u64 {
    ids.into_iter().fold(0, |sum: u64, id| {
        let mut x = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        sum.wrapping_add(x ^ (x >> 32))
    })
}

const READY: u8 = 1;
const PING: u8 = 2;
const PONG: u8 = 3;
const CLAIM: u8 = 4;
const CLAIM_CHALLENGE: u8 = 5;
const CLAIM_PROOF: u8 = 6;
const CLAIM_ACK: u8 = 7;
const RELEASE: u8 = 8;
const RELEASED: u8 = 9;
const MOVE: u8 = 10;
const MOVE_CHALLENGE: u8 = 11;
const MOVE_RESPONSE: u8 = 12;
const MOVE_COMMIT: u8 = 13;
const MOVE_REFUSED: u8 = 14;

const OLD_USABLE: u8 = 1;
const FORMER: u8 = 2;
const BY_BUNDLES: u8 = 0;
const BY_LIST: u8 = 1;
const TCP: u8 = 1;
const UDP: u8 = 2;

impl Message {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let w = &mut writer;
        match self {
            Self::Ready => w.u8(READY),
            Self::Ping { nonce } => w.u8(PING).u32(*nonce),
            Self::Pong { nonce } => w.u8(PONG).u32(*nonce),
            Self::Claim { first, bundle, flows } => w.u8(CLAIM).u32(*first).u16(*bundle).list(flows, write_flow),
            Self::ClaimChallenge { first, token } => w.u8(CLAIM_CHALLENGE).u32(*first).bytes(token),
            Self::ClaimProof { first, token } => w.u8(CLAIM_PROOF).u32(*first).bytes(token),
            Self::ClaimAck { first, statuses } => w.u8(CLAIM_ACK).u32(*first).list(statuses, |w, status| {
                w.u8(*status as u8);
            }),
            Self::Release { serial, ranges } => w.u8(RELEASE).u32(*serial).list(ranges, write_range),
            Self::Released { serial } => w.u8(RELEASED).u32(*serial),
            Self::Move(request) => {
                w.u8(MOVE);
                request.write(w)
            }
            Self::MoveChallenge { number, token, refused } => {
                w.u8(MOVE_CHALLENGE).u32(*number).bytes(token).u32(*refused)
            }
            Self::MoveResponse { number, token } => w.u8(MOVE_RESPONSE).u32(*number).bytes(token),
            Self::MoveCommit { number, part, parts, refused } => {
                w.u8(MOVE_COMMIT).u32(*number).u16(*part).u16(*parts).list(refused, |w, (range, stays)| {
                    write_range(w, range);
                    w.u8(stays.raw());
                })
            }
            Self::MoveRefused { number, reason } => w.u8(MOVE_REFUSED).u32(*number).u8(*reason as u8),
        };
        writer.0
    }

    /// Reads a message; `None` unless every byte is as [`Self::write`] would have written it.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        let message = match r.u8()? {
            READY => Self::Ready,
            PING => Self::Ping { nonce: r.u32()? },
            PONG => Self::Pong { nonce: r.u32()? },
            CLAIM => {
                let (first, bundle) = (r.u32()?, r.u16()?);
                let flows = read_list(r, u8::MAX.into(), read_flow)?;
                // The last number must exist.
                let last = u32::try_from(flows.len()).ok()?.checked_sub(1)?;
                first.checked_add(last)?;
                Self::Claim { first, bundle, flows }
            }
            CLAIM_CHALLENGE => Self::ClaimChallenge { first: r.u32()?, token: r.array()? },
            CLAIM_PROOF => Self::ClaimProof { first: r.u32()?, token: r.array()? },
            CLAIM_ACK => {
                let first = r.u32()?;
                Self::ClaimAck { first, statuses: read_list(r, u8::MAX.into(), |r| ClaimStatus::from_raw(r.u8()?))? }
            }
            RELEASE => Self::Release { serial: r.u32()?, ranges: read_ranges(r)? },
            RELEASED => Self::Released { serial: r.u32()? },
            MOVE => Self::Move(Move::parse(r)?),
            MOVE_CHALLENGE => Self::MoveChallenge { number: r.u32()?, token: r.array()?, refused: r.u32()? },
            MOVE_RESPONSE => Self::MoveResponse { number: r.u32()?, token: r.array()? },
            MOVE_COMMIT => {
                let (number, part, parts) = (r.u32()?, r.u16()?, r.u16()?);
                let refused = read_list(r, REFUSED_MAX, |r| Some((read_range(r)?, Stays::from_raw(r.u8()?)?)))?;
                (part < parts).then_some(Self::MoveCommit { number, part, parts, refused })?
            }
            MOVE_REFUSED => Self::MoveRefused { number: r.u32()?, reason: MoveRefusal::from_raw(r.u8()?)? },
            _ => return None,
        };
        reader.end(message)
    }
}

impl Move {
    fn write<'w>(&self, w: &'w mut Writer) -> &'w mut Writer {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.old_usable, OLD_USABLE) | flag(self.former.is_some(), FORMER);
        w.u32(self.number).u8(flags).address(self.old).address(self.new);
        if let Some(former) = self.former {
            w.u32(former.number).bytes(&former.token);
        }
        match &self.selection {
            Selection::Bundles { bundles, except, count, digest } => w
                .u8(BY_BUNDLES)
                .u32(*count)
                .u64(*digest)
                .list(bundles, |w, bundle| {
                    w.u16(*bundle);
                })
                .list(except, write_range),
            Selection::Listed { ranges } => w.u8(BY_LIST).list(ranges, write_range),
        }
    }

    fn parse(r: &mut Reader<'_>) -> Option<Self> {
        let number = r.u32()?;
        let flags = r.u8()?;
        if flags & !(OLD_USABLE | FORMER) != 0 {
            return None;
        }
        let old_usable = flags & OLD_USABLE != 0;
        let (old, new) = (r.address()?, r.address()?);
        let former = if flags & FORMER == 0 { None } else { Some(Former { number: r.u32()?, token: r.array()? }) };
        let selection = match r.u8()? {
            BY_BUNDLES => {
                let (count, digest) = (r.u32()?, r.u64()?);
                let bundles = read_list(r, BUNDLES_MAX, |r| r.u16())?;
                if !bundles.is_sorted_by(|a, b| a < b) {
                    return None;
                }
                Selection::Bundles { bundles, except: read_ranges(r)?, count, digest }
            }
            // A challenge must not be longer than what asks for it: no list is empty.
            BY_LIST => {
                Some(read_ranges(r)?).filter(|ranges| !ranges.is_empty()).map(|ranges| Selection::Listed { ranges })?
            }
            _ => return None,
        };
        (number != 0).then_some(Self { number, old_usable, old, new, former, selection })
    }
}

fn read_list<T>(r: &mut Reader<'_>, most: usize, mut each: impl FnMut(&mut Reader<'_>) -> Option<T>) -> Option<Vec<T>> {
    let count = usize::from(r.u8()?);
    if count > most {
        return None;
    }
    (0..count).map(|_| each(r)).collect()
}

/// In a reason: the flow stands where the former move led.
const AT_FORMER: u8 = 0x80;

/// Why a flow did not move, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stays {
    pub(crate) reason: Refusal,
    /// The former move, which the refused one named, was made for it.
    pub(crate) at_former: bool,
}

impl Stays {
    pub(crate) fn raw(self) -> u8 {
        self.reason as u8 | if self.at_former { AT_FORMER } else { 0 }
    }

    pub(crate) fn from_raw(value: u8) -> Option<Self> {
        Some(Self { reason: Refusal::from_raw(value & !AT_FORMER)?, at_former: value & AT_FORMER != 0 })
    }
}

impl From<Refusal> for Stays {
    fn from(reason: Refusal) -> Self {
        Self { reason, at_former: false }
    }
}

fn write_range(w: &mut Writer, range: &Range) {
    w.u32(range.first).u32(range.last);
}

fn read_range(r: &mut Reader<'_>) -> Option<Range> {
    let range = Range { first: r.u32()?, last: r.u32()? };
    (range.first <= range.last).then_some(range)
}

/// Ranges that ascend and leave a gap between each other: there is one way to write a set.
fn read_ranges(r: &mut Reader<'_>) -> Option<Vec<Range>> {
    let ranges = read_list(r, RANGES_MAX, read_range)?;
    ranges.is_sorted_by(|a, b| a.last.checked_add(1).is_some_and(|next| next < b.first)).then_some(ranges)
}

pub(crate) fn write_flow(w: &mut Writer, flow: &Flow) {
    let protocol = match flow.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    w.u8((version(flow.local.ip()) << 4) | protocol).u16(flow.local.port()).u16(flow.remote.port());
    w.ip(flow.local.ip()).ip(flow.remote.ip());
}

pub(crate) fn read_flow(r: &mut Reader<'_>) -> Option<Flow> {
    let kind = r.u8()?;
    let protocol = match kind & 0x0f {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        _ => return None,
    };
    let (local_port, remote_port) = (r.u16()?, r.u16()?);
    let (local, remote) = (r.ip(kind >> 4)?, r.ip(kind >> 4)?);
    Some(Flow { local: SocketAddr::new(local, local_port), remote: SocketAddr::new(remote, remote_port), protocol })
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;

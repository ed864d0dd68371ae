//! What the engine asks of a packet, and what it answers.

/// The packet was freed by the attempt to reshape it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// State of the transport checksum of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The field holds the whole checksum, verified or not.
    Complete,
    /// To be sent, and something later finishes it: the field holds the sum
    /// of the pseudo header, not complemented.
    Pseudo,
    /// Received, and the hardware summed the segment without its pseudo
    /// header: besides the field, that sum must be kept right.
    DataValid,
}

/// A packet that begins with its IP header.
pub trait Packet {
    /// The bytes that lie contiguous at the start.
    fn head(&self) -> &[u8];

    /// Length of the whole packet in bytes.
    fn total(&self) -> usize;

    /// Makes the first `len` bytes contiguous; `len` is at most `total()`.
    ///
    /// # Errors
    /// [`Gone`] when memory is short.
    fn pull(&mut self, len: usize) -> Result<(), Gone>;

    /// The first `len` bytes, contiguous and this packet's alone, so that
    /// they may change. May return more.
    ///
    /// # Errors
    /// [`Gone`] when memory is short.
    fn writable(&mut self, len: usize) -> Result<&mut [u8], Gone>;

    /// State of the transport checksum.
    fn checksum(&self) -> Checksum;

    /// Adds `by` (one's complement) to the hardware's sum;
    /// for [`Checksum::DataValid`] only.
    fn shift_sum(&mut self, by: u16);
}

/// What is to become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Goes on as it came.
    Pass,
    /// Goes on as it came, for a reason worth counting.
    PassCounted(PassReason),
    /// Goes on with the headers of the other side.
    Translated,
    /// Its flow's move is not committed yet and the old path is gone: to be
    /// kept until then, and tried again, or dropped.
    Hold {
        /// A number that the packets of one binding have in common.
        flow: u32,
    },
    /// It begins a connection that needs another port, see
    /// [`Engine::newcomer`](crate::Engine::newcomer): to be kept until it has
    /// one, and tried again, or dropped.
    Displace,
    /// A received fragment: the whole datagram is needed, to be tried then.
    Reassemble {
        /// IPv6: where the fragment header lies.
        offset: usize,
    },
    /// To be freed and counted, silently.
    Drop(DropReason),
    /// Was freed already, for short memory.
    Gone,
}

/// Why a packet passed untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassReason {
    /// Of a bound flow, with a source route or routing header.
    Options,
    /// Its headers contradict themselves.
    Malformed,
    /// IPsec has sealed it: what it carries cannot be told.
    Ipsec,
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// An RST on a wire side that is not committed yet.
    PendingRst,
    /// It has a side of a bound flow without being of it.
    Stray,
    /// Its flow changed too often while it was looked up.
    Contended,
}

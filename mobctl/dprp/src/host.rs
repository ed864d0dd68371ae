//! What the protocol asks of the host it runs on: connections and the kernel.

use std::net::{IpAddr, SocketAddr};

/// Transport protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Which half of a flow's wire side a rebind changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Half {
    /// This host's address.
    Local,
    /// The peer's address.
    Remote,
}

/// A flow by one of its sides, mostly the stack side, in this host's direction. Both addresses are of
/// one family; IPv6 addresses carry neither scope nor flow label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// This host's address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl Flow {
    /// The same flow as the other end sees it.
    #[must_use]
    pub const fn mirrored(&self) -> Self {
        Self { local: self.remote, remote: self.local, protocol: self.protocol }
    }
}

/// Why the kernel did not do as asked for one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// No such binding, or no such pending move.
    NotFound,
    /// A newer move of this half is there already.
    Stale,
    /// Another flow has that wire side.
    Conflict,
    /// The table is full, or memory is short.
    Full,
    /// Any other error number.
    Other(i32),
}

/// The host, asked synchronously while the endpoint handles something.
///
/// `prepare`, `commit` and `abort` get any number of flows at once and return
/// one result per flow, in order; a result that is missing counts as
/// [`KernelError::Other`]. Repeating a call is harmless.
pub trait Host {
    /// The instance of the live connection whose stack side is `flow`: a
    /// number that no other connection of this boot has (`inp_gencnt`, socket
    /// cookie).
    fn instance(&mut self, flow: &Flow) -> Option<u64>;

    /// The wire side now of the flow whose stack side is `flow`, if it is
    /// bound. Its ports may differ, too.
    fn wire(&mut self, flow: &Flow) -> Option<Flow>;

    /// The stack side of the bound flow that accepts the wire side `wire` on
    /// input. `None`: what arrives so is not translated, and both sides are
    /// equal unless another flow has that stack side.
    fn stack(&mut self, wire: &Flow) -> Option<Flow>;

    /// Prepares a move of `half` to `new`: from now on that wire side is
    /// accepted on input. `hold`: nothing of these flows is sent before commit,
    /// because the old path is gone. Each flow comes with its generation; a
    /// higher one supersedes what is pending.
    fn prepare(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>>;

    /// As [`Host::prepare`], where that said [`KernelError::Conflict`]: the new address is proved to be the mover's by
    /// now, so the wire side becomes this flow's, and whoever had it is cut off from it until he moves. A host that
    /// cannot do that refuses.
    fn take(&mut self, half: Half, new: IpAddr, hold: bool, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>> {
        let _ = (half, new, hold);
        vec![Err(KernelError::Conflict); moves.len()]
    }

    /// Commits what was prepared with these generations.
    fn commit(&mut self, half: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>>;

    /// Takes back what was prepared with these generations.
    fn abort(&mut self, half: Half, moves: &[(Flow, u32)]) -> Vec<Result<(), KernelError>>;
}

//! What goes into the IP layer and what comes out.

use crate::errno::Errno;

/// How a packet is handed to [`Vnet::ip_output`](crate::Vnet::ip_output).
#[derive(Clone, Debug)]
pub struct Tx<'a> {
    /// Interface that the route of the packet's destination leads to, while the VNET has no routes of its own.
    pub ifname: &'a str,
    /// The transport checksum is delayed: the layer above has put the pseudo header sum into the field (this is done
    /// here, whatever the field held), and the IP layer finishes it after the hooks.
    pub offload: bool,
    /// Segment size when the packet is to be cut by the interface (TSO); implies `offload`. TCP only.
    pub tso: Option<u16>,
    /// The packet comes from a socket, whose locked inpcb the hooks are given.
    pub socket: bool,
}

impl<'a> Tx<'a> {
    /// A packet of a socket that leaves by `ifname`, its checksum complete.
    #[must_use]
    pub const fn new(ifname: &'a str) -> Self {
        Self { ifname, offload: false, tso: None, socket: true }
    }

    /// The same with a delayed checksum.
    #[must_use]
    pub const fn offload(mut self) -> Self {
        self.offload = true;
        self
    }
}

/// What became of a packet given to [`Vnet::ip_output`](crate::Vnet::ip_output).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// It goes out.
    Send(Sent),
    /// A hook made its destination an address of this host: it came back up, with this result.
    Loop(Box<Input>),
    /// A hook took it.
    Consumed,
    /// The caller is told this error: `EACCES` when a hook dropped it, `EHOSTUNREACH` without a route, `EMSGSIZE`
    /// when it is too long and must not be fragmented, `ENOBUFS`.
    Dropped(Errno),
}

/// A packet on its way to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The packet, checksums finished; several if it was fragmented or, with TSO, cut.
    pub packets: Vec<Vec<u8>>,
    /// Interface that it leaves by.
    pub ifname: String,
    /// A hook changed its destination.
    pub destination_changed: bool,
    /// A hook forced its next hop (`PACKET_TAG_IPFORWARD`), which `ifname` leads to.
    pub forced: bool,
    /// How often the output hooks ran.
    pub passes: u32,
}

impl Sent {
    /// The packet, when there is exactly one.
    #[must_use]
    pub fn single(&self) -> Option<&[u8]> {
        match self.packets.as_slice() {
            [packet] => Some(packet),
            _ => None,
        }
    }
}

/// What the interface says about the transport checksum of a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxChecksum {
    /// Nothing: the transport protocol verifies it.
    Unchecked,
    /// Verified, pseudo header included (`CSUM_DATA_VALID | CSUM_PSEUDO_HDR`). The caller answers for it.
    Valid,
    /// The sum over the transport header and data is in `csum_data`, without pseudo header (`CSUM_DATA_VALID`).
    Data,
}

/// How a packet is handed to [`Vnet::ip_input`](crate::Vnet::ip_input).
#[derive(Clone, Debug)]
pub struct Rx<'a> {
    /// Interface that it came from.
    pub ifname: &'a str,
    /// What the interface says about its checksum.
    pub checksum: RxChecksum,
    /// It came by a bridge that runs the hooks on what is for this host, before the IP layer does
    /// (`net.link.bridge.pfil_local_phys`).
    pub bridged: bool,
}

impl<'a> Rx<'a> {
    /// A packet from `ifname`, its checksum unchecked.
    #[must_use]
    pub const fn new(ifname: &'a str) -> Self {
        Self { ifname, checksum: RxChecksum::Unchecked, bridged: false }
    }
}

/// What became of a packet given to [`Vnet::ip_input`](crate::Vnet::ip_input).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// It goes to the transport protocol.
    Deliver(Delivered),
    /// It is for somebody else, and this host forwards.
    Forward(Sent),
    /// A hook took or dropped it.
    Consumed,
    /// The IP layer dropped it.
    Dropped(DropCause),
}

/// A packet on its way to the transport protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The packet.
    pub packet: Vec<u8>,
    /// What tcp_input or udp_input would find: true for a good transport checksum, judged by the packet's checksum
    /// state first and the field second, as they do. True for fragments, which are judged after reassembly.
    pub checksum_ok: bool,
    /// A hook said that the packet is for this host (`M_FASTFWD_OURS`); the local addresses were not asked.
    pub ours: bool,
}

/// Why the IP layer dropped a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// Malformed, or with a bad IP header checksum.
    Malformed,
    /// An address that must not be on the wire.
    BadAddress,
    /// Not for this host, which does not forward.
    NotOurs,
    /// Forwarding found no route, or the hop limit is used up.
    Unforwardable,
    /// No memory.
    NoMemory,
}

/// A packet that came out of the IP layer when nobody had handed one in: a module sent it on its own, or it came up from
/// a queue of netisr(9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A module called ip_output or ip6_output.
    Sent(Output),
    /// It came up.
    Received(Input),
}

/// One entry of a VNET's routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination prefix.
    pub prefix: std::net::IpAddr,
    /// Its length in bits.
    pub length: u8,
    /// Interface.
    pub ifname: String,
}

/// User memory that a pointer in an ioctl argument refers to. copyin(9) and copyout(9) reach nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Address in the emulated user space.
    pub address: u64,
    /// The memory; copyout changes it.
    pub bytes: Vec<u8>,
}

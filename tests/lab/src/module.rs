//! A host with mobconn: a network stack of the emulated FreeBSD machine.

use crate::cable::Random;
use crate::kernel::{Input, Kernel, Output, Region};
use mobconn_kpi::{Input as Received, Output as Sent, Rx, RxChecksum, Tx, Vnet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// What interfaces do about transport checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: the stack sums and verifies.
    None,
    /// Everything that they can, by turns: delayed checksums out, verified and half verified ones in, and none.
    Mixed,
}

/// One network stack, with the module in its packet path.
#[derive(Debug)]
pub struct Module {
    vnet: Vnet,
    offload: Offload,
    turn: AtomicU64,
    /// Packets that came to the transport protocol with a wrong checksum.
    pub spoiled: AtomicU64,
    /// Packets that ip_output refused.
    pub refused: AtomicU64,
}

impl Module {
    /// The packet path of `vnet`.
    #[must_use]
    pub fn new(vnet: Vnet, offload: Offload) -> Self {
        Self { vnet, offload, turn: AtomicU64::new(0), spoiled: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// A number that differs from packet to packet.
    fn turn(&self) -> u64 {
        if self.offload == Offload::None {
            return 0;
        }
        Random(self.turn.fetch_add(1, Ordering::Relaxed)).next_u64()
    }

    fn up(&self, received: Received) -> Input {
        let Received::Deliver(delivered) = received else { return Input::Nothing };
        if !delivered.checksum_ok {
            self.spoiled.fetch_add(1, Ordering::Relaxed);
        }
        Input::Deliver(delivered.packet)
    }
}

impl Kernel for Module {
    fn output(&self, packet: &[u8], interface: &str) -> Output {
        let mut tx = Tx::new(interface);
        if self.turn() % 2 == 1 {
            tx = tx.offload();
        }
        match self.vnet.ip_output(packet, &tx) {
            Sent::Send(sent) => Output::Send { packets: sent.packets, rerouted: sent.destination_changed },
            Sent::Loop(received) => match self.up(*received) {
                Input::Deliver(packet) => Output::Loop(packet),
                Input::Nothing => Output::Nothing,
            },
            Sent::Consumed => Output::Nothing,
            Sent::Dropped(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Output::Nothing
            }
        }
    }

    fn input(&self, packet: &[u8], interface: &str) -> Input {
        let mut rx = Rx::new(interface);
        rx.checksum = match self.turn() % 3 {
            0 => RxChecksum::Unchecked,
            1 => RxChecksum::Valid,
            _ => RxChecksum::Data,
        };
        self.up(self.vnet.ip_input(packet, &rx))
    }

    fn set_local(&self, addresses: &[IpAddr]) {
        self.vnet.set_local(addresses);
    }

    fn ioctl(&self, fflag: u32, command: u32, argument: &mut [u8], regions: &mut [Region]) -> Result<(), u32> {
        self.vnet.ioctl(fflag, command, argument, regions).map_err(|errno| errno.0.unsigned_abs())
    }
}

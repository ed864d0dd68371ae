//! A host with mobconn: a network stack of the emulated FreeBSD machine.

use crate::cable::Random;
use crate::kernel::{By, Input, Kernel, Output, Place, Reader, Region};
use crate::resume::Extra;
use mobconn_kpi::{Errno, Event, File, Input as Received, Output as Sent, Rx, RxChecksum, Tx, Vnet};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    pub spoiled: Arc<AtomicU64>,
    /// Packets that ip_output refused.
    pub refused: AtomicU64,
    mtus: Mutex<HashMap<String, u32>>,
}

impl Module {
    /// The packet path of `vnet`.
    #[must_use]
    pub fn new(vnet: Vnet, offload: Offload) -> Self {
        Self {
            vnet,
            offload,
            turn: AtomicU64::new(0),
            spoiled: Arc::default(),
            refused: AtomicU64::new(0),
            mtus: Mutex::default(),
        }
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

/// Which way packets leave.
fn by(sent: &mobconn_kpi::Sent) -> By {
    match (sent.forced, sent.destination_changed) {
        (true, _) => By::Interface(sent.ifname.clone()),
        (false, true) => By::Route,
        (false, false) => By::Device,
    }
}

impl Kernel for Module {
    fn output(&self, packet: &[u8], interface: &str) -> Output {
        let mut tx = Tx::new(interface);
        if self.turn() % 2 == 1 {
            tx = tx.offload();
        }
        match self.vnet.ip_output(packet, &tx) {
            Sent::Send(sent) => {
                let by = by(&sent);
                Output::Send { packets: sent.packets, by }
            }
            Sent::Loop(received) => match self.up(*received) {
                Input::Deliver(packet) => Output::Loop(packet),
                Input::Nothing => Output::Nothing,
            },
            Sent::Consumed => Output::Nothing,
            Sent::Dropped(Errno::EMSGSIZE) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let mtus = self.mtus.lock().unwrap_or_else(PoisonError::into_inner);
                // By the interface that it would have left by, or the smallest that there is.
                let mtu = mtus.values().copied().min().unwrap_or(1500);
                Output::TooBig(mtu.try_into().unwrap_or(u16::MAX))
            }
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

    fn join(&self, place: Place) {
        let Place { connections, routes, interfaces, sink } = place;
        self.vnet.set_connection_source(connections);
        for (index, name) in &interfaces {
            self.vnet.set_index(name, (*index).try_into().unwrap_or(u16::MAX));
        }
        self.vnet.set_router(move |destination| {
            let index = routes.interface(destination)?;
            interfaces.iter().find(|(each, _)| *each == index).map(|(_, name)| name.clone())
        });
        let spoiled = Arc::clone(&self.spoiled);
        self.vnet.set_listener(move |event| {
            let extra = match event {
                Event::Sent(Sent::Send(sent)) => match by(&sent) {
                    By::Device => Extra::Send(sent.packets, By::Route),
                    by => Extra::Send(sent.packets, by),
                },
                Event::Received(Received::Deliver(delivered)) => {
                    if !delivered.checksum_ok {
                        spoiled.fetch_add(1, Ordering::Relaxed);
                    }
                    Extra::Deliver(delivered.packet)
                }
                _ => return,
            };
            sink.put(extra);
        });
    }

    fn set_mtu(&self, interface: &str, mtu: u32) {
        self.vnet.set_mtu(interface, mtu);
        self.mtus.lock().unwrap_or_else(PoisonError::into_inner).insert(interface.to_owned(), mtu);
    }

    fn set_local(&self, addresses: &[IpAddr]) {
        self.vnet.set_local(addresses);
    }

    fn ioctl(&self, fflag: u32, command: u32, argument: &mut [u8], regions: &mut [Region]) -> Result<(), u32> {
        self.vnet.ioctl(fflag, command, argument, regions).map_err(number)
    }

    fn open(&self) -> Result<Box<dyn Reader>, u32> {
        Ok(Box::new(Events(self.vnet.open("mobconn", 0, FREAD).map_err(number)?)))
    }
}

/// `FREAD` of fcntl(2).
const FREAD: u32 = 1;
const POLLIN: i32 = 1;

struct Events(File);

impl Reader for Events {
    fn read(&self, wait: Duration, buffer: &mut [u8]) -> Result<usize, u32> {
        self.0.poll(POLLIN, wait).map_err(number)?;
        self.0.read(buffer, false).map_err(number)
    }
}

fn number(errno: Errno) -> u32 {
    errno.0.unsigned_abs()
}

//! The machine and its network stacks, as callers see them.

use crate::{Errno, Failures, Input, Options, Output, Region, Route, Rx, Split, Tx};
use std::net::IpAddr;
use std::path::Path;

/// One emulated FreeBSD 14 kernel. A process has at most one at a time: [`Machine::boot`] waits for the last one to be
/// dropped. Dropping it shuts it down and complains about whatever is left.
#[derive(Debug)]
pub struct Machine(());

/// One virtual network stack (VNET) of the machine: what a jail has. A handle; copies refer to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vnet(());

impl Machine {
    /// Boots a machine.
    #[must_use]
    pub fn boot(_options: Options) -> Self {
        Self(())
    }

    /// kldload(8): loads the module file at `path`, with these loader tunables in the kernel environment.
    /// `ENOENT` without such a file, `ENOEXEC` when it cannot be linked (the console says why) or refuses.
    pub fn kldload(&self, _path: &Path, _tunables: &[(&str, &str)]) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// kldunload(8) of the module loaded last, with `-f` if `force`. `ENOENT` when there is none, else what the module answers.
    pub fn kldunload(&self, _force: bool) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// The stack of the host itself.
    #[must_use]
    pub fn vnet0(&self) -> Vnet {
        Vnet(())
    }

    /// Makes another stack, as a jail with `vnet` has it.
    #[must_use]
    pub fn vnet_create(&self) -> Vnet {
        Vnet(())
    }

    /// Value of a sysctl of the host, as sysctl(8) prints it.
    pub fn sysctl_get(&self, name: &str) -> Result<String, Errno> {
        self.vnet0().sysctl_get(name)
    }

    /// Sets a sysctl of the host, from what one would give sysctl(8).
    pub fn sysctl_set(&self, name: &str, value: &str) -> Result<(), Errno> {
        self.vnet0().sysctl_set(name, value)
    }

    /// Changes which allocations fail.
    pub fn set_failures(&self, _failures: Failures) {}

    /// Changes how packets are laid out.
    pub fn set_split(&self, _split: Split) {}

    /// Takes what the module printed and logged since the last call, one line each.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        Vec::new()
    }

    /// mbufs that exist now. 0 after every packet unless the module keeps some.
    #[must_use]
    pub fn mbufs(&self) -> usize {
        0
    }
}

impl Vnet {
    /// Destroys the stack, running the modules' destructors for it. Not for the host's own.
    pub fn destroy(self) {}

    /// Addresses of the emulated interfaces.
    pub fn set_local(&self, _addresses: &[IpAddr]) {}

    /// Replaces the routing table. With an empty one, every packet leaves by the interface that its sender names.
    pub fn set_routes(&self, _routes: &[Route]) {}

    /// Whether this stack forwards packets for others.
    pub fn set_forwarding(&self, _on: bool) {}

    /// MTU of an interface; 1500 unless set.
    pub fn set_mtu(&self, _ifname: &str, _mtu: u32) {}

    /// Sends an IP packet, as ip_output(9) and ip6_output do.
    #[must_use]
    pub fn ip_output(&self, _packet: &[u8], _tx: &Tx<'_>) -> Output {
        Output::Dropped(Errno::ENOSYS)
    }

    /// Receives an IP packet, as ip_input and ip6_input do.
    #[must_use]
    pub fn ip_input(&self, _packet: &[u8], _rx: &Rx<'_>) -> Input {
        Input::Consumed
    }

    /// Opens `/dev/mobconn` with `fflag` (1 for reading, 2 for writing, or both), does one ioctl(2), closes it. `argument`
    /// is the memory that the ioctl's third argument points to.
    pub fn ioctl(
        &self,
        _fflag: u32,
        _command: u32,
        _argument: &mut [u8],
        _regions: &mut [Region],
    ) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Value of a sysctl as this stack sees it.
    pub fn sysctl_get(&self, _name: &str) -> Result<String, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Sets a sysctl from inside this stack.
    pub fn sysctl_set(&self, _name: &str, _value: &str) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
}

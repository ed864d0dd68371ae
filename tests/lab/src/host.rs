//! A host: a namespace, its interfaces, its addresses and its moves.

use crate::error::Result;
use crate::kernel::Kernel;
use crate::ns::Namespace;
use crate::program;
use crate::wire::Wire;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// An access network: one network of each family, the router at number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// For people.
    pub name: &'static str,
    /// IPv4 network, /24.
    pub v4: Ipv4Addr,
    /// IPv6 network, /64.
    pub v6: Ipv6Addr,
}

impl Network {
    /// The IPv4 address of node `number`.
    #[must_use]
    pub fn v4(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.v4.to_bits() | u32::from(number))
    }

    /// The IPv6 address of node `number`.
    #[must_use]
    pub fn v6(&self, number: u8) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.v6.to_bits() | u128::from(number))
    }

    /// The addresses of node `number`, both families.
    #[must_use]
    pub fn addresses(&self, number: u8) -> [IpAddr; 2] {
        [self.v4(number).into(), self.v6(number).into()]
    }
}

/// An interface: a TUN device at the end of a cable.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name on the host.
    pub name: &'static str,
    /// Number of its cable.
    pub cable: usize,
    /// The network at the other end.
    pub network: Network,
}

/// A host of the world.
pub struct Host {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its number among the hosts.
    pub number: usize,
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Its packet path and device.
    pub kernel: Arc<dyn Kernel>,
    wire: Arc<Wire>,
    addresses: Mutex<Vec<IpAddr>>,
}

impl Host {
    /// A host whose interfaces are all down.
    #[must_use]
    pub fn new(
        namespace: Namespace,
        number: usize,
        interfaces: Vec<Interface>,
        kernel: Arc<dyn Kernel>,
        wire: Arc<Wire>,
    ) -> Self {
        Self { namespace, number, interfaces, kernel, wire, addresses: Mutex::new(Vec::new()) }
    }

    /// Its addresses now.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs commands of ip(8) in the host, one a line.
    ///
    /// # Errors
    /// When one fails.
    pub fn ip(&self, commands: &str) -> Result<()> {
        program::run(&self.namespace, &["ip", "-batch", "-"], commands)?;
        Ok(())
    }

    /// Configures an interface as node `number` of its network: link, addresses,
    /// default routes. The cable is still out.
    ///
    /// FreeBSD goes on sending from, and once the module has translated a packet
    /// receiving for, an address that was removed. Linux does so where the
    /// address has a local route of its own, which stays when the address goes.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn configure(&self, interface: &Interface, number: u8) -> Result<()> {
        let (name, network) = (interface.name, &interface.network);
        let (v4, v6) = (network.v4(number), network.v6(number));
        let mut commands = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            commands,
            "link set {name} up\n\
             address add {v4}/24 dev {name}\n\
             address add {v6}/64 dev {name} nodad\n\
             route replace local {v4}/32 dev lo table local metric 10\n\
             route replace local {v6}/128 dev lo table local metric 10\n\
             route add default via {} dev {name} metric {}\n\
             route add default via {} dev {name} metric {}\n",
            network.v4(1),
            100 + interface.cable,
            network.v6(1),
            100 + interface.cable,
        );
        self.ip(&commands)?;
        self.now_has(|addresses| addresses.extend(network.addresses(number)));
        Ok(())
    }

    /// Leaves the network of an interface: its cable is pulled, its addresses
    /// are removed, it goes down.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn leave(&self, interface: &Interface) -> Result<()> {
        let name = interface.name;
        self.wire.plug(interface.cable, false);
        self.ip(&format!("address flush dev {name}\nlink set {name} down\n"))?;
        let network = interface.network;
        self.now_has(|addresses| {
            addresses.retain(|address| match address {
                IpAddr::V4(a) => a.to_bits() >> 8 != network.v4.to_bits() >> 8,
                IpAddr::V6(a) => a.to_bits() >> 64 != network.v6.to_bits() >> 64,
            });
        });
        Ok(())
    }

    /// Becomes another node of the network of an interface, whose addresses
    /// are replaced. The old ones are gone.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn renumber(&self, interface: &Interface, number: u8) -> Result<()> {
        self.leave(interface)?;
        self.configure(interface, number)?;
        Ok(())
    }

    /// Gives an interface that is configured the addresses of node `number` besides.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn add_node(&self, interface: &Interface, number: u8) -> Result<()> {
        let (name, v4, v6) = (interface.name, interface.network.v4(number), interface.network.v6(number));
        self.ip(&format!(
            "address add {v4}/24 dev {name}\n\
             address add {v6}/64 dev {name} nodad\n\
             route replace local {v4}/32 dev lo table local metric 10\n\
             route replace local {v6}/128 dev lo table local metric 10\n"
        ))?;
        self.now_has(|addresses| addresses.extend(interface.network.addresses(number)));
        Ok(())
    }

    /// Takes the addresses of node `number` from an interface, which stays up.
    ///
    /// # Errors
    /// When ip(8) fails.
    pub fn remove_node(&self, interface: &Interface, number: u8) -> Result<()> {
        let (name, v4, v6) = (interface.name, interface.network.v4(number), interface.network.v6(number));
        self.ip(&format!("address del {v4}/24 dev {name}\naddress del {v6}/64 dev {name}\n"))?;
        let gone = interface.network.addresses(number);
        self.now_has(|addresses| addresses.retain(|address| !gone.contains(address)));
        Ok(())
    }

    fn now_has(&self, change: impl FnOnce(&mut Vec<IpAddr>)) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut addresses);
        self.kernel.set_local(&addresses);
        self.wire.rerouted(self.number);
    }
}

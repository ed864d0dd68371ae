//! The world of the scenarios: a mobile host with two access networks, a
//! router, and a peer.
//!
//! ```text
//!            em0 == wlan 192.0.2.0/24    == \
//!   mobile                                   router == 203.0.113.0/24 == em0  peer
//!            em1 == cell 198.51.100.0/24 == /
//! ```

use crate::cable::{Lane, Prefix};
use crate::diag::Diag;
use crate::error::{Doing, Result};
use crate::host::{Host, Interface, Network};
use crate::kernel::{Kernel, Place};
use crate::ns::Namespace;
use crate::program;
use crate::route::Routes;
use crate::tun::Tun;
use crate::wire::{End, Plan, Wire};
use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

/// First access network of the mobile host.
pub const WLAN: Network =
    Network { name: "wlan", v4: Ipv4Addr::new(192, 0, 2, 0), v6: Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0) };
/// Second access network of the mobile host.
pub const CELL: Network =
    Network { name: "cell", v4: Ipv4Addr::new(198, 51, 100, 0), v6: Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0) };
/// Network of the peer.
pub const HOME: Network =
    Network { name: "home", v4: Ipv4Addr::new(203, 0, 113, 0), v6: Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0) };

/// Number of the mobile host in its access networks.
pub const MOBILE_NODE: u8 = 10;
/// Number of the peer in its network.
pub const PEER_NODE: u8 = 5;

/// The cables, in this order: wlan, cell, home. Each with its properties
/// towards the router and from it.
pub type Lanes = [(Lane, Lane); 3];

/// Two hosts and a router.
pub struct World {
    /// The host that moves.
    pub mobile: Host,
    /// The host that stays.
    pub peer: Host,
    /// The cables.
    pub wire: Arc<Wire>,
    /// The router's namespace, which lives as long as the world.
    pub router: Namespace,
}

impl World {
    /// Makes the world: the mobile host has joined `wlan`, the peer `home`.
    /// `files` is an existing directory for what the hosts see as `/etc/hosts`
    /// and the like.
    ///
    /// # Errors
    /// When the machine lacks something, or refuses.
    pub fn new(mobile: Arc<dyn Kernel>, peer: Arc<dyn Kernel>, lanes: Lanes, seed: u64, files: &Path) -> Result<Self> {
        let router = namespace("router", files)?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let spaces = [namespace("mobile", files)?, namespace("peer", files)?];
        let layout = [(0, "em0", WLAN), (0, "em1", CELL), (1, "em0", HOME)];
        let mut plans = Vec::new();
        let mut names = [Vec::new(), Vec::new()];
        let mut setup = String::new();
        for (((host, device, network), (up, down)), seed) in layout.into_iter().zip(lanes).zip(seed..) {
            let router_end = Tun::new(&router, network.name)?;
            let [v4, v6] = network.addresses(1);
            // Writing to a string cannot fail.
            let _ = write!(
                setup,
                "link set {0} up\naddress add {v4}/24 dev {0}\naddress add {v6}/64 dev {0} nodad\n",
                network.name
            );
            let space = &spaces[host];
            let tun = Tun::new(space, device)?;
            names[host].push((tun.index(), device.to_owned()));
            plans.push(Plan {
                host,
                device: tun,
                router: router_end,
                networks: vec![
                    Prefix { address: network.v4.into(), length: 24 },
                    Prefix { address: network.v6.into(), length: 64 },
                ],
                up,
                down,
                seed,
            });
        }
        program::run(&router, &["ip", "-batch", "-"], &setup)?;
        let ends = vec![
            End { kernel: Arc::clone(&mobile), routes: Routes::new(&spaces[0])? },
            End { kernel: Arc::clone(&peer), routes: Routes::new(&spaces[1])? },
        ];
        let wire = Arc::new(Wire::start(ends, plans)?);
        for (number, kernel) in [&mobile, &peer].into_iter().enumerate() {
            let sink = wire.sink(number);
            kernel.join(Place {
                connections: Arc::new(Diag::new(&spaces[number], sink.clone())?),
                routes: Routes::new(&spaces[number])?,
                interfaces: std::mem::take(&mut names[number]),
                sink,
            });
        }
        let interface = |cable: usize| {
            let (_, name, network) = layout[cable];
            Interface { name, cable, network }
        };
        let [mobile_space, peer_space] = spaces;
        let mobile = Host::new(mobile_space, 0, vec![interface(0), interface(1)], mobile, Arc::clone(&wire));
        let peer = Host::new(peer_space, 1, vec![interface(2)], peer, Arc::clone(&wire));
        for (host, node) in [(&mobile, MOBILE_NODE), (&peer, PEER_NODE)] {
            host.configure(&host.interfaces[0], node)?;
            wire.plug(host.interfaces[0].cable, true);
        }
        Ok(Self { mobile, peer, wire, router })
    }
}

/// A namespace whose new interfaces keep quiet, and whose programs ask no name
/// server.
fn namespace(name: &str, files: &Path) -> Result<Namespace> {
    let namespace = Namespace::new(name)?;
    program::run(&namespace, &["ip", "link", "set", "lo", "up"], "")?;
    for (key, value) in [
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        // As on FreeBSD, the first address of a network may go alone.
        ("net/ipv4/conf/all/promote_secondaries", "1"),
        ("net/ipv4/conf/default/promote_secondaries", "1"),
        ("net/ipv6/conf/default/addr_gen_mode", "1"),
        ("net/ipv6/conf/default/router_solicitations", "0"),
    ] {
        namespace.sysctl(key, value)?;
    }
    let names = [
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("resolv.conf", ""),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ];
    for (file, content) in names {
        let path = files.join(file);
        fs::write(&path, content).doing(format_args!("writing {}", path.display()))?;
        namespace.replace_file(&path, &format!("/etc/{file}"))?;
    }
    Ok(namespace)
}

//! Which zone a name is in, and which servers take updates of it: RFC 2136 section 4.

use super::config::Config;
use crate::dns::transport::Wire;
use crate::dns::{DnsName, System, Trouble, zone};
use std::net::SocketAddr;

/// Where updates go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The zone.
    pub zone: DnsName,
    /// Its servers, the one to ask first first; never empty.
    pub servers: Vec<SocketAddr>,
}

impl Place {
    /// Whether it is the same place, in whatever order its servers are asked.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let within = |one: &Self, other: &Self| one.servers.iter().all(|server| other.servers.contains(server));
        self.zone == other.zone && within(self, other) && within(other, self)
    }
}

/// Finds the place of the name: as configured, or zone and primary server from the SOA record, then the other servers
/// of the zone, which may pass updates on.
///
/// # Errors
/// [`Trouble`].
pub fn find(wire: &mut Wire, system: &System, config: &Config) -> Result<Place, Trouble> {
    if let (Some(zone), false) = (&config.zone, config.servers.is_empty()) {
        return Ok(Place { zone: zone.clone(), servers: config.servers.clone() });
    }
    if !config.servers.is_empty() {
        let (zone, _) = zone::of(wire, &config.servers, &config.name, None)?;
        return Ok(Place { zone, servers: config.servers.clone() });
    }
    let settings = system.settings();
    wire.follow(Some(&settings));
    let found = zone::of(wire, &settings.servers, &config.name, config.zone.as_ref()).and_then(|(zone, primary)| {
        let servers = zone::servers(wire, &settings.servers, &zone, primary, system.port)?;
        Ok(Place { zone, servers })
    });
    wire.follow(None);
    found
}

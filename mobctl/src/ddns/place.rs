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

/// Finds the place of the name: as configured, or zone and primary server from the SOA record, then the other servers
/// of the zone, which may pass updates on.
///
/// # Errors
/// [`Trouble`].
pub fn find(wire: &mut Wire, system: &System, config: &Config) -> Result<Place, Trouble> {
    if let (Some(zone), false) = (&config.zone, config.servers.is_empty()) {
        return Ok(Place { zone: zone.clone(), servers: config.servers.clone() });
    }
    let resolvers = if config.servers.is_empty() { system.settings().servers } else { config.servers.clone() };
    let (zone, primary) = zone::of(wire, &resolvers, &config.name, config.zone.as_ref())?;
    if !config.servers.is_empty() {
        return Ok(Place { zone, servers: config.servers.clone() });
    }
    let servers = zone::servers(wire, &resolvers, &zone, primary, system.port)?;
    Ok(Place { zone, servers })
}

//! Which zone a name is in, and which servers take updates of it: RFC 2136 section 4.

use super::config::Config;
use crate::dns::lookup;
use crate::dns::message::{Data, DnsName};
use crate::dns::transport::Wire;
use crate::dns::{System, Trouble};
use domain::base::iana::Rtype;
use domain::base::name::ToName;
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
    let (zone, primary) = zone_of(wire, &resolvers, config)?;
    if !config.servers.is_empty() {
        return Ok(Place { zone, servers: config.servers.clone() });
    }
    let mut names = vec![primary];
    let answer = lookup::ask(wire, &resolvers, &zone, Rtype::NS)?;
    for record in &answer.answers {
        if let Data::Ns(server) = &record.data
            && !names.contains(server)
        {
            names.push(server.clone());
        }
    }
    let mut servers: Vec<SocketAddr> = Vec::new();
    for name in &names {
        // One server without an address is no reason not to ask the others.
        match lookup::of_name(wire, &resolvers, name) {
            Ok(found) => {
                for address in found.addresses {
                    let server = SocketAddr::new(address, system.port);
                    if !servers.contains(&server) {
                        servers.push(server);
                    }
                }
            }
            Err(lookup::NotFound::Trouble(Trouble::Interrupted)) => return Err(Trouble::Interrupted),
            Err(_) => {}
        }
    }
    if servers.is_empty() { Err(Trouble::NoServer(zone)) } else { Ok(Place { zone, servers }) }
}

/// The zone of the configured name and the name of its primary server.
fn zone_of(wire: &mut Wire, resolvers: &[SocketAddr], config: &Config) -> Result<(DnsName, DnsName), Trouble> {
    let first = config.zone.as_ref().unwrap_or(&config.name);
    for suffix in first.iter_suffixes().filter(|suffix| !suffix.is_root()) {
        let answer = lookup::ask(wire, resolvers, &suffix.to_vec(), Rtype::SOA)?;
        let found = answer.answers.iter().chain(&answer.authority).find_map(|record| match &record.data {
            // The SOA record of another zone comes along with an alias.
            Data::Soa { primary, .. } if config.name.ends_with(&record.owner) && !record.owner.is_root() => {
                Some((record.owner.clone(), primary.clone()))
            }
            _ => None,
        });
        match found {
            Some(found) if config.zone.as_ref().is_none_or(|zone| *zone == found.0) => return Ok(found),
            _ if config.zone.is_some() => break,
            _ => {}
        }
    }
    Err(Trouble::NoZone(first.clone()))
}

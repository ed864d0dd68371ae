//! Which zone a name is in, and which servers have that zone.

use super::lookup::{self, NotFound};
use super::message::{Data, DnsName};
use super::transport::Wire;
use super::trouble::Trouble;
use domain::base::iana::Rtype;
use domain::base::name::ToName;
use std::net::SocketAddr;

/// The zone of `name` and the name of its primary server. `zone`: what the zone must be.
///
/// # Errors
/// [`Trouble`].
pub fn of(
    wire: &mut Wire,
    resolvers: &[SocketAddr],
    name: &DnsName,
    zone: Option<&DnsName>,
) -> Result<(DnsName, DnsName), Trouble> {
    let first = zone.unwrap_or(name);
    for suffix in first.iter_suffixes().filter(|suffix| !suffix.is_root()) {
        let answer = lookup::ask(wire, resolvers, &suffix.to_vec(), Rtype::SOA)?;
        let found = answer.answers.iter().chain(&answer.authority).find_map(|record| match &record.data {
            // The SOA record of another zone comes along with an alias.
            Data::Soa { primary, .. } if name.ends_with(&record.owner) && !record.owner.is_root() => {
                Some((record.owner.clone(), primary.clone()))
            }
            _ => None,
        });
        match found {
            Some(found) if zone.is_none_or(|zone| *zone == found.0) => return Ok(found),
            _ if zone.is_some() => break,
            _ => {}
        }
    }
    Err(Trouble::NoZone(first.clone()))
}

/// The servers of `zone`, the primary one first; never empty.
///
/// # Errors
/// [`Trouble`].
pub fn servers(
    wire: &mut Wire,
    resolvers: &[SocketAddr],
    zone: &DnsName,
    primary: DnsName,
    port: u16,
) -> Result<Vec<SocketAddr>, Trouble> {
    let mut names = vec![primary];
    let answer = lookup::ask(wire, resolvers, zone, Rtype::NS)?;
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
        match lookup::of_name(wire, resolvers, name) {
            Ok(found) => {
                for address in found.addresses {
                    let server = SocketAddr::new(address, port);
                    if !servers.contains(&server) {
                        servers.push(server);
                    }
                }
            }
            Err(NotFound::Trouble(Trouble::Interrupted)) => return Err(Trouble::Interrupted),
            Err(_) => {}
        }
    }
    if servers.is_empty() { Err(Trouble::NoServer(zone.clone())) } else { Ok(servers) }
}

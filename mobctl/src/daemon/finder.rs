//! Peers by their names: those to associate with, and those that do not answer
//! where they were.
//!
//! The names are looked up on other threads; nothing here waits. What the DNS
//! says is a hint: whoever answers there has yet to prove that it has the key.

use crate::dns::resolver::Known;
use crate::dns::{Resolver, System};
use mobconn_dprp::{Event, Prefix};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// The daemon's side of the resolver.
#[derive(Debug, Default)]
pub(super) struct Finder {
    resolver: Option<Resolver>,
    /// The names of the configuration with the addresses that they had last.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// What is sought, by how it is asked for, and how peers call themselves.
    sought: BTreeMap<String, BTreeSet<String>>,
    /// What was last logged of a name.
    complaints: BTreeMap<String, String>,
}

impl Finder {
    /// Associations are started to the hosts with these names, too.
    pub(super) fn follow(&mut self, names: &[String]) {
        self.names.retain(|name, _| names.contains(name));
        for name in names {
            self.names.entry(name.clone()).or_default();
        }
    }

    /// Begins to ask. To be called in the process that stays: threads do not survive a fork.
    pub(super) fn begin(&mut self) {
        self.resolver = Resolver::start(System::default())
            .map_err(|error| log::error!("no names of peers can be looked up: {error}"))
            .ok();
    }

    /// Readable when [`Self::news`] has something to tell.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.resolver.as_ref().map(Resolver::fd)
    }

    /// A peer is sought by its name. An answer comes with [`Self::news`].
    pub(super) fn seek(&mut self, name: String) {
        let Some(resolver) = &self.resolver else { return };
        let asked = absolute(&name);
        // One that was found a moment ago is in the news already.
        let _ = resolver.seek(&asked);
        self.sought.entry(asked).or_default().insert(name);
    }

    /// What was found of the peers that are sought.
    pub(super) fn news(&mut self) -> Vec<Event> {
        let Some(resolver) = &self.resolver else { return Vec::new() };
        let mut events = Vec::new();
        for (name, sought) in resolver.news() {
            if !sought {
                continue;
            }
            match resolver.seek(&name) {
                Known::Addresses(addresses) => {
                    log::debug!("{name} is sought at {addresses:?}");
                    let names = self.sought.remove(&name).unwrap_or_default().into_iter();
                    events.extend(names.map(|name| Event::Resolved { name, addresses: addresses.clone() }));
                }
                Known::Nothing(why) => {
                    log::debug!("{name} is not found: {why}");
                    self.sought.remove(&name);
                }
                Known::Pending => {}
            }
        }
        events
    }

    /// Looks at the names of the configuration again: the addresses that they stand for now, as prefixes, together with
    /// `prefixes`.
    pub(super) fn targets(&mut self, prefixes: &[Prefix]) -> Vec<Prefix> {
        let Self { resolver, names, complaints, .. } = self;
        if let Some(resolver) = resolver {
            for (name, addresses) in names.iter_mut() {
                match resolver.ask(name) {
                    Known::Addresses(found) => {
                        complaints.remove(name);
                        *addresses = found;
                    }
                    // What was known is better than nothing: its hosts are probably still there.
                    Known::Nothing(why) => {
                        if complaints.get(name) != Some(&why) {
                            log::warn!("peer {name}: {why}");
                            complaints.insert(name.clone(), why);
                        }
                    }
                    Known::Pending => {}
                }
            }
        }
        let host = |address: &IpAddr| Prefix::new(*address, if address.is_ipv4() { 32 } else { 128 }).ok();
        let mut targets: Vec<Prefix> =
            names.values().flatten().filter_map(host).chain(prefixes.iter().copied()).collect();
        targets.sort_unstable();
        targets.dedup();
        targets
    }
}

/// A peer's name means the same everywhere, unless it is only one word.
fn absolute(name: &str) -> String {
    let plain = name.ends_with('.') || !name.contains('.') || name.parse::<IpAddr>().is_ok();
    if plain { name.to_owned() } else { format!("{name}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_peers_are_absolute() {
        for (name, expected) in [
            ("a.example.org", "a.example.org."),
            ("a.example.org.", "a.example.org."),
            ("a", "a"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(absolute(name), expected);
        }
    }

    #[test]
    fn addresses_of_names_are_targets() {
        let mut finder = Finder::default();
        finder.follow(&["192.0.2.9".into(), "2001:db8::9".into()]);
        let network: Prefix = "203.0.113.0/24".parse().unwrap();
        assert_eq!(finder.targets(&[network, network]), [network], "nobody to ask");
        finder.begin();
        let mut targets = Vec::new();
        for _ in 0..1000 {
            targets = finder.targets(&[network]);
            if targets.len() == 3 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let shown: Vec<String> = targets.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.9/32", "203.0.113.0/24", "2001:db8::9/128"]);
        finder.follow(&["2001:db8::9".into()]);
        assert_eq!(finder.targets(&[]).len(), 1);
        finder.seek("198.51.100.7".into());
        let event = loop {
            if let Some(event) = finder.news().into_iter().next() {
                break event;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert_eq!(event, Event::Resolved { name: "198.51.100.7".into(), addresses: vec![[198, 51, 100, 7].into()] });
    }
}

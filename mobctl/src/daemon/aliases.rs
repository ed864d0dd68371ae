//! Old addresses that this host keeps for itself, on the loopback interface.
//!
//! Connections do not need them: what arrives is delivered, and what is sent is
//! sent, whatever addresses the interfaces have. Programs may: those that bind
//! the address of a connection that they have, or talk to it.
//!
//! IPv4 only: FreeBSD does not give an interface an IPv6 address that another
//! one has, and says nothing. The host could not come back to that network.

use crate::system;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Gives the loopback interface an address (true), or takes it away. In tests something else.
type Change = Box<dyn FnMut(IpAddr, bool) -> std::io::Result<()>>;

/// The addresses that were given to the loopback interface.
pub(super) struct Aliases {
    enabled: bool,
    kept: BTreeSet<IpAddr>,
    change: Change,
}

impl Aliases {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, kept: BTreeSet::new(), change: Box::new(system::alias) }
    }

    /// Whether anything is kept at all.
    pub(super) const fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// Whether there is anything to do.
    pub(super) fn is_idle(&self) -> bool {
        !self.enabled && self.kept.is_empty()
    }

    /// What is kept.
    pub(super) fn kept(&self) -> Vec<IpAddr> {
        self.kept.iter().copied().collect()
    }

    /// Keeps the addresses in `needed` that no interface has in `configured`, and gives up the others. What is needed
    /// and on the loopback interface already was put there by a daemon before this one.
    pub(super) fn follow(
        &mut self,
        needed: &BTreeSet<IpAddr>,
        configured: &BTreeSet<IpAddr>,
        on_loopback: &BTreeSet<IpAddr>,
    ) {
        let wanted: BTreeSet<IpAddr> =
            needed.difference(configured).copied().filter(|address| self.enabled && address.is_ipv4()).collect();
        for old in self.kept.difference(&wanted).copied().collect::<Vec<_>>() {
            match (self.change)(old, false) {
                Ok(()) => log::info!("{old} is not kept any more"),
                Err(error) => log::warn!("cannot take {old} from the loopback interface: {error}"),
            }
            self.kept.remove(&old);
        }
        for new in wanted {
            if self.kept.contains(&new) {
                continue;
            }
            if !on_loopback.contains(&new) {
                if let Err(error) = (self.change)(new, true) {
                    log::warn!("cannot keep {new} on the loopback interface: {error}");
                    continue;
                }
                log::info!("{new} is kept on the loopback interface while connections know it");
            }
            self.kept.insert(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn aliases(enabled: bool) -> (Aliases, Rc<RefCell<Vec<String>>>) {
        let done = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&done);
        let change: Change = Box::new(move |ip, add| {
            if ip.to_string() == "10.0.0.66" {
                return Err(std::io::ErrorKind::PermissionDenied.into());
            }
            seen.borrow_mut().push(format!("{}{ip}", if add { '+' } else { '-' }));
            Ok(())
        });
        (Aliases { enabled, kept: BTreeSet::new(), change }, done)
    }

    #[test]
    fn only_what_is_needed_and_nowhere_is_kept() {
        let (mut aliases, done) = aliases(true);
        aliases.follow(&set(&["10.0.0.1", "10.0.0.2"]), &set(&["10.0.0.2"]), &set(&["127.0.0.1"]));
        assert_eq!(*done.borrow(), ["+10.0.0.1"]);
        aliases.follow(&set(&["10.0.0.1"]), &set(&[]), &set(&["127.0.0.1", "10.0.0.1"]));
        assert_eq!(aliases.kept(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        // Back home: the interface has it, and it must not be on two.
        aliases.follow(&set(&["10.0.0.1"]), &set(&["10.0.0.1"]), &set(&["127.0.0.1", "10.0.0.1"]));
        assert_eq!(*done.borrow(), ["+10.0.0.1", "-10.0.0.1"]);
        assert!(aliases.kept().is_empty());
    }

    #[test]
    fn what_is_switched_off_is_given_up() {
        let (mut aliases, done) = aliases(true);
        aliases.follow(&set(&["10.0.0.1", "2001:db8::1"]), &set(&[]), &set(&[]));
        assert_eq!(*done.borrow(), ["+10.0.0.1"], "no IPv6 address");
        aliases.set_enabled(false);
        assert!(!aliases.is_idle());
        aliases.follow(&set(&["10.0.0.1"]), &set(&[]), &set(&["10.0.0.1"]));
        assert_eq!(*done.borrow(), ["+10.0.0.1", "-10.0.0.1"]);
        assert!(aliases.is_idle());
    }

    #[test]
    fn what_a_daemon_before_kept_is_taken_over_and_failures_are_tried_again() {
        let (mut aliases, done) = aliases(true);
        aliases.follow(&set(&["10.0.0.1", "10.0.0.66"]), &set(&[]), &set(&["10.0.0.1"]));
        assert_eq!(*done.borrow(), [""; 0]);
        assert_eq!(aliases.kept().len(), 1);
        aliases.follow(&set(&[]), &set(&[]), &set(&["10.0.0.1"]));
        assert_eq!(*done.borrow(), ["-10.0.0.1"]);
    }
}

//! When connections move, and where to: pure decisions over states and time.
//!
//! Each IP version has one *chosen* address. A *home* is an address at which
//! there may be flows: one that was usable, or that flows are said to be at.
//! - A home that is not usable any more is left at once, for the best address
//!   that is usable; if there is none, as soon as there is one.
//! - A better network must have been there for the hold-down before the chosen
//!   address changes; then both are usable, and the move is made before the old
//!   path breaks.
//! - What is better: the order of `prefer`; without it, what the system's own
//!   routes prefer. An address on the same network is better only if the chosen
//!   one is deprecated.
//! - Homes that are usable and were not chosen stay, unless `prefer` wants
//!   otherwise: somebody may have meant them.
//! - What is moved by hand stays until it cannot, or until `prefer` is said.

use super::{Address, Snapshot, is_global};
use mobconn_dprp::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Homes that are remembered.
const HOMES_MAX: usize = 64;

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// Interfaces, the best first; empty: as the system's routes prefer.
    pub prefer: Vec<String>,
    /// Interfaces that are never used.
    pub ignore: Vec<String>,
    /// How long a better network must have been there.
    pub hold_down: Duration,
    /// Peers that are on a link need no router.
    pub targets: Vec<mobconn_dprp::Prefix>,
}

/// How an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Packets can be sent from there.
    Usable,
    /// There is no router on its network, and no peer.
    NoRoute,
    /// Duplicate address detection has not ended.
    Tentative,
    /// Somebody else has it.
    Duplicated,
    /// Its link is another one now.
    Detached,
    /// Its interface has no link.
    NoLink,
    /// Its interface is down.
    Down,
    /// Its interface is not to be used.
    Ignored,
    /// It means something on one link or this host only.
    Local,
}

impl Standing {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::NoRoute => "no router known",
            Self::Tentative => "tentative",
            Self::Duplicated => "duplicated",
            Self::Detached => "detached",
            Self::NoLink => "no link",
            Self::Down => "interface down",
            Self::Ignored => "ignored",
            Self::Local => "local",
        }
    }
}

/// Flows at `old` move to `new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The address that is left.
    pub old: IpAddr,
    /// The new address.
    pub new: IpAddr,
    /// Whether packets can still be sent from the old one.
    pub old_usable: bool,
}

/// What was decided about a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone {
    to: IpAddr,
    usable: bool,
}

/// How good a network is; the smaller, the better.
type Rank = (usize, u32);

/// The choice of one IP version.
#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    /// It may be gone, while there is no other.
    chosen: Option<IpAddr>,
    /// Whether it was chosen by hand.
    by_hand: bool,
    /// The best address and since when it is that; none: long since.
    best: Option<(IpAddr, Option<Instant>)>,
}

/// What is known, and what was decided.
#[derive(Debug)]
pub struct Policy {
    preference: Preference,
    snapshot: Snapshot,
    /// Since when addresses are usable; none: long since.
    since: BTreeMap<IpAddr, Option<Instant>>,
    v4: Choice,
    v6: Choice,
    homes: BTreeSet<IpAddr>,
    gone: BTreeMap<IpAddr, Gone>,
    deadline: Option<Instant>,
    begun: bool,
}

impl Policy {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(preference: Preference) -> Self {
        Self {
            preference,
            snapshot: Snapshot::default(),
            since: BTreeMap::new(),
            v4: Choice::default(),
            v6: Choice::default(),
            homes: BTreeSet::new(),
            gone: BTreeMap::new(),
            deadline: None,
            begun: false,
        }
    }

    /// What was seen last.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What is wanted.
    #[must_use]
    pub const fn preference(&self) -> &Preference {
        &self.preference
    }

    /// The chosen address of the family of `like`.
    #[must_use]
    pub fn chosen(&self, like: IpAddr) -> Option<IpAddr> {
        let choice = self.choice(like.is_ipv4());
        choice.chosen.filter(|chosen| self.holds(choice, *chosen))
    }

    /// Whether it was chosen by hand.
    #[must_use]
    pub fn is_by_hand(&self, like: IpAddr) -> bool {
        self.choice(like.is_ipv4()).by_hand
    }

    const fn choice(&self, v4: bool) -> &Choice {
        if v4 { &self.v4 } else { &self.v6 }
    }

    const fn choice_mut(&mut self, v4: bool) -> &mut Choice {
        if v4 { &mut self.v4 } else { &mut self.v6 }
    }

    /// Whether flows that were at `home` are to be elsewhere.
    #[must_use]
    pub fn has_left(&self, home: IpAddr) -> bool {
        self.gone.contains_key(&home)
    }

    /// When [`Self::due`] has something to decide.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How an address is.
    #[must_use]
    pub fn standing(&self, address: &Address) -> Standing {
        let Some(interface) = self.snapshot.interface(address.interface) else { return Standing::Down };
        if interface.loopback || !is_global(address.ip) {
            Standing::Local
        } else if self.preference.ignore.contains(&interface.name) {
            Standing::Ignored
        } else if !interface.up {
            Standing::Down
        } else if !interface.running {
            Standing::NoLink
        } else if address.duplicated {
            Standing::Duplicated
        } else if address.detached {
            Standing::Detached
        } else if address.tentative {
            Standing::Tentative
        } else if self.is_routed(address) {
            Standing::Usable
        } else {
            Standing::NoRoute
        }
    }

    /// Whether all peers of its family may be on its link.
    fn is_beside_peers(&self, address: &Address) -> bool {
        let mut targets = self.preference.targets.iter().filter(|t| t.address().is_ipv4() == address.ip.is_ipv4());
        targets.any(|target| target.length() >= address.length && address.reaches(target.address()))
    }

    fn is_usable(&self, ip: IpAddr) -> bool {
        self.snapshot.addresses.iter().any(|address| address.ip == ip && self.standing(address) == Standing::Usable)
    }

    /// Whether packets can be sent from there, wanted or not.
    fn works(&self, ip: IpAddr) -> bool {
        let works = |address: &&Address| match self.standing(address) {
            Standing::Usable => true,
            Standing::Ignored => {
                let interface = self.snapshot.interface(address.interface);
                interface.is_some_and(|interface| interface.up && interface.running)
                    && !(address.tentative || address.duplicated || address.detached)
                    && self.is_routed(address)
            }
            _ => false,
        };
        self.snapshot.addresses.iter().filter(|address| address.ip == ip).any(|address| works(&address))
    }

    fn is_routed(&self, address: &Address) -> bool {
        self.snapshot.gateway(address).is_some() || self.is_beside_peers(address)
    }

    /// Whether the address is there, router or not.
    fn is_there(&self, ip: IpAddr) -> bool {
        let there = |address: &Address| matches!(self.standing(address), Standing::Usable | Standing::NoRoute);
        self.snapshot.addresses.iter().any(|address| address.ip == ip && there(address))
    }

    fn is_deprecated(&self, ip: IpAddr) -> bool {
        self.snapshot.address(ip).is_some_and(|address| address.deprecated)
    }

    fn wish(&self, interface: u32) -> usize {
        let name = self.snapshot.interface(interface).map_or("", |interface| interface.name.as_str());
        let place = self.preference.prefer.iter().position(|wanted| wanted == name);
        place.unwrap_or(self.preference.prefer.len())
    }

    /// How good the network of an address is.
    fn rank(&self, ip: IpAddr) -> Rank {
        let rank = |address: &Address| {
            let gateway = self.snapshot.gateway(address).map_or(u32::MAX, |gateway| gateway.rank);
            // Where wishes decide, routes do not.
            let wishes = !self.preference.prefer.is_empty();
            (self.wish(address.interface), if wishes { 0 } else { gateway })
        };
        let addresses = self.snapshot.addresses.iter().filter(|address| address.ip == ip);
        addresses.map(rank).min().unwrap_or((usize::MAX, u32::MAX))
    }

    /// The best usable address of a family; `like` the one that it is to replace, on the same network if that helps
    /// nothing.
    fn find_best(&self, v4: bool, like: Option<IpAddr>) -> Option<IpAddr> {
        let like = like.and_then(|ip| self.snapshot.address(ip));
        let usable = self
            .snapshot
            .addresses
            .iter()
            .filter(|address| address.ip.is_ipv4() == v4 && self.standing(address) == Standing::Usable);
        let key = |address: &&Address| {
            let gateway = self.snapshot.gateway(address).map_or(u32::MAX, |gateway| gateway.rank);
            (
                address.deprecated,
                self.rank(address.ip),
                gateway,
                // What it is stays as it is: a stable address, or one that says little of its host.
                Some(address.ip) != like.map(|like| like.ip),
                address.temporary != like.is_some_and(|like| like.temporary),
            )
        };
        usable.min_by_key(key).map(|address| address.ip)
    }

    /// Takes in how things are now; `in_use` are addresses that flows are at.
    pub fn observe(
        &mut self,
        now: Instant,
        snapshot: Snapshot,
        in_use: impl IntoIterator<Item = IpAddr>,
    ) -> Vec<Decision> {
        // What was there from the beginning needs no hold-down.
        let since = self.begun.then_some(now);
        self.begun = true;
        self.snapshot = snapshot;
        let usable: BTreeSet<IpAddr> = self
            .snapshot
            .addresses
            .iter()
            .filter(|address| self.standing(address) == Standing::Usable)
            .map(|address| address.ip)
            .collect();
        self.since.retain(|ip, _| usable.contains(ip));
        for ip in &usable {
            self.since.entry(*ip).or_insert(since);
        }
        self.homes.extend(usable.into_iter().chain(in_use.into_iter().filter(|ip| is_global(*ip))));
        self.decide(now)
    }

    /// Decides what the clock decides.
    pub fn due(&mut self, now: Instant) -> Vec<Decision> {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        self.decide(now)
    }

    /// Other wishes, at once; what was chosen by hand counts no more.
    pub fn prefer(&mut self, now: Instant, preference: Preference) -> Vec<Decision> {
        self.preference = preference;
        let usable: Vec<IpAddr> =
            self.snapshot.addresses.iter().map(|address| address.ip).filter(|ip| self.is_usable(*ip)).collect();
        self.since.retain(|ip, _| usable.contains(ip));
        for ip in usable {
            self.since.insert(ip, None);
            self.homes.insert(ip);
        }
        // Somebody waits for it: no hold-down.
        for v4 in [true, false] {
            let best = self.find_best(v4, self.choice(v4).chosen).map(|best| (best, None));
            let choice = self.choice_mut(v4);
            (choice.best, choice.by_hand) = (best, false);
        }
        self.decide(now)
    }

    /// Flows at `old` were moved to `new` by hand.
    pub fn moved_by_hand(&mut self, old: IpAddr, new: IpAddr) {
        let choice = self.choice_mut(new.is_ipv4());
        (choice.chosen, choice.by_hand) = (Some(new), true);
        self.homes.insert(old);
        self.homes.insert(new);
        self.gone.remove(&new);
        let usable = self.works(old);
        self.gone.insert(old, Gone { to: new, usable });
    }

    fn decide(&mut self, now: Instant) -> Vec<Decision> {
        self.deadline = None;
        let mut decisions = Vec::new();
        for v4 in [true, false] {
            let before = self.choice(v4).chosen;
            let choice = self.choose(now, v4);
            *self.choice_mut(v4) = choice;
            if let Some(chosen) = choice.chosen.filter(|chosen| self.holds(&choice, *chosen)) {
                self.leave_homes(chosen, before, &mut decisions);
            }
        }
        self.forget();
        decisions
    }

    /// Whether flows can stay at the chosen address.
    fn holds(&self, choice: &Choice, chosen: IpAddr) -> bool {
        if choice.by_hand { self.is_there(chosen) } else { self.is_usable(chosen) }
    }

    /// Chooses the address of an IP version.
    fn choose(&mut self, now: Instant, v4: bool) -> Choice {
        let before = *self.choice(v4);
        let best = self.find_best(v4, before.chosen).map(|best| {
            let there = self.since.get(&best).copied().flatten();
            match before.best {
                Some((same, since)) if same == best => (best, since.max(there)),
                _ if before.chosen.is_none() => (best, there),
                _ => (best, Some(now)),
            }
        });
        let Some(chosen) = before.chosen.filter(|chosen| self.holds(&before, *chosen)) else {
            // At once, if there is one. Else what is gone may come back.
            let chosen = best.map(|(best, _)| best).or(before.chosen);
            return Choice { chosen, by_hand: false, best };
        };
        let stay = Choice { best, ..before };
        let Some((better, since)) = best.filter(|(best, _)| !before.by_hand && *best != chosen) else { return stay };
        let go = Choice { chosen: Some(better), ..stay };
        if self.is_deprecated(chosen) && !self.is_deprecated(better) {
            return go;
        }
        if self.rank(better) >= self.rank(chosen) {
            return stay;
        }
        let due = since.map(|since| since.after(self.preference.hold_down));
        let Some(due) = due.filter(|due| *due > now) else { return go };
        self.deadline = Some(self.deadline.map_or(due, |deadline| deadline.min(due)));
        stay
    }

    /// Decides which homes are left for the chosen address.
    fn leave_homes(&mut self, chosen: IpAddr, before: Option<IpAddr>, decisions: &mut Vec<Decision>) {
        self.gone.remove(&chosen);
        let by_hand = self.choice(chosen.is_ipv4()).by_hand;
        let same_version = |ip: &IpAddr| ip.is_ipv4() == chosen.is_ipv4() && *ip != chosen;
        let homes: Vec<IpAddr> = self.homes.iter().copied().filter(same_version).collect();
        for old in homes {
            let usable = self.works(old);
            let wanted = !self.is_usable(old)
                || before == Some(old)
                || self.gone.contains_key(&old)
                || !self.preference.prefer.is_empty() && !by_hand && self.rank(chosen) < self.rank(old)
                || self.is_deprecated(old) && !self.is_deprecated(chosen);
            let now = Gone { to: chosen, usable };
            let known = self.gone.get(&old).copied();
            // That it is usable again changes nothing for those who left.
            let same = known.is_some_and(|known| known.to == chosen && (known.usable == usable || usable));
            if wanted && !same {
                self.gone.insert(old, now);
                decisions.push(Decision { old, new: chosen, old_usable: usable });
            }
        }
    }

    /// Homes are many when temporary addresses come and go: the ones that are not there go first.
    fn forget(&mut self) {
        while self.homes.len() > HOMES_MAX {
            let there = |ip: &IpAddr| self.snapshot.address(*ip).is_some();
            let Some(oldest) = self.homes.iter().copied().find(|ip| !there(ip)).or_else(|| self.homes.first().copied())
            else {
                return;
            };
            self.homes.remove(&oldest);
            self.gone.remove(&oldest);
        }
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
pub(crate) mod tests;

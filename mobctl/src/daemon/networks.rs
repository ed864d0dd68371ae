//! The daemon watches this host's networks.
//!
//! Nothing is polled: the system tells that something changed, and then all is
//! read again, so that nothing is missed when it told more than could be kept.
//! FreeBSD alone does not tell when duplicate address detection ends: while an
//! address is tentative, it is looked at again and again.

use super::aliases::Aliases;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::networks::Snapshot;
use crate::networks::egress::Steering;
use crate::networks::memory::Memory;
use crate::networks::policy::{Decision, Policy, Preference, Standing};
use crate::networks::report::{self, Report};
use crate::system::Watcher;
use mobconn_abi::Egress;
use mobconn_dprp::{Instant, Prefix};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// How often an address whose detection of duplicates lasts is looked at.
const DETECTION: Duration = Duration::from_millis(100);

/// The networks and what was decided about them.
pub(super) struct Networks {
    watcher: Option<Watcher>,
    trouble: String,
    automatic: bool,
    memory: Memory,
    /// Routers told of interfaces that are not there yet, by name.
    told: BTreeMap<String, Vec<IpAddr>>,
    pub(super) policy: Policy,
    /// The wishes that came at run time, in place of the configuration's.
    wishes: Option<Vec<String>>,
    again: Option<Instant>,
    steering: Steering,
    pub(super) aliases: Aliases,
}

impl Networks {
    pub(super) fn open(config: &Config) -> Self {
        let (watcher, trouble) = match Watcher::open() {
            Ok(watcher) => (Some(watcher), String::new()),
            Err(error) => (None, format!("cannot watch the networks: {error}")),
        };
        if !trouble.is_empty() {
            log::error!("{trouble}");
        }
        Self {
            watcher,
            trouble,
            automatic: config.mobile && config.automatic,
            memory: Memory::default(),
            told: BTreeMap::new(),
            policy: Policy::new(preference(config, None)),
            wishes: None,
            again: None,
            steering: Steering::default(),
            aliases: Aliases::new(config.keep_old_address),
        }
    }

    /// For poll(2).
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watcher.as_ref().map(Watcher::fd)
    }

    /// When something is to be looked at although nothing was told.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.policy.deadline().into_iter().chain(self.again).min()
    }

    /// Whether connections move by themselves.
    pub(super) const fn is_automatic(&self) -> bool {
        self.automatic
    }

    /// The system tells that something changed: whether it did.
    pub(super) fn changed(&self) -> bool {
        self.watcher.as_ref().is_some_and(Watcher::changed)
    }

    /// Looks at everything. `in_use`: addresses that flows are at.
    pub(super) fn look(&mut self, now: Instant, in_use: impl IntoIterator<Item = IpAddr>) -> Vec<Decision> {
        let Some(watcher) = &self.watcher else { return Vec::new() };
        let mut snapshot = match watcher.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.trouble = format!("cannot look at the networks: {error}");
                log::error!("{}", self.trouble);
                self.again = Some(now.after(Duration::from_secs(1)));
                return Vec::new();
            }
        };
        self.trouble.clear();
        for (name, routers) in &self.told {
            if let Some(interface) = snapshot.interfaces.iter().find(|interface| interface.name == *name) {
                self.memory.tell(interface.index, routers);
            }
        }
        self.memory.complete(&mut snapshot);
        let detecting = snapshot.addresses.iter().any(|address| address.tentative && !address.duplicated);
        self.again = detecting.then(|| now.after(DETECTION));
        self.policy.observe(now, snapshot, in_use)
    }

    /// What the clock decides.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Decision> {
        self.policy.due(now)
    }

    /// Whether it is time to look again.
    pub(super) fn must_look(&self, now: Instant) -> bool {
        self.again.is_some_and(|again| again <= now)
    }

    /// Somebody says which routers an interface has.
    pub(super) fn tell(&mut self, interface: &str, routers: &[IpAddr]) -> Result<(), Failure> {
        let there = self.policy.snapshot().interfaces.iter().any(|known| known.name == interface);
        let fresh = self.watcher.as_ref().and_then(|watcher| watcher.snapshot().ok()).unwrap_or_default();
        if !there && !fresh.interfaces.iter().any(|known| known.name == interface) {
            return Err(Failure::new(Exit::Data, format!("there is no interface {interface}")));
        }
        // The ones of the other IP version stay.
        let known = self.told.entry(interface.to_owned()).or_default();
        known.retain(|old| !routers.iter().any(|new| new.is_ipv4() == old.is_ipv4()));
        known.extend(routers);
        Ok(())
    }

    /// Other wishes at run time; none: those of the configuration.
    pub(super) fn prefer(
        &mut self,
        now: Instant,
        config: &Config,
        wishes: Option<Vec<String>>,
    ) -> Result<Vec<Decision>, Failure> {
        let known = &self.policy.snapshot().interfaces;
        if let Some(unknown) = wishes.iter().flatten().find(|wish| !known.iter().any(|known| known.name == **wish)) {
            let names: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
            return Err(Failure::new(Exit::Data, format!("there is no interface {unknown}"))
                .advise(format!("There are: {}", names.join(" "))));
        }
        self.wishes = wishes;
        Ok(self.policy.prefer(now, preference(config, self.wishes.as_ref())))
    }

    /// The configuration was read again.
    pub(super) fn follow(&mut self, now: Instant, config: &Config) -> Vec<Decision> {
        let before = std::mem::replace(&mut self.automatic, config.mobile && config.automatic);
        self.aliases.set_enabled(config.keep_old_address);
        let preference = preference(config, self.wishes.as_ref());
        if self.automatic && !before {
            // What was decided meanwhile was not done.
            self.policy = Policy::new(preference);
            return Vec::new();
        }
        if preference == *self.policy.preference() {
            return Vec::new();
        }
        self.policy.prefer(now, preference)
    }

    /// What the kernel is to be told: without automatic moves nothing, as an administrator routes then.
    pub(super) fn egress(&mut self, now: Instant, targets: &[Prefix], peers: &[IpAddr], port: u16) -> Egress {
        if self.automatic { self.steering.egress(now, &self.policy, targets, peers, port) } else { Egress::default() }
    }

    /// The addresses that interfaces other than the loopback have, usable or not.
    pub(super) fn configured(&self) -> BTreeSet<IpAddr> {
        let snapshot: &Snapshot = self.policy.snapshot();
        let real = |index| snapshot.interface(index).is_some_and(|interface| !interface.loopback);
        snapshot.addresses.iter().filter(|address| real(address.interface)).map(|address| address.ip).collect()
    }

    /// The addresses of the loopback interface.
    pub(super) fn on_loopback(&self) -> BTreeSet<IpAddr> {
        let snapshot = self.policy.snapshot();
        let loopback = |index| snapshot.interface(index).is_some_and(|interface| interface.loopback);
        snapshot.addresses.iter().filter(|address| loopback(address.interface)).map(|address| address.ip).collect()
    }

    pub(super) fn report(&self, now: Instant, told: &Egress) -> Report {
        let preference = self.policy.preference();
        // Not of networks that went.
        let configured = self.configured();
        let source = |rule: &mobconn_abi::EgressRule| {
            crate::tuple::from_bytes(&rule.source, rule.version).filter(|source| configured.contains(source))
        };
        Report {
            automatic: self.automatic,
            trouble: self.trouble.clone(),
            prefer: preference.prefer.clone(),
            ignore: preference.ignore.clone(),
            hold_down: preference.hold_down.as_secs(),
            better_in_ms: self.policy.deadline().map(|at| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX)),
            steered: told.rules.iter().take(told.rule_count as usize).filter_map(source).collect(),
            kept: self.aliases.kept(),
            addresses: report::addresses(&self.policy),
        }
    }

    /// Whether any address is chosen that is usable.
    pub(super) fn has_choice(&self) -> bool {
        let usable = |address: &crate::networks::Address| self.policy.standing(address) == Standing::Usable;
        self.policy.snapshot().addresses.iter().any(usable)
    }
}

fn preference(config: &Config, wishes: Option<&Vec<String>>) -> Preference {
    Preference {
        prefer: wishes.unwrap_or(&config.prefer).clone(),
        ignore: config.ignore.clone(),
        hold_down: Duration::from_secs(config.hold_down.into()),
        targets: config.peers.clone(),
    }
}

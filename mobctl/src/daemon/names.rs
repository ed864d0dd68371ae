//! This host's name in the DNS follows its addresses.
//!
//! The keeper works on a thread of its own; nothing here waits for the network.

use crate::ddns::keeper::Report;
use crate::ddns::{Keeper, Target, config};
use std::collections::HashSet;
use std::net::IpAddr;

/// The daemon's side of it.
#[derive(Default)]
pub(super) struct Names {
    target: Option<Target>,
    keeper: Option<Keeper>,
    /// Addresses that this host has moved away from and still has.
    left: HashSet<IpAddr>,
}

impl Names {
    /// Begins to keep the name of `target`, if there is one. To be called in the process that stays: a thread does not
    /// survive a fork. What was kept before is given up: another name is cleared.
    pub(super) fn follow(&mut self, target: Option<Target>) {
        if let Some(before) = self.keeper.take() {
            if target.is_some() {
                before.abandon();
            } else {
                // It takes its time, and nobody has to wait for it.
                std::thread::spawn(move || before.stop());
            }
        }
        self.keeper = target.clone().and_then(|target| {
            Keeper::start(target).map_err(|error| log::error!("this host's name is not kept: {error}")).ok()
        });
        self.target = target;
        self.look();
    }

    /// The addresses of this host may have changed: they are looked at, and published if they have.
    pub(super) fn look(&mut self) {
        let (Some(target), Some(keeper)) = (&self.target, &self.keeper) else { return };
        match config::published(&target.config) {
            Ok(addresses) => {
                self.left.retain(|left| addresses.contains(left));
                let stays = addresses.into_iter().filter(|address| !self.left.contains(address)).collect();
                keeper.wanted(stays);
            }
            Err(errno) => log::warn!("cannot list the addresses of this host: {errno}"),
        }
    }

    /// This host moves: `old` is no address of it any more, even if it still has it, and `new` is one.
    pub(super) fn moved(&mut self, old: IpAddr, new: IpAddr) {
        self.left.remove(&new);
        self.left.insert(old);
        self.look();
        self.hurry();
    }

    /// A path may be back.
    pub(super) fn hurry(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.hurry();
        }
    }

    /// Clears the name, as far as that is possible within a few seconds.
    pub(super) fn stop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.stop();
        }
    }

    /// How the name is.
    pub(super) fn report(&self) -> Option<Report> {
        self.keeper.as_ref().map(Keeper::report)
    }
}

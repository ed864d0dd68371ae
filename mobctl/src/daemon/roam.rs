//! The daemon moves by itself: what the networks' watcher decides is done.

use super::Daemon;
use crate::control::Response;
use crate::networks::policy::Decision;
use mobconn_dprp::Event;
use std::net::IpAddr;

impl Daemon {
    /// Looks at this host's networks, and moves what has to move.
    pub(super) fn look_at_networks(&mut self) {
        // First of all: callers are led to where this host is now.
        self.names.look();
        self.names.hurry();
        let in_use = self.endpoint.homes();
        let decisions = self.networks.look(self.clock.now(), in_use);
        // Packets must leave by the right network before any are sent from there.
        self.steer();
        self.carry_out(decisions);
    }

    /// Tells the kernel by which network packets leave.
    pub(super) fn steer(&mut self) {
        let peers: Vec<IpAddr> = self.endpoint.peers().map(|peer| peer.address.ip()).collect();
        let config = &self.settings.config;
        let egress = self.networks.egress(self.clock.now(), &self.targets, &peers, config.port);
        self.host.steer(egress);
    }

    /// Moves flows as was decided.
    pub(super) fn carry_out(&mut self, decisions: Vec<Decision>) {
        if decisions.is_empty() || !self.networks.is_automatic() {
            return;
        }
        for Decision { old, new, old_usable } in decisions {
            log::info!("connections at {old} go to {new}{}", if old_usable { ", which both work" } else { "" });
            self.names.moved(old, new);
            let event = Event::Move { old, new, old_usable };
            self.endpoint.handle_event(self.clock.now(), event, &mut self.host);
            self.flush(false);
        }
        self.list_soon();
        self.keep_old_addresses();
    }

    /// Keeps old addresses on the loopback interface, if that is wanted.
    pub(super) fn keep_old_addresses(&mut self) {
        if self.networks.aliases.is_idle() {
            return;
        }
        let (configured, on_loopback) = (self.networks.configured(), self.networks.on_loopback());
        let needed = self.host.old_addresses();
        self.networks.aliases.follow(&needed, &configured, &on_loopback);
    }

    /// The networks as they are.
    pub(super) fn report_networks(&mut self) -> Response {
        if self.networks.changed() || !self.networks.has_choice() {
            self.look_at_networks();
        }
        self.networks_now()
    }

    fn networks_now(&self) -> Response {
        Response::Networks(self.networks.report(self.clock.now(), &self.host.steered()))
    }

    /// Other wishes at run time.
    pub(super) fn prefer(&mut self, interfaces: Option<Vec<String>>) -> Response {
        match self.networks.prefer(self.clock.now(), &self.settings.config, interfaces) {
            Ok(decisions) => {
                self.steer();
                self.carry_out(decisions);
                self.networks_now()
            }
            Err(failure) => Response::failure(failure),
        }
    }

    /// Looks at the networks because somebody says so, and possibly which routers an interface has.
    pub(super) fn poke(&mut self, interface: Option<&str>, routers: &[IpAddr]) -> Response {
        if let (Some(interface), false) = (interface, routers.is_empty())
            && let Err(failure) = self.networks.tell(interface, routers)
        {
            return Response::failure(failure);
        }
        self.look_at_networks();
        Response::Done
    }
}

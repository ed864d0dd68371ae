//! Scenarios with a theme: what chance alone would seldom bring about.

use crate::conn::Stream;
use crate::daemon::Habits;
use crate::host::{Attachment, Kind};
use crate::net::Network;
use crate::script::{Act, Dice, Plan, faults, kind};
use crate::world::SECOND;
use mobconn_engine::Limits;

/// Bindings that a table takes which is going to be full.
const SMALL: u32 = 24;
/// Half-open handshakes that a host bears which is going to be flooded.
const HALF_OPEN: usize = 8;

/// Hosts, each in its own network, and two networks more.
fn base(seed: u64, d: &mut Dice, mobile: &[bool]) -> Plan {
    let families = vec![d.chance(30)];
    let network = |d: &mut Dice| Network { delay: d.time(100_000), filters: d.chance(85), nat: false, down_until: 0 };
    let nets = (0..mobile.len() + 2).map(|_| network(d)).collect();
    let host = |(h, mobile): (usize, &bool)| {
        let number = u8::try_from(h + 1).expect("few hosts");
        let quick = Habits { listing_cost: 0, snapshot_lag: 0, limits: Limits { grace: 60, udp_idle: 300 } };
        let kind = Kind { habits: quick, ..kind(d, number, *mobile, true, &families) };
        (kind, vec![Attachment { network: h, slot: number }])
    };
    let kinds = mobile.iter().enumerate().map(host).collect();
    Plan { seed, kinds, nets, acts: Vec::new(), end: 0 }
}

fn short(d: &mut Dice) -> Stream {
    Stream { total: d.pick(&[100, 2000, 9000]), chunk: 1000, pause: d.time(SECOND / 4), ..Stream::default() }
}

impl Plan {
    /// Two mobile hosts with connections to the same ports of a third one, from the same ports, swap their addresses. Who
    /// of them moves first finds its new wire sides in use.
    pub(crate) fn swap(seed: u64, d: &mut Dice) -> Self {
        let mut plan = base(seed, d, &[true, true, false]);
        let v6 = plan.kinds[0].0.families[0];
        for port in 0..1 + d.below(3) as u16 {
            for host in 0..2 {
                let streams = [short(d), short(d)];
                plan.acts.push((
                    d.time(SECOND),
                    Act::Open { hosts: (host, 2), tcp: true, v6, port: 10_000 + port, streams },
                ));
            }
        }
        let swap = |d: &mut Dice| Act::Swap {
            hosts: [0, 1],
            notice: [d.time(SECOND), d.time(SECOND)],
            patience: 100,
            quiet: false,
        };
        if d.chance(30) {
            plan.acts.push((0, Act::Faults(faults(d))));
            plan.acts.push((60 * SECOND, Act::Faults(Default::default())));
        }
        plan.acts.push((SECOND + d.below(10 * SECOND), swap(d)));
        if d.chance(50) {
            plan.acts.push((100 * SECOND, swap(d)));
        }
        plan.end = 240 * SECOND;
        plan
    }

    /// Somebody fills the tables of hosts, and makes room again, now and then.
    pub(crate) fn full(mut self, d: &mut Dice) -> Self {
        for (kind, _) in &mut self.kinds {
            kind.capacity = SMALL;
        }
        for _ in 0..1 + d.below(4) {
            let (at, host) = (d.below(self.end), d.below(self.kinds.len() as u64) as usize);
            let act = if d.chance(75) { Act::Fill(host, d.below(4) as u32) } else { Act::Empty(host) };
            self.acts.push((at, act));
        }
        self
    }

    /// Some networks have a router that translates addresses.
    pub(crate) fn translated(mut self, d: &mut Dice) -> Self {
        let hosts = self.kinds.len();
        // The last one is where hosts go that have no other place.
        for network in hosts..self.nets.len() - 1 {
            if d.chance(70) {
                self.nets[network].nat = true;
                self.nets[network].filters = true;
            }
        }
        self
    }

    /// Strangers begin handshakes without end. Meanwhile one host moves, and another one associates and claims.
    pub(crate) fn flood(seed: u64, d: &mut Dice) -> Self {
        let mut plan = base(seed, d, &[true, false, true]);
        plan.kinds[1].0.config.limits.half_open = HALF_OPEN;
        let v6 = plan.kinds[0].0.families[0];
        let open = |plan: &mut Self, at: u64, host: usize, port: u16, d: &mut Dice| {
            let streams = [short(d), short(d)];
            plan.acts.push((at, Act::Open { hosts: (host, 1), tcp: true, v6, port, streams }));
        };
        for port in 0..1 + d.below(3) as u16 {
            open(&mut plan, d.time(SECOND), 0, 10_000 + port, d);
        }
        plan.acts.push((8 * SECOND, Act::Flood { host: 1, count: 2500, every: 10_000 }));
        let to = Attachment { network: 3, slot: 1 };
        let keep = if d.chance(50) { 5 * SECOND } else { 0 };
        let go = Act::Go { host: 0, to, gap: 0, keep, notice: d.time(SECOND), patience: 20 };
        plan.acts.push((10 * SECOND + d.below(5 * SECOND), go));
        open(&mut plan, 10 * SECOND + d.below(5 * SECOND), 2, 20_000, d);
        plan.acts.push((32 * SECOND, Act::Settled));
        plan.end = 40 * SECOND;
        plan
    }
}

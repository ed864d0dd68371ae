//! The steps of a scenario, done.

use crate::host::Attachment;
use crate::net::{self, Faults};
use crate::script::{self, Act};
use crate::world::{SECOND, What, World};
use mobconn_dprp::Protocol;
use std::net::IpAddr;

/// How long everything may take once the faults are over, in seconds.
const RECOVERY: u64 = 1800;

impl World {
    /// Does a step.
    pub fn act(&mut self, act: Act) {
        if self.finale && !matches!(act, Act::Tell(_) | Act::Start(_) | Act::Mend(..)) {
            return;
        }
        if !matches!(act, Act::Flood { .. }) {
            self.say(|| format!("-- {act:?}"));
        }
        match act {
            Act::Open { hosts: (from, to), tcp, v6, port, streams } => {
                let places = (self.hosts[from].attached.last().copied(), self.hosts[to].attached.last().copied());
                let awake = self.hosts[from].asleep.is_none();
                if let ((Some(here), Some(there)), true) = (places, awake)
                    && !self.networks.all[there.network].nat
                {
                    self.open((from, to), script::flow(here, there, v6, port, tcp), streams);
                }
            }
            Act::Go { host, to, gap, keep, notice, patience } => self.go(host, to, (gap, keep, notice), patience),
            Act::Come { host, to, notice } => self.come(host, to, notice),
            Act::Tell(host) => self.tell(host),
            Act::Leave { host, from, notice } => {
                if self.hosts[host].attached.last() != Some(&from) {
                    self.detach(host, from);
                    self.later(notice, What::Act(Act::Tell(host)));
                }
            }
            Act::Restart { host, keep, down } => {
                if self.hosts[host].daemon.is_some() && self.hosts[host].asleep.is_none() {
                    let current = self.hosts[host].daemon.as_ref().is_some_and(|daemon| daemon.is_written());
                    self.hosts[host].kill_daemon(keep);
                    if !keep {
                        self.memory_lost(host);
                    } else if !current {
                        // What an old memory is good for depends on what the other end still knows.
                        for (id, _) in self.promised(host) {
                            self.excuse(id, "killed before it had written down what changed");
                        }
                    }
                    self.later(down, What::Act(Act::Start(host)));
                    self.settle(host);
                }
            }
            Act::Start(host) => self.start(host),
            Act::Reboot(host) => {
                if self.hosts[host].asleep.is_none() {
                    for (id, _) in self.promised(host) {
                        self.excuse(id, "a reboot");
                    }
                    let now = self.now;
                    self.hosts[host].reboot(now);
                    self.start(host);
                }
            }
            Act::Sleep { host, length, stands } => {
                if self.hosts[host].asleep.is_none() {
                    self.hosts[host].asleep = Some(self.now);
                    self.settle(host);
                    self.later(length, What::Act(Act::Wake { host, stood: stands }));
                }
            }
            Act::Wake { host, stood } => self.rouse(host, stood),
            Act::Down(network, length) => self.networks.all[network].down_until = self.now + length,
            Act::Faults(faults) => self.networks.faults = faults,
            Act::Trouble(host, refuse, short) => {
                self.hosts[host].kernel.trouble.refuse = refuse;
                self.hosts[host].kernel.trouble.short = short;
            }
            Act::Swap { hosts, notice, patience, quiet } => self.swap(hosts, notice, patience, quiet),
            Act::Fill(host, left) => self.hosts[host].kernel.fill(left),
            Act::Empty(host) => self.hosts[host].kernel.empty(),
            Act::Flood { host, count, every } => {
                self.flood(host, count);
                if count > 1 {
                    self.later(every, What::Act(Act::Flood { host, count: count - 1, every }));
                }
            }
            Act::Settled => self.judge_settled(),
            Act::Silly(host, which) => self.silly(host, which),
            Act::Mend(host, old) => self.mend(host, old),
            Act::Inherit { host, at, patience } => self.inherit(host, at, patience),
        }
    }

    pub(crate) fn addresses(&self, h: usize, at: Attachment) -> Vec<IpAddr> {
        self.hosts[h].kind.families.iter().map(|v6| net::address(at.network, at.slot, *v6)).collect()
    }

    /// Whether host `h` can attach itself there: nobody else is there.
    fn is_free(&self, h: usize, at: Attachment) -> bool {
        !self.hosts.iter().enumerate().any(|(other, host)| other != h && host.attached.contains(&at))
    }

    fn go(&mut self, h: usize, to: Attachment, (gap, keep, notice): (u64, u64, u64), patience: u32) {
        let host = &self.hosts[h];
        let Some(from) =
            host.attached.last().copied().filter(|from| host.asleep.is_none() && *from != to && self.is_free(h, to))
        else {
            return;
        };
        let guarded = self.promised(h).iter().all(|(id, which)| self.is_guarded(*id, *which));
        if patience > 0 && !guarded {
            let again = Act::Go { host: h, to, gap, keep, notice, patience: patience - 1 };
            return self.later(SECOND / 2, What::Act(again));
        }
        if keep == 0 {
            self.detach(h, from);
        } else {
            self.later(keep, What::Act(Act::Leave { host: h, from, notice }));
        }
        if gap == 0 {
            self.come(h, to, notice);
        } else {
            self.later(gap, What::Act(Act::Come { host: h, to, notice }));
        }
    }

    fn come(&mut self, host: usize, to: Attachment, notice: u64) {
        if !self.is_free(host, to) {
            return;
        }
        let former = self.hosts[host].attached.last().copied();
        self.hosts[host].untold.extend(former);
        self.hosts[host].attach(to);
        self.address_gained(host, to);
        self.later(notice, What::Act(Act::Tell(host)));
    }

    fn detach(&mut self, h: usize, at: Attachment) {
        if self.hosts[h].attached.contains(&at) {
            self.hosts[h].attached.retain(|known| *known != at);
            self.hosts[h].untold.push(at);
            for address in self.addresses(h, at) {
                self.address_lost(h, address);
            }
        }
    }

    /// The daemon looks which addresses it has, and does what it has to do about those that it left.
    fn tell(&mut self, host: usize) {
        if self.hosts[host].asleep.is_some() || self.hosts[host].daemon.is_none() {
            return;
        }
        let Some(to) = self.hosts[host].attached.last().copied() else { return };
        let now = self.now;
        let mut moves = Vec::new();
        for from in std::mem::take(&mut self.hosts[host].untold) {
            if from != to {
                moves.extend(self.addresses(host, from).into_iter().zip(self.addresses(host, to)));
            }
        }
        moves.extend(self.strays(host, to));
        for (old, new) in moves {
            self.hosts[host].tell_move(now, old, new);
            if let Some(daemon) = &mut self.hosts[host].daemon {
                daemon.left.remove(&new);
                daemon.left.insert(old, new);
            }
        }
        self.settle(host);
    }

    /// Where flows still are that could not follow an earlier move, and were not told to go to the present address.
    fn strays(&self, h: usize, to: Attachment) -> Vec<(IpAddr, IpAddr)> {
        let host = &self.hosts[h];
        let Some(daemon) = &host.daemon else { return Vec::new() };
        let here = self.addresses(h, to);
        let gone = daemon.endpoint.homes().into_iter().filter(|home| !host.has(*home));
        gone.filter_map(|old| Some((old, *here.iter().find(|new| new.is_ipv4() == old.is_ipv4())?)))
            .filter(|(old, new)| daemon.left.get(old) != Some(new))
            .collect()
    }

    fn swap(&mut self, hosts: [usize; 2], notice: [u64; 2], patience: u32, quiet: bool) {
        let places = hosts.map(|h| self.hosts[h].attached.last().copied());
        let [Some(first), Some(second)] = places else { return };
        let open = self.conns.iter().filter(|conn| conn.excused.is_none() && !conn.is_over());
        let still = open.flat_map(|conn| &conn.streams).all(|stream| stream.received == stream.total);
        let ends = hosts.iter().flat_map(|h| self.promised(*h));
        let guarded = ends.into_iter().all(|(id, which)| self.is_guarded(id, which));
        if !(still && guarded && quiet) {
            let again = Act::Swap { hosts, notice, patience: patience.saturating_sub(1), quiet: still && guarded };
            if patience > 0 {
                self.later(if still && guarded { 5 * SECOND } else { SECOND / 2 }, What::Act(again));
            }
            return;
        }
        for (h, from) in hosts.into_iter().zip([first, second]) {
            self.detach(h, from);
        }
        for ((h, to), notice) in hosts.into_iter().zip([second, first]).zip(notice) {
            self.come(h, to, notice);
        }
    }

    fn start(&mut self, host: usize) {
        if self.hosts[host].asleep.is_some() {
            return self.later(SECOND / 2, What::Act(Act::Start(host)));
        }
        let now = self.now;
        self.hosts[host].start_daemon(now);
        self.settle(host);
        self.tell(host);
    }

    fn rouse(&mut self, host: usize, stood: bool) {
        if let Some(since) = self.hosts[host].asleep.take() {
            if stood {
                let slept = self.now - since;
                self.hosts[host].ahead = self.hosts[host].ahead.saturating_sub(slept);
            }
            self.settle(host);
            self.tell(host);
        }
    }

    fn silly(&mut self, h: usize, which: u8) {
        let Some(at) = self.hosts[h].attached.last().copied().filter(|_| self.hosts[h].asleep.is_none()) else {
            return;
        };
        let other = self.hosts[usize::from(h == 0)].addresses().first().copied();
        for old in self.addresses(h, at) {
            let text = match (which, old.is_ipv4()) {
                (0, true) => "127.0.0.1",
                (0, false) => "::1",
                (1, true) => "255.255.255.255",
                (1, false) => "ff02::1",
                (2, true) => "224.0.0.5",
                (2, false) => "fe80::7",
                (3, true) => "0.0.0.0",
                (3, false) => "::",
                (4, true) => "10.250.0.9",
                _ => "2001:db8:99::9",
            };
            let new = if which >= 6 { other } else { text.parse().ok() };
            if let Some(new) = new {
                let now = self.now;
                self.hosts[h].command_move(now, old, new, true);
                self.later(3 * SECOND, What::Act(Act::Mend(h, new)));
            }
        }
        self.settle(h);
    }

    fn mend(&mut self, h: usize, old: IpAddr) {
        let now = self.now;
        let same = self.hosts[h].addresses().into_iter().rfind(|new| new.is_ipv4() == old.is_ipv4());
        if let Some(new) = same.filter(|new| *new != old) {
            self.hosts[h].command_move(now, old, new, false);
            self.settle(h);
        }
    }

    fn inherit(&mut self, h: usize, at: Attachment, patience: u32) {
        let gone = self.hosts.iter().all(|host| !host.attached.contains(&at));
        let addresses = self.addresses(h, at);
        let sent_there = self.conns.iter().filter(|conn| conn.excused.is_none() && !conn.is_over()).any(|conn| {
            conn.ends.iter().any(|end| {
                end.flow.is_some_and(|flow| addresses.contains(&self.hosts[end.host].wire(&flow).remote.ip()))
            })
        });
        if !gone || sent_there || addresses.iter().any(|address| self.is_under_way(*address)) {
            if patience > 0 {
                self.later(SECOND / 2, What::Act(Act::Inherit { host: h, at, patience: patience - 1 }));
            }
            return;
        }
        self.hosts[h].attach(at);
        self.address_gained(h, at);
        // A connection that was never claimed stands in the way of another with the same ports, mobconn or not.
        let promised = self.conns.iter().filter(|conn| conn.excused.is_none());
        let same: Vec<_> = promised.filter_map(|conn| Some((conn.ends[1].host, conn.ends[0].flow?))).collect();
        for (called, flow) in same {
            // Of UDP, what comes from an address in grace is its former holder's.
            let grace = flow.protocol == Protocol::Udp && !self.hosts[called].kernel.control.is_empty();
            let there = self.hosts[called].has(flow.remote.ip());
            // Twice the same is not told apart by what the ends of a connection say of themselves.
            let again = self.conns.iter().any(|conn| conn.ends[0].host == h && conn.ends[0].flow == Some(flow));
            if addresses.contains(&flow.local.ip()) && called != h && there && !grace && !again {
                let stream = crate::conn::Stream { total: 500, chunk: 100, pause: SECOND / 10, ..Default::default() };
                self.open((h, called), flow, [stream.clone(), stream]);
            }
        }
        self.settle(h);
    }

    /// The faults are over: from now on everything must come to a good end.
    fn heal(&mut self) {
        self.say(|| "-- the faults are over".into());
        self.finale = true;
        self.networks.faults = Faults::default();
        for network in &mut self.networks.all {
            network.down_until = 0;
        }
        for h in 0..self.hosts.len() {
            self.rouse(h, false);
            self.hosts[h].kernel.trouble = Default::default();
            self.hosts[h].kernel.empty();
            // Nothing can move from behind a router that translates, and nothing is to end there.
            for at in self.hosts[h].attached.clone() {
                if self.networks.all[at.network].nat {
                    self.detach(h, at);
                }
            }
            self.start(h);
            if self.hosts[h].attached.is_empty() {
                let home = self.plan.kinds[h].1[0];
                let slot = u8::try_from(h + 1).expect("few hosts");
                let at = if self.is_free(h, home) {
                    home
                } else {
                    Attachment { network: self.networks.all.len() - 1, slot }
                };
                self.come(h, at, 0);
            }
        }
        for conn in &mut self.conns {
            for stream in &mut conn.streams {
                stream.total += 100;
                stream.pause = stream.pause.min(SECOND / 5);
                stream.chunk = stream.chunk.max(500);
                stream.next = self.now;
            }
        }
        self.drop_excused();
    }

    fn drop_excused(&mut self) {
        for id in 0..self.conns.len() {
            if self.conns[id].excused.is_some() {
                self.hang_up(id);
            }
        }
        for h in 0..self.hosts.len() {
            self.settle(h);
        }
    }

    fn hang_up(&mut self, id: usize) {
        for end in self.conns[id].ends.clone() {
            if let Some(flow) = end.flow.filter(|_| end.boot == self.hosts[end.host].boot) {
                self.hosts[end.host].stack.forget(&flow);
            }
        }
        self.conns[id].closed = [true; 2];
    }

    /// Runs until `done`, at most so many seconds.
    fn run_until(&mut self, limit: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit * SECOND;
        while self.violations.is_empty() && !done(self) {
            if self.now >= end {
                return false;
            }
            self.run(self.now + SECOND);
        }
        true
    }

    /// Runs the scenario to its end.
    pub fn play(&mut self) {
        self.run(self.plan.end);
        if !self.violations.is_empty() {
            return;
        }
        self.heal();
        let open = |world: &Self| world.conns.iter().all(|conn| conn.excused.is_some() || conn.is_complete());
        if !self.run_until(RECOVERY, open) {
            let stuck = self.conns.iter().filter(|conn| conn.excused.is_none() && !conn.is_complete());
            let stuck: Vec<_> = stuck.map(|conn| self.portrait(conn.id)).collect();
            return self.violation(format!("not recovered: {stuck:#?}"));
        }
        for host in &mut self.hosts {
            host.stack.close_to_callers();
        }
        for id in 0..self.conns.len() {
            self.conns[id].closing = true;
            if !self.conns[id].is_tcp() {
                self.hang_up(id);
            }
        }
        for h in 0..self.hosts.len() {
            self.settle(h);
        }
        if !self.run_until(300, |world| world.conns.iter().all(crate::conn::Conn::is_over)) {
            let open: Vec<_> =
                self.conns.iter().filter(|conn| !conn.is_over()).map(|conn| self.portrait(conn.id)).collect();
            return self.violation(format!("not closed: {open:#?}"));
        }
        self.run(self.now + 10 * SECOND);
        self.end_embryos();
        if !self.run_until(RECOVERY, |world| world.remains().is_empty()) {
            let text = format!("something is left: {:#?}", self.remains());
            self.violation(text);
        }
        for host in &self.hosts {
            self.tally.released += host.kernel.released;
            self.tally.displaced += host.kernel.displaced;
            self.tally.taken += host.kernel.taken;
            self.tally.full += host.kernel.full;
        }
        self.tally.seconds = self.now / SECOND;
    }

    /// Connections that nobody took up: the callers of old are gone.
    fn end_embryos(&mut self) {
        for h in 0..self.hosts.len() {
            let left: Vec<_> = self.hosts[h].stack.live().keys().copied().collect();
            for flow in left {
                self.hosts[h].stack.forget(&flow);
            }
            self.settle(h);
        }
    }
}

//! What must hold, and of which connections nothing is promised.
//!
//! A connection is *guarded* at an end that moves if both daemons know the claim. What loses its address while it is
//! not guarded is *excused*: it may die, and an RST for it is nobody's mistake. Everything else must go on.

use crate::conn::End;
use crate::frame::Frame;
use crate::host::Attachment;
use crate::kernel;
use crate::world::World;
use mobconn_dprp::{Flow, Protocol};
use std::net::IpAddr;

impl World {
    /// Nothing is promised for a connection any more.
    pub fn excuse(&mut self, id: usize, why: impl Into<String>) {
        let why = why.into();
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.excused.is_none() && !conn.is_over()) else {
            return;
        };
        conn.excused = Some(why.clone());
        self.tally.excused += 1;
        self.say(|| format!("connection {id} is excused: {why}"));
    }

    /// Whether an end of a connection can move.
    #[must_use]
    pub fn is_guarded(&self, id: usize, which: usize) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let (here, there) = (&conn.ends[which], &conn.ends[1 - which]);
        let (Some(flow), Some(other)) = (here.flow, there.flow) else { return false };
        let (host, peer) = (&self.hosts[here.host], &self.hosts[there.host]);
        let (Some(ours), Some(theirs)) = (&host.daemon, &peer.daemon) else { return false };
        ours.endpoint.claimed(&flow) == Some(peer.key()) && theirs.endpoint.owner(&other) == Some(host.key())
    }

    /// Whether an end of a connection uses an address, as either host knows it.
    fn uses(&self, id: usize, which: usize, address: IpAddr) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let (here, there) = (&conn.ends[which], &conn.ends[1 - which]);
        let ours = here.flow.is_some_and(|flow| self.hosts[here.host].wire(&flow).local.ip() == address);
        ours || there.flow.is_some_and(|flow| self.hosts[there.host].wire(&flow).remote.ip() == address)
    }

    /// The connections that an end of which is at `h`, and which end, of those that something is promised for.
    #[must_use]
    pub fn promised(&self, h: usize) -> Vec<(usize, usize)> {
        let open = self.conns.iter().filter(|conn| conn.excused.is_none() && !conn.is_over());
        open.flat_map(|conn| {
            let at = move |which: &usize| conn.ends[*which].host == h;
            [0, 1].into_iter().filter(at).map(move |which| (conn.id, which))
        })
        .collect()
    }

    /// A host does not have this address any more.
    pub fn address_lost(&mut self, h: usize, address: IpAddr) {
        for (id, which) in self.promised(h) {
            if self.uses(id, which, address) && !self.is_guarded(id, which) {
                self.excuse(id, format!("{address} was lost before it was claimed"));
            }
        }
    }

    /// A host is at a place now, perhaps the very one where its peer began: a connection cannot go there.
    pub fn address_gained(&mut self, h: usize, at: Attachment) {
        let addresses = self.addresses(h, at);
        for (id, which) in self.promised(h) {
            let there = self.conns[id].ends[which].flow.is_some_and(|flow| addresses.contains(&flow.remote.ip()));
            if there {
                self.excuse(id, "its host was given the address where its peer began");
            }
        }
    }

    /// A host's daemon has forgotten what it knew.
    pub fn memory_lost(&mut self, h: usize) {
        for (id, which) in self.promised(h) {
            let ends = &self.conns[id].ends;
            let (here, there) = (&ends[which], &ends[1 - which]);
            let (Some(flow), Some(other)) = (here.flow, there.flow) else {
                continue;
            };
            let (ours, theirs) = (self.hosts[here.host].wire(&flow), self.hosts[there.host].wire(&other));
            let at_home = [ours.local.ip(), theirs.remote.ip()].iter().all(|at| self.hosts[here.host].has(*at))
                && [ours.remote.ip(), theirs.local.ip()].iter().all(|at| self.hosts[there.host].has(*at));
            // The other end has asked for a move of it, and does not know yet what became of that.
            let forgetful = self.hosts[here.host].key();
            let unfinished = self.hosts[there.host].daemon.as_ref().is_some_and(|daemon| {
                let mut peers = daemon.endpoint.peers().filter(|peer| peer.key == forgetful);
                peers.any(|peer| peer.moves.iter().any(|moving| moving.flows > 0))
            });
            if !at_home || unfinished {
                self.excuse(id, "a daemon forgot it while it was moving");
            }
        }
    }

    /// Whether a connection's segments must be treated well by host `h`.
    fn matters(&self, id: usize, h: usize) -> bool {
        self.conns.get(id).is_some_and(|conn| {
            let closed = [0, 1].into_iter().any(|which| conn.ends[which].host == h && conn.closed[which]);
            conn.excused.is_none() && !closed && !conn.is_over()
        })
    }

    /// A host's TCP or UDP is given something. Returns whether that is so old that it belongs nowhere any more: a half of a
    /// wire side has two addresses, so what the last two moves of either host have overtaken is accepted no more.
    pub fn judge_delivery(&mut self, h: usize, frame: &Frame, flow: &Flow) -> bool {
        // What was damaged on its way goes nowhere: TCP looks at the checksum.
        if frame.payload().is_none() && !frame.is_whole() {
            return false;
        }
        let own = self.conn_of(h, flow);
        if let Some(id) = own.filter(|id| self.matters(*id, h) && frame.is_reset()) {
            self.violation(format!("connection {id}: RST delivered to {}: {frame}", self.name(h)));
        }
        let Some(id) = frame.origin.filter(|id| self.matters(*id, h)) else { return false };
        let ends = &self.conns[id].ends;
        let overtakes = |end: &End| {
            let moves = self.hosts[end.host].moves[usize::from(flow.local.is_ipv6())].iter().rev();
            end.host != h && moves.take_while(|(at, ..)| *at >= frame.sent).count() >= 2
        };
        // A sender that has heard of neither move sends to where its peer was before.
        let old = self.hosts[h].left_long_ago(flow.local.ip()) || ends.iter().any(overtakes);
        let right = ends.iter().any(|end| end.host == h && end.flow.is_none_or(|known| known == *flow));
        if !right && !old {
            self.violation(format!("connection {id}: its segment was delivered to {} as {frame}", self.name(h)));
        }
        !right
    }

    /// A host's TCP sends RST, because of a segment of connection `cause` or by itself.
    pub fn judge_reset(&mut self, h: usize, cause: Option<usize>, frame: &Frame) {
        self.say(|| format!("{}: RST {frame}", self.name(h)));
        if let Some(id) = cause.or(frame.origin).filter(|id| self.matters(*id, h)) {
            self.violation(format!("connection {id}: {} sends RST: {frame}", self.name(h)));
        }
    }

    /// A host sends something: the other end would accept it now.
    pub fn judge_transmission(&mut self, h: usize, frame: &Frame) {
        let (Some(id), Some(heads)) = (frame.origin, frame.heads()) else { return };
        if !self.matters(id, h) || heads.flow.protocol != Protocol::Tcp {
            return;
        }
        let conn = &self.conns[id];
        let Some(which) = [0, 1].into_iter().find(|which| {
            let end = &conn.ends[*which];
            end.host == h && end.flow.is_some()
        }) else {
            return;
        };
        let peer = &conn.ends[1 - which];
        let Some(other) = peer.flow.filter(|flow| self.hosts[peer.host].stack.live().contains_key(flow)) else {
            return;
        };
        if !self.matters(id, peer.host) {
            return;
        }
        // A router makes something else of it.
        let network = self.hosts[h].leaves_by(heads.flow.local.ip()).and_then(|network| self.networks.all.get(network));
        if network.is_none_or(|network| network.nat) {
            return;
        }
        // What goes to an address that the peer has no more is lost.
        if !self.hosts[peer.host].has(heads.flow.remote.ip()) {
            return;
        }
        let accepted = self.hosts[peer.host].accepts(&heads.flow.mirrored());
        if accepted != Some(other) {
            let peer = peer.host;
            self.violation(format!(
                "connection {id}: {} sends {frame}, which is {accepted:?} to {}",
                self.name(h),
                self.name(peer)
            ));
        }
    }

    /// A connection in one line, for who looks for a mistake.
    #[must_use]
    pub fn portrait(&self, id: usize) -> String {
        let conn = &self.conns[id];
        let mut text = format!("connection {id}");
        for (end, stream) in conn.ends.iter().zip(&conn.streams) {
            text += &format!(
                "; {} sent {} of {}, arrived {}",
                self.name(end.host),
                stream.sent,
                stream.total,
                stream.received
            );
            if let Some(flow) = end.flow {
                let host = &self.hosts[end.host];
                let binding = host.kernel.control.get(&host.kernel.engine, &kernel::side(&flow));
                text += &format!(", {} to {}", flow.local, flow.remote);
                if let Some(binding) = binding {
                    let wire = kernel::flow(&binding.wire);
                    text +=
                        &format!(" as {} to {} ({:?}, {:?})", wire.local, wire.remote, binding.local, binding.remote);
                }
            }
        }
        text
    }

    /// What is left of connections and associations although it should not be.
    #[must_use]
    pub fn remains(&self) -> Vec<String> {
        let mut remains = Vec::new();
        for (h, host) in self.hosts.iter().enumerate() {
            let name = self.name(h);
            if !host.kernel.control.is_empty() {
                let first = host.kernel.control.next(&host.kernel.engine, 0);
                remains.push(format!("{name}: {} bindings, such as {first:?}", host.kernel.control.len()));
            }
            if host.kernel.waiting() != 0 {
                remains.push(format!("{name}: {} packets that wait", host.kernel.waiting()));
            }
            if !host.stack.live().is_empty() {
                remains.push(format!("{name}: connections {:?}", host.stack.live()));
            }
            if let Some(daemon) = &host.daemon {
                let peers: Vec<_> = daemon.endpoint.peers().collect();
                if !peers.is_empty() {
                    remains.push(format!("{name}: {peers:?}"));
                }
            }
        }
        remains
    }
}

//! Two hosts with very many flows between them.

use crate::end::{Datagram, End, address, config, flow};
use mobconn_dprp::{Endpoint, Event, Host, Instant};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use std::net::Ipv6Addr;
use std::time::Duration;

const NETWORKS: [u8; 2] = [10, 11];

pub(crate) struct Pair<H> {
    mover: End<H>,
    peer: End<H>,
    at: usize,
    count: usize,
    now: Instant,
}

/// What moving all flows cost.
pub(crate) struct Cost {
    /// At the mover, until it sends from its new address.
    pub(crate) first: Duration,
    /// At both ends, from the beginning to the end: nothing of it goes on at the same time.
    pub(crate) both: Duration,
    /// How many datagrams that took.
    pub(crate) datagrams: usize,
    /// Length of the longest.
    pub(crate) longest: usize,
}

impl<H: Host> Pair<H> {
    /// Two hosts with `count` flows that the first has claimed.
    pub(crate) fn new(count: u32, kernels: (H, H)) -> Self {
        let (near, far) = (address(NETWORKS[0], 1), address(20, 0));
        let mover = End::new(config(1), kernels.0);
        let peer = End::new(mobconn_dprp::Config { mobile: false, ..config(0) }, kernels.1);
        let mut pair = Self { mover, peer, at: 0, count: count as usize, now: Instant::from_micros(0) };
        let flows = (0..count).map(|i| (flow(near, far, i), 1)).collect();
        let under_way = pair.mover.event(pair.now, Event::Flows(flows));
        pair.settle(under_way, |_| {});
        let confirmed: usize = pair.mover.endpoint.peers().map(|peer| peer.confirmed).sum();
        assert_eq!(confirmed, pair.count, "all are claimed");
        pair
    }

    fn settle(&mut self, mut under_way: Vec<Datagram>, mut see: impl FnMut(&Datagram)) {
        let there = address(20, 0);
        while !under_way.is_empty() {
            under_way.iter().for_each(&mut see);
            let (to_peer, to_mover): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|each| each.to == there);
            under_way = self.peer.take(self.now, &to_peer);
            under_way.extend(self.mover.take(self.now, &to_mover));
        }
    }

    /// What it takes the mover to write all down, how many bytes that are, and what it takes to begin with them.
    pub(crate) fn remembers(&self) -> (Duration, usize, Duration) {
        let fastest = |what: &mut dyn FnMut()| {
            let times = (0..5).map(|_| {
                let began = std::time::Instant::now();
                what();
                began.elapsed()
            });
            times.min().unwrap_or_default()
        };
        let snapshot = self.mover.endpoint.snapshot(b"boot");
        let writes = fastest(&mut || assert_eq!(self.mover.endpoint.snapshot(b"boot").len(), snapshot.len()));
        let reads = fastest(&mut || {
            let endpoint = Endpoint::restore(config(1), ChaCha20Rng::from_seed([1; 32]), self.now, b"boot", &snapshot);
            let confirmed: usize = endpoint.unwrap().peers().map(|peer| peer.confirmed).sum();
            assert_eq!(confirmed, self.count, "all are remembered");
        });
        (writes, snapshot.len(), reads)
    }

    /// What it takes the mover to look at all its flows, and at so many that concern nobody.
    pub(crate) fn looks(&mut self, others: u32) -> Duration {
        let (near, far) = (address(NETWORKS[self.at], 1), address(20, 0));
        let mine = (0..self.count as u32).map(|i| (flow(near, far, i), 1));
        // Peers are all that has an IPv4 address.
        let elsewhere = Ipv6Addr::LOCALHOST.into();
        let flows = mine.chain((0..others).map(|i| (flow(elsewhere, elsewhere, i), 2))).collect();
        self.mover.cost();
        let asked = self.mover.event(self.now, Event::Flows(flows));
        assert!(asked.is_empty(), "nothing is new");
        self.mover.cost()
    }

    /// Moves all flows.
    pub(crate) fn go(&mut self) -> Cost {
        self.mover.cost();
        self.peer.cost();
        (self.mover.moved, self.peer.moved) = ((0, 0), (0, 0));
        self.now = self.now.after(Duration::from_secs(60));
        let (from, to) = (self.at, 1 - self.at);
        self.at = to;
        let event = Event::Move { old: address(NETWORKS[from], 1), new: address(NETWORKS[to], 1), old_usable: false };
        let asked = self.mover.event(self.now, event);
        let challenged = self.peer.take(self.now, &asked);
        let answered = self.mover.take(self.now, &challenged);
        let first = self.mover.spent + self.peer.spent;
        let (mut datagrams, mut longest) = (0, 0);
        let mut see = |datagram: &Datagram| {
            datagrams += 1;
            longest = longest.max(datagram.data.len());
        };
        asked.iter().chain(&challenged).for_each(&mut see);
        self.settle(answered, see);
        assert_eq!((self.mover.moved, self.peer.moved), ((1, self.count), (1, self.count)), "one move of all");
        Cost { first, both: self.mover.cost() + self.peer.cost(), datagrams, longest }
    }
}

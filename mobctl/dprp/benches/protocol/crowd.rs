//! One host with very many peers, each with one flow that both ends have
//! claimed.

use crate::end::{Datagram, End, address, config, flow, is_stranger, number};
use crate::kernels::Willing;
use crate::memory;
use mobconn_dprp::{Event, Host, Instant};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Network of the many, before and after they move, and of the one.
const MANY: [u8; 2] = [10, 11];
const ONE: [u8; 2] = [20, 21];
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(ONE[0], 0, 0, 0));

pub(crate) struct Crowd<H> {
    pub(crate) one: End<H>,
    many: Vec<End<Willing>>,
    /// In which network the many and the one are.
    at: (usize, usize),
    now: u64,
}

impl<H: Host> Crowd<H> {
    /// Makes `count` associations, each with a claim of either end.
    pub(crate) fn new(count: u32, kernel: H) -> Self {
        let mut crowd = Self::associated(count, kernel);
        let flows = (1..=count).map(|i| (flow(address(MANY[0], i), HERE, i).mirrored(), 1)).collect();
        let under_way = crowd.one.event(Instant::from_micros(crowd.now), Event::Flows(flows));
        crowd.settle(under_way);
        let claimed = crowd.one.endpoint.peers().filter(|peer| (peer.confirmed, peer.claims) == (1, 1)).count();
        assert_eq!(claimed, count as usize, "all are claimed at both ends");
        crowd
    }

    /// The same when all claims have ended.
    pub(crate) fn idle(count: u32, kernel: H) -> Self {
        let mut crowd = Self::associated(count, kernel);
        let now = Instant::from_micros(crowd.now);
        let under_way = (1..=count).flat_map(|i| crowd.peer(i).event(now, Event::Flows(Vec::new()))).collect();
        crowd.settle(under_way);
        let idle = crowd.one.endpoint.peers().filter(|peer| (peer.confirmed, peer.claims) == (0, 0)).count();
        assert_eq!(idle, count as usize);
        crowd
    }

    fn associated(count: u32, kernel: H) -> Self {
        let one = End::new(config(0), kernel);
        let many = (1..=count).map(|i| End::new(config(i), Willing)).collect();
        let mut crowd = Self { one, many, at: (0, 0), now: 0 };
        // In portions: only so many handshakes may be under way.
        for portion in (1..=count).collect::<Vec<_>>().chunks(256) {
            let (mut under_way, now) = (Vec::new(), Instant::from_micros(crowd.now));
            for &i in portion {
                let flows = vec![(flow(address(MANY[0], i), HERE, i), 1)];
                under_way.extend(crowd.peer(i).event(now, Event::Flows(flows)));
            }
            crowd.settle(under_way);
            crowd.now += 1000;
        }
        crowd
    }

    fn peer(&mut self, number: u32) -> &mut End<Willing> {
        &mut self.many[number as usize - 1]
    }

    /// Delivers until nothing is under way.
    fn settle(&mut self, mut under_way: Vec<Datagram>) {
        let now = Instant::from_micros(self.now);
        while !under_way.is_empty() {
            let (to_one, to_many): (Vec<_>, Vec<_>) =
                under_way.into_iter().partition(|datagram| number(datagram.to) == 0);
            under_way = self.one.take(now, &to_one);
            for datagram in to_many.into_iter().filter(|datagram| !is_stranger(datagram.to)) {
                let peer = self.peer(number(datagram.to));
                under_way.extend(peer.take(now, &[datagram]));
            }
        }
    }

    /// Datagrams with which the many, in an order that jumps about, begin to move.
    pub(crate) fn begin(&mut self) -> Vec<Datagram> {
        self.one.cost();
        self.one.moved = (0, 0);
        self.now += 60_000_000;
        let now = Instant::from_micros(self.now);
        let (from, to) = (self.at.0, 1 - self.at.0);
        self.at.0 = to;
        let count = self.many.len() as u64;
        let mut under_way = Vec::new();
        for i in 0..count {
            let i = (i * 1_000_003 % count) as u32 + 1;
            let event = Event::Move { old: address(MANY[from], i), new: address(MANY[to], i), old_usable: false };
            under_way.extend(self.peer(i).event(now, event));
        }
        under_way
    }

    /// Delivers what is under way, and waits for the end of these moves. Returns what they cost the one.
    pub(crate) fn end(&mut self, under_way: Vec<Datagram>) -> Duration {
        self.settle(under_way);
        assert_eq!(self.one.moved, (self.many.len(), self.many.len()), "every flow has moved");
        self.one.cost()
    }

    /// Each of the many moves. Returns what that costs the one, a move.
    pub(crate) fn many_move(&mut self) -> Duration {
        let under_way = self.begin();
        self.end(under_way) / self.many.len() as u32
    }

    /// The one moves, and with it a flow to each of the many. Returns what that costs it, a peer.
    pub(crate) fn one_moves(&mut self) -> Duration {
        self.one.cost();
        self.one.moved = (0, 0);
        self.now += 60_000_000;
        let (from, to) = (self.at.1, 1 - self.at.1);
        self.at.1 = to;
        let event = Event::Move { old: address(ONE[from], 0), new: address(ONE[to], 0), old_usable: false };
        let under_way = self.one.event(Instant::from_micros(self.now), event);
        self.end(under_way) / self.many.len() as u32
    }

    /// What it costs the one to get these, answers that come of them included.
    pub(crate) fn flood(&mut self, datagrams: &[Datagram]) -> Duration {
        self.one.cost();
        let now = Instant::from_micros(self.now);
        for portion in datagrams.chunks(64) {
            drop(self.one.take(now, portion));
        }
        self.one.cost()
    }

    /// Bytes that the one has for each association.
    pub(crate) fn memory(self) -> f64 {
        let count = self.many.len() as f64;
        drop(self.many);
        let with = memory::now();
        drop(self.one);
        (with - memory::now()) as f64 / count
    }
}

//! Scenarios: which hosts there are, and what happens to them, all of it from one number.

use crate::conn::Stream;
use crate::daemon::Habits;
use crate::host::{Attachment, Host, Kind};
use crate::net::{self, Faults, Network, Networks};
use crate::world::SECOND;
use mobconn_dprp::{Config, Flow, GroupKey, HostKey, Prefix, Protocol};
use mobconn_engine::Limits;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::net::{IpAddr, SocketAddr};

const MS: u64 = 1000;

/// A step of a scenario. Which are done by `act.rs`.
#[derive(Clone, Debug)]
pub enum Act {
    /// A connection is opened, to what the caller believes to be the other host's address.
    Open {
        /// From and to.
        hosts: (usize, usize),
        /// Of TCP?
        tcp: bool,
        /// Of IPv6?
        v6: bool,
        /// The caller's port.
        port: u16,
        /// What is sent.
        streams: [Stream; 2],
    },
    /// A host goes to another network.
    Go {
        /// Which host.
        host: usize,
        /// Where to.
        to: Attachment,
        /// Without any address for so long.
        gap: u64,
        /// It keeps the old address for so long; 0: not at all.
        keep: u64,
        /// The daemon notices after so long.
        notice: u64,
        /// It waits this often, half a second each time, for all to be claimed.
        patience: u32,
    },
    /// It is there.
    Come {
        /// Which host.
        host: usize,
        /// Where to.
        to: Attachment,
        /// The daemon notices after so long.
        notice: u64,
    },
    /// The daemon notices.
    Tell(usize),
    /// An old address goes.
    Leave {
        /// Which host.
        host: usize,
        /// Which address.
        from: Attachment,
        /// The daemon notices after so long.
        notice: u64,
    },
    /// The daemon is killed, and started after a while.
    Restart {
        /// Which host.
        host: usize,
        /// What it wrote down is there.
        keep: bool,
        /// Down for so long.
        down: u64,
    },
    /// The daemon is started.
    Start(usize),
    /// The host is reset.
    Reboot(usize),
    /// The host is suspended.
    Sleep {
        /// Which host.
        host: usize,
        /// For so long.
        length: u64,
        /// Its clock stands still meanwhile.
        stands: bool,
    },
    /// And wakes up.
    Wake {
        /// Which host.
        host: usize,
        /// Its clock stood still.
        stood: bool,
    },
    /// A network is down for so long.
    Down(usize, u64),
    /// Faults everywhere from now on.
    Faults(Faults),
    /// A host's kernel refuses, and is short of memory; chances in a thousand.
    Trouble(usize, u32, u32),
    /// The host is told by hand to move to an address that makes no sense.
    Silly(usize, u8),
    /// Two hosts get each other's address.
    Swap {
        /// Which hosts.
        hosts: [usize; 2],
        /// Each daemon notices after so long.
        notice: [u64; 2],
        /// They wait this often, half a second each time, for all to be claimed and quiet.
        patience: u32,
        /// All was quiet a while ago: nothing is on its way to who was there before.
        quiet: bool,
    },
    /// A host's table is filled but for so many bindings.
    Fill(usize, u32),
    /// And emptied of what filled it.
    Empty(usize),
    /// Strangers send a host so many datagrams.
    Flood {
        /// Which host.
        host: usize,
        /// How many.
        count: u32,
        /// One each time.
        every: u64,
    },
    /// By now everything must be claimed, and where its hosts are.
    Settled,
    /// The hand that did it mends it.
    Mend(usize, IpAddr),
    /// A stranger gets an address that was left, and calls whom its former holder called, from the same ports.
    Inherit {
        /// The stranger.
        host: usize,
        /// The address.
        at: Attachment,
        /// It waits this often for the former holder to be through.
        patience: u32,
    },
}

/// A scenario.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The number that it comes from.
    pub seed: u64,
    /// The hosts, and where they begin.
    pub kinds: Vec<(Kind, Vec<Attachment>)>,
    /// The networks.
    pub nets: Vec<Network>,
    /// What happens when.
    pub acts: Vec<(u64, Act)>,
    /// When the faults are over.
    pub end: u64,
}

/// The port that hosts serve.
pub const SERVICE: u16 = 22;

/// Numbers by chance.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    /// Microseconds up to `limit`, short ones as likely as long ones.
    pub(crate) fn time(&mut self, limit: u64) -> u64 {
        let bits = 64 - limit.leading_zeros() as u64;
        let scale = 1_u64 << (1 + self.below(bits));
        self.below(scale).min(limit)
    }
}

pub(crate) fn kind(dice: &mut Dice, number: u8, mobile: bool, mobconn: bool, families: &[bool]) -> Kind {
    let mut config = Config::new(HostKey::from_bytes(&[number; 32]), GroupKey::from_bytes(&[0x42; 32]));
    config.mobile = mobile;
    config.name = format!("host{number}");
    config.targets = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse::<Prefix>().expect("a prefix")).to_vec();
    let habits = Habits {
        listing_cost: dice.pick(&[0, 0, 500, 20 * MS]),
        snapshot_lag: dice.pick(&[0, 0, 0, SECOND]),
        limits: Limits { grace: 60, udp_idle: 300 },
    };
    // Clocks of different hosts have nothing in common.
    let clock = dice.time(10 * 365 * 86_400 * SECOND);
    Kind { config, mobconn, habits, capacity: 1000, clock, families: families.to_vec() }
}

pub(crate) fn faults(dice: &mut Dice) -> Faults {
    let worst = dice.pick(&[0, 0, 0, 20, 50, 300]);
    let up_to = |dice: &mut Dice| if dice.chance(60) { dice.below(worst + 1) as u32 } else { 0 };
    let jitter = dice.pick(&[0, 0, 2 * MS, 20 * MS, 200 * MS]);
    Faults {
        loss: up_to(dice),
        duplicate: up_to(dice),
        corrupt: up_to(dice),
        jitter: if worst == 0 { 0 } else { jitter },
    }
}

fn stream(dice: &mut Dice) -> Stream {
    let total = dice.pick(&[0, 0, 1, 100, 2_000, 20_000, 60_000]);
    Stream { total, chunk: dice.pick(&[50, 1000, 8000]), pause: dice.time(2 * SECOND), ..Stream::default() }
}

impl Plan {
    /// The scenario of a seed: one in eight has a theme.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
        let d = &mut dice;
        match seed % 32 {
            7 => Self::swap(seed, d),
            15 => Self::general(seed, d).full(d),
            23 => Self::general(seed, d).translated(d),
            31 => Self::flood(seed, d),
            _ => Self::general(seed, d),
        }
    }

    fn general(seed: u64, d: &mut Dice) -> Self {
        let count = d.pick(&[2, 2, 2, 3, 3, 4]);
        let families = d.pick(&[vec![false], vec![false], vec![true], vec![false, true]]);
        let networks = count + 3;
        let nets = (0..networks)
            .map(|_| Network { delay: d.time(150 * MS), filters: d.chance(85), nat: false, down_until: 0 })
            .collect();
        let mut kinds = Vec::new();
        for h in 0..count {
            let mobile = h == 0 || d.chance(if h == 1 { 40 } else { 50 });
            let stranger = h >= 2 && d.chance(40);
            let mobconn = !stranger || d.chance(50);
            let number = u8::try_from(h + 1).expect("few hosts");
            let kind = kind(d, number, mobile && mobconn, mobconn, &families);
            kinds.push((kind, vec![Attachment { network: h, slot: number }]));
        }
        let mut plan = Self { seed, kinds, nets, acts: Vec::new(), end: 0 };
        plan.traffic(d);
        plan.events(d, count, networks);
        plan
    }

    fn traffic(&mut self, d: &mut Dice) {
        let conns = d.pick(&[1, 1, 2, 3, 5, 8]);
        if d.chance(50) {
            self.acts.push((0, Act::Faults(faults(d))));
        }
        for port in 0..conns {
            let hosts = self.couple(d);
            let open = self.open(d, hosts, 10_000 + port);
            let at = if d.chance(80) { d.time(SECOND) } else { d.time(60 * SECOND) };
            self.acts.push((at, open));
        }
    }

    /// Mostly the first two hosts.
    fn couple(&self, d: &mut Dice) -> (usize, usize) {
        let count = self.kinds.len() as u64;
        let (a, b) = if d.chance(70) { (0, 1) } else { (d.below(count) as usize, d.below(count) as usize) };
        if a == b {
            (0, 1)
        } else if d.chance(30) {
            (b, a)
        } else {
            (a, b)
        }
    }

    fn open(&self, d: &mut Dice, hosts: (usize, usize), port: u16) -> Act {
        let v6 = d.pick(&self.kinds[0].0.families);
        Act::Open { hosts, tcp: d.chance(85), v6, port, streams: [stream(d), stream(d)] }
    }

    fn events(&mut self, d: &mut Dice, count: usize, networks: usize) {
        let mobiles: Vec<usize> = (0..count).filter(|h| self.kinds[*h].0.config.mobile).collect();
        let mut at = 2 * SECOND + d.below(6 * SECOND);
        let mut last = at;
        let steps = 1 + d.below(8);
        for step in 0..steps {
            let host = d.below(count as u64) as usize;
            let act = match d.below(100) {
                _ if step == 0 => self.go(d, 0, networks),
                0..55 => {
                    let host = d.pick(&mobiles);
                    self.go(d, host, networks)
                }
                55..65 => Act::Restart { host, keep: d.chance(60), down: d.time(10 * SECOND) },
                65..68 => Act::Reboot(host),
                68..73 => Act::Sleep { host, length: d.time(600 * SECOND), stands: d.chance(50) },
                73..80 => Act::Down(d.below(networks as u64) as usize, d.time(180 * SECOND)),
                80..86 => Act::Faults(faults(d)),
                86..89 => Act::Trouble(host, d.pick(&[0, 100, 500]), d.pick(&[0, 20, 200])),
                89..92 => Act::Silly(d.pick(&mobiles), d.below(8) as u8),
                92..96 if count > 2 => {
                    let at = self.kinds[0].1[0];
                    Act::Inherit { host: count - 1, at, patience: 200 }
                }
                _ => {
                    let hosts = self.couple(d);
                    self.open(d, hosts, 20_000 + step as u16)
                }
            };
            self.acts.push((at, act));
            last = last.max(at);
            at += match d.below(10) {
                0..3 => d.time(SECOND),
                3..8 => d.below(15 * SECOND),
                _ => d.below(90 * SECOND),
            };
        }
        self.end = last + SECOND + d.time(60 * SECOND);
    }

    fn go(&self, d: &mut Dice, host: usize, networks: usize) -> Act {
        let slot = u8::try_from(host + 1).expect("few hosts");
        let network = d.below(networks as u64) as usize;
        let keep = if d.chance(40) { d.time(20 * SECOND) } else { 0 };
        Act::Go {
            host,
            to: Attachment { network, slot },
            gap: if keep == 0 && d.chance(40) { d.time(90 * SECOND) } else { 0 },
            keep,
            notice: d.time(SECOND),
            patience: if d.chance(90) { 120 } else { 0 },
        }
    }

    /// The hosts at the beginning.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        let mut hosts = Vec::new();
        for (h, (kind, at)) in self.kinds.iter().enumerate() {
            let rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_mul(31).wrapping_add(h as u64 + 7));
            let mut host = Host::new(kind.clone(), rng);
            for at in at {
                host.attach(*at);
            }
            host.serve(SERVICE);
            hosts.push(host);
        }
        hosts
    }

    /// The networks at the beginning.
    #[must_use]
    pub fn networks(&self) -> Networks {
        Networks::new(self.nets.clone(), ChaCha8Rng::seed_from_u64(self.seed ^ 0x006e_6574))
    }
}

/// The flow from one host's address to another's service.
#[must_use]
pub fn flow(from: Attachment, to: Attachment, v6: bool, port: u16, tcp: bool) -> Flow {
    Flow {
        local: SocketAddr::new(net::address(from.network, from.slot, v6), port),
        remote: SocketAddr::new(net::address(to.network, to.slot, v6), SERVICE),
        protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
    }
}

//! One endpoint, with a watch on what it costs.

use mobconn_dprp::{Config, Endpoint, Event, Flow, GroupKey, Host, HostKey, Instant, News, Prefix, Protocol};
use nix::time::{ClockId, clock_gettime};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(crate) const PORT: u16 = mobconn_dprp::PORT;

/// Network of those who are not among the peers.
const STRANGERS: u8 = 66;

/// A datagram between two hosts.
#[derive(Clone)]
pub(crate) struct Datagram {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) data: Vec<u8>,
}

/// An endpoint and its kernel.
pub(crate) struct End<H> {
    pub(crate) endpoint: Endpoint,
    pub(crate) kernel: H,
    /// Processor time spent in it.
    pub(crate) spent: Duration,
    /// Moves of which it has heard that they are complete, and flows in them.
    pub(crate) moved: (usize, usize),
}

/// The configuration of host `number`, which claims towards everything.
pub(crate) fn config(number: u32) -> Config {
    let mut key = [7; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let mut config = Config::new(HostKey::from_bytes(&key), GroupKey::from_bytes(&[42; 32]));
    config.mobile = true;
    config.name = format!("host{number}.example.org");
    config.targets = vec!["0.0.0.0/0".parse::<Prefix>().unwrap()];
    config
}

impl<H: Host> End<H> {
    pub(crate) fn new(config: Config, kernel: H) -> Self {
        let rng = ChaCha20Rng::from_seed(*config.host_key.expose());
        let endpoint = Endpoint::new(config, rng, Instant::from_micros(0)).unwrap();
        Self { endpoint, kernel, spent: Duration::ZERO, moved: (0, 0) }
    }

    pub(crate) fn event(&mut self, now: Instant, event: Event) -> Vec<Datagram> {
        let begin = processor();
        let mut sent = Vec::new();
        self.endpoint.handle_event(now, event, &mut self.kernel);
        self.send(&mut sent);
        self.spent += processor() - begin;
        sent
    }

    /// Takes all of these in, one after the other, as a daemon would.
    pub(crate) fn take(&mut self, now: Instant, datagrams: &[Datagram]) -> Vec<Datagram> {
        let begin = processor();
        let mut sent = Vec::new();
        for Datagram { from, to, data } in datagrams {
            let from = SocketAddr::new(*from, PORT);
            self.endpoint.handle_datagram(now, *to, from, data, &mut self.kernel);
            self.send(&mut sent);
            if self.endpoint.poll_timeout().is_some_and(|due| due <= now) {
                self.endpoint.handle_timeout(now, &mut self.kernel);
                self.send(&mut sent);
            }
        }
        self.spent += processor() - begin;
        sent
    }

    /// Collects what is to be sent, and hears what is told.
    fn send(&mut self, sent: &mut Vec<Datagram>) {
        while let Some(transmit) = self.endpoint.poll_transmit() {
            let from = transmit.local.unwrap();
            sent.push(Datagram { from, to: transmit.remote.ip(), data: transmit.data });
        }
        while let Some(notice) = self.endpoint.poll_notice() {
            if let News::MoveCommitted { flows, refused: 0, .. } | News::PeerMoved { flows, refused: 0, .. } =
                notice.news
            {
                self.moved = (self.moved.0 + 1, self.moved.1 + flows);
            }
        }
    }

    /// What it has cost since this was last asked.
    pub(crate) fn cost(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }
}

/// Flow `number` between two hosts.
pub(crate) fn flow(local: IpAddr, remote: IpAddr, number: u32) -> Flow {
    Flow {
        local: SocketAddr::new(local, 1024 + (number % 50_000) as u16),
        remote: SocketAddr::new(remote, 22 + (number / 50_000) as u16),
        protocol: Protocol::Tcp,
    }
}

/// Address of host `number` in network `network`.
pub(crate) fn address(network: u8, number: u32) -> IpAddr {
    Ipv4Addr::from_bits(u32::from(network) << 24 | number).into()
}

/// Number of the host with this address.
pub(crate) fn number(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() & 0xff_ffff,
        IpAddr::V6(_) => 0,
    }
}

/// Address of somebody who has no association.
pub(crate) fn stranger(number: u32) -> IpAddr {
    address(STRANGERS, number)
}

pub(crate) fn is_stranger(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[0] == STRANGERS)
}

/// Time that this thread has had a processor: others may be busy too.
fn processor() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

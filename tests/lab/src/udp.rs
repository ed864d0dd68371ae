//! A UDP flow: numbered datagrams at a steady pace in both directions.

use crate::cable::Random;
use crate::check;
use crate::error::{Doing, Error, Result};
use crate::ns::Namespace;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes of a datagram: its number, and what follows from it.
const LENGTH: usize = 120;

/// One end of the flow at work.
#[derive(Debug)]
pub struct Ticker {
    /// The end's own address.
    pub local: SocketAddr,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What an end has done, and what it is told.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    /// Longest time in which nothing came, microseconds.
    silence: AtomicU64,
    /// Send no more.
    quiet: AtomicBool,
    stop: AtomicBool,
}

/// Ends the sending at both ends, waits for what is on its way, and tells how many datagrams never came.
pub fn lost(near: &Ticker, far: &Ticker, patience: Duration) -> u64 {
    for ticker in [near, far] {
        ticker.counts.quiet.store(true, Ordering::Relaxed);
    }
    thread::sleep(patience);
    let missing = |from: &Ticker, to: &Ticker| {
        from.counts.sent.load(Ordering::Relaxed).saturating_sub(to.counts.received.load(Ordering::Relaxed))
    };
    missing(near, far) + missing(far, near)
}

/// Starts a flow between two hosts: each end sends every `period`.
///
/// # Errors
/// When a socket or a thread cannot be had.
pub fn start(near: &Namespace, far: &Namespace, target: SocketAddr, period: Duration) -> Result<(Ticker, Ticker)> {
    let any = any_port(target.ip());
    let server = far.run(move || UdpSocket::bind(target))?.doing(format_args!("binding {target}"))?;
    let client = near.run(move || {
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        Ok::<_, std::io::Error>(socket)
    })?;
    let client = client.doing(format_args!("connecting to {target}"))?;
    let address = client.local_addr().doing("naming a socket")?;
    // From inside, as connecting looks a route up.
    let server =
        far.run(move || server.connect(address).map(|()| server))?.doing(format_args!("connecting to {address}"))?;
    Ok((Ticker::start(client, 1, period)?, Ticker::start(server, 2, period)?))
}

/// The address that stands for all of the family of `like`, and the port that stands for any.
fn any_port(like: IpAddr) -> SocketAddr {
    if like.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() }
}

/// What a datagram to `address` of the far host and back takes: the median of several, `pause` apart.
///
/// # Errors
/// When a socket cannot be had, or a datagram does not come.
pub fn round_trip(near: &Namespace, far: &Namespace, address: IpAddr, pause: Duration) -> Result<Duration> {
    const TIMES: usize = 9;
    const ECHO: u16 = 7;
    let (any, target) = (any_port(address), SocketAddr::new(address, ECHO));
    let server = far.run(move || UdpSocket::bind(target))?.doing(format_args!("binding {target}"))?;
    // Not connected: a connection would be mobconn's business.
    let client = near.run(move || UdpSocket::bind(any))?.doing("binding a socket")?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).doing("setting a timeout")?;
    }
    let mut times = Vec::new();
    let mut buffer = [0; LENGTH];
    for _ in 0..TIMES {
        thread::sleep(pause);
        let began = Instant::now();
        client.send_to(&buffer, target).doing("sending a datagram")?;
        let (length, from) = server.recv_from(&mut buffer).doing("waiting for a datagram")?;
        server.send_to(buffer.get(..length).unwrap_or_default(), from).doing("sending a datagram back")?;
        client.recv_from(&mut buffer).doing("waiting for a datagram")?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times.get(TIMES / 2).copied().unwrap_or_default())
}

impl Ticker {
    fn start(socket: UdpSocket, seed: u64, period: Duration) -> Result<Self> {
        let local = socket.local_addr().doing("naming a socket")?;
        socket.set_nonblocking(true).doing("making a socket non-blocking")?;
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let run = move || tick(&socket, seed, period, &shared);
        let thread = thread::Builder::new().name("ticker".to_owned()).spawn(run).doing("starting a thread")?;
        Ok(Self { local, counts, thread: Some(thread) })
    }

    /// Waits until `count` more datagrams have come.
    ///
    /// # Errors
    /// [`Error::Check`] when they have not after `timeout`, or one was wrong.
    pub fn wait_more(&self, count: u64, timeout: Duration) -> Result<()> {
        let wanted = self.counts.received.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + timeout;
        while self.counts.received.load(Ordering::Relaxed) < wanted {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            check!(!ended, "{}: the flow has ended", self.local);
            check!(Instant::now() < deadline, "{}: {count} datagrams did not come in {timeout:?}", self.local);
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The longest time in which nothing came, since [`Ticker::forget_silence`].
    #[must_use]
    pub fn silence(&self) -> Duration {
        Duration::from_micros(self.counts.silence.load(Ordering::Relaxed))
    }

    /// Counts silences anew.
    pub fn forget_silence(&self) {
        self.counts.silence.store(0, Ordering::Relaxed);
    }

    /// Ends it. Returns how many datagrams came.
    ///
    /// # Errors
    /// [`Error::Check`] when one was wrong.
    pub fn finish(mut self) -> Result<u64> {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| Error::Check("the thread of a flow panicked".to_owned()))??;
        }
        Ok(self.counts.received.load(Ordering::Relaxed))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever drops it does not want to know how it went.
            let _ = thread.join();
        }
    }
}

fn datagram(seed: u64, number: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut random = Random(seed << 48 ^ number);
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next_u64().to_le_bytes());
    }
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn tick(socket: &UdpSocket, seed: u64, period: Duration, counts: &Counts) -> Result<()> {
    let (mut number, mut next) = (0, Instant::now());
    let mut last = next;
    let mut buffer = [0; 2 * LENGTH];
    // What was held during a move may be overtaken by what was sent after it; nothing comes twice.
    let mut seen = HashSet::new();
    while !counts.stop.load(Ordering::Relaxed) {
        if !counts.quiet.load(Ordering::Relaxed) {
            // Between two networks there is nowhere to send to; the numbers show what is missing.
            let _ = socket.send(&datagram(seed, number));
            number += 1;
            counts.sent.store(number, Ordering::Relaxed);
        }
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let got = buffer.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
                    let right = got.is_some_and(|n| buffer.get(..length) == Some(&datagram(3 - seed, n)[..]));
                    check!(right, "a datagram of {length} bytes that was never sent");
                    check!(seen.insert(got), "datagram {got:?} came twice");
                    counts.received.fetch_add(1, Ordering::Relaxed);
                    let now = Instant::now();
                    let silence = now.duration_since(last).as_micros().try_into().unwrap_or(u64::MAX);
                    counts.silence.fetch_max(silence, Ordering::Relaxed);
                    last = now;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // An ICMP error about an earlier datagram.
                Err(_) => {}
            }
        }
        next += period;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_differ() {
        assert_ne!(datagram(1, 5), datagram(2, 5));
        assert_ne!(datagram(1, 5)[8..], datagram(1, 6)[8..]);
    }

    #[test]
    fn a_wrong_datagram_is_noticed() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(other.local_addr().expect("an address")).expect("a socket");
        let ticker = Ticker::start(socket, 1, Duration::from_millis(1)).expect("a thread");
        other.send_to(&datagram(2, 0), ticker.local).expect("room in the socket");
        ticker.wait_more(1, Duration::from_secs(10)).expect("a datagram");
        let mut wrong = datagram(2, 1);
        wrong[100] ^= 1;
        other.send_to(&wrong, ticker.local).expect("room in the socket");
        let error = ticker.wait_more(1, Duration::from_secs(10)).expect_err("a wrong datagram").to_string();
        assert!(error.contains("has ended"), "{error}");
        let error = ticker.finish().expect_err("a wrong datagram").to_string();
        assert!(error.contains("never sent"), "{error}");
    }
}

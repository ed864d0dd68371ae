//! Ports for what a test starts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that systems give to whoever asks for none (from 10,000 on FreeBSD, 32,768 on Linux): nobody gets one by
/// accident between the test that chose it and the program that is to have it.
const PORTS: std::ops::Range<u16> = 2000..10_000;

/// A port that nobody has now, neither in UDP nor in TCP, and that no other test of this program is given.
pub(crate) fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let count = PORTS.end - PORTS.start;
    // Anywhere: another program's tests may run beside this one's.
    let next =
        NEXT.get_or_init(|| AtomicU16::new((RandomState::new().build_hasher().finish() % u64::from(count)) as u16));
    loop {
        let port = PORTS.start + next.fetch_add(1, Ordering::Relaxed) % count;
        let place = (Ipv4Addr::LOCALHOST, port);
        if UdpSocket::bind(place).is_ok() && TcpListener::bind(place).is_ok() {
            return port;
        }
    }
}

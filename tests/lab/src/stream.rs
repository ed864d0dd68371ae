//! TCP streams whose every byte is known in advance, driven from one thread
//! per host.

use crate::cable::Random;
use crate::error::{Doing, Error, Result};
use crate::ns::Namespace;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect as connect_socket, setsockopt, socket, sockopt,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes written or read at once.
const CHUNK: usize = 16 << 10;

/// How much one end of a stream sends and receives, and by which seeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Bytes to send.
    pub send: u64,
    /// Bytes to receive.
    pub receive: u64,
    /// Which stream this is; the bytes of each direction follow from it.
    pub number: u64,
    /// True at the end that connected.
    pub active: bool,
}

impl Load {
    /// What the other end does.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self { send: self.receive, receive: self.send, number: self.number, active: !self.active }
    }

    fn content(self, sent: bool) -> Content {
        Content(Random(self.number << 1 | u64::from(self.active == sent)).next_u64())
    }
}

/// Bytes that anybody can compute.
#[derive(Clone, Copy)]
struct Content(u64);

impl Content {
    fn fill(self, from: u64, bytes: &mut [u8]) {
        for (position, byte) in (from..).zip(bytes) {
            let word = Random(self.0 ^ (position / 8)).next_u64();
            *byte = word.to_le_bytes()[(position % 8) as usize];
        }
    }
}

/// How far the streams of one host are; shared with whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes received and found right, all streams together.
    pub received: AtomicU64,
    /// Bytes handed to the sockets, all streams together.
    pub sent: AtomicU64,
    /// Bytes that each stream may send so far.
    gate: AtomicU64,
    stop: AtomicBool,
}

/// The ends of streams at one host, at work.
#[derive(Debug)]
pub struct Pump {
    /// How far they are.
    pub progress: Arc<Progress>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Pump {
    /// Starts to send and receive. Each stream sends at most `gate` bytes until
    /// the gate is opened.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(ends: Vec<(TcpStream, Load)>, gate: u64) -> Result<Self> {
        let progress = Arc::new(Progress { gate: gate.into(), ..Progress::default() });
        let shared = Arc::clone(&progress);
        let run = move || {
            let mut ends = ends.into_iter().map(|(socket, load)| End::new(socket, load)).collect::<Result<Vec<_>>>()?;
            drive(&mut ends, &shared)
        };
        let thread = thread::Builder::new().name("pump".to_owned()).spawn(run).doing("starting a thread")?;
        Ok(Self { progress, thread: Some(thread) })
    }

    /// Lets every stream send so many bytes, counted from its beginning.
    pub fn allow(&self, bytes: u64) {
        self.progress.gate.store(bytes, Ordering::Relaxed);
    }

    /// Lets every stream send all it has.
    pub fn open(&self) {
        self.allow(u64::MAX);
    }

    /// Bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.progress.received.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` have been received, all streams together.
    ///
    /// # Errors
    /// [`Error::Check`] when they have not been after `timeout`, or the streams
    /// have failed.
    pub fn wait_received(&self, bytes: u64, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while self.received() < bytes {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if Instant::now() > deadline || (ended && self.received() < bytes) {
                let words = format!("{} of {bytes} bytes received after {timeout:?}", self.received());
                return Err(Error::Check(words));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits for the end of all streams.
    ///
    /// # Errors
    /// [`Error::Check`] when a stream breaks, brings other bytes, or is not
    /// complete after `timeout`.
    pub fn finish(mut self, timeout: Duration) -> Result<()> {
        self.open();
        let deadline = Instant::now() + timeout;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        while !thread.is_finished() {
            if Instant::now() > deadline {
                self.progress.stop.store(true, Ordering::Relaxed);
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        thread.join().map_err(|_| Error::Check("the thread of the streams panicked".to_owned()))?
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever drops it does not want to know how it went.
            let _ = thread.join();
        }
    }
}

struct End {
    socket: TcpStream,
    load: Load,
    name: String,
    sent: u64,
    received: u64,
    closed: bool,
    ended: bool,
}

impl End {
    fn new(socket: TcpStream, load: Load) -> Result<Self> {
        socket.set_nonblocking(true).doing("making a socket non-blocking")?;
        let (local, remote) = (socket.local_addr(), socket.peer_addr());
        let name = format!("{} - {}", local.doing("naming a socket")?, remote.doing("naming a socket")?);
        Ok(Self { socket, load, name, sent: 0, received: 0, closed: false, ended: false })
    }

    /// What TCP waits for, in words.
    fn timer(&self) -> String {
        // SAFETY: all numbers, for which zero is a value.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&info) as libc::socklen_t;
        let (fd, place) = (self.socket.as_raw_fd(), (&raw mut info).cast());
        // SAFETY: the place is as long as the length says, and the kernel writes no more.
        let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut length) };
        if result != 0 {
            return "nothing is known of TCP".to_owned();
        }
        format!(
            "TCP has {} segments out, {} lost; window {}, {} timeouts in a row, its timer takes {} ms, last sent {} ms ago",
            info.tcpi_unacked,
            info.tcpi_lost,
            info.tcpi_snd_cwnd,
            info.tcpi_backoff,
            info.tcpi_rto / 1000,
            info.tcpi_last_data_sent
        )
    }

    fn done(&self) -> bool {
        self.closed && self.ended
    }

    /// Sends what may be sent. True while more could be written.
    fn send(&mut self, progress: &Progress, buffer: &mut [u8]) -> Result<()> {
        let allowed = self.load.send.min(progress.gate.load(Ordering::Relaxed));
        let left = usize::try_from(allowed - self.sent.min(allowed)).unwrap_or(usize::MAX).min(buffer.len());
        if left > 0 {
            let chunk = &mut buffer[..left];
            self.load.content(true).fill(self.sent, chunk);
            match self.socket.write(chunk) {
                Ok(n) => {
                    self.sent += n as u64;
                    progress.sent.fetch_add(n as u64, Ordering::Relaxed);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(self.broken(&e)),
            }
        }
        if self.sent == self.load.send && !self.closed {
            self.closed = true;
            self.socket.shutdown(Shutdown::Write).map_err(|e| self.broken(&e))?;
        }
        Ok(())
    }

    fn receive(&mut self, progress: &Progress, buffer: &mut [u8], expected: &mut [u8]) -> Result<()> {
        match self.socket.read(buffer) {
            Ok(0) if self.received == self.load.receive => self.ended = true,
            Ok(0) => {
                let words = format!("{}: ended after {} of {} bytes", self.name, self.received, self.load.receive);
                return Err(Error::Check(words));
            }
            Ok(n) => {
                let (got, wanted) = (&buffer[..n], &mut expected[..n]);
                self.load.content(false).fill(self.received, wanted);
                self.received += n as u64;
                if got != wanted || self.received > self.load.receive {
                    let words = format!("{}: other bytes than were sent, before byte {}", self.name, self.received);
                    return Err(Error::Check(words));
                }
                progress.received.fetch_add(n as u64, Ordering::Relaxed);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(self.broken(&e)),
        }
        Ok(())
    }

    fn broken(&self, error: &std::io::Error) -> Error {
        Error::Check(format!("{}: {error}, after {} bytes sent and {} received", self.name, self.sent, self.received))
    }
}

fn drive(ends: &mut [End], progress: &Progress) -> Result<()> {
    let (mut buffer, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    while !ends.iter().all(End::done) {
        if progress.stop.load(Ordering::Relaxed) {
            let late: Vec<_> = ends.iter().filter(|end| !end.done()).collect();
            let first = late.first().map(|end| {
                let (sent, received) = (end.sent, end.received);
                let (name, send, receive, timer) = (&end.name, end.load.send, end.load.receive, end.timer());
                format!("{name}: {sent} of {send} sent, {received} of {receive} received; {timer}")
            });
            let words = format!("{} of {} streams not complete; {}", late.len(), ends.len(), first.unwrap_or_default());
            return Err(Error::Check(words));
        }
        let gate = progress.gate.load(Ordering::Relaxed);
        let mut fds = Vec::with_capacity(ends.len());
        for end in ends.iter() {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, !end.ended);
            events.set(
                PollFlags::POLLOUT,
                !end.closed && (end.sent < end.load.send.min(gate) || end.sent == end.load.send),
            );
            fds.push(PollFd::new(end.socket.as_fd(), events));
        }
        // Short, because the gate and the stop flag wake nobody.
        poll(&mut fds, PollTimeout::from(2_u8)).doing("waiting for sockets")?;
        let ready: Vec<_> = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        for (end, ready) in ends.iter_mut().zip(ready) {
            let failed = ready.intersects(PollFlags::POLLERR | PollFlags::POLLHUP);
            if !end.closed && (failed || ready.contains(PollFlags::POLLOUT)) {
                end.send(progress, &mut buffer)?;
            }
            if !end.ended && (failed || ready.contains(PollFlags::POLLIN)) {
                end.receive(progress, &mut buffer, &mut expected)?;
            }
        }
    }
    Ok(())
}

/// Connects `count` streams from a socket address family of `client` to
/// `target` at `server`. Returns the sockets of both, in the same order.
///
/// # Errors
/// When a connection fails.
pub fn connect(
    client: &Namespace,
    server: &Namespace,
    target: SocketAddr,
    count: usize,
) -> Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = server.run(move || TcpListener::bind(target))?.doing(format_args!("listening at {target}"))?;
    let target = listener.local_addr().doing("naming a socket")?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let timeout = Duration::from_secs(10);
        let socket = client.run(move || TcpStream::connect_timeout(&target, timeout))?;
        near.push(socket.doing(format_args!("connecting to {target}"))?);
        let (socket, _) = listener.accept().doing(format_args!("accepting at {target}"))?;
        far.push(socket);
    }
    Ok((near, far))
}

/// Connects one stream from exactly the address and port `source` to `target`.
/// Returns the sockets of both ends.
///
/// # Errors
/// When it fails.
pub fn connect_from(
    client: &Namespace,
    source: SocketAddr,
    server: &Namespace,
    target: SocketAddr,
) -> Result<(TcpStream, TcpStream)> {
    let listener = server.run(move || TcpListener::bind(target))?.doing(format_args!("listening at {target}"))?;
    let open = move || -> nix::Result<TcpStream> {
        let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
        connect_socket(socket.as_raw_fd(), &SockaddrStorage::from(target))?;
        Ok(TcpStream::from(socket))
    };
    let near = client.run(open)?.map_err(std::io::Error::from);
    let near = near.doing(format_args!("connecting from {source} to {target}"))?;
    let (far, _) = listener.accept().doing(format_args!("accepting at {target}"))?;
    Ok((near, far))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        (near, listener.accept().expect("a connection").0)
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn both_directions_arrive() {
        let (near, far) = pair();
        let load = Load { send: 300_000, receive: 200_000, number: 7, active: true };
        let near = Pump::start(vec![(near, load)], 1000).expect("a thread");
        let far = Pump::start(vec![(far, load.mirrored())], u64::MAX).expect("a thread");
        near.wait_received(200_000, MINUTE).expect("what the other end may send");
        assert_eq!(near.progress.sent.load(Ordering::Relaxed), 1000, "held by the gate");
        near.open();
        near.finish(MINUTE).expect("the right bytes");
        far.finish(MINUTE).expect("the right bytes");
    }

    #[test]
    fn other_bytes_are_noticed() {
        let (near, far) = pair();
        let near = Pump::start(vec![(near, Load { send: 100, receive: 0, number: 1, active: true })], u64::MAX);
        let far = Pump::start(vec![(far, Load { send: 0, receive: 100, number: 2, active: false })], u64::MAX);
        near.expect("a thread").finish(MINUTE).expect("it only sends");
        let error = far.expect("a thread").finish(MINUTE).expect_err("other bytes").to_string();
        assert!(error.contains("other bytes"), "{error}");
    }

    #[test]
    fn a_short_stream_is_noticed() {
        let (near, far) = pair();
        let near = Pump::start(vec![(near, Load { send: 100, receive: 0, number: 1, active: true })], u64::MAX);
        let far = Pump::start(vec![(far, Load { send: 0, receive: 101, number: 1, active: false })], u64::MAX);
        near.expect("a thread").finish(MINUTE).expect("it only sends");
        let error = far.expect("a thread").finish(MINUTE).expect_err("too little").to_string();
        assert!(error.contains("ended after 100 of 101"), "{error}");
    }
}

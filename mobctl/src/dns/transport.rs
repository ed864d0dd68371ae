//! One question to one server: over UDP with repetitions, over TCP when the answer is cut short or UDP says nothing.
//!
//! Nothing here blocks longer than it says, and everything ends early when the
//! wake-up descriptor becomes readable.

use super::message::{Answer, Nonsense, Request};
use super::system::Settings;
use super::trouble::Trouble;
use domain::base::iana::OptRcode;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time for signatures, in seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The system's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// How long each of the datagrams is waited for, unless the system's settings say otherwise.
const TRIES: [Duration; 3] = [Duration::from_millis(400), Duration::from_millis(800), Duration::from_millis(1600)];
/// How long a better answer is waited for after one that anybody could have sent.
const DOUBT: Duration = Duration::from_millis(500);
/// How long a conversation over TCP may take.
const STREAM: Duration = Duration::from_secs(4);
/// Longest message that goes over UDP, in bytes: what no path has to fragment.
const DATAGRAM_MAX: usize = 1232;

/// What was sent and received, without the headers of IP, UDP and TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Messages sent, repetitions included.
    pub messages: u32,
    /// Bytes sent.
    pub sent: usize,
    /// Bytes received.
    pub received: usize,
    /// Questions that were answered; over TCP the connection counts too.
    pub round_trips: u32,
}

/// The way to the servers.
pub struct Wire {
    clock: Clock,
    wake: Option<UnixStream>,
    deadline: Option<Instant>,
    tries: Vec<Duration>,
    /// What everything cost so far.
    pub cost: Cost,
}

/// What ended a wait.
enum Woken {
    Ready,
    TimedOut,
}

impl Wire {
    /// A way that takes the time for signatures from `clock`, and gives up when `wake` becomes readable.
    #[must_use]
    pub fn new(clock: Clock, wake: Option<UnixStream>) -> Self {
        Self { clock, wake, deadline: None, tries: TRIES.to_vec(), cost: Cost::default() }
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        (self.clock)()
    }

    /// The clock for signatures.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Arc::clone(&self.clock)
    }

    /// Nothing is waited for after `deadline`.
    pub fn end_at(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Servers are waited for as these settings say, or as it is best without any.
    pub fn follow(&mut self, settings: Option<&Settings>) {
        self.tries = settings.and_then(|settings| settings.tries.clone()).unwrap_or_else(|| TRIES.to_vec());
    }

    /// Asks `server` and waits for the answer.
    ///
    /// # Errors
    /// [`Trouble`] with this server.
    pub fn ask(&mut self, request: &Request, server: SocketAddr) -> Result<Answer, Trouble> {
        if request.bytes.len() > DATAGRAM_MAX {
            return self.ask_stream(request, server);
        }
        match self.ask_datagram(request, server) {
            Ok(answer) if answer.truncated => self.ask_stream(request, server),
            // Where UDP is filtered TCP may pass.
            Err(Trouble::Silent(_)) => self.ask_stream(request, server).map_err(|trouble| match trouble {
                Trouble::Unreachable(..) => Trouble::Silent(server),
                other => other,
            }),
            result => result,
        }
    }

    fn ask_datagram(&mut self, request: &Request, server: SocketAddr) -> Result<Answer, Trouble> {
        let unreachable = |error: io::Error| Trouble::Unreachable(server, plain(&error));
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).map_err(unreachable)?;
        // From a socket that is connected only what comes from there is received.
        socket.connect(server).map_err(unreachable)?;
        socket.set_nonblocking(true).map_err(unreachable)?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        for wait in self.tries.clone() {
            socket.send(&request.bytes).map_err(unreachable)?;
            self.cost.messages += 1;
            self.cost.sent += request.bytes.len();
            let mut until = self.until(wait);
            let mut doubtful = None;
            while let Woken::Ready = self.wait(socket.as_fd(), PollFlags::POLLIN, until)? {
                let length = match socket.recv(&mut buffer) {
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(unreachable(error)),
                };
                self.cost.received += length;
                let bytes = buffer.get(..length).unwrap_or_default();
                match self.judge(request, server, bytes) {
                    Judgement::Answer(answer) => {
                        self.cost.round_trips += 1;
                        return Ok(answer);
                    }
                    Judgement::Refusal(trouble) => {
                        self.cost.round_trips += 1;
                        return Err(trouble);
                    }
                    // Somebody else may have sent it. The server's own answer would come soon.
                    Judgement::Doubtful(trouble) => {
                        until = until.min(self.until(DOUBT));
                        doubtful = Some(trouble);
                    }
                    Judgement::Foreign => {}
                }
            }
            if let Some(trouble) = doubtful {
                self.cost.round_trips += 1;
                return Err(trouble);
            }
            if self.over() {
                break;
            }
        }
        Err(Trouble::Silent(server))
    }

    fn ask_stream(&mut self, request: &Request, server: SocketAddr) -> Result<Answer, Trouble> {
        let unreachable = |error: io::Error| match error.kind() {
            ErrorKind::TimedOut | ErrorKind::UnexpectedEof => Trouble::Silent(server),
            _ => Trouble::Unreachable(server, plain(&error)),
        };
        let until = self.until(STREAM);
        let mut stream = self.connect(server, until)?;
        let length = u16::try_from(request.bytes.len()).map_err(|_| Trouble::TooMany)?;
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(&request.bytes);
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait_or_silent(stream.as_fd(), PollFlags::POLLOUT, until, server)?;
                }
                Err(error) => return Err(unreachable(error)),
            }
        }
        self.cost.messages += 1;
        self.cost.sent += message.len();
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let wanted = received.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)) + 2);
            if let Some(bytes) = wanted.and_then(|wanted| received.get(2..wanted)) {
                self.cost.round_trips += 1;
                return match self.judge(request, server, bytes) {
                    // Nothing can follow a message of TCP that is cut short.
                    Judgement::Answer(answer) if answer.truncated => Err(Trouble::Garbage(server)),
                    Judgement::Answer(answer) => Ok(answer),
                    Judgement::Refusal(trouble) | Judgement::Doubtful(trouble) => Err(trouble),
                    Judgement::Foreign => Err(Trouble::Garbage(server)),
                };
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Err(Trouble::Silent(server)),
                Ok(length) => {
                    self.cost.received += length;
                    received.extend_from_slice(buffer.get(..length).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait_or_silent(stream.as_fd(), PollFlags::POLLIN, until, server)?;
                }
                Err(error) => return Err(unreachable(error)),
            }
        }
    }

    fn connect(&mut self, server: SocketAddr, until: Instant) -> Result<Socket, Trouble> {
        let unreachable = |error: io::Error| Trouble::Unreachable(server, plain(&error));
        let stream =
            Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP)).map_err(unreachable)?;
        stream.set_nonblocking(true).map_err(unreachable)?;
        match stream.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
                self.wait_or_silent(stream.as_fd(), PollFlags::POLLOUT, until, server)?;
                if let Some(error) = stream.take_error().map_err(unreachable)? {
                    return Err(unreachable(error));
                }
            }
            Err(error) => return Err(unreachable(error)),
        }
        self.cost.round_trips += 1;
        Ok(stream)
    }

    fn judge(&self, request: &Request, server: SocketAddr, bytes: &[u8]) -> Judgement {
        let key = || request.key_name();
        match request.decode(bytes, self.now()) {
            Ok(answer) => Judgement::Answer(answer),
            Err(Nonsense::Foreign) => Judgement::Foreign,
            Err(Nonsense::Garbage) => Judgement::Doubtful(Trouble::Garbage(server)),
            Err(Nonsense::Unsigned(OptRcode::NOERROR)) => Judgement::Doubtful(Trouble::Unsigned(server)),
            Err(Nonsense::Unsigned(code)) => {
                Judgement::Doubtful(Trouble::Refused(server, code, request.question().clone()))
            }
            Err(Nonsense::BadKey) => Judgement::Doubtful(Trouble::BadKey(server, key())),
            Err(Nonsense::BadSignature) => Judgement::Doubtful(Trouble::BadSignature(server, key())),
            Err(Nonsense::Forged) => Judgement::Doubtful(Trouble::Forged(server)),
            // Signed: nobody else says so, and nothing better comes.
            Err(Nonsense::BadTime(ahead)) => Judgement::Refusal(Trouble::BadTime(server, ahead)),
            Err(Nonsense::BadTruncation) => Judgement::Refusal(Trouble::BadTruncation(server, key())),
        }
    }

    fn until(&self, wait: Duration) -> Instant {
        let end = Instant::now() + wait;
        self.deadline.map_or(end, |deadline| deadline.min(end))
    }

    fn over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn wait_or_silent(
        &self,
        fd: BorrowedFd<'_>,
        flags: PollFlags,
        until: Instant,
        server: SocketAddr,
    ) -> Result<(), Trouble> {
        match self.wait(fd, flags, until)? {
            Woken::Ready => Ok(()),
            Woken::TimedOut => Err(Trouble::Silent(server)),
        }
    }

    fn wait(&self, fd: BorrowedFd<'_>, flags: PollFlags, until: Instant) -> Result<Woken, Trouble> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up, so that it is not asked again within the last millisecond.
            let millis = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
            let mut fds = vec![PollFd::new(fd, flags)];
            fds.extend(self.wake.as_ref().map(|wake| PollFd::new(wake.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::from(millis)) {
                Ok(0) if millis == 0 => return Ok(Woken::TimedOut),
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => {}
                Err(_) => return Ok(Woken::TimedOut),
            }
            if fds.get(1).is_some_and(|wake| wake.any().unwrap_or(true)) {
                return Err(Trouble::Interrupted);
            }
            return Ok(Woken::Ready);
        }
    }
}

enum Judgement {
    /// The answer; signed if the request was.
    Answer(Answer),
    /// A trouble that only the server can have sent.
    Refusal(Trouble),
    /// A trouble that anybody could have sent.
    Doubtful(Trouble),
    /// No answer to this.
    Foreign,
}

/// The words of an error without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

//! Connections as the applications at both ends see them: what is sent, and that it arrives byte by byte.

use crate::host::Host;
use mobconn_dprp::{Flow, Protocol};
use smoltcp::socket::tcp::State;
use std::collections::BTreeSet;

/// The header of a TCP connection, and what every datagram begins with: the connection's number.
const HEADER: u64 = 8;

/// Traffic of one direction.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Bytes to be sent in all (UDP: datagrams).
    pub total: u64,
    /// Sent already.
    pub sent: u64,
    /// Received, and right.
    pub received: u64,
    /// So many at a time.
    pub chunk: u64,
    /// And then so many microseconds of silence.
    pub pause: u64,
    /// When the next ones are sent.
    pub next: u64,
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct End {
    /// The host.
    pub host: usize,
    /// Its boot.
    pub boot: u32,
    /// The stack side there, once known.
    pub flow: Option<Flow>,
    /// The socket.
    index: Option<usize>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Conn {
    /// Its number.
    pub id: usize,
    /// Who called, and who was called.
    pub ends: [End; 2],
    /// From the first end to the second, and back.
    pub streams: [Stream; 2],
    /// Nothing is promised any more, because of this.
    pub excused: Option<String>,
    /// UDP: what arrived since the faults are over, at each end.
    pub fresh: [bool; 2],
    /// All is sent and received: it is being closed.
    pub closing: bool,
    /// Ends that are closed as they should be.
    pub closed: [bool; 2],
}

/// Byte number `at` of a direction of a connection.
fn byte(id: usize, direction: usize, at: u64) -> u8 {
    if direction == 0 && at < HEADER {
        return (id as u64).to_be_bytes()[at as usize];
    }
    let mixed = (at ^ (id as u64) << 40 ^ (direction as u64) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 47) as u8
}

impl Conn {
    /// A connection that `caller` opens to `called`.
    #[must_use]
    pub fn new(id: usize, caller: &End, called: usize, mut streams: [Stream; 2]) -> Self {
        if caller.flow.is_some_and(|flow| flow.protocol == Protocol::Tcp) {
            streams[0].total += HEADER;
        }
        let second = End { host: called, boot: 0, flow: None, index: None };
        let ends = [caller.clone(), second];
        Self { id, ends, streams, excused: None, fresh: [false; 2], closing: false, closed: [false; 2] }
    }

    /// The calling end.
    #[must_use]
    pub fn caller(host: usize, boot: u32, flow: Flow, index: Option<usize>) -> End {
        End { host, boot, flow: Some(flow), index }
    }

    /// Of TCP?
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.ends[0].flow.is_some_and(|flow| flow.protocol == Protocol::Tcp)
    }

    /// Which end is at a host and has this stack side.
    #[must_use]
    pub fn end_at(&self, host: usize, flow: &Flow) -> Option<usize> {
        self.ends.iter().position(|end| end.host == host && end.flow.as_ref() == Some(flow))
    }

    /// Whether everything arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        if self.is_tcp() {
            self.streams.iter().all(|stream| stream.received == stream.total)
        } else {
            self.fresh == [true; 2]
        }
    }

    /// Whether both ends are through with it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed == [true; 2]
    }

    /// When an end has something to send next.
    #[must_use]
    pub fn due(&self, host: usize, finale: bool) -> Option<u64> {
        let due = |(end, stream): (&End, &Stream)| {
            let more = stream.sent < stream.total || !self.is_tcp() && finale && !self.is_complete();
            (end.host == host && more && end.flow.is_some()).then_some(stream.next)
        };
        self.ends.iter().zip(&self.streams).filter_map(due).min()
    }
}

/// What the applications of a host did.
#[derive(Default)]
pub struct Done {
    /// Sockets have something to send.
    pub any: bool,
    /// Datagrams to send, of which connection.
    pub datagrams: Vec<(Flow, Vec<u8>, usize)>,
    /// What must not be.
    pub violations: Vec<String>,
}

/// Takes up connections that were accepted.
fn greet(host: &mut Host, h: usize, conns: &mut [Conn]) {
    let known: BTreeSet<Flow> =
        conns.iter().flat_map(|conn| &conn.ends).filter(|end| end.host == h).filter_map(|end| end.flow).collect();
    for index in 0..host.stack.tcp.len() {
        let Some(tcp) = host.stack.tcp.get(index).filter(|tcp| tcp.accepted && !known.contains(&tcp.flow)) else {
            continue;
        };
        let flow = tcp.flow;
        let boot = host.boot;
        let Some(socket) = host.stack.socket(index) else { continue };
        let Ok(header) = socket.peek(HEADER as usize) else { continue };
        let Some(id) = header.first_chunk().map(|bytes| u64::from_be_bytes(*bytes) as usize) else { continue };
        if let Some(conn) = conns.get_mut(id).filter(|conn| conn.ends[1].host == h && conn.ends[1].flow.is_none()) {
            conn.ends[1] = End { host: h, boot, flow: Some(flow), index: Some(index) };
        }
    }
    for udp in host.stack.udp.iter().filter(|udp| udp.accepted && !known.contains(&udp.flow)) {
        let id =
            udp.received.front().and_then(|data| data.first_chunk()).map(|bytes| u64::from_be_bytes(*bytes) as usize);
        if let Some(conn) =
            id.and_then(|id| conns.get_mut(id)).filter(|conn| conn.ends[1].host == h && conn.ends[1].flow.is_none())
        {
            conn.ends[1] = End { host: h, boot: host.boot, flow: Some(udp.flow), index: None };
        }
    }
}

/// Lets the applications of host `h` read and write.
pub fn run(host: &mut Host, h: usize, conns: &mut [Conn], now: u64, finale: bool) -> Done {
    let mut done = Done::default();
    greet(host, h, conns);
    for conn in conns.iter_mut() {
        for which in 0..2 {
            let end = &conn.ends[which];
            if end.host != h || end.boot != host.boot || end.flow.is_none() || conn.closed[which] {
                continue;
            }
            if conn.is_tcp() {
                stream(host, conn, which, now, &mut done);
            } else {
                datagrams(host, conn, which, (now, finale), &mut done);
            }
        }
    }
    done
}

fn stream(host: &mut Host, conn: &mut Conn, which: usize, now: u64, done: &mut Done) {
    let Some(socket) = conn.ends[which].index.and_then(|index| host.stack.socket(index)) else { return };
    let id = conn.id;
    // What comes is the other end's direction.
    let incoming = &mut conn.streams[1 - which];
    while socket.can_recv() {
        let right = socket.recv(|data| {
            let wanted = (incoming.received..).map(|at| byte(id, 1 - which, at));
            let right = data.iter().copied().eq(wanted.take(data.len()));
            incoming.received += data.len() as u64;
            (data.len(), right && incoming.received <= incoming.total)
        });
        done.any = true;
        if right != Ok(true) {
            done.violations.push(format!("connection {id}: end {which} received other bytes than were sent"));
            return;
        }
    }
    let complete = conn.is_complete();
    let outgoing = &mut conn.streams[which];
    if socket.may_send() && outgoing.next <= now && outgoing.sent < outgoing.total {
        let from = outgoing.sent;
        let length = outgoing.chunk.max(1).min(outgoing.total - from);
        let data: Vec<u8> = (from..from + length).map(|at| byte(id, which, at)).collect();
        let sent = socket.send_slice(&data).unwrap_or(0) as u64;
        outgoing.sent += sent;
        outgoing.next = now + outgoing.pause.max(1000);
        done.any |= sent > 0;
    }
    let state = socket.state();
    if conn.closing && complete && state == State::Established && which == 0 {
        socket.close();
        done.any = true;
    }
    if state == State::CloseWait && complete {
        socket.close();
        done.any = true;
    }
    if matches!(state, State::Closed | State::TimeWait) {
        let intended = conn.closing && complete;
        if !intended && conn.excused.is_none() {
            done.violations.push(format!("connection {id}: end {which} was ended ({state})"));
        }
        if state == State::Closed {
            conn.closed[which] = true;
        }
    }
}

fn datagrams(host: &mut Host, conn: &mut Conn, which: usize, (now, finale): (u64, bool), done: &mut Done) {
    let Some(flow) = conn.ends[which].flow else { return };
    let Some(udp) = host.stack.udp.iter_mut().find(|udp| udp.flow == flow) else { return };
    let head = |direction: usize| [(conn.id as u64).to_be_bytes().as_slice(), &[direction as u8]].concat();
    for data in udp.received.drain(..) {
        if !data.starts_with(&head(1 - which)) {
            done.violations.push(format!("connection {}: end {which} received somebody else's datagram", conn.id));
            return;
        }
        conn.streams[1 - which].received += 1;
        conn.fresh[which] |= data.get(9) == Some(&1);
    }
    let unanswered = finale && conn.fresh != [true; 2];
    let outgoing = &mut conn.streams[which];
    if outgoing.next <= now && (outgoing.sent < outgoing.total || unanswered) {
        outgoing.sent += 1;
        outgoing.next = now + if finale { 1_000_000 } else { outgoing.pause.max(10_000) };
        let data = [head(which), vec![finale.into()], vec![0; 20]].concat();
        done.datagrams.push((flow, data, conn.id));
    }
}

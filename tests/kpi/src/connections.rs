//! The connections of a VNET: what in_pcblookup(9) finds, and TCP's timers.
//!
//! Tests say which connections there are, as a list or as an answer to each question. A look-up returns a `struct inpcb`
//! (for TCP the `struct tcpcb` that begins with it), locked, and with as much filled in as modules look at.

use crate::complaint::complain;
use crate::foreign::{self, eternal, shared};
use crate::lock;
use crate::vnet::VnetState;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};

shared! {
    /// `struct inpcb`, and what follows it in `struct tcpcb`.
    Tcpcb(1304) {
        flags, set_flags: u32 = 68;
        ppcb, set_ppcb: usize = 80;
        pcbinfo, set_pcbinfo: usize = 96;
        vflag, set_vflag: u8 = 116;
        protocol, set_protocol: u8 = 118;
        fport, set_fport: u16 = 144;
        lport, set_lport: u16 = 146;
        faddr, set_faddr: [u8; 16] = 148;
        laddr, set_laddr: [u8; 16] = 164;
        gencnt, set_gencnt: u64 = 288;
        fb, set_fb: usize = 392;
        timers, set_timers: [i64; 5] = 472;
        port_state, set_port_state: u32 = 612;
        t_flags, set_t_flags: u32 = 616;
        rxtshift, set_rxtshift: i32 = 780;
    }
}

/// Size of `struct inpcb`, and offset of `inp_lock` in it.
pub(crate) const INPCB: usize = 392;
pub(crate) const INP_LOCK: usize = 32;
/// Size of `struct inpcbinfo` and offset of `ipi_vnet` in it.
pub(crate) const INFO: usize = 184;
pub(crate) const INFO_VNET: usize = 176;
/// Size of `struct tcp_function_block`, which begins with its name.
const BLOCK: usize = 184;

const WILDCARD: i32 = 1;
const RLOCK: i32 = 2;
const WLOCK: i32 = 4;
const INP_IPV4: u8 = 1;
const INP_IPV6: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const REXMT: usize = 0;
const PERSIST: usize = 1;
/// `TCP_MAXRXTSHIFT`: the timer's handler counts first, and gives up beyond it.
const MAXRXTSHIFT: i32 = 12;
/// `SBT_MAX`: the timer does not run.
const NEVER: i64 = i64::MAX;
const TIME_WAIT: u8 = 10;
/// The connection lets interfaces cut its data into segments.
const TF_TSO: u32 = 0x0100_0000;

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[
    ("INPLOOKUP_WILDCARD", WILDCARD as u32),
    ("INPLOOKUP_RLOCKPCB", RLOCK as u32),
    ("INPLOOKUP_WLOCKPCB", WLOCK as u32),
    ("INP_IPV4", INP_IPV4 as u32),
    ("INP_IPV6", INP_IPV6 as u32),
    ("TT_REXMT", REXMT as u32),
    ("TT_PERSIST", PERSIST as u32),
    ("TCP_MAXRXTSHIFT", MAXRXTSHIFT as u32),
    ("TCPS_TIME_WAIT", TIME_WAIT as u32),
    ("TF_TSO", TF_TSO),
];

pub(crate) const SYMBOLS: &[crate::symbols::Function] =
    crate::symbols![in_pcblookup, in6_pcblookup, tcp_timer_active, tcp_timer_activate];

/// Which of FreeBSD's TCP stacks a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpStack {
    /// The default one, whose block is called "freebsd".
    Default,
    /// RACK, which keeps timers of its own.
    Rack,
}

/// A connection, or a UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// Local address and port; the address may be unspecified for UDP.
    pub local: SocketAddr,
    /// Remote address and port; unspecified with port 0 for an unconnected UDP socket.
    pub remote: SocketAddr,
    /// TCP's state, `TCPS_*`.
    pub state: u8,
    /// Which TCP stack.
    pub stack: TcpStack,
    /// The retransmission timer runs.
    pub rexmt: bool,
    /// The persist timer runs.
    pub persist: bool,
    /// Retransmissions of the segment so far: `t_rxtshift`.
    pub rxtshift: i32,
    /// `inp_gencnt`, which tells connections of one tuple apart.
    pub instance: u64,
}

impl Connection {
    /// An established TCP connection, or a connected UDP socket, with nothing outstanding.
    #[must_use]
    pub const fn new(protocol: u8, local: SocketAddr, remote: SocketAddr) -> Self {
        let (stack, instance) = (TcpStack::Default, 1);
        Self { protocol, local, remote, state: 4, stack, rexmt: false, persist: false, rxtshift: 0, instance }
    }

    /// The same with a segment outstanding, sent `1 + rxtshift` times.
    #[must_use]
    pub const fn outstanding(mut self, rxtshift: i32) -> Self {
        self.rexmt = true;
        self.rxtshift = rxtshift;
        self
    }
}

/// A question for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// Local address and port.
    pub local: SocketAddr,
    /// Remote address and port.
    pub remote: SocketAddr,
    /// Sockets that are bound, but not connected to the remote side, count too (`INPLOOKUP_WILDCARD`).
    pub wildcard: bool,
}

impl Query {
    /// Whether the connection is an answer.
    #[must_use]
    pub fn matches(&self, connection: &Connection) -> bool {
        let exact = connection.local == self.local && connection.remote == self.remote;
        let local = connection.local.port() == self.local.port()
            && connection.local.is_ipv4() == self.local.is_ipv4()
            && (connection.local.ip().is_unspecified() || connection.local.ip() == self.local.ip());
        let bound = self.wildcard && connection.remote.port() == 0 && local;
        connection.protocol == self.protocol && (exact || bound)
    }
}

/// A timer of TCP that a module set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// `TT_REXMT`.
    Retransmit,
    /// `TT_PERSIST`.
    Persist,
}

/// Where a VNET's connections come from.
pub trait Connections: Send + Sync + fmt::Debug {
    /// The connection that answers the question, as it is now.
    fn find(&self, query: &Query) -> Option<Connection>;
    /// A module set a timer of this connection to fire after so many ticks (thousandths of a second).
    fn timer(&self, connection: &Connection, timer: Timer, ticks: u32);
}

/// A list that tests give.
#[derive(Debug, Default)]
struct List(Vec<Connection>);

impl Connections for List {
    fn find(&self, query: &Query) -> Option<Connection> {
        let exact = Query { wildcard: false, ..*query };
        self.0.iter().find(|c| exact.matches(c)).or_else(|| self.0.iter().find(|c| query.matches(c))).cloned()
    }

    fn timer(&self, _connection: &Connection, _timer: Timer, _ticks: u32) {}
}

/// What a VNET knows of its connections.
#[derive(Debug, Default)]
pub(crate) struct Pcbs {
    source: Mutex<Option<Arc<dyn Connections>>>,
    /// Control blocks handed out: by protocol and tuple.
    blocks: Mutex<HashMap<(u8, SocketAddr, SocketAddr), usize>>,
    timers: Mutex<Vec<(Connection, Timer, u32)>>,
    lookups: Mutex<u64>,
}

/// A control block and what it stands for.
#[derive(Clone, Debug)]
struct Block {
    connection: Connection,
    vnet: &'static VnetState,
}

/// The control blocks of all VNETs, by address.
fn blocks() -> &'static Mutex<HashMap<usize, Block>> {
    static BLOCKS: OnceLock<Mutex<HashMap<usize, Block>>> = OnceLock::new();
    BLOCKS.get_or_init(Mutex::default)
}

impl Pcbs {
    pub(crate) fn set_list(&self, list: &[Connection]) {
        *self.source.lock().unwrap() = Some(Arc::new(List(list.to_vec())));
    }

    pub(crate) fn set_source(&self, source: Arc<dyn Connections>) {
        *self.source.lock().unwrap() = Some(source);
    }

    pub(crate) fn take_timers(&self) -> Vec<(Connection, Timer, u32)> {
        std::mem::take(&mut self.timers.lock().unwrap())
    }

    pub(crate) fn lookups(&self) -> u64 {
        *self.lookups.lock().unwrap()
    }
}

/// The block of functions of a TCP stack, with its name in front.
fn functions(stack: TcpStack) -> usize {
    static FUNCTIONS: OnceLock<[usize; 2]> = OnceLock::new();
    let make = |name: &str| {
        let at = eternal(BLOCK).as_ptr();
        // SAFETY: a new structure, whose first 32 bytes are the name; the rest of them is zero.
        unsafe { foreign::store(at, name.as_bytes()) };
        at as usize
    };
    let all = FUNCTIONS.get_or_init(|| [make("freebsd"), make("rack")]);
    all[usize::from(stack == TcpStack::Rack)]
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        // `ia46_addr4` lies at the end.
        IpAddr::V4(ip) => {
            let mut wide = [0; 16];
            wide[12..].copy_from_slice(&ip.octets());
            wide
        }
    }
}

fn block(vnet: &'static VnetState, connection: &Connection) -> Tcpcb {
    let key = (connection.protocol, connection.local, connection.remote);
    let at = *vnet.pcbs.blocks.lock().unwrap().entry(key).or_insert_with(|| {
        let at = eternal(Tcpcb::SIZE).as_ptr() as usize;
        lock::init_inpcb(at + INP_LOCK, connection.protocol == TCP);
        // SAFETY: eternal memory of that size.
        let made = unsafe { Tcpcb::new(at as *mut u8) }.unwrap_or_else(|| unreachable!());
        made.set_t_flags(TF_TSO);
        at
    });
    // SAFETY: eternal memory of that size.
    unsafe { Tcpcb::new(at as *mut u8) }.unwrap_or_else(|| unreachable!())
}

/// Whether a connection lets interfaces cut its data into segments.
pub(crate) fn uses_tso(vnet: &'static VnetState, connection: &Connection) -> bool {
    block(vnet, connection).t_flags() & TF_TSO != 0
}

/// A time as `sbintime_t`: seconds in the upper, a fraction in the lower 32 bits.
fn sbintime(time: std::time::Duration) -> i64 {
    ((time.as_secs() << 32) | ((u64::from(time.subsec_nanos()) << 32) / 1_000_000_000)) as i64
}

/// Fills the block in; the caller holds its lock.
fn fill(block: Tcpcb, pcbinfo: usize, connection: &Connection) {
    block.set_ppcb(block.address());
    block.set_pcbinfo(pcbinfo);
    block.set_vflag(if connection.local.is_ipv4() { INP_IPV4 } else { INP_IPV6 });
    block.set_protocol(connection.protocol);
    block.set_fport(connection.remote.port().to_be());
    block.set_lport(connection.local.port().to_be());
    block.set_faddr(octets(connection.remote.ip()));
    block.set_laddr(octets(connection.local.ip()));
    block.set_gencnt(connection.instance);
    if connection.protocol == TCP {
        block.set_fb(functions(connection.stack));
        let mut timers = [NEVER; 5];
        let soon = sbintime(crate::clock::uptime() + std::time::Duration::from_secs(1));
        for (timer, runs) in [(REXMT, connection.rexmt), (PERSIST, connection.persist)] {
            if runs {
                timers[timer] = soon;
            }
        }
        block.set_timers(timers);
        block.set_port_state(u32::from(connection.state & 0xf) << 16);
        block.set_rxtshift(connection.rxtshift);
    }
}

fn lookup(pcbinfo: usize, local: (IpAddr, u32), remote: (IpAddr, u32), flags: i32, who: &str) -> usize {
    let vnet = crate::vnet::current().unwrap_or_else(|| complain!("{who}: curvnet is not set"));
    let protocol = match vnet.pcbinfos().iter().position(|info| *info == pcbinfo) {
        Some(0) => TCP,
        Some(_) => UDP,
        None => complain!("{who}: {pcbinfo:#x} is neither V_tcbinfo nor V_udbinfo of curvnet"),
    };
    let exclusive = match flags & (RLOCK | WLOCK) {
        RLOCK => false,
        WLOCK => true,
        _ => complain!("{who}: neither or both of INPLOOKUP_RLOCKPCB and INPLOOKUP_WLOCKPCB"),
    };
    if flags & !(WILDCARD | RLOCK | WLOCK) != 0 {
        complain!("{who}: flags {flags:#x}");
    }
    for (ip, port) in [local, remote] {
        if ip.is_unspecified() {
            complain!("{who}: an unspecified address");
        }
        if port > 0xffff {
            complain!("{who}: port {port:#x}");
        }
    }
    if lock::holds_inpcb() {
        complain!("{who} while an inpcb is locked");
    }
    // Ports are in network order.
    let side = |(ip, port): (IpAddr, u32)| SocketAddr::new(ip, u16::from_be(port as u16));
    let query = Query { protocol, local: side(local), remote: side(remote), wildcard: flags & WILDCARD != 0 };
    *vnet.pcbs.lookups.lock().unwrap() += 1;
    let source = vnet.pcbs.source.lock().unwrap().clone();
    let Some(connection) = source.and_then(|source| source.find(&query)) else { return 0 };
    let block = block(vnet, &connection);
    let at = block.address() + INP_LOCK;
    lock::lock_inpcb(at, true, who);
    fill(block, pcbinfo, &connection);
    blocks().lock().unwrap().insert(block.address(), Block { connection, vnet });
    if !exclusive {
        lock::unlock_inpcb(at);
        lock::lock_inpcb(at, false, who);
    }
    block.address()
}

fn v4(address: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(address.to_ne_bytes()))
}

/// The address that a `struct in6_addr *` points to.
pub(crate) fn v6(at: *const u8) -> IpAddr {
    // SAFETY: the caller gives 16 bytes.
    let bytes = unsafe { foreign::bytes(at, 16) };
    IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap_or([0; 16])))
}

extern "C" fn in_pcblookup(
    info: usize,
    faddr: u32,
    fport: u32,
    laddr: u32,
    lport: u32,
    flags: i32,
    _ifp: usize,
) -> usize {
    lookup(info, (v4(laddr), lport), (v4(faddr), fport), flags, "in_pcblookup")
}

extern "C" fn in6_pcblookup(
    info: usize,
    faddr: *const u8,
    fport: u32,
    laddr: *const u8,
    lport: u32,
    flags: i32,
    _ifp: usize,
) -> usize {
    lookup(info, (v6(laddr), lport), (v6(faddr), fport), flags, "in6_pcblookup")
}

fn tcp(tp: usize, who: &str) -> (Tcpcb, Block) {
    let Some(found) = blocks().lock().unwrap().get(&tp).cloned() else {
        complain!("{who}: {tp:#x} is no tcpcb");
    };
    if found.connection.protocol != TCP {
        complain!("{who} of a UDP socket");
    }
    if !lock::owns_inpcb(tp + INP_LOCK) {
        complain!("{who}: the inpcb is not write-locked by this thread");
    }
    // SAFETY: in the list of blocks, which are never freed.
    (unsafe { Tcpcb::new(tp as *mut u8) }.unwrap_or_else(|| unreachable!()), found)
}

extern "C" fn tcp_timer_active(tp: usize, which: u32) -> bool {
    let (block, _) = tcp(tp, "tcp_timer_active");
    let Some(&at) = block.timers().get(which as usize) else { complain!("tcp_timer_active: timer {which}") };
    at != NEVER
}

extern "C" fn tcp_timer_activate(tp: usize, which: u32, delta: u32) {
    let who = "tcp_timer_activate";
    let (block, found) = tcp(tp, who);
    let timer = match which as usize {
        REXMT => Timer::Retransmit,
        PERSIST => Timer::Persist,
        _ => complain!("{who}: timer {which} is none that modules set"),
    };
    let mut timers = block.timers();
    let other = timers[1 - which as usize];
    if found.connection.stack != TcpStack::Default {
        complain!("{who}: the connection's stack keeps timers of its own");
    }
    if found.connection.state >= TIME_WAIT {
        complain!("{who}: the connection is in TIME_WAIT");
    }
    if delta != 0 && timers[which as usize] == NEVER {
        complain!("{who}: the timer did not run{}", if other == NEVER { "" } else { ", the other one does" });
    }
    if delta != 0 && which as usize == REXMT && block.rxtshift() >= MAXRXTSHIFT {
        complain!("{who}: the last retransmission was sent: the connection would be dropped");
    }
    let after = crate::clock::uptime() + std::time::Duration::from_millis(delta.into());
    timers[which as usize] = if delta == 0 { NEVER } else { sbintime(after) };
    block.set_timers(timers);
    found.vnet.pcbs.timers.lock().unwrap().push((found.connection.clone(), timer, delta));
    let source = found.vnet.pcbs.source.lock().unwrap().clone();
    if let Some(source) = source {
        source.timer(&found.connection, timer, delta);
    }
}

/// Forgets the control blocks of a VNET that is gone.
pub(crate) fn forget(vnet: &VnetState) {
    blocks().lock().unwrap().retain(|_, block| !std::ptr::eq(block.vnet, vnet));
}

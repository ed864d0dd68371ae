//! Tasks, timeouts, connections, queues, reassembly and routes, used by a C module as FreeBSD's headers have them.

#[path = "common/cc.rs"]
mod cc;

use mobconn_kpi::{
    Connection, Connections, DropCause, Errno, Event, Input, Machine, Options, Output, Query, Rx, Split, TcpStack,
    Timer, Tx, Vnet,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// `REQUEST` of the module.
const REQUEST: u32 = 0xc060_5301;

#[allow(clippy::upper_case_acronyms, reason = "the module's names")]
#[derive(Clone, Copy)]
enum What {
    Enqueue,
    Burst,
    Arm,
    Cancel,
    Drain,
    Report,
    Lookup,
    Kick,
    HoldIn,
    HoldOut,
    ReleaseIn,
    ReleaseOut,
    Local,
    Mtu,
    ArmPeriodic,
    CancelTask,
    Peek,
}

/// `struct request`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Request {
    result: i32,
    runs: u32,
    pending: u32,
    ticks: i32,
    local_port: u16,
    remote_port: u16,
    name: String,
}

fn octets(ip: IpAddr) -> [u8; 16] {
    let mut wide = [0; 16];
    match ip {
        IpAddr::V4(ip) => wide[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => wide = ip.octets(),
    }
    wide
}

/// A question about a tuple: flags of the look-up, whether UDP.
struct Tuple {
    local: SocketAddr,
    remote: SocketAddr,
    udp: bool,
    flags: u8,
}

fn ask(vnet: &Vnet, what: What, argument: i32, tuple: Option<&Tuple>) -> Result<Request, Errno> {
    let mut bytes = Vec::new();
    bytes.extend((what as u32).to_le_bytes());
    bytes.extend(argument.to_le_bytes());
    bytes.resize(24, 0);
    if let Some(tuple) = tuple {
        bytes.extend(octets(tuple.local.ip()));
        bytes.extend(octets(tuple.remote.ip()));
        bytes.extend(tuple.local.port().to_le_bytes());
        bytes.extend(tuple.remote.port().to_le_bytes());
        bytes.extend([tuple.local.is_ipv6().into(), tuple.udp.into(), tuple.flags]);
    }
    bytes.resize(96, 0);
    vnet.open("services", 0, 3)?.ioctl(REQUEST, &mut bytes, &mut [])?;
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    Ok(Request {
        result: word(8).cast_signed(),
        runs: word(12),
        pending: word(16),
        ticks: word(20).cast_signed(),
        local_port: half(56),
        remote_port: half(58),
        name: String::from_utf8_lossy(bytes[64..].split(|byte| *byte == 0).next().unwrap()).into_owned(),
    })
}

fn tell(vnet: &Vnet, what: What, argument: i32) -> Request {
    ask(vnet, what, argument, None).unwrap()
}

fn loaded(options: Options) -> Machine {
    static MODULE: OnceLock<std::path::PathBuf> = OnceLock::new();
    let module = MODULE.get_or_init(|| cc::compile("testmod/services.c", "services"));
    let machine = Machine::boot(options);
    machine.kldload(module, &[]).unwrap_or_else(|error| panic!("{error}: {:?}", machine.console()));
    machine
}

fn tuple(local: &str, remote: &str, udp: bool, flags: u8) -> Tuple {
    Tuple { local: local.parse().unwrap(), remote: remote.parse().unwrap(), udp, flags }
}

#[test]
fn tasks_run_and_are_counted() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    assert_eq!(tell(&vnet, What::Enqueue, 0).result, 0);
    machine.quiesce();
    let report = tell(&vnet, What::Report, 0);
    assert_eq!((report.runs, report.pending), (1, 1));
    // One run waits for the gate at most; all others are one.
    tell(&vnet, What::Burst, 200_000);
    machine.quiesce();
    let report = tell(&vnet, What::Report, 0);
    assert!(report.runs == 2 || report.runs == 3, "{report:?}");
    // The count stops at what fits.
    assert!((1 + 65_535..=1 + 2 * 65_535).contains(&report.pending), "{report:?}");
    assert_eq!((tell(&vnet, What::CancelTask, 0).result, tell(&vnet, What::CancelTask, 0).pending), (0, 0));
    tell(&vnet, What::Drain, 0);
}

#[test]
fn timeouts_follow_a_clock_that_tests_move() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    machine.set_uptime(Some(50));
    let begin = tell(&vnet, What::Peek, 0);
    assert_eq!((begin.runs, begin.pending), (50, 1000));
    assert_eq!(tell(&vnet, What::Arm, 5000).result, 0);
    machine.advance(Duration::from_millis(4999));
    assert_eq!(tell(&vnet, What::Report, 0).runs, 0);
    machine.advance(Duration::from_millis(1));
    let report = tell(&vnet, What::Report, 0);
    assert_eq!((report.runs, report.ticks - begin.ticks), (1, 5000));
    // Again before it is due: one timeout, later.
    assert_eq!(tell(&vnet, What::Arm, 1000).result, 0);
    assert_eq!(tell(&vnet, What::Arm, 3000).result, 1);
    machine.advance(Duration::from_secs(2));
    assert_eq!(tell(&vnet, What::Report, 0).runs, 1);
    let cancelled = tell(&vnet, What::Cancel, 0);
    assert_eq!((cancelled.result, cancelled.pending), (0, 1));
    machine.advance(Duration::from_hours(1));
    assert_eq!(tell(&vnet, What::Report, 0).runs, 1);
    // At once.
    assert_eq!(tell(&vnet, What::Arm, 0).result, 0);
    machine.quiesce();
    assert_eq!(tell(&vnet, What::Report, 0).runs, 2);
    // One that begins itself anew runs each time.
    tell(&vnet, What::ArmPeriodic, 1000);
    machine.advance(Duration::from_secs(700));
    assert_eq!(tell(&vnet, What::Report, 0).runs, 702);
    let end = tell(&vnet, What::Peek, 0);
    assert_eq!(end.runs, 50 + 4 + 1 + 2 + 3600 + 700);
    assert!(end.ticks < begin.ticks, "ticks has overflowed: {end:?}");
    tell(&vnet, What::Drain, 0);
    machine.advance(Duration::from_secs(10));
    assert_eq!(tell(&vnet, What::Report, 0).runs, 702);
    // With the clock at a new time by hand, what is due runs, too.
    tell(&vnet, What::Arm, 1000);
    machine.set_uptime(Some(100_000));
    machine.quiesce();
    assert_eq!(tell(&vnet, What::Report, 0).runs, 703);
    tell(&vnet, What::Drain, 0);
}

#[test]
fn timeouts_follow_the_clock_when_it_runs() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    tell(&vnet, What::Arm, 1);
    while tell(&vnet, What::Report, 0).runs == 0 {
        std::thread::yield_now();
    }
    // A module goes with a timeout under way.
    tell(&vnet, What::ArmPeriodic, 1);
    machine.kldunload(false).unwrap();
}

#[test]
fn connections_are_found_by_their_tuples() {
    const READ: u8 = 2;
    const WRITE: u8 = 4;
    const WILD: u8 = 1;
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let absent = tuple("192.0.2.1:5000", "192.0.2.9:80", false, READ);
    assert_eq!(ask(&vnet, What::Lookup, 0, Some(&absent)), Err(Errno::ENOENT));
    let mut other = Connection::new(6, at("[2001:db8::1]:5001"), at("[2001:db8::2]:443"));
    other.instance = 77;
    vnet.set_connections(&[
        Connection::new(6, at("192.0.2.1:5000"), at("192.0.2.2:80")),
        other,
        Connection::new(17, at("192.0.2.1:5000"), at("192.0.2.2:80")),
        Connection::new(17, at("0.0.0.0:53"), at("0.0.0.0:0")),
    ]);
    for flags in [READ, WRITE] {
        let found = ask(&vnet, What::Lookup, 0, Some(&tuple("192.0.2.1:5000", "192.0.2.2:80", false, flags))).unwrap();
        assert_eq!((found.runs, found.local_port, found.remote_port), (1, 5000, 80));
        let six = tuple("[2001:db8::1]:5001", "[2001:db8::2]:443", false, flags);
        let found = ask(&vnet, What::Lookup, 0, Some(&six)).unwrap();
        assert_eq!((found.runs, found.local_port, found.remote_port), (77, 5001, 443));
        assert!(ask(&vnet, What::Lookup, 0, Some(&tuple("192.0.2.1:5000", "192.0.2.2:80", true, flags))).is_ok());
        for wrong in ["192.0.2.2:81", "192.0.2.3:80"] {
            let wrong = tuple("192.0.2.1:5000", wrong, false, flags);
            assert_eq!(ask(&vnet, What::Lookup, 0, Some(&wrong)), Err(Errno::ENOENT));
        }
        let named = tuple("192.0.2.1:53", "192.0.2.7:999", true, flags);
        assert_eq!(ask(&vnet, What::Lookup, 0, Some(&named)), Err(Errno::ENOENT));
        let wild = Tuple { flags: flags | WILD, ..named };
        assert_eq!(ask(&vnet, What::Lookup, 0, Some(&wild)).unwrap().remote_port, 0);
    }
    // Another stack has its own.
    let jail = machine.vnet_create();
    let here = tuple("192.0.2.1:5000", "192.0.2.2:80", false, WRITE);
    assert_eq!(ask(&jail, What::Lookup, 0, Some(&here)), Err(Errno::ENOENT));
    jail.destroy();
    assert!(vnet.lookups() > 10);
}

#[test]
fn timers_of_tcp_are_set_and_told() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let connection = Connection::new(6, at("192.0.2.1:5000"), at("192.0.2.2:80"));
    let kick = |connection: &Connection| {
        vnet.set_connections(std::slice::from_ref(connection));
        let asked = ask(&vnet, What::Kick, 0, Some(&tuple("192.0.2.1:5000", "192.0.2.2:80", false, 0))).unwrap();
        (asked, vnet.timers())
    };
    let (asked, timers) = kick(&connection);
    assert_eq!((asked.name.as_str(), asked.ticks, asked.pending, timers.len()), ("freebsd", 4, 0, 0));
    let waiting = connection.clone().outstanding(5);
    let (asked, timers) = kick(&waiting);
    assert_eq!((asked.pending, timers), (5, vec![(waiting.clone(), Timer::Retransmit, 1)]));
    let persisting = Connection { persist: true, ..connection.clone() };
    assert_eq!(kick(&persisting).1, vec![(persisting, Timer::Persist, 1)]);
    // Neither a connection at its last try nor one of another stack.
    assert_eq!(kick(&connection.clone().outstanding(12)).1, vec![]);
    let (asked, timers) = kick(&Connection { stack: TcpStack::Rack, ..waiting });
    assert_eq!((asked.name.as_str(), timers.len()), ("rack", 0));
}

/// Somebody who is asked each time.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<(Query, u32)>>);

impl Connections for Asked {
    fn find(&self, query: &Query) -> Option<Connection> {
        self.0.lock().unwrap().push((*query, 0));
        Some(Connection::new(query.protocol, query.local, query.remote).outstanding(3))
    }

    fn timer(&self, connection: &Connection, timer: Timer, ticks: u32) {
        assert_eq!((connection.rxtshift, timer), (3, Timer::Retransmit));
        self.0.lock().unwrap().last_mut().unwrap().1 = ticks;
    }
}

#[test]
fn connections_may_come_from_elsewhere() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    let asked = Arc::new(Asked::default());
    vnet.set_connection_source(Arc::clone(&asked) as Arc<dyn Connections>);
    ask(&vnet, What::Kick, 0, Some(&tuple("[2001:db8::1]:5001", "[2001:db8::2]:443", false, 0))).unwrap();
    let (local, remote) = ("[2001:db8::1]:5001".parse().unwrap(), "[2001:db8::2]:443".parse().unwrap());
    assert_eq!(*asked.0.lock().unwrap(), [(Query { protocol: 6, local, remote, wildcard: false }, 1)]);
}

/// UDP packets from 192.0.2.1 or 2001:db8::1 with this payload, checksums right.
fn packet(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = if v6 {
        let address = |host| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host];
        etherparse::PacketBuilder::ipv6(address(1), address(2), 64)
    } else {
        etherparse::PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
    };
    builder.udp(5000, 80).write(&mut out, payload).unwrap();
    if !v6 {
        // May be cut.
        out[6] &= !0x40;
        seal(&mut out);
    }
    out
}

fn seal(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum: u32 = packet[..20].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes());
}

#[test]
fn packets_are_held_and_come_up_later() {
    for split in [Split::Whole, Split::Arbitrary] {
        let machine = loaded(Options { split, ..Options::default() });
        let vnet = machine.vnet0();
        vnet.set_local(&["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()]);
        tell(&vnet, What::HoldIn, 1);
        let packets: Vec<_> = (0..40_u8).map(|n| packet(n % 2 == 0, &[n; 700])).collect();
        for packet in &packets {
            assert_eq!(vnet.ip_input(packet, &Rx::new("em0")), Input::Consumed);
        }
        assert!(machine.mbufs() >= 40);
        tell(&vnet, What::ReleaseIn, 0);
        machine.quiesce();
        let mut came: Vec<_> = vnet
            .events()
            .into_iter()
            .map(|event| match event {
                Event::Received(Input::Deliver(delivered)) => {
                    assert!(delivered.checksum_ok);
                    delivered.packet
                }
                other => panic!("{other:?}"),
            })
            .collect();
        // In order for each protocol.
        came.sort_by_key(|packet| packet.last().copied());
        assert_eq!(came, packets);
        assert_eq!(machine.mbufs(), 0);
        // Not ours: the routes and addresses of the time when it comes up count.
        assert_eq!(vnet.ip_input(&packets[1], &Rx::new("em0")), Input::Consumed);
        vnet.set_local(&["192.0.2.3".parse().unwrap()]);
        tell(&vnet, What::ReleaseIn, 0);
        machine.quiesce();
        assert_eq!(vnet.events(), [Event::Received(Input::Dropped(DropCause::NotOurs))]);
    }
}

#[test]
fn an_interface_may_go_while_its_packet_waits() {
    let machine = loaded(Options::default());
    let (vnet, jail) = (machine.vnet0(), machine.vnet_create());
    tell(&vnet, What::HoldIn, 1);
    assert_eq!(jail.ip_input(&packet(false, b"late"), &Rx::new("em0")), Input::Consumed);
    jail.destroy();
    tell(&vnet, What::ReleaseIn, 0);
    machine.quiesce();
    assert_eq!((vnet.events(), machine.mbufs()), (vec![], 0));
}

#[test]
fn packets_are_held_and_sent_later() {
    let machine = loaded(Options { split: Split::Arbitrary, ..Options::default() });
    let vnet = machine.vnet0();
    vnet.set_router(|to| to.is_ipv4().then(|| "em7".to_owned()));
    tell(&vnet, What::HoldOut, 1);
    for v6 in [false, true] {
        let packet = packet(v6, b"held");
        assert_eq!(vnet.ip_output(&packet, &Tx::new("em0").offload()), Output::Consumed);
        tell(&vnet, What::ReleaseOut, 0);
        match vnet.events().as_slice() {
            [Event::Sent(Output::Send(sent))] if !v6 => {
                assert_eq!((sent.single(), sent.ifname.as_str()), (Some(packet.as_slice()), "em7"));
            }
            [Event::Sent(Output::Dropped(Errno::EHOSTUNREACH))] if v6 => {}
            other => panic!("{other:?}"),
        }
    }
    // Too long for the interface, once the hooks have run.
    vnet.set_router(|_| Some("em7".to_owned()));
    for (v6, mtu, sent) in [(false, 576, true), (true, 1280, true), (true, 1279, false)] {
        vnet.set_mtu("em7", mtu);
        assert_eq!(vnet.ip_output(&packet(v6, &[1; 1400]), &Tx::new("em0")), Output::Consumed);
        tell(&vnet, What::ReleaseOut, 0);
        match vnet.events().as_slice() {
            [Event::Sent(Output::Send(out))] if sent => assert!(out.packets.len() > 1),
            [Event::Sent(Output::Dropped(Errno::EMSGSIZE))] if !sent => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(machine.mbufs(), 0);
}

#[test]
fn mbufs_have_the_room_that_is_asked_for() {
    let machine = loaded(Options::default());
    for (wanted, room) in [(1, 160), (160, 160), (161, 2048), (2048, 2048)] {
        assert_eq!(tell(&machine.vnet0(), What::Peek, wanted).result, room);
    }
}

#[test]
fn routes_and_local_addresses() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    vnet.set_local(&["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()]);
    vnet.set_router(|to| (to != "192.0.2.9".parse::<IpAddr>().unwrap()).then(|| "wlan3".to_owned()));
    vnet.set_mtu("wlan3", 1300);
    let ask = |what, remote: &str| ask(&vnet, what, 0, Some(&tuple("192.0.2.1:1", remote, false, 0))).unwrap();
    let six =
        |what, remote: &str| self::ask(&vnet, what, 0, Some(&tuple("[2001:db8::1]:1", remote, false, 0))).unwrap();
    for (remote, local) in [("192.0.2.2:1", 1), ("192.0.2.3:1", 0)] {
        assert_eq!(ask(What::Local, remote).result, local);
    }
    for (remote, local) in [("[2001:db8::2]:1", 1), ("[2001:db8::3]:1", 0)] {
        assert_eq!(six(What::Local, remote).result, local);
    }
    for (found, looped) in [(ask(What::Mtu, "192.0.2.7:1"), 0), (six(What::Mtu, "[2001:db8::7]:1"), 0)] {
        assert_eq!((found.result, found.name.as_str(), found.pending), (1300, "wlan3", looped));
    }
    assert_eq!(ask(What::Mtu, "192.0.2.2:1").pending, 1, "a local address is reached by lo0");
    assert_eq!(ask(What::Mtu, "192.0.2.9:1").result, 0);
    vnet.set_mtu("wlan3", 1400);
    assert_eq!(ask(What::Mtu, "192.0.2.7:1").result, 1400);
}

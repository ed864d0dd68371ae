//! The scenarios: each runs in a process of its own.

pub(crate) mod common;
mod http;
mod memory;
mod names;
mod networks;
mod path;
mod rendezvous;
mod runner;
mod stranger;
pub(crate) mod tcp;
mod translation;
mod udp;

pub use runner::{inside, list, run};

use crate::error::Result;
use crate::lab::Places;

/// What a scenario found out, one line each, for people.
pub type Figures = Vec<String>;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    run: fn(&Places) -> Result<Figures>,
}

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "no-move",
        about: "without mobconn and without a move, streams go through: the world works",
        run: tcp::no_move,
    },
    Scenario {
        name: "without",
        about: "without mobconn, a stream stalls when its host moves: these tests can fail",
        run: tcp::without,
    },
    Scenario { name: "by-hand-ipv4", about: "mobctl flow add and del on both hosts, no daemon", run: tcp::by_hand_v4 },
    Scenario { name: "by-hand-ipv6", about: "the same over IPv6", run: tcp::by_hand_v6 },
    Scenario {
        name: "mobile-sends-ipv4",
        about: "the mobile host sends while it moves there and back",
        run: tcp::mobile_sends_v4,
    },
    Scenario { name: "mobile-sends-ipv6", about: "the same over IPv6", run: tcp::mobile_sends_v6 },
    Scenario { name: "peer-sends-ipv4", about: "the peer sends", run: tcp::peer_sends_v4 },
    Scenario { name: "peer-sends-ipv6", about: "the same over IPv6", run: tcp::peer_sends_v6 },
    Scenario { name: "both-send-ipv4", about: "both send at once", run: tcp::both_send_v4 },
    Scenario { name: "both-send-ipv6", about: "the same over IPv6", run: tcp::both_send_v6 },
    Scenario { name: "hundred", about: "a hundred connections move at once", run: tcp::hundred },
    Scenario { name: "idle", about: "idle connections move; then the peer speaks first", run: tcp::idle },
    Scenario {
        name: "loss",
        about: "of every cable's packets 5 % are lost during the move and for a while after",
        run: tcp::loss,
    },
    Scenario {
        name: "curl-ipv6",
        about: "curl downloads from python3's HTTP server over IPv6",
        run: http::download_v6,
    },
    Scenario { name: "wrong-key", about: "the daemons have different group keys: nothing moves", run: tcp::wrong_key },
    Scenario {
        name: "no-mobconn",
        about: "the peer has no mobconn: it hears a few small datagrams and no more",
        run: memory::no_mobconn,
    },
    Scenario {
        name: "restarts",
        about: "daemons are killed, stopped and started: before, during and after moves, on either side",
        run: memory::restarts,
    },
    Scenario { name: "udp-ipv4", about: "a UDP flow moves there and back", run: udp::flow_v4 },
    Scenario { name: "udp-ipv6", about: "the same over IPv6", run: udp::flow_v6 },
    Scenario {
        name: "names-bind",
        about: "the mobile host's name at BIND 9: every move, old callers, a server that is down, a crash, the end",
        run: names::bind,
    },
    Scenario { name: "names-knot", about: "the same at Knot DNS", run: names::knot },
    Scenario {
        name: "names-cache",
        about: "a caller's resolver still knows the old address, where a stranger is: after the TTL the host is reached",
        run: names::cache,
    },
    Scenario {
        name: "both-move",
        about: "both hosts move while neither can reach anybody: they find each other by their names",
        run: rendezvous::both_move,
    },
    Scenario {
        name: "stranger-ipv4",
        about: "a stranger at the old address, with the same ports: both connections live on",
        run: stranger::tcp_v4,
    },
    Scenario { name: "stranger-ipv6", about: "the same over IPv6", run: stranger::tcp_v6 },
    Scenario {
        name: "small-link-ipv4",
        about: "behind the new network the path is narrower: ICMP finds the moved connection",
        run: path::small_link_v4,
    },
    Scenario { name: "small-link-ipv6", about: "the same over IPv6", run: path::small_link_v6 },
    Scenario {
        name: "small-interface-ipv4",
        about: "the new interface takes smaller packets",
        run: path::small_interface_v4,
    },
    Scenario { name: "small-interface-ipv6", about: "the same over IPv6", run: path::small_interface_v6 },
    Scenario {
        name: "small-peer-ipv4",
        about: "the peer's own interface takes smaller packets after the move",
        run: path::small_peer_v4,
    },
    Scenario { name: "small-peer-ipv6", about: "the same over IPv6", run: path::small_peer_v6 },
    Scenario {
        name: "outage-ipv4",
        about: "after an outage both directions resume at the commit",
        run: path::outage_v4,
    },
    Scenario { name: "outage-ipv6", about: "the same over IPv6", run: path::outage_v6 },
    Scenario {
        name: "auto-break-ipv4",
        about: "the daemon notices by itself: the old network goes, the new one comes, and back",
        run: networks::break_v4,
    },
    Scenario { name: "auto-break-ipv6", about: "the same over IPv6", run: networks::break_v6 },
    Scenario {
        name: "auto-make-ipv4",
        about: "make before break by preference: no segment lost, none sent twice",
        run: networks::make_v4,
    },
    Scenario {
        name: "auto-make-ipv6",
        about: "make before break by a new default route: the same",
        run: networks::make_v6,
    },
    Scenario {
        name: "auto-flapping",
        about: "the preferred network comes and goes: connections stay on the other one",
        run: networks::flapping,
    },
    Scenario {
        name: "auto-third",
        about: "a third address before the move to the second was finished",
        run: networks::third,
    },
    Scenario {
        name: "auto-renumber",
        about: "another address on the same interface: first deleted then added, and the other way round",
        run: networks::renumber,
    },
    Scenario { name: "auto-by-hand", about: "what is moved by hand stays until it cannot", run: networks::by_hand },
    Scenario {
        name: "nat",
        about: "a network behind address translation: status says why nothing moves there, and nothing breaks",
        run: translation::nat,
    },
    Scenario { name: "interruption-0ms", about: "what a move costs on a path without delay", run: udp::no_delay },
    Scenario { name: "interruption-20ms", about: "what a move costs at 20 ms one way", run: udp::delay },
];

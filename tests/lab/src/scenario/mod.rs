//! The scenarios: each runs in a process of its own.

mod runner;
mod tcp;

pub use runner::{list, run_all, run_one};

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
        about: "without mobconn and without a move, a stream goes through: the world works",
        run: tcp::no_move,
    },
    Scenario {
        name: "without",
        about: "without mobconn, a stream stalls when its host moves: these tests can fail",
        run: tcp::without,
    },
    Scenario {
        name: "by-hand-ipv4",
        about: "mobctl flow add and del on both hosts, no daemon, IPv4",
        run: tcp::by_hand_v4,
    },
    Scenario {
        name: "by-hand-ipv6",
        about: "the same over IPv6",
        run: tcp::by_hand_v6,
    },
    Scenario {
        name: "ipv4-mobile-sends",
        about: "the mobile host sends while it moves there and back, IPv4",
        run: tcp::mobile_sends,
    },
    Scenario {
        name: "ipv4-peer-sends",
        about: "the peer sends",
        run: tcp::peer_sends,
    },
    Scenario {
        name: "ipv4-both-send",
        about: "both send at once",
        run: tcp::both_send,
    },
    Scenario {
        name: "ipv6-mobile-sends",
        about: "the mobile host sends, IPv6",
        run: tcp::mobile_sends_v6,
    },
    Scenario {
        name: "ipv6-peer-sends",
        about: "the peer sends, IPv6",
        run: tcp::peer_sends_v6,
    },
    Scenario {
        name: "ipv6-both-send",
        about: "both send at once, IPv6",
        run: tcp::both_send_v6,
    },
    Scenario {
        name: "hundred",
        about: "a hundred connections move at once",
        run: tcp::hundred,
    },
];

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
];

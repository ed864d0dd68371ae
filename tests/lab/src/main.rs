//! Command line of the lab.

use clap::{Parser, Subcommand};
use mobconn_lab::{Error, Result, demo, scenario};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs real programs over the real mobconn.ko in a small world of namespaces.
#[derive(Debug, Parser)]
#[command(name = "mobconn-lab")]
struct Arguments {
    /// Directory with mobconn.ko and host/mobctl; logs go to lab/ below it.
    #[arg(long, default_value = "build")]
    build: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows a download that survives two moves, and writes demo.svg.
    Demo,
    /// Lists the scenarios.
    List,
    /// Runs one scenario, several, or all.
    Run {
        /// Names of scenarios, or `all`.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match go(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("mobconn-lab: {e}");
            match e {
                // EX_UNAVAILABLE of sysexits(3).
                Error::Missing(_) => ExitCode::from(69),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn go(arguments: &Arguments) -> Result<bool> {
    let build = &arguments.build;
    match &arguments.action {
        Action::Demo => demo::run(build)?,
        Action::List => scenario::list(),
        Action::Run { names } => match names.as_slice() {
            [all] if all == "all" => return scenario::run_all(build, &[]),
            [one] => scenario::run_one(build, one)?,
            several => return scenario::run_all(build, several),
        },
    }
    Ok(true)
}

//! Command line of the lab.

use clap::{Parser, Subcommand};
use mobconn_lab::{Error, Result, bench, demo, scenario, supervise};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs real programs over the real mobconn.ko in a small world of namespaces.
#[derive(Debug, Parser)]
#[command(name = "mobconn-lab")]
struct Arguments {
    /// Directory with mobconn.ko and host/mobctl; logs go to lab/ below it.
    #[arg(long, default_value = "build")]
    build: PathBuf,
    /// This process is the world itself.
    #[arg(long, hide = true)]
    inside: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Measures how long moves interrupt what flows.
    Bench {
        /// Writes the figures there, too.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Names of benches; nothing: all.
        names: Vec<String>,
    },
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
    let result = if arguments.inside { inside(&arguments) } else { outside(&arguments) };
    match result {
        Ok(code) => code,
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

fn outside(arguments: &Arguments) -> Result<ExitCode> {
    supervise::outlast_signals()?;
    let build = &arguments.build;
    let good = match &arguments.action {
        Action::List => {
            scenario::list();
            true
        }
        Action::Demo => {
            let status = supervise::run(build, &["demo"], None, demo::LIMIT)?;
            // What went wrong has been said.
            let code = status.and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        Action::Bench { json, names } => bench::run(build, names, json.as_deref())?,
        Action::Run { names } => scenario::run(build, names)?,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inside(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.action {
        Action::List => scenario::list(),
        Action::Demo => demo::run(&arguments.build)?,
        Action::Bench { names, .. } => {
            for name in names {
                bench::inside(&arguments.build, name)?;
            }
        }
        Action::Run { names } => {
            for name in names {
                scenario::inside(&arguments.build, name)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

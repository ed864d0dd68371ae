//! The command line, see mobctl(8).

use crate::completion::Shell;
use crate::keyfile::Kind;
use crate::tuple::{Transport, parse_end};
use crate::{config, control, daemon::pidfile};
use clap::{Args, Parser, Subcommand, ValueHint};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Keeps connections alive while this host's address changes: command and daemon of mobconn.
#[derive(Debug, Parser)]
#[command(name = "mobctl", disable_help_subcommand = true, disable_version_flag = true, max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub common: Common,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
pub struct Common {
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
    /// Numbers only: leave out the names that peers give themselves. Nothing is ever looked up in the DNS.
    #[arg(short, long, global = true)]
    pub numeric: bool,
    /// The control device of the kernel module.
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath, default_value = "/dev/mobconn")]
    pub device: PathBuf,
    /// The configuration file.
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// The control socket of the daemon.
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath, default_value = control::DEFAULT_PATH)]
    pub control: PathBuf,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon.
    Daemon {
        /// Stay in the foreground and log to standard error.
        #[arg(short, long)]
        foreground: bool,
        /// Where the number of the process is kept.
        #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, default_value = pidfile::DEFAULT_PATH)]
        pidfile: PathBuf,
    },
    /// Show whether module and daemon run, and what is wrong.
    Status,
    /// List the bindings of the kernel's flow table.
    Flows,
    /// List the associations of the daemon.
    Peers,
    /// Move all claimed flows of an address to another one, and wait for the outcome.
    Move {
        /// The address that is left.
        old: IpAddr,
        /// The new address, configured and usable.
        new: IpAddr,
        /// Seconds to wait for the outcome. The move goes on after that.
        #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
        timeout: f64,
    },
    /// Show what happens, as it happens: moves, claims, peers, bindings.
    Monitor {
        /// End after so many events.
        #[arg(short, long, value_name = "NUMBER")]
        count: Option<u64>,
    },
    /// Show the flows that were used last, again and again.
    Top {
        /// Seconds from one look to the next.
        #[arg(short, long, value_name = "SECONDS", default_value = "2", value_parser = parse_seconds)]
        interval: f64,
        /// End after so many looks. 1 without a terminal.
        #[arg(short, long, value_name = "NUMBER")]
        count: Option<u64>,
    },
    /// Show the networks of this host, which are usable, and which one connections use.
    Networks,
    /// Prefer these interfaces, the best first, until the daemon ends.
    Prefer {
        /// Interfaces; or auto: as the configuration says.
        #[arg(required = true, value_name = "INTERFACE")]
        interfaces: Vec<String>,
    },
    /// Have the daemon look at the networks now, for scripts of devd(8) and dhclient(8).
    Poke {
        /// An interface whose routers are told.
        interface: Option<String>,
        /// Its routers.
        #[arg(value_name = "ROUTER")]
        routers: Vec<IpAddr>,
    },
    /// Make or remove a binding by hand.
    #[command(subcommand)]
    Flow(FlowCommand),
    /// Show the counters of the kernel module.
    Stats {
        /// Set them to zero after reading.
        #[arg(short = 'z', long)]
        zero: bool,
    },
    /// Make a key, or show this host's public one.
    Keygen {
        /// host: this host's private key. group: the key that all hosts of a group share. public: show this host's
        /// public key.
        #[arg(value_enum)]
        what: KeygenKind,
        /// The key file, instead of the one that the configuration names.
        #[arg(short, long, value_name = "PATH", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// The name of this host in the DNS.
    #[command(subcommand)]
    Ddns(crate::ddns::command::Command),
    /// Check the configuration and the key files; with [ddns], ask the name servers too, without changing anything.
    Check {
        /// Ask nobody: files only.
        #[arg(short, long)]
        local: bool,
    },
    /// Check everything that moving needs, and say what to do.
    Doctor,
    /// Show the versions of mobctl and of the module.
    Version,
    /// Print what a shell needs to complete the command line.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Commands on a single binding.
#[derive(Debug, Subcommand)]
pub enum FlowCommand {
    /// Bind a flow's stack side to a wire side. Addresses are written ADDRESS:PORT or [ADDRESS]:PORT.
    Add {
        /// tcp or udp.
        #[arg(value_enum)]
        protocol: Transport,
        /// Local end as the connection knows it.
        #[arg(value_parser = parse_end)]
        stack_local: SocketAddr,
        /// Remote end as the connection knows it.
        #[arg(value_parser = parse_end)]
        stack_remote: SocketAddr,
        /// Local end as it is to travel.
        #[arg(value_parser = parse_end)]
        wire_local: SocketAddr,
        /// Remote end as it is to travel.
        #[arg(value_parser = parse_end)]
        wire_remote: SocketAddr,
    },
    /// Remove the binding of a stack side.
    Del {
        /// tcp or udp.
        #[arg(value_enum)]
        protocol: Transport,
        /// Local end as the connection knows it.
        #[arg(value_parser = parse_end)]
        stack_local: SocketAddr,
        /// Remote end as the connection knows it.
        #[arg(value_parser = parse_end)]
        stack_remote: SocketAddr,
    },
}

/// What `mobctl keygen` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeygenKind {
    /// Makes the host key.
    Host,
    /// Makes a group key.
    Group,
    /// Shows the public key.
    Public,
}

impl KeygenKind {
    /// The kind of file, if one is made.
    #[must_use]
    pub const fn makes(self) -> Option<Kind> {
        match self {
            Self::Host => Some(Kind::Host),
            Self::Group => Some(Kind::Group),
            Self::Public => None,
        }
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0 to 86400".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_anywhere() {
        let cli = Cli::try_parse_from(["mobctl", "flows", "--json", "--device", "/tmp/d"]).unwrap();
        assert!(cli.common.json && cli.common.device == *"/tmp/d");
        let cli = Cli::try_parse_from(["mobctl", "--json", "move", "192.0.2.1", "2001:db8::1", "-t", "0.5"]).unwrap();
        assert!(matches!(cli.command, Command::Move { timeout: 0.5, .. }));
    }

    #[test]
    fn seconds_are_checked() {
        for text in ["-1", "nan", "inf", "86401", "", "1s"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}

//! `mobctl ddns show|update|delete|check`.

use super::client::{Client, Target};
use super::config;
use super::keeper::Report;
use crate::dns::transport::{Wire, system_clock};
use crate::dns::{System, Trouble};
use crate::exit::{Exit, Failure};
use crate::keyfile;
use crate::show::Shown;
use crate::table::{age, table};
use mobconn_dprp::PublicKey;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Command {
    /// Show what the zone's servers have under the name, and what the daemon does about it.
    Show,
    /// Publish the addresses of this host now, or those that are given.
    Update {
        /// Addresses to publish instead of this host's own.
        addresses: Vec<IpAddr>,
    },
    /// Remove the addresses and this host's claim to the name.
    Delete,
    /// Ask every server of the zone whether it would take an update, without changing anything.
    Check,
}

/// The target that the configuration at `path` names.
fn target(path: &Path) -> Result<Target, Failure> {
    let config = crate::config::Config::read(path)?;
    let ddns = config.ddns.ok_or_else(|| {
        Failure::new(Exit::Config, format!("{} has no table [ddns]", path.display()))
            .advise("See mobctl.conf(5) for what to write there")
    })?;
    // Who owns the name without a mark needs no identity.
    let host = if ddns.owned { PublicKey([0; 32]) } else { keyfile::read_host(&config.host_key)?.public() };
    Target::new(ddns, &host)
}

/// Carries it out. `daemon`: what the daemon reports, if it runs. The exit code is for what is shown and yet a failure.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn run(
    command: &Command,
    config: &Path,
    daemon: impl FnOnce() -> Option<Report>,
) -> Result<(Shown, Option<Exit>), Failure> {
    let target = target(config)?;
    let mut client = Client::new(target.clone(), System::default(), Wire::new(system_clock(), None), None);
    let failure = |trouble: Trouble| trouble.failure();
    match command {
        Command::Show => {
            let seen = client.look().map_err(failure)?;
            let holder = match seen.mark {
                None if target.config.owned => "this host (owned)".to_owned(),
                None => "nobody".to_owned(),
                Some(mark) if mark == target.identity() => "this host".to_owned(),
                Some(mark) => format!("another host ({mark})"),
            };
            let place = client.locate().map_err(failure)?;
            let servers: Vec<String> = place.servers.iter().map(ToString::to_string).collect();
            let mut text = format!(
                "name:        {}\nzone:        {}\nservers:     {}\nbelongs to:  {holder}\n",
                target.config.name,
                place.zone,
                servers.join(", ")
            );
            if let Some(alias) = &seen.alias {
                text += &format!("alias of:    {alias}\n");
            }
            let report = daemon();
            let said = report.as_ref().map_or_else(|| "does not run, or does not keep the name".into(), summary);
            text += &format!("daemon:      {said}\n");
            let rows: Vec<Vec<String>> =
                seen.addresses.iter().map(|(address, ttl)| vec![address.to_string(), format!("{ttl}s")]).collect();
            text += &table(&["ADDRESS", "TTL"], &rows);
            let addresses: Vec<Value> =
                seen.addresses.iter().map(|(address, ttl)| json!({ "address": address, "ttl": ttl })).collect();
            let json = json!({ "ddns": {
                "name": target.config.name.to_string(), "zone": place.zone.to_string(), "servers": servers,
                "holder": holder, "alias": seen.alias.map(|alias| alias.to_string()),
                "addresses": addresses, "daemon": report,
            } });
            Ok((Shown { text, json }, None))
        }
        Command::Update { addresses } => {
            let addresses = if addresses.is_empty() {
                config::published(&target.config).map_err(|errno| {
                    Failure::new(Exit::System, format!("cannot list the addresses of this host: {errno}"))
                })?
            } else {
                addresses.clone()
            };
            if addresses.is_empty() {
                return Err(Failure::new(Exit::Data, "this host has no address that is published").advise(
                    "See interfaces and publish in [ddns]; private addresses are published only if publish lists them",
                ));
            }
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let (began, name) = (Instant::now(), &target.config.name);
            client.publish(&addresses).map_err(failure)?;
            Ok(changed(&mut client, began, format!("{name} is {}", list.join(" ")), &addresses))
        }
        Command::Delete => {
            let (began, name) = (Instant::now(), &target.config.name);
            client.release().map_err(failure)?;
            Ok(changed(&mut client, began, format!("{name} has no address, and is free for anybody"), &[]))
        }
        Command::Check => {
            let Checkup { shown: Shown { text, json }, worst } = checkup(&target)?;
            Ok((Shown { text, json: json!({ "ddns": json }) }, worst.map(|failure| failure.exit)))
        }
    }
}

/// What a check of the servers showed.
#[derive(Debug)]
pub struct Checkup {
    /// For people, and for programs.
    pub shown: Shown,
    /// What is worst when no server would take an update.
    pub worst: Option<Failure>,
}

/// Asks every server of the zone whether it would take an update of `target`, without changing anything; within 20
/// seconds.
///
/// # Errors
/// A [`Failure`] when no server is found.
pub fn checkup(target: &Target) -> Result<Checkup, Failure> {
    let mut client = Client::new(target.clone(), System::default(), Wire::new(system_clock(), None), None);
    let list = client.check().map_err(|trouble| trouble.failure())?;
    let worst = list.iter().filter_map(|one| one.result.as_ref().err()).max_by_key(|trouble| trouble.weight());
    // One server that takes updates is enough.
    let good = list.iter().any(|one| one.result.is_ok());
    let worst = worst.filter(|_| !good).map(Trouble::failure);
    let mut rows = Vec::new();
    let mut values = Vec::new();
    let mut advice = String::new();
    for one in &list {
        let (state, time) = match &one.result {
            Ok(time) => ("ok".to_owned(), format!("{:.1}ms", time.as_secs_f64() * 1e3)),
            Err(trouble) => {
                advice += &format!("{trouble}.\n{}.\n", trouble.advice());
                (trouble.code().to_owned(), String::new())
            }
        };
        let trouble = one.result.as_ref().err();
        values.push(json!({
            "server": one.server, "state": state,
            "ms": one.result.as_ref().ok().map(|time| time.as_secs_f64() * 1e3),
            "trouble": trouble.map(ToString::to_string), "advice": trouble.map(Trouble::advice),
        }));
        rows.push(vec![one.server.to_string(), state, time]);
    }
    let zone = client.place().map(|place| place.zone.to_string()).unwrap_or_default();
    let text = format!(
        "name:  {}\nzone:  {zone}\nkey:   {} ({})\n{}{advice}",
        target.config.name,
        target.key.name(),
        target.key.algorithm(),
        table(&["SERVER", "STATE", "TIME"], &rows)
    );
    let json = json!({
        "name": target.config.name.to_string(), "zone": zone, "key": target.key.name().to_string(),
        "algorithm": target.key.algorithm().to_string(), "servers": values,
    });
    Ok(Checkup { shown: Shown { text, json }, worst })
}

fn changed(client: &mut Client, began: Instant, words: String, addresses: &[IpAddr]) -> (Shown, Option<Exit>) {
    let (took, cost) = (began.elapsed().as_secs_f64() * 1e3, client.wire().cost);
    let text = format!(
        "{words}.\n{took:.1} ms, {} round trips, {} bytes sent, {} received\n",
        cost.round_trips, cost.sent, cost.received
    );
    let json = json!({ "ddns": {
        "addresses": addresses, "ms": took, "round_trips": cost.round_trips, "bytes_sent": cost.sent,
        "bytes_received": cost.received,
    } });
    (Shown { text, json }, None)
}

/// What the daemon reports, in a line or two.
#[must_use]
pub fn summary(report: &Report) -> String {
    let list: Vec<String> = report.wanted.iter().map(ToString::to_string).collect();
    let list = if list.is_empty() { "no address".to_owned() } else { list.join(" ") };
    if report.current {
        let since = report.updated.map(|seconds| format!(" since {}", age(seconds))).unwrap_or_default();
        return format!("{} is {list}{since}", report.name);
    }
    let mut text = format!("{} is to be {list}, and is not yet", report.name);
    if !report.trouble.is_empty() {
        let next = report.next_try.map(|seconds| format!("; next try in {}", age(seconds))).unwrap_or_default();
        text += &format!("\n             {}{next}\n             {}", report.trouble, report.advice);
    }
    text
}

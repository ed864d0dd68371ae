//! `mobctl doctor`: what keeps connections from moving, and what to do about it.
//!
//! Every check looks only, asks nobody outside this host but the name servers of the zone, and says what it found even
//! if an earlier one failed.

mod hooks;
mod system;

use crate::cli::Common;
use crate::config::Config;
use crate::control::{self, Peer, Request, Response, Status};
use crate::ddns;
use crate::device::Device;
use crate::exit::{Exit, Failure};
use crate::settings::Settings;
use crate::show::{Shown, module_version};
use crate::table::age;
use crate::tuple;
use mobconn_abi::{Info, LOST, Record};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It cannot be found out here, or has no place in this configuration.
    Skipped,
    /// It may be wanted so.
    Warning,
    /// Connections cannot move, or not all of them.
    Bad,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked, in one word.
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What to do; empty when there is nothing to do.
    pub advice: String,
}

fn ok(check: &'static str, what: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Ok, what: what.into(), advice: String::new() }
}

fn skipped(check: &'static str, what: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Skipped, ..ok(check, what) }
}

fn warning(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Warning, what: what.into(), advice: advice.into() }
}

fn bad(check: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Bad, ..warning(check, what, advice) }
}

fn failed(check: &'static str, failure: Failure) -> Finding {
    bad(check, failure.message, failure.advice)
}

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs all checks.
#[must_use]
pub fn run(common: &Common) -> (Shown, Option<Exit>) {
    let settings = Settings::read(&common.config);
    let module = Device::open(&common.device).and_then(|mut device| Ok((device.info()?, device.flows()?)));
    let daemon = match control::ask(&common.control, &Request::Status, PATIENCE) {
        Ok(Response::Status(status)) => Ok(status),
        Ok(other) => Err(Failure::new(Exit::Protocol, format!("the daemon answered something else: {other:?}"))),
        Err(failure) => Err(failure),
    };
    let peers = match control::ask(&common.control, &Request::Peers, PATIENCE) {
        Ok(Response::Peers { peers }) => peers,
        _ => Vec::new(),
    };
    let config = settings.as_ref().ok().map(|settings| &settings.config);
    let status = daemon.as_ref().ok();
    let records = module.as_ref().map_or(&[][..], |(_, records)| records);

    let mut findings = vec![configuration(&common.config, &settings)];
    findings.extend(module_and_table(module.as_ref().map(|(info, records)| (info, records.as_slice()))));
    findings.push(system::at_boot());
    findings.push(match &module {
        Ok(_) => hooks::check(),
        Err(_) => skipped("hooks", "there are none without the module"),
    });
    findings.push(running(daemon.as_ref()));
    findings.push(addresses(config));
    findings.extend(firewall(status, &peers));
    findings.extend(routes(records, &peers));
    findings.push(names(&common.config, config, status));
    findings.push(clock(&common.config, SystemTime::now()));
    shown(&findings)
}

fn shown(findings: &[Finding]) -> (Shown, Option<Exit>) {
    let mut text = String::new();
    for Finding { check, verdict, what, advice } in findings {
        text.push_str(&format!("{:<8} {check:<9} {what}\n", verdict.name()));
        if !advice.is_empty() {
            text.push_str(&format!("{:18} -> {advice}\n", ""));
        }
    }
    let count = |wanted| findings.iter().filter(|finding| finding.verdict == wanted).count();
    let (bad, warnings) = (count(Verdict::Bad), count(Verdict::Warning));
    text.push_str(&match (bad, warnings) {
        (0, 0) => "All is well.\n".to_owned(),
        _ => format!("{bad} bad, {warnings} warnings.\n"),
    });
    let list: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "check": finding.check,
                "verdict": finding.verdict.name(),
                "what": finding.what,
                "advice": finding.advice,
            })
        })
        .collect();
    let json = json!({ "doctor": { "findings": list, "bad": bad, "warnings": warnings } });
    (Shown { text, json }, (bad > 0).then_some(Exit::Unavailable))
}

/// The configuration, and the keys with their modes, which are read with it.
fn configuration(path: &Path, settings: &Result<Settings, Failure>) -> Finding {
    let settings = match settings {
        Ok(settings) => settings,
        Err(failure) => return failed("config", failure.clone()),
    };
    let shown = path.display();
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o022 != 0) {
        return bad(
            "config",
            format!("{shown} can be written by others than its owner"),
            format!("chmod go-w {shown}"),
        );
    }
    let config = &settings.config;
    if config.mobile && config.peers.is_empty() {
        return bad(
            "config",
            format!("{shown}: this host is mobile, and has no peers: nothing can move"),
            "Say in peers which hosts run mobconn",
        );
    }
    let role = if config.mobile { "mobile" } else { "correspondent" };
    ok("config", format!("{shown}: {role}; keys and their modes are right"))
}

fn module_and_table(module: Result<(&Info, &[Record]), &Failure>) -> Vec<Finding> {
    let (info, records) = match module {
        Ok(module) => module,
        Err(failure) => return vec![failed("module", failure.clone())],
    };
    let own = env!("CARGO_PKG_VERSION");
    let version = module_version(info.module);
    let mut findings = vec![if version == own {
        ok("module", format!("version {version}"))
    } else {
        warning(
            "module",
            format!("the module has version {version}, mobctl {own}"),
            "Install both of the same release; then: service mobconn stop; kldunload mobconn; service mobconn start",
        )
    }];
    let lost = records.iter().filter(|record| record.flags & LOST != 0).count();
    let used = format!("{} of {} bindings", info.flows, info.capacity);
    findings.push(if info.flows >= info.capacity {
        bad("table", format!("full: {used}"), "Raise net.inet.mobconn.max_flows in /boot/loader.conf")
    } else if u64::from(info.flows) * 10 >= u64::from(info.capacity) * 9 {
        warning("table", format!("nearly full: {used}"), "Raise net.inet.mobconn.max_flows in /boot/loader.conf")
    } else if lost > 0 {
        warning(
            "table",
            format!("{used}; {lost} are cut off: another host has their address now"),
            "They go on when their host moves to an address of its own: mobctl flows names them",
        )
    } else {
        ok("table", used)
    });
    findings
}

fn running(daemon: Result<&Status, &Failure>) -> Finding {
    match daemon {
        Err(failure) => failed("daemon", failure.clone()),
        Ok(status) if status.version != env!("CARGO_PKG_VERSION") => warning(
            "daemon",
            format!("it has version {}, mobctl {}", status.version, env!("CARGO_PKG_VERSION")),
            "service mobconn restart",
        ),
        Ok(status) if !status.device_error.is_empty() => bad(
            "daemon",
            format!("it has no device: {}", status.device_error),
            "See what is said about the module; the daemon tries again by itself",
        ),
        Ok(status) => ok("daemon", format!("running for {}, process {}", age(status.uptime), status.pid)),
    }
}

/// Whether there is an address from which packets can leave.
fn addresses(config: Option<&Config>) -> Finding {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let all = match crate::daemon::up_addresses() {
        Ok(all) => all,
        Err(failure) => return failed("address", failure),
    };
    let mine: Vec<String> = all.iter().filter(|address| usable(address)).map(ToString::to_string).collect();
    if mine.is_empty() {
        let advice = "Bring an interface up: ifconfig, dhclient";
        return bad("address", "this host has no address but on loopback or on the link", advice);
    }
    if let Some(missing) = config.and_then(|config| config.listen.iter().find(|listen| !all.contains(listen)))
        && !missing.is_unspecified()
    {
        return bad(
            "address",
            format!("listen names {missing}, which is no address of this host"),
            "Remove it from listen in the configuration, or configure the address",
        );
    }
    ok("address", mine.join(", "))
}

/// What the network lets through, as far as the daemon knows from who answers.
fn firewall(status: Option<&Status>, peers: &[Peer]) -> Vec<Finding> {
    let Some(status) = status else {
        return vec![skipped("firewall", "who answers is not known without the daemon")];
    };
    let port = status.listen.first().map_or(9434, SocketAddr::port);
    let mut findings: Vec<Finding> = status
        .trouble
        .iter()
        .map(|trouble| {
            let what = format!("{} {} ({} ago)", trouble.host, trouble.what, age(trouble.age));
            warning("peer", what, trouble.advice.clone())
        })
        .collect();
    findings.push(if status.listen.is_empty() {
        bad("firewall", "the daemon listens nowhere", "See its log: /var/log/messages")
    } else if let Some(last) = peers.iter().map(|peer| peer.heard).min() {
        ok("firewall", format!("UDP port {port} is let through: {} peers, last heard {} ago", peers.len(), age(last)))
    } else if findings.is_empty() {
        skipped("firewall", format!("no peer has been asked yet; UDP port {port} must be let through, in and out"))
    } else {
        let advice = format!("pf: pass proto udp to port {port}; ipfw: allow udp from any to any {port}");
        warning("firewall", format!("nobody answers on UDP port {port}"), advice)
    });
    findings
}

/// Whether there is a route to every address that a packet is sent to before the module sees it.
fn routes(records: &[Record], peers: &[Peer]) -> Vec<Finding> {
    let remote = |record: &Record| {
        [&record.stack, &record.wire].map(|side| tuple::from_bytes(&side.remote, side.version)).into_iter().flatten()
    };
    let mut wanted: BTreeSet<IpAddr> = records.iter().flat_map(remote).collect();
    wanted.extend(peers.iter().map(|peer| peer.address.ip()));
    if wanted.is_empty() {
        return vec![skipped("route", "no flow has moved and no peer is known")];
    }
    let missing: Vec<String> = wanted.iter().filter(|address| !has_route(**address)).map(ToString::to_string).collect();
    if missing.is_empty() {
        return vec![ok("route", format!("to all {} addresses that peers have or had", wanted.len()))];
    }
    let shown = missing.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    vec![bad(
        "route",
        format!("no route to {} of {} addresses that peers have or had: {shown}", missing.len(), wanted.len()),
        "The kernel refuses packets to them before mobconn can translate them. A default route is enough: route add default GATEWAY",
    )]
}

/// Connecting a datagram socket looks the route up and sends nothing.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    // Port 9 is that of a service which throws everything away.
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 9))).is_ok()
}

/// The host's name in the DNS, if it is to have one.
fn names(path: &Path, config: Option<&Config>, status: Option<&Status>) -> Finding {
    if config.is_none_or(|config| config.ddns.is_none()) {
        return skipped("dns", "no table [ddns] in the configuration: this host's name is not kept");
    }
    let report = status.and_then(|status| status.ddns.as_deref().cloned());
    match ddns::command::run(&ddns::command::Command::Check, path, || report) {
        Ok((_, None)) => ok("dns", "the name servers would take an update"),
        Ok((shown, Some(_))) => {
            bad("dns", shown.text.trim_end().replace('\n', "; "), "mobctl ddns check has more; see docs/bind.md")
        }
        Err(failure) => failed("dns", failure),
    }
}

/// Signed updates of names carry the time, and are refused when it is wrong.
fn clock(config: &Path, now: SystemTime) -> Finding {
    let changed = std::fs::metadata(config).and_then(|metadata| metadata.modified());
    let program = std::env::current_exe().and_then(std::fs::metadata).and_then(|metadata| metadata.modified());
    let newest = changed.into_iter().chain(program).max();
    match newest.and_then(|newest| newest.duration_since(now).ok()) {
        Some(behind) if behind > Duration::from_secs(60) => bad(
            "clock",
            format!("it is {} behind the files of this host", age(behind.as_secs())),
            "Set it: service ntpd onestart, or date; sysrc ntpd_enable=YES ntpd_sync_on_start=YES",
        ),
        _ => system::synchronised(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_makes_the_exit_code() {
        let findings = [ok("module", "fine"), warning("peer", "odd", "look"), skipped("dns", "none")];
        let (text, exit) = shown(&findings);
        assert_eq!(exit, None);
        assert_eq!(
            text.text,
            "ok       module    fine\nwarning  peer      odd\n                   -> look\nskipped  dns       none\n0 bad, 1 warnings.\n"
        );
        let (both, exit) = shown(&[bad("route", "none", "add one")]);
        assert_eq!(exit, Some(Exit::Unavailable));
        assert_eq!(both.json["doctor"]["findings"][0]["verdict"], "bad");
        assert_eq!(shown(&[ok("module", "fine")]).0.text.lines().last(), Some("All is well."));
    }

    #[test]
    fn a_full_table_is_bad_and_a_lost_binding_odd() {
        let info = |flows| Info { flows, capacity: 10, module: 0x0001_0000, ..Info::default() };
        let table = |flows, records: &[Record]| module_and_table(Ok((&info(flows), records)))[1].verdict;
        assert_eq!(table(10, &[]), Verdict::Bad);
        assert_eq!(table(9, &[]), Verdict::Warning);
        assert_eq!(table(1, &[]), Verdict::Ok);
        assert_eq!(table(1, &[Record { flags: LOST, ..Record::default() }]), Verdict::Warning);
        assert_eq!(module_and_table(Ok((&info(1), &[])))[0].verdict, Verdict::Warning, "another version");
    }

    #[test]
    fn routes_are_looked_up_without_sending() {
        assert!(has_route([127, 0, 0, 1].into()));
        let side = tuple::side(6, ([127, 0, 0, 1], 1).into(), ([127, 0, 0, 2], 2).into()).unwrap();
        let found = routes(&[Record { stack: side, wire: side, ..Record::default() }], &[]);
        assert_eq!((found[0].verdict, found.len()), (Verdict::Ok, 1));
        assert_eq!(routes(&[], &[])[0].verdict, Verdict::Skipped);
    }

    #[test]
    fn a_clock_that_is_behind_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mobctl.conf");
        std::fs::write(&file, "").unwrap();
        let earlier = SystemTime::now() - Duration::from_secs(7200);
        let found = clock(&file, earlier);
        assert_eq!(found.verdict, Verdict::Bad, "{found:?}");
        assert_ne!(clock(&file, SystemTime::now()).verdict, Verdict::Bad);
    }
}

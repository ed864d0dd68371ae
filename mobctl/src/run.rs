//! The commands.

use crate::cli::{Cli, Command, Common, FlowCommand, KeygenKind};
use crate::config::Config;
use crate::control::{self, Outcome, Request, Response};
use crate::device::{ChannelError, Device};
use crate::errno::Errno;
use crate::exit::{Exit, Failure};
use crate::keyfile::{self, Kind};
use crate::settings::Settings;
use crate::show::{self, Shown};
use crate::tuple::{self, Transport};
use crate::{completion, daemon, ddns, system};
use mobconn_abi::{ABI_VERSION, Tuple};
use mobconn_dprp::{GroupKey, HostKey};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a daemon may take to answer what needs no waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Carries out a command and prints its result. What is printed may tell of a failure too: then there is an exit code
/// without a message.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn run(cli: Cli) -> Result<Option<Exit>, Failure> {
    let Cli { common, command } = cli;
    let (shown, exit) = match command {
        Command::Daemon { foreground, pidfile } => {
            let Common { config, device, control, .. } = common;
            daemon::run(daemon::Options { foreground, config, device, control, pidfile })?;
            return Ok(None);
        }
        Command::Status => status(&common),
        Command::Flows => (flows(&common)?, None),
        Command::Peers => (peers(&common)?, None),
        Command::Move { old, new, timeout } => {
            let timeout = Duration::from_secs_f64(timeout);
            let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            moved(&common, &Request::Move { old, new, timeout_ms }, timeout + PATIENCE)?
        }
        Command::Monitor { count } => {
            crate::monitor::run(&common.device, &common.control, common.json, count)?;
            return Ok(None);
        }
        Command::Top { interval, count } => {
            // A page for a program is one page, unless it asks for more.
            let count = if io::stdout().is_terminal() { count } else { count.or(Some(1)) };
            crate::top::run(&common.device, Duration::from_secs_f64(interval), count)?;
            return Ok(None);
        }
        Command::Networks => (networks(&common, &Request::Networks)?, None),
        Command::Prefer { interfaces } => {
            let auto = interfaces.iter().any(|name| name == "auto");
            if auto && interfaces.len() > 1 {
                return Err(Failure::new(Exit::Usage, "auto stands alone: it takes the wishes back"));
            }
            let interfaces = (!auto).then_some(interfaces);
            (networks(&common, &Request::Prefer { interfaces })?, None)
        }
        Command::Poke { interface, routers } => {
            match control::ask(&common.control, &Request::Poke { interface, routers }, PATIENCE)? {
                Response::Done => return Ok(None),
                other => return Err(unexpected(&other)),
            }
        }
        Command::Flow(flow) => (flow_by_hand(&common, flow)?, None),
        Command::Stats { zero } => (show::stats(&Device::open(&common.device)?.stats(zero)?), None),
        Command::Keygen { what, output } => (keygen(&common, what, output)?, None),
        Command::Ddns(command) => ddns(&common, &command)?,
        Command::Check { local } => check(&common, local)?,
        Command::Doctor => crate::doctor::run(&common),
        Command::Version => (version(&common), None),
        Command::Completion { shell } => {
            let script = completion::script(shell);
            (Shown { json: json!({ "completion": { "script": script } }), text: script }, None)
        }
    };
    print(&common, &shown)?;
    Ok(exit)
}

fn print(common: &Common, shown: &Shown) -> Result<(), Failure> {
    let text = if common.json { format!("{}\n", shown.json) } else { shown.text.clone() };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::new(Exit::Io, format!("cannot print: {error}"))),
    }
}

fn networks(common: &Common, request: &Request) -> Result<Shown, Failure> {
    match control::ask(&common.control, request, PATIENCE)? {
        Response::Networks(report) => Ok(show::networks(&report)),
        other => Err(unexpected(&other)),
    }
}

fn status(common: &Common) -> (Shown, Option<Exit>) {
    let module = Device::open(&common.device).and_then(|mut device| Ok(device.info()?));
    let daemon = control::ask(&common.control, &Request::Status, PATIENCE).and_then(|response| match response {
        Response::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    });
    let exit = module.as_ref().err().or(daemon.as_ref().err()).map(|failure| failure.exit);
    let module = module.map_err(|failure| failure.to_string().replace('\n', ". "));
    let daemon = daemon.map_err(|failure| failure.to_string().replace('\n', ". "));
    (show::status(module.as_ref().map_err(String::as_str), daemon.as_ref().map_err(String::as_str)), exit)
}

fn ddns(common: &Common, command: &ddns::command::Command) -> Result<(Shown, Option<Exit>), Failure> {
    ddns::command::run(command, &common.config, || match control::ask(&common.control, &Request::Status, PATIENCE) {
        Ok(Response::Status(status)) => status.ddns.map(|report| *report),
        _ => None,
    })
}

fn flows(common: &Common) -> Result<Shown, Failure> {
    let mut device = Device::open(&common.device)?;
    let records = device.flows()?;
    Ok(show::flows(&records, device.info()?.uptime))
}

fn peers(common: &Common) -> Result<Shown, Failure> {
    match control::ask(&common.control, &Request::Peers, PATIENCE)? {
        Response::Peers { peers } => Ok(show::peers(&peers, !common.numeric)),
        other => Err(unexpected(&other)),
    }
}

fn moved(common: &Common, request: &Request, patience: Duration) -> Result<(Shown, Option<Exit>), Failure> {
    let report = match control::ask(&common.control, request, patience)? {
        Response::Move(report) => report,
        other => return Err(unexpected(&other)),
    };
    let any = |outcome| report.peers.iter().any(|one| one.outcome == outcome);
    let exit = if report.peers.is_empty() {
        Some(Exit::NoInput)
    } else if any(Outcome::InDoubt) {
        Some(Exit::Temporary)
    } else if any(Outcome::Refused) || any(Outcome::Ended) || report.peers.iter().any(|one| one.refused > 0) {
        Some(Exit::Unavailable)
    } else {
        None
    };
    Ok((show::moved(&report, !common.numeric), exit))
}

fn unexpected(response: &Response) -> Failure {
    Failure::new(Exit::Protocol, format!("the daemon answered something else: {response:?}"))
}

fn flow_by_hand(common: &Common, command: FlowCommand) -> Result<Shown, Failure> {
    match command {
        FlowCommand::Add { protocol, stack_local, stack_remote, wire_local, wire_remote } => {
            let stack = side("stack", protocol, stack_local, stack_remote)?;
            let wire = side("wire", protocol, wire_local, wire_remote)?;
            Device::open(&common.device)?.add_flow(stack, wire).map_err(|error| {
                let advice = match &error {
                    ChannelError::Errno(Errno::EINVAL) => {
                        "Both sides must be of one IP version, with addresses that a host can have: not loopback, multicast, broadcast or unspecified"
                    }
                    ChannelError::Errno(Errno::EEXIST) => "That stack side is bound: see mobctl flows, remove it with mobctl flow del",
                    ChannelError::Errno(Errno::EADDRINUSE) => "That wire side is another flow's: see mobctl flows, choose another port",
                    ChannelError::Errno(Errno::ENOSPC) => {
                        "The flow table is full: raise net.inet.mobconn.max_flows in /boot/loader.conf"
                    }
                    _ => "",
                };
                Failure::from(error).advise(advice)
            })?;
        }
        FlowCommand::Del { protocol, stack_local, stack_remote } => {
            let stack = side("stack", protocol, stack_local, stack_remote)?;
            Device::open(&common.device)?.delete_flow(stack).map_err(|error| {
                let unknown = matches!(error, ChannelError::Errno(Errno::ENOENT));
                let advice = if unknown { "No binding has that stack side: see mobctl flows" } else { "" };
                Failure::from(error).advise(advice)
            })?;
        }
    }
    Ok(Shown { text: String::new(), json: json!({ "flow": { "done": true } }) })
}

fn side(name: &str, protocol: Transport, local: SocketAddr, remote: SocketAddr) -> Result<Tuple, Failure> {
    tuple::side(protocol.number(), local, remote)
        .map_err(|error| Failure::new(Exit::Usage, format!("the {name} side {local} {remote} cannot be: {error}")))
}

fn keygen(common: &Common, what: KeygenKind, output: Option<PathBuf>) -> Result<Shown, Failure> {
    // Without a configuration the keys lie where it would say by default; a path that is given needs none.
    let needed = output.is_none() && common.config.exists();
    let config = if needed { Config::read(&common.config)? } else { Config::default() };
    let Some(kind) = what.makes() else {
        let key = keyfile::read_host(&output.unwrap_or(config.host_key))?.public().to_string();
        return Ok(Shown { text: format!("{key}\n"), json: json!({ "keygen": { "public": key } }) });
    };
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice())
        .map_err(|error| Failure::new(Exit::System, format!("no random numbers from the system: {error}")))?;
    let mut rng = ChaCha20Rng::from_seed(*seed);
    let (path, public) = match kind {
        Kind::Host => {
            let path = output.unwrap_or(config.host_key);
            let key = HostKey::generate(&mut rng);
            keyfile::create(&path, kind, key.expose())?;
            (path, Some(key.public().to_string()))
        }
        Kind::Group => {
            let first = config.group_keys.into_iter().next();
            let path = output.or(first).unwrap_or_else(|| crate::config::DEFAULT_GROUP_KEY.into());
            keyfile::create(&path, kind, GroupKey::generate(&mut rng).expose())?;
            (path, None)
        }
    };
    let path = path.display().to_string();
    let text = match &public {
        Some(public) => format!("{path} made. The public key, for peers that pin this host:\n{public}\n"),
        None => format!("{path} made. Copy it to every host of the group, secretly and with mode 0600.\n"),
    };
    Ok(Shown { text, json: json!({ "keygen": { "path": path, "public": public } }) })
}

fn check(common: &Common, local: bool) -> Result<(Shown, Option<Exit>), Failure> {
    let settings = Settings::read(&common.config)?;
    let config = &settings.config;
    let peers: Vec<String> = config.peers.iter().map(ToString::to_string).collect();
    let key = settings.protocol.host_key.public().to_string();
    let role =
        if config.mobile { format!("mobile, with peers in {}", peers.join(", ")) } else { "correspondent".into() };
    let pins = match config.pins.len() {
        0 => "every member of the group".to_owned(),
        count => format!("{count} pinned hosts only"),
    };
    let shown = common.config.display().to_string();
    let mut text = format!(
        "{shown} is right.\nrole:        {role}\nkey:         {key}\ntrusts:      {pins}\nUDP port:    {}\n",
        config.port
    );
    let mut json = json!({
        "config": shown, "mobile": config.mobile, "peers": peers, "public": key, "pins": config.pins.len(), "port": config.port,
        "ddns": config.ddns.as_ref().map(|ddns| ddns.name.to_string()),
    });
    let mut exit = None;
    if let Some(target) = &settings.ddns {
        if local {
            text += &format!("name:        {}, whose servers were not asked\n", target.config.name);
        } else {
            match ddns::command::checkup(target) {
                Ok(checkup) => {
                    text += &format!("\nIts name in the DNS:\n{}", checkup.shown.text);
                    json["name_servers"] = checkup.shown.json;
                    exit = checkup.worst.map(|failure| failure.exit);
                }
                Err(failure) => {
                    text +=
                        &format!("name:        {}\n{}.\n{}.\n", target.config.name, failure.message, failure.advice);
                    json["name_servers"] = json!({ "trouble": failure.message, "advice": failure.advice });
                    exit = Some(failure.exit);
                }
            }
        }
    }
    Ok((Shown { text, json: json!({ "check": json }) }, exit))
}

fn version(common: &Common) -> Shown {
    let own = env!("CARGO_PKG_VERSION");
    let info = Device::open(&common.device).and_then(|mut device| Ok(device.info()?));
    let (text, module) = match &info {
        Ok(info) => {
            let version = show::module_version(info.module);
            (
                format!("module {version} loaded"),
                json!({ "loaded": true, "version": version, "interface": info.version }),
            )
        }
        Err(failure) => (failure.message.clone(), json!({ "loaded": false, "error": failure.message })),
    };
    Shown {
        text: format!("mobctl {own}, interface version {ABI_VERSION}, for a {}\n{text}\n", system::NAME),
        json: json!({ "version": { "mobctl": own, "interface": ABI_VERSION, "host": system::NAME, "module": module } }),
    }
}

//! What `--json` prints is what docs/json.md promises, of each command: no member more, none less. Module and daemon
//! are fakes that have something to say about everything. (Of `ddns` it is shown with a real server: bind_page.rs.)

mod common;

use clap::CommandFactory;
use common::{Fake, page};
use mobconn_abi::{Event, EventKind, Record, TCP};
use mobctl::control::{MoveReport, News, Outcome, PastMove, Peer, PeerMove, Request, Response, Status, Trouble};
use mobctl::networks::report::{One, Report};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn status() -> Status {
    let trouble = Trouble { host: "192.0.2.9".into(), what: "does not answer".into(), advice: "look".into(), age: 3 };
    let past = PastMove {
        who: "peer".into(),
        peer: "00".into(),
        old: Some(HOME),
        new: None,
        flows: 1,
        refused: 0,
        interruption_ms: 1.5,
        age: 2,
    };
    let ddns = mobctl::ddns::keeper::Report {
        name: "laptop.example.org".into(),
        servers: vec![(HOME, 53).into()],
        wanted: vec![HOME],
        ..Default::default()
    };
    Status {
        version: "0.1.0".into(),
        pid: 1,
        uptime: 2,
        mobile: true,
        key: "00".into(),
        listen: vec![(HOME, 9434).into()],
        config: "/etc/mobctl.conf".into(),
        device_error: String::new(),
        connections: 3,
        eligible: 2,
        confirmed: 1,
        peers: 1,
        moving: 0,
        trouble: vec![trouble],
        moves: vec![past],
        datagrams: BTreeMap::from([("accepted".into(), 1)]),
        ddns: Some(Box::new(ddns)),
    }
}

fn answer(request: &Request) -> Response {
    match request {
        Request::Status => Response::Status(status()),
        Request::Peers => Response::Peers {
            peers: vec![Peer {
                key: "5f0c9b62a5d1e07c00".into(),
                name: "office".into(),
                address: (HOME, 9434).into(),
                local: HOME,
                round_trip_ms: Some(1.0),
                confirmed: 1,
                unconfirmed: 0,
                claims: 0,
                moving: 0,
                pending: 0,
                established: 5,
                heard: 1,
            }],
        },
        Request::Move { old, new, .. } => Response::Move(MoveReport {
            old: *old,
            new: *new,
            old_usable: true,
            peers: vec![PeerMove {
                peer: "5f0c9b62a5d1e07c00".into(),
                name: "office".into(),
                outcome: Outcome::Moved,
                flows: 1,
                refused: 0,
                reason: String::new(),
                interruption_ms: Some(21.0),
            }],
        }),
        Request::Watch => Response::News(News {
            kind: "peer-moved".into(),
            level: "info".into(),
            peer: "00".into(),
            text: "a peer moved".into(),
        }),
        Request::Networks | Request::Prefer { .. } => Response::Networks(Report {
            automatic: true,
            trouble: String::new(),
            prefer: vec!["em0".into()],
            ignore: Vec::new(),
            hold_down: 3,
            better_in_ms: None,
            steered: vec![HOME],
            kept: Vec::new(),
            addresses: vec![One {
                interface: "em0".into(),
                address: HOME,
                length: 24,
                gateway: None,
                usable: true,
                standing: "usable".into(),
                chosen: true,
                by_hand: false,
                left: false,
                deprecated: false,
                temporary: false,
            }],
        }),
        Request::Poke { .. } | Request::Reload | Request::Stop => Response::Done,
    }
}

fn converse(mut stream: UnixStream) -> Option<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone().ok()?).read_line(&mut line).ok()?;
    let request: Request = serde_json::from_str(&line).ok()?;
    let text = serde_json::to_string(&answer(&request)).ok()?;
    writeln!(stream, "{text}").ok()?;
    // Whoever watches goes on to do so.
    if request == Request::Watch {
        let _ = BufReader::new(stream).read_line(&mut line);
    }
    Some(())
}

/// A daemon that is none.
fn daemon(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || converse(stream.unwrap()));
        }
    });
}

struct Place {
    folder: tempfile::TempDir,
    module: Fake,
    seen: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap(), module: Fake::new(), seen: BTreeMap::new() };
        daemon(&place.at("sock"));
        let keys = format!("host_key = {:?}\ngroup_key = {:?}\n", place.at("host.key"), place.at("group.key"));
        let config = format!("{keys}mobile = true\npeers = [\"203.0.113.0/24\"]\n");
        std::fs::write(place.at("mobctl.conf"), config).unwrap();
        let end = |port| mobctl::tuple::side(TCP, (HOME, port).into(), ([203, 0, 113, 1], 22).into()).unwrap();
        let record = Record { stack: end(5000), wire: end(5000), id: 1, ..Record::default() };
        let mut state = place.module.state();
        state.bind(end(5000), end(5000));
        state.events = vec![Event { kind: EventKind::Made as u32, record, ..Event::default() }];
        drop(state);
        place
    }

    /// The host has a name from now on, at a server that is not there.
    fn has_name(&self, zone: &str) {
        let (config, key) = (self.at("mobctl.conf"), self.at("ddns.key"));
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.split("[ddns]").next().unwrap();
        let port = common::ports::free_port();
        let name = format!("[ddns]\nname = \"laptop.example.org\"\nkey = {key:?}\nservers = [\"127.0.0.1:{port}\"]\n");
        std::fs::write(config, format!("{text}{name}{zone}")).unwrap();
        std::fs::write(&key, "hmac-sha256:laptop:bW9iY29ubi10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5YWI=\n").unwrap();
        std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, words: &[&str], device: &Path, socket: &Path) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mobctl"));
        command.args(words).arg("--device").arg(device).arg("--control").arg(socket);
        let output = command.arg("--config").arg(self.at("mobctl.conf")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command, and looks at each line that it prints.
    fn look(&mut self, words: &[&'static str], device: &Path, socket: &Path) {
        let out = self.run(&[&["--json"], words].concat(), device, socket);
        assert!(!out.is_empty(), "{words:?} printed nothing");
        for line in out.lines() {
            let printed: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{words:?}: {error}: {line}"));
            self.seen.entry(words[0]).or_default().extend(page::check(words[0], &printed));
        }
    }
}

#[test]
fn json_is_as_documented() {
    let mut place = Place::new();
    let (device, socket, nowhere) = (place.module.path.clone(), place.at("sock"), place.at("nothing"));
    let ends = ["tcp", "192.0.2.1:4000", "203.0.113.9:22", "198.51.100.1:4000", "203.0.113.9:22"];
    for words in [
        &["keygen", "host"][..],
        &["keygen", "group"],
        &["keygen", "public"],
        &["check"],
        &["flows"],
        &["peers"],
        &["move", "192.0.2.1", "192.0.2.2"],
        &["networks"],
        &["prefer", "em0"],
        &["stats"],
        &["status"],
        &["doctor"],
        &["version"],
        &["completion", "tcsh"],
        &["monitor", "-c", "2"],
        &["flow", "add", ends[0], ends[1], ends[2], ends[3], ends[4]],
        &["flow", "del", ends[0], ends[1], ends[2]],
    ] {
        place.look(words, &device, &socket);
    }
    for words in [&["status"][..], &["version"], &["doctor"]] {
        place.look(words, &nowhere, &nowhere);
    }
    // A name server that is not there, and none at all.
    for zone in ["zone = \"example.org\"\n", ""] {
        place.has_name(zone);
        place.look(&["check"], &device, &socket);
    }
    for (section, printed) in &place.seen {
        page::complete(section, printed);
    }
    // No command is forgotten; ddns has a test of its own, and these print none.
    let forgotten: Vec<String> = mobctl::cli::Cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .filter(|name| {
            !place.seen.contains_key(name.as_str()) && !["ddns", "daemon", "poke", "top"].contains(&name.as_str())
        })
        .collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}

#[test]
fn names_of_peers_are_shown_unless_numbers_are_wanted() {
    let place = Place::new();
    let (device, socket) = (place.module.path.clone(), place.at("sock"));
    for words in [&["peers"][..], &["move", "192.0.2.1", "192.0.2.2"]] {
        assert!(place.run(words, &device, &socket).contains("office"));
        let numbers = place.run(&[words, &["-n"]].concat(), &device, &socket);
        assert!(numbers.contains("5f0c9b62a5d1e07c  -  ") && !numbers.contains("office"), "{numbers}");
    }
}

//! Two daemons in network namespaces of their own, with real UDP between them and the system's own TCP connections to
//! claim. Only the flow tables are fake: no packet is translated here, the lab does that with the real module.
//!
//! Needs root, or a user namespace in which one is root (`unshare -r`).
#![cfg(target_os = "linux")]

mod common;

use common::Fake;
use mobconn_abi::{Alternate, TCP};
use mobctl::control::{self, Outcome, Peer, Request, Response, Status};
use mobctl::tuple;
use nix::sched::{CloneFlags, unshare};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace: a thread that lives in it and does what it is sent.
struct Space {
    jobs: Sender<Job>,
    task: i32,
}

impl Space {
    fn new() -> Self {
        let (jobs, queue) = channel::<Job>();
        let (report, begun) = channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, which needs root or unshare -r");
            report.send(nix::unistd::gettid().as_raw()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let space = Self { jobs, task: begun.recv().unwrap() };
        space.ip("link set lo up");
        space
    }

    /// Runs `job` in the namespace and returns its result.
    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (report, result) = channel();
        self.jobs.send(Box::new(move || report.send(job()).unwrap())).unwrap();
        result.recv().unwrap()
    }

    fn ip(&self, arguments: &str) {
        let arguments: Vec<String> = arguments.split_whitespace().map(Into::into).collect();
        let done = self.run(move || Command::new("ip").args(arguments).status().unwrap());
        assert!(done.success());
    }
}

struct Host {
    space: Space,
    folder: tempfile::TempDir,
    fake: Fake,
    daemon: Option<Child>,
}

impl Host {
    fn new(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let text = format!(
            "host_key = \"{at}/host.key\"\ngroup_key = \"{at}/group.key\"\nclaims = \"{at}/claims\"\nlog_level = \"debug\"\n{extra}\n"
        );
        std::fs::write(folder.path().join("mobctl.conf"), text).unwrap();
        let host = Self { space: Space::new(), folder, fake: Fake::new(), daemon: None };
        assert!(host.command(&["keygen", "host"]).output().unwrap().status.success());
        host
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mobctl"));
        for (option, name) in [("--config", "mobctl.conf"), ("--control", "sock")] {
            command.arg(option).arg(self.folder.path().join(name));
        }
        command.arg("--device").arg(&self.fake.path).args(arguments).stdin(Stdio::null());
        command
    }

    fn start(&mut self) {
        let mut command = self.command(&["daemon", "-f", "--pidfile"]);
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        command.arg(self.folder.path().join("pid")).stderr(log);
        self.daemon = Some(self.space.run(move || command.spawn().unwrap()));
        self.wait_for("the daemon", |_, _| true);
    }

    /// As kill -9.
    fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// How many lines of all its daemons' logs have `part` in them.
    fn logged(&self, part: &str) -> usize {
        self.log().lines().filter(|line| line.contains(part)).count()
    }

    fn stop(&mut self) {
        assert_eq!(self.ask(&Request::Stop), Some(Response::Done));
        assert!(self.daemon.take().unwrap().wait().unwrap().success());
    }

    fn ask(&self, request: &Request) -> Option<Response> {
        control::ask(&self.folder.path().join("sock"), request, Duration::from_secs(20)).ok()
    }

    /// Asks until the daemon is as it should be.
    fn wait_for(&self, what: &str, is_so: impl Fn(&Status, &[Peer]) -> bool) {
        let mut last = None;
        for _ in 0..1000 {
            if let (Some(Response::Status(status)), Some(Response::Peers { peers })) =
                (self.ask(&Request::Status), self.ask(&Request::Peers))
            {
                if is_so(&status, &peers) {
                    return;
                }
                last = Some((status, peers));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not in 20 s: {what}: {last:#?}");
    }

    /// Moves and returns the only peer's outcome.
    fn moves(&self, old: &str, new: &str, expected_usable: bool) -> control::PeerMove {
        let request = Request::Move { old: old.parse().unwrap(), new: new.parse().unwrap(), timeout_ms: 10_000 };
        match self.ask(&request) {
            Some(Response::Move(mut report)) if report.peers.len() == 1 => {
                assert_eq!(report.old_usable, expected_usable);
                report.peers.remove(0)
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn scenario(prefix: &str, length: u8, end_of: impl Fn(&str, u16) -> String) {
    let at = |last: &str| format!("{prefix}{last}");
    let mut peer = Host::new("name = \"desk.example.org\"");
    let mut mobile =
        Host::new(&format!("mobile = true\nautomatic = false\npeers = [\"{}\"]\nexclude_ports = [7001]", at("9")));
    std::fs::copy(mobile_key(&mobile), mobile_key(&peer)).unwrap();
    mobile.space.ip(&format!("link add m0 type veth peer name c0 netns {}", peer.space.task));
    let nodad = if prefix.contains(':') { "nodad" } else { "" };
    mobile.space.ip(&format!("addr add {}/{length} dev m0 {nodad}", at("1")));
    mobile.space.ip("link set m0 up");
    peer.space.ip(&format!("addr add {}/{length} dev c0 {nodad}", at("9")));
    peer.space.ip("link set c0 up");
    peer.start();
    mobile.start();

    let server = end(&end_of(&at("9"), 7000));
    let excluded = end(&end_of(&at("9"), 7001));
    let (listener, other) =
        peer.space.run(move || (TcpListener::bind(server).unwrap(), TcpListener::bind(excluded).unwrap()));
    let (client, left_alone) = mobile.space.run(move || {
        let patience = Duration::from_secs(10);
        (
            TcpStream::connect_timeout(&server, patience).unwrap(),
            TcpStream::connect_timeout(&excluded, patience).unwrap(),
        )
    });
    let (accepted, _) = listener.accept().unwrap();
    let here = client.local_addr().unwrap();
    mobile.wait_for("a confirmed claim", |status, peers| {
        status.confirmed == 1 && status.eligible == 1 && status.connections == 2 && peers.len() == 1
    });
    peer.wait_for("the mobile host's claim", |_, peers| peers.len() == 1 && peers[0].claims == 1);

    // Both addresses at once.
    let (ours, theirs) = (tuple::side(TCP, here, server).unwrap(), tuple::side(TCP, server, here).unwrap());
    mobile.space.ip(&format!("addr add {}/{length} dev m0 {nodad}", at("2")));
    let outcome = mobile.moves(&at("1"), &at("2"), true);
    assert_eq!((outcome.outcome, outcome.flows, outcome.refused), (Outcome::Moved, 1, 0));
    assert_eq!(outcome.name, "desk.example.org");
    assert!(outcome.interruption_ms.is_some_and(|ms| ms > 0.0 && ms < 10_000.0));
    let second = tuple::to_bytes(at("2").parse().unwrap());
    assert_eq!(mobile.fake.state().find(&ours).unwrap().wire.local, second);
    assert_eq!(peer.fake.state().find(&theirs).unwrap().wire.remote, second);
    assert_eq!(peer.fake.state().table.len(), 1, "the excluded port is left alone");

    // Daemons end, or are killed, and begin: binding and claim stay. They are confirmed before a peer is heard.
    for killed in [false, true] {
        for host in [&mut mobile, &mut peer] {
            if killed {
                host.kill()
            } else {
                host.stop()
            }
            host.start();
            let here = host.folder.path().join("claims");
            assert_eq!(std::fs::metadata(here).unwrap().permissions().mode() & 0o777, 0o600);
        }
        mobile.wait_for("the claim still", |status, _| status.confirmed == 1);
        peer.wait_for("the claim there still", |_, peers| peers.len() == 1 && peers[0].claims == 1);
        assert_eq!(mobile.fake.state().find(&ours).unwrap().wire.local, second);
    }
    // Nothing was claimed anew: the only number is the first one, and the peers know each other.
    assert_eq!(mobile.logged("confirmed 1 claims"), 1, "{}", mobile.log());
    assert_eq!(mobile.logged("was restarted") + peer.logged("was restarted"), 0);

    // The old address is gone first.
    mobile.space.ip(&format!("addr del {}/{length} dev m0", at("2")));
    mobile.space.ip(&format!("addr add {}/{length} dev m0 {nodad}", at("3")));
    let output = {
        let mut command = mobile.command(&["move", "--json", &at("2"), &at("3")]);
        mobile.space.run(move || command.output().unwrap())
    };
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["move"]["old_usable"], false);
    assert_eq!(report["move"]["peers"][0]["outcome"], "moved");
    let third = tuple::to_bytes(at("3").parse().unwrap());
    {
        let mut state = mobile.fake.state();
        let record = state.find(&ours).unwrap();
        assert_eq!((record.wire.local, record.local.alternate), (third, Alternate::Grace as u8));
        assert_eq!(record.local.other, second);
    }
    assert_eq!(peer.fake.state().find(&theirs).unwrap().wire.remote, third);
    peer.wait_for("the moves in its chronicle", |status, _| {
        status.moves.last().is_some_and(|last| last.who == "peer" && last.new == Some(at("3").parse().unwrap()))
    });

    // The connection ends, and so does its claim.
    drop((client, accepted, left_alone, listener, other));
    mobile.wait_for("no claim", |status, _| status.confirmed == 0);
    peer.wait_for("no claim there", |_, peers| peers.iter().all(|peer| peer.claims == 0));
    mobile.stop();
    peer.stop();
}

/// Two hosts in the networks `PREFIX.1` and `PREFIX.9`, which run.
fn begun(prefix: &str) -> (Host, Host) {
    let mut peer = Host::new("");
    let mut mobile = Host::new(&format!("mobile = true\nautomatic = false\npeers = [\"{prefix}.9\"]"));
    std::fs::copy(mobile_key(&mobile), mobile_key(&peer)).unwrap();
    mobile.space.ip(&format!("link add m0 type veth peer name c0 netns {}", peer.space.task));
    for (host, device, last) in [(&mobile, "m0", 1), (&peer, "c0", 9)] {
        host.space.ip(&format!("addr add {prefix}.{last}/24 dev {device}"));
        host.space.ip(&format!("link set {device} up"));
    }
    peer.start();
    mobile.start();
    (mobile, peer)
}

impl Host {
    /// Processor time that the daemon has used.
    fn used(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.daemon.as_ref().unwrap().id())).unwrap();
        // Behind the name: state is field 3, utime 14, stime 15, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = [11, 12].map(|at| fields[at].parse::<u64>().unwrap());
        Duration::from_millis(10 * (ticks[0] + ticks[1]))
    }
}

#[test]
fn claims_follow_among_ten_thousand_other_connections() {
    const OTHERS: usize = 10_000;
    const LOOK: Duration = Duration::from_secs(4);
    let limit = format!("--nofile={}:", OTHERS + 1000);
    let raised = Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).status();
    assert!(raised.unwrap().success(), "so many files may be open");
    let (mut mobile, peer) = begun("10.78.0");
    let others = mobile.space.run(|| {
        let listener = TcpListener::bind("10.78.0.1:7000").unwrap();
        let both = |_| (TcpStream::connect("10.78.0.1:7000").unwrap(), listener.accept().unwrap());
        (0..OTHERS / 2).map(both).collect::<Vec<_>>()
    });
    let listener = peer.space.run(|| TcpListener::bind("10.78.0.9:7000").unwrap());
    // The first flow is older than the daemon.
    mobile.stop();
    let mut flows =
        vec![(mobile.space.run(|| TcpStream::connect("10.78.0.9:7000").unwrap()), listener.accept().unwrap())];
    mobile.start();
    mobile.wait_for("the claim of the older flow", |status, _| status.confirmed == 1);
    let mut took = Vec::new();
    for number in 2..=6 {
        // At another time of the daemon's second each.
        std::thread::sleep(Duration::from_millis(number * 190));
        let began = Instant::now();
        flows.push((mobile.space.run(|| TcpStream::connect("10.78.0.9:7000").unwrap()), listener.accept().unwrap()));
        while !matches!(mobile.ask(&Request::Status), Some(Response::Status(status)) if status.confirmed as u64 == number)
        {
            assert!(began.elapsed() < Duration::from_secs(20), "flow {number} is not claimed");
            std::thread::sleep(Duration::from_millis(10));
        }
        took.push(began.elapsed());
    }
    took.sort();
    // The longest may have had to wait for the processor.
    assert!(took[2] < Duration::from_secs(1) && took[3] < Duration::from_millis(1500), "{took:?}");
    let before = mobile.used();
    std::thread::sleep(LOOK);
    let share = (mobile.used() - before).as_secs_f64() / LOOK.as_secs_f64();
    println!("claimed after {took:?}; {:.1} % of a core for {OTHERS} other connections", share * 100.0);
    // Of a build without optimisation.
    assert!(share < 0.25, "{share}");
    let Some(Response::Status(status)) = mobile.ask(&Request::Status) else { panic!("no status") };
    assert!(status.connections >= OTHERS, "{status:?}");
    drop((others, flows));
}

fn mobile_key(host: &Host) -> std::path::PathBuf {
    let path = host.folder.path().join("group.key");
    if !path.exists() {
        assert!(host.command(&["keygen", "group"]).output().unwrap().status.success());
    }
    path
}

#[test]
fn moves_over_ipv4() {
    scenario("10.77.0.", 24, |address, port| format!("{address}:{port}"));
}

#[test]
fn moves_over_ipv6() {
    scenario("fd77::", 64, |address, port| format!("[{address}]:{port}"));
}

//! The daemon as a process: how it begins, answers, reads its configuration again, and ends.

mod common;

use common::Fake;
use mobconn_abi::{Alternate, TCP};
use mobctl::control::{self, Request, Response, Status};
use mobctl::tuple;
use std::io::{BufRead, BufReader, Lines};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// A folder with everything that a daemon needs.
struct Place {
    folder: tempfile::TempDir,
    fake: Fake,
    port: u16,
}

struct Daemon {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    control: PathBuf,
}

impl Place {
    fn new(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = common::ports::free_port();
        let place = Self { folder, fake: Fake::new(), port };
        place.configure(extra);
        for key in ["host", "group"] {
            let made = place.command(&["keygen", key]).output().unwrap();
            assert!(made.status.success());
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, extra: &str) {
        let at = self.folder.path().display();
        let text = format!(
            "host_key = \"{at}/host.key\"\ngroup_key = \"{at}/group.key\"\nclaims = \"{at}/claims\"\nport = {}\nlisten = [\"127.0.0.1\"]\n{extra}\n",
            self.port
        );
        std::fs::write(self.path("mobctl.conf"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mobctl"));
        command.args(arguments).arg("--config").arg(self.path("mobctl.conf"));
        command.arg("--device").arg(&self.fake.path).arg("--control").arg(self.path("sock"));
        command.stdin(Stdio::null());
        command
    }

    /// `mobctl daemon` with a pidfile of this name.
    fn daemon(&self, foreground: bool, pidfile: &str) -> Command {
        let mut command = self.command(if foreground { &["daemon", "-f"] } else { &["daemon"] });
        command.arg("--pidfile").arg(self.path(pidfile));
        command
    }

    fn start_watched(&self, line: &str) -> Daemon {
        let mut child = self.daemon(true, "pid").stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut daemon = Daemon { child, log, control: self.path("sock") };
        daemon.expect(line);
        daemon
    }

    fn start(&self) -> Daemon {
        self.start_watched("begins")
    }
}

impl Daemon {
    /// Waits for a line of the log that has `part` in it.
    fn expect(&mut self, part: &str) -> String {
        let mut seen = String::new();
        for line in self.log.by_ref() {
            let line = line.unwrap();
            if line.contains(part) {
                return line;
            }
            seen += &line;
            seen.push('\n');
        }
        panic!("the daemon ended without saying \"{part}\":\n{seen}");
    }

    fn ask(&self, request: &Request) -> Response {
        control::ask(&self.control, request, PATIENCE).unwrap()
    }

    fn status(&self) -> Status {
        match self.ask(&Request::Status) {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_gone(path: &Path) -> bool {
    !path.exists()
}

#[test]
fn it_begins_answers_and_ends() {
    let place = Place::new("");
    let mut daemon = place.start();
    let pid = std::fs::read_to_string(place.path("pid")).unwrap();
    assert_eq!(pid.trim(), daemon.child.id().to_string());
    assert_eq!(std::fs::metadata(place.path("sock")).unwrap().permissions().mode() & 0o777, 0o600);
    let status = daemon.status();
    assert_eq!(status.pid, daemon.child.id());
    assert!(!status.mobile && status.device_error.is_empty());
    assert_eq!(status.listen, [format!("127.0.0.1:{}", place.port).parse().unwrap()]);
    assert_eq!(daemon.ask(&Request::Peers), Response::Peers { peers: vec![] });

    let shown = place.command(&["status"]).output().unwrap();
    assert_eq!(shown.status.code(), Some(0));
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.starts_with("state:       correspondent: answers mobile hosts; all is well\n"), "{text}");

    let shown = place.command(&["doctor", "--json"]).output().unwrap();
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let doctor: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let verdict = |check: &str| {
        let findings = doctor["doctor"]["findings"].as_array().unwrap();
        findings.iter().find(|one| one["check"] == check).unwrap()["verdict"].clone()
    };
    for (check, expected) in
        [("config", "ok"), ("daemon", "ok"), ("table", "ok"), ("firewall", "skipped"), ("dns", "skipped")]
    {
        assert_eq!(verdict(check), expected, "{check}: {doctor}");
    }

    // SIGINFO, where there is one.
    daemon.signal("-USR1");
    let line = daemon.expect("troubles");
    assert!(line.contains("correspondent, not moved since the daemon began") && line.contains("0 peers"), "{line}");

    daemon.signal("-TERM");
    daemon.expect("stopped by a signal");
    assert_eq!(daemon.end(), Some(0));
    assert!(is_gone(&place.path("sock")) && is_gone(&place.path("pid")));
}

#[test]
fn a_second_one_is_refused() {
    let place = Place::new("");
    let daemon = place.start();
    let second = place.daemon(true, "pid").output().unwrap();
    assert_eq!(second.status.code(), Some(69));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains(&format!("as process {}", daemon.child.id())), "{message}");
    let second = place.daemon(true, "another").output().unwrap();
    assert!(String::from_utf8(second.stderr).unwrap().contains("another mobctl daemon"));
    assert_eq!(daemon.ask(&Request::Stop), Response::Done);
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn without_a_module_it_does_not_begin() {
    let place = Place::new("");
    std::fs::remove_file(&place.fake.path).unwrap();
    let output = place.daemon(true, "pid").output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8(output.stderr).unwrap().contains("kldload mobconn"));
    assert!(is_gone(&place.path("pid")) && is_gone(&place.path("sock")));
}

#[test]
fn the_configuration_is_read_again() {
    let place = Place::new("");
    let mut daemon = place.start();
    place.configure("port = 0");
    daemon.signal("-HUP");
    daemon.expect("still with the configuration from before");
    let failure = control::ask(&daemon.control, &Request::Reload, PATIENCE).unwrap_err();
    assert!(failure.message.contains("duplicate key"), "{failure}");
    assert!(!daemon.status().mobile);
    place.configure("mobile = true\npeers = [\"203.0.113.0/24\"]");
    daemon.signal("-HUP");
    daemon.expect("again");
    assert!(daemon.status().mobile);
    // Elsewhere: another port, and back to the first when the third is taken.
    let before = daemon.status().listen;
    let taken = UdpSocket::bind(("127.0.0.1", common::ports::free_port())).unwrap();
    let other = Place { port: taken.local_addr().unwrap().port(), ..place };
    other.configure("");
    let failure = control::ask(&daemon.control, &Request::Reload, PATIENCE).unwrap_err();
    assert!(failure.message.contains("cannot listen"), "{failure}");
    assert_eq!(daemon.status().listen, before);
    drop(taken);
    assert_eq!(daemon.ask(&Request::Reload), Response::Done);
    assert_eq!(daemon.status().listen, [format!("127.0.0.1:{}", other.port).parse().unwrap()]);
    let place = other;
    place.configure("log_level = \"error\"");
    assert_eq!(daemon.ask(&Request::Reload), Response::Done);
    assert!(!daemon.status().mobile);
    daemon.signal("-INT");
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn a_move_that_cannot_be_is_refused() {
    let place = Place::new("");
    let daemon = place.start();
    let run = |old: &str, new: &str| {
        let output = place.command(&["move", old, new]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = run("192.0.2.1", "127.0.0.1");
    assert!(code == Some(78) && message.contains("mobile = true"), "{message}");
    place.configure("mobile = true\npeers = [\"203.0.113.0/24\"]");
    assert_eq!(daemon.ask(&Request::Reload), Response::Done);
    let (code, message) = run("192.0.2.1", "240.0.0.1");
    assert!(code == Some(65) && message.contains("240.0.0.1 is no address of this host"), "{code:?} {message}");
    let (code, message) = run("192.0.2.1", "::1");
    assert!(code == Some(65) && message.contains("same IP version"), "{code:?} {message}");
    let (code, message) = run("127.0.0.1", "127.0.0.1");
    assert!(code == Some(65) && message.contains("another address"), "{code:?} {message}");
    // Nothing is claimed at that address.
    let output = place.command(&["move", "--json", "192.0.2.1", "127.0.0.1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(66));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["move"]["old_usable"], false);
    assert_eq!(report["move"]["peers"], serde_json::json!([]));
    assert_eq!(daemon.ask(&Request::Stop), Response::Done);
    assert_eq!(daemon.end(), Some(0));
}

#[test]
fn bindings_outlive_it_and_an_unfinished_move_goes_on() {
    let place = Place::new("");
    let side = |local: &str| tuple::side(TCP, local.parse().unwrap(), "203.0.113.9:22".parse().unwrap()).unwrap();
    let (stack, wire) = (side("192.0.2.1:1"), side("198.51.100.1:1"));
    {
        let mut state = place.fake.state();
        state.bind(stack, wire);
        let record = state.find(&stack).unwrap();
        record.local.alternate = Alternate::Pending as u8;
        record.local.pending_generation = 9;
        record.local.other = tuple::to_bytes("127.0.0.1".parse().unwrap());
    }
    let mut daemon = place.start_watched("the kernel has 1 rebinds prepared");
    daemon.expect("begins");
    daemon.signal("-TERM");
    assert_eq!(daemon.end(), Some(0));
    assert_eq!(place.fake.state().find(&stack).unwrap().wire, wire);
}

#[test]
fn in_the_background_it_is_ready_when_the_command_ends() {
    let place = Place::new("");
    let started = place.daemon(false, "pid").status().unwrap();
    assert_eq!(started.code(), Some(0));
    let status = match control::ask(&place.path("sock"), &Request::Status, PATIENCE).unwrap() {
        Response::Status(status) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(std::fs::read_to_string(place.path("pid")).unwrap(), format!("{}\n", status.pid));
    assert_eq!(control::ask(&place.path("sock"), &Request::Stop, PATIENCE).unwrap(), Response::Done);
    for _ in 0..500 {
        if is_gone(&place.path("pid")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the daemon did not end in 10 s");
}

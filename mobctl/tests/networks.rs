//! The daemon watches the networks of this machine: nothing here changes them.

mod common;

use common::Fake;
use mobconn_abi as abi;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Place {
    folder: tempfile::TempDir,
    fake: Fake,
    daemon: Option<Child>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Place {
    /// A running daemon with these lines in its configuration.
    fn new(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = common::ports::free_port();
        let mut place = Self { folder, fake: Fake::new(), daemon: None };
        // A daemon before this one may have left rules.
        place.fake.state().egress.rule_count = 1;
        let at = place.folder.path().display();
        let text = format!(
            "host_key = \"{at}/host.key\"\ngroup_key = \"{at}/group.key\"\nclaims = \"{at}/claims\"\nport = {port}\nlisten = [\"127.0.0.1\"]\n{extra}\n"
        );
        std::fs::write(place.path("mobctl.conf"), text).unwrap();
        for key in ["host", "group"] {
            assert!(place.run(&["keygen", key]).status.success());
        }
        let pidfile = place.path("pid");
        let daemon = place.command(&["daemon", "-f", "--pidfile"]).arg(pidfile).stderr(Stdio::null()).spawn();
        place.daemon = Some(daemon.unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !place.run(&["status"]).status.success() {
            assert!(Instant::now() < deadline, "the daemon does not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mobctl"));
        let path = |name: &str| -> Box<Path> { self.path(name).into() };
        command.arg("--config").arg(&*path("mobctl.conf")).arg("--control").arg(&*path("sock"));
        command.arg("--device").arg(&self.fake.path).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        said["networks"].clone()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

const MOBILE: &str = "mobile = true\npeers = [\"203.0.113.0/24\"]\nhold_down = 7";

#[test]
fn networks_are_shown_and_rules_of_before_are_taken_back() {
    let place = Place::new(MOBILE);
    let report = place.json(&["networks"]);
    assert_eq!((&report["automatic"], &report["hold_down"]), (&Value::from(true), &Value::from(7)));
    let addresses = report["addresses"].as_array().unwrap();
    let loopback = addresses.iter().find(|one| one["address"] == "127.0.0.1").expect("the loopback address");
    assert_eq!((&loopback["usable"], &loopback["standing"]), (&Value::from(false), &Value::from("local")));
    let text = place.run(&["networks"]).stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(text.starts_with("INTERFACE") && text.contains("127.0.0.1/8"), "{text}");
    assert!(!text.contains("by themselves"), "{text}");
    assert!(place.fake.state().commands.iter().any(|(command, _)| *command == abi::EGRESS_SET));
}

#[test]
fn a_host_that_stays_says_so() {
    let place = Place::new("");
    assert_eq!(place.json(&["networks"])["automatic"], false);
    assert!(String::from_utf8_lossy(&place.run(&["networks"]).stdout).contains("do not move by themselves"));
    assert_eq!(place.fake.state().egress, abi::Egress::default());
}

#[test]
fn wishes_at_run_time() {
    let place = Place::new(&format!("{MOBILE}\nprefer = [\"em7\"]"));
    assert_eq!(place.json(&["networks"])["prefer"], Value::from(vec!["em7"]));
    let message = place.refused(&["prefer", "em9"]);
    assert!(message.contains("no interface em9") && message.contains("lo"), "{message}");
    assert_eq!(place.json(&["prefer", "lo"])["prefer"], Value::from(vec!["lo"]));
    assert_eq!(place.json(&["prefer", "auto"])["prefer"], Value::from(vec!["em7"]));
    assert!(place.refused(&["prefer", "auto", "lo"]).contains("alone"));
    assert!(place.refused(&["prefer"]).contains("INTERFACE"));
}

#[test]
fn who_pokes_is_heard() {
    let place = Place::new(MOBILE);
    assert!(place.run(&["poke"]).status.success());
    assert!(place.run(&["poke", "lo"]).status.success());
    // A loopback interface has no router, whatever is said.
    assert!(place.run(&["poke", "lo", "127.0.0.5", "fe80::1"]).status.success());
    assert!(place.refused(&["poke", "em9", "192.0.2.1"]).contains("no interface em9"));
    assert!(place.refused(&["poke", "lo", "nobody"]).contains("invalid"));
}

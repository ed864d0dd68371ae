//! The binary itself: what it prints and how it ends.

mod common;

use common::Fake;
use mobconn_abi::{Alternate, Counter, Event, EventKind, Record, TCP, Tuple};
use mobctl::tuple;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn mobctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mobctl")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs mobctl and checks its exit code; returns what it printed and what it complained.
fn run(exit: i32, arguments: &[&str]) -> (String, String) {
    let output = mobctl(arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}\n{out}\n{err}");
    (out, err)
}

fn json(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

fn side(local: &str, remote: &str) -> Tuple {
    tuple::side(TCP, local.parse().unwrap(), remote.parse().unwrap()).unwrap()
}

fn device(fake: &Fake) -> String {
    format!("--device={}", fake.path.display())
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [
        &[][..],
        &["explode"],
        &["flows", "--jason"],
        &["move", "192.0.2.1"],
        &["move", "here", "192.0.2.1"],
        &["move", "192.0.2.1", "192.0.2.2", "--timeout", "-1"],
        &["flow", "add", "sctp", "192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:1", "192.0.2.2:2"],
        &["flow", "del", "tcp", "192.0.2.1:1"],
        &["keygen", "both"],
    ] {
        let (out, err) = run(64, arguments);
        assert!(out.is_empty() && !err.is_empty(), "{arguments:?}");
    }
    let (_, err) = run(64, &["flow", "add", "tcp", "192.0.2.1", "192.0.2.2:2", "192.0.2.3:1", "192.0.2.2:2"]);
    assert!(err.contains("write 192.0.2.1:PORT"), "{err}");
    let (_, err) = run(64, &["flow", "del", "tcp", "192.0.2.1:1", "[2001:db8::1]:2"]);
    assert!(err.contains("stack side") && err.contains("one address is IPv4"), "{err}");
}

#[test]
fn help_is_no_error() {
    let (out, err) = run(0, &["--help"]);
    assert!(out.contains("keygen") && err.is_empty(), "{out}{err}");
    assert!(run(0, &["flow", "add", "--help"]).0.contains("STACK_LOCAL"));
}

#[test]
fn without_a_module_it_says_what_to_do() {
    for command in [&["flows"][..], &["stats"], &["flow", "del", "tcp", "192.0.2.1:1", "192.0.2.2:2"]] {
        let (out, err) = run(69, &[command, &["--device", "/nonexistent/mobconn"]].concat());
        assert!(out.is_empty() && err.contains("kldload mobconn"), "{err}");
        assert!(err.lines().all(|line| line.starts_with("mobctl: ")), "{err}");
    }
    let (out, _) = run(0, &["version", "--device", "/nonexistent/mobconn"]);
    assert!(out.contains(concat!("mobctl ", env!("CARGO_PKG_VERSION"))) && out.contains("not loaded"), "{out}");
}

#[test]
fn without_a_daemon_it_says_what_to_do() {
    for command in [&["peers"][..], &["move", "192.0.2.1", "192.0.2.2"]] {
        let (_, err) = run(69, &[command, &["--control", "/nonexistent/sock"]].concat());
        assert!(err.contains("service mobconn start"), "{err}");
    }
    let fake = Fake::new();
    let (out, _) = run(69, &["status", "--control", "/nonexistent/sock", &device(&fake)]);
    assert!(out.contains("1.2.3 loaded, 0 of 65536 bindings") && out.contains("daemon is not running"), "{out}");
    assert!(out.starts_with("state:       one thing is wrong, see below\n"), "{out}");
    let (out, _) = run(69, &["status", "--json", "--control", "/nonexistent/sock", "--device", "/nonexistent/d"]);
    let status = &json(&out)["status"];
    assert_eq!(status["module"]["loaded"], false);
    assert_eq!(status["daemon"]["running"], false);
}

#[test]
fn bindings_by_hand_and_their_table() {
    let fake = Fake::new();
    let device = device(&fake);
    let ends = ["tcp", "192.0.2.1:40000", "203.0.113.9:22", "198.51.100.1:40000", "203.0.113.9:22"];
    let add = [&["flow", "add"][..], &ends, &[&device]].concat();
    assert_eq!(run(0, &add), (String::new(), String::new()));
    assert!(run(73, &add).1.contains("mobctl flow del"));
    {
        let mut state = fake.state();
        state.uptime += 75;
        let record = state.find(&side(ends[1], ends[2])).unwrap();
        record.local.alternate = Alternate::PendingHold as u8;
        record.local.other = tuple::to_bytes("10.0.0.1".parse().unwrap());
        record.used += 70;
    }
    let (out, _) = run(0, &["flows", &device]);
    assert_eq!(
        out,
        "PROTO  STACK_LOCAL      STACK_REMOTE    WIRE_LOCAL          WIRE_REMOTE     LOCAL  REMOTE  AGE    IDLE  NOTE\n\
         tcp    192.0.2.1:40000  203.0.113.9:22  198.51.100.1:40000  203.0.113.9:22  held   none    1m15s  5s    -\n"
    );
    let (out, _) = run(0, &["flows", "--json", &device]);
    let flow = &json(&out)["flows"][0];
    assert_eq!(flow["stack"]["local"], ends[1]);
    assert_eq!(flow["wire"]["local"], ends[3]);
    assert_eq!(flow["local"]["alternate"], "held");
    assert_eq!(flow["local"]["address"], "10.0.0.1");
    assert_eq!(flow["remote"]["address"], Value::Null);
    assert_eq!((&flow["age"], &flow["idle"]), (&75.into(), &5.into()));
    let del = ["flow", "del", ends[0], ends[1], ends[2], &device];
    run(0, &del);
    assert!(run(66, &del).1.contains("mobctl flows"));
    assert!(fake.state().table.is_empty());
}

#[test]
fn counters() {
    let fake = Fake::new();
    fake.state().counters[Counter::TranslatedOut as usize] = 12;
    let (out, _) = run(0, &["stats", "-z", "--json", &device(&fake)]);
    assert_eq!(json(&out)["stats"]["translated_out"], 12);
    let (out, _) = run(0, &["stats", &device(&fake)]);
    let line = out.lines().find(|line| line.starts_with("translated_out ")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("0"));
    assert_eq!(out.lines().count(), Counter::ALL.len() + 1);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let fake = Fake::new();
    for port in 1..=5000 {
        let stack = side(&format!("192.0.2.1:{port}"), "203.0.113.9:22");
        fake.state().bind(stack, stack);
    }
    let script =
        format!("{} flows {} | head -n 1; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_mobctl"), device(&fake));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.starts_with("PROTO") && out.ends_with("\n0\n"), "{out}");
    assert!(output.stderr.is_empty());
}

/// A folder with a configuration that names key files in it.
fn configured(extra: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let (path, at) = (folder.path().join("mobctl.conf"), folder.path().display());
    std::fs::write(&path, format!("host_key = \"{at}/host.key\"\ngroup_key = \"{at}/group.key\"\n{extra}\n")).unwrap();
    let option = format!("--config={}", path.display());
    (folder, option)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn keys_are_made_once_and_checked() {
    let (folder, config) = configured("mobile = true\npeers = [\"203.0.113.0/24\"]");
    let (host, group) = (folder.path().join("host.key"), folder.path().join("group.key"));
    assert!(run(78, &["check", &config]).1.contains("mobctl keygen host"));
    let (out, _) = run(0, &["keygen", "host", &config]);
    let public = out.lines().last().unwrap().to_owned();
    assert_eq!((public.len(), mode(&host)), (64, 0o600));
    assert!(run(78, &["check", &config]).1.contains("mobctl keygen group"));
    let (out, _) = run(0, &["keygen", "group", "--json", &config]);
    assert_eq!(json(&out)["keygen"]["path"], group.display().to_string());
    assert_eq!(mode(&group), 0o600);

    let secret = std::fs::read_to_string(&host).unwrap();
    let digits = secret.split_whitespace().last().unwrap();
    for command in [&["keygen", "public"][..], &["check"], &["check", "--json"]] {
        let (out, err) = run(0, &[command, &[&config]].concat());
        assert!(out.contains(&public), "{out}");
        assert!(!out.contains(digits) && !err.contains(digits));
    }
    let (_, err) = run(73, &["keygen", "host", &config]);
    assert!(err.contains("not overwritten") && std::fs::read_to_string(&host).unwrap() == secret, "{err}");

    let elsewhere = folder.path().join("new/other.key");
    run(0, &["keygen", "group", "--output", elsewhere.to_str().unwrap(), &config]);
    assert_ne!(std::fs::read(&elsewhere).unwrap(), std::fs::read(&group).unwrap());

    std::fs::set_permissions(&group, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(run(78, &["check", &config]).1.contains("chmod 600"));
}

#[test]
fn a_wrong_configuration_is_named_line_by_line() {
    let (folder, config) = configured("port = 0\nlog_level = \"loud\"");
    let (out, err) = run(78, &["check", &config]);
    assert!(out.is_empty());
    assert!(
        err.contains("mobctl.conf: line 3: port must be") && err.contains("mobctl.conf: line 4: log_level"),
        "{err}"
    );
    assert!(run(78, &["check", "--config", "/nonexistent/mobctl.conf"]).1.contains("mobctl.conf.sample"));
    assert!(run(78, &["daemon", "-f", &config]).1.contains("line 3"));
    assert!(run(78, &["keygen", "host", &config]).1.contains("line 3"));
    let path = folder.path().join("a.key");
    run(0, &["keygen", "host", "-o", path.to_str().unwrap(), &config]);
}

#[test]
fn events_as_they_come() {
    let fake = Fake::new();
    let (stack, wire) = (side("192.0.2.1:5000", "203.0.113.1:22"), side("198.51.100.1:5000", "203.0.113.1:22"));
    let record = Record { stack, wire, id: 1, ..Record::default() };
    let event = |sequence, kind: EventKind| Event { sequence, kind: kind as u32, record, ..Event::default() };
    fake.state().events = vec![event(4, EventKind::Made), event(5, EventKind::Gone)];
    let (out, _) = run(0, &["monitor", "-c", "2", "--control", "/nonexistent/sock", &device(&fake)]);
    let lines: Vec<&str> = out.lines().filter(|line| line.contains(" module ") && line.contains("tcp")).collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].ends_with(" module made tcp 192.0.2.1:5000 203.0.113.1:22 as 198.51.100.1:5000 203.0.113.1:22"));
    // Another one: a read that the program did not wait for may still be on its way to the first.
    let fake = Fake::new();
    fake.state().events = vec![event(6, EventKind::Full)];
    let (out, _) = run(0, &["monitor", "--json", "-c", "1", "--control", "/nonexistent/sock", &device(&fake)]);
    let full = out.lines().map(json).find(|line| line["event"]["kind"] == "full").unwrap();
    assert_eq!(full["event"]["flow"]["stack"]["local"], "192.0.2.1:5000");
}

#[test]
fn one_page_for_a_program() {
    let fake = Fake::new();
    let flow = side("192.0.2.1:5000", "203.0.113.1:22");
    fake.state().bind(flow, flow);
    let (out, _) = run(0, &["top", &device(&fake)]);
    assert!(out.starts_with("mobconn 1.2.3: 1 of 65536 bindings\n") && out.contains("192.0.2.1:5000"), "{out}");
    let (out, _) = run(0, &["top", "-c", "3", "-i", "0", &device(&fake)]);
    assert_eq!(out.matches("STACK_LOCAL").count(), 3, "{out}");
}

#[test]
fn a_doctor_without_a_patient() {
    let nowhere = ["--device", "/nonexistent/d", "--control", "/nonexistent/s", "--config", "/nonexistent/c"];
    let (out, _) = run(69, &[&["doctor"][..], &nowhere].concat());
    for advice in ["kldload mobconn", "service mobconn start", "mobctl.conf.sample"] {
        assert!(out.contains(advice), "{out}");
    }
    // What is not there cannot be unloaded.
    assert!(out.contains("skipped  hooks ") && !out.contains("kldunload"), "{out}");
    // Each finding that is bad says what to do.
    let lines: Vec<&str> = out.lines().collect();
    for (line, next) in lines.iter().zip(&lines[1..]).filter(|(line, _)| line.starts_with("bad ")) {
        assert!(next.trim_start().starts_with("-> "), "{line}");
    }
}

#[test]
fn bash_completes_the_command_line() {
    let (script, _) = run(0, &["completion", "bash"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mobctl");
    std::fs::write(&path, script).unwrap();
    let complete = |words: &str, last: &str, before: &str, at: usize| {
        let ask = format!(
            ". {}; COMP_WORDS=({words}); COMP_CWORD={at}; _mobctl mobctl '{last}' '{before}'; echo ${{COMPREPLY[@]}}",
            path.display()
        );
        let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete("mobctl fl", "fl", "mobctl", 1), "flows flow\n");
    let kinds = complete("mobctl keygen ''", "", "keygen", 2);
    assert!(kinds.ends_with(" host group public\n"), "{kinds}");
    assert!(complete("mobctl flow add ''", "", "add", 3).contains("tcp udp"));
}

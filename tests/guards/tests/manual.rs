//! mobconn(4) knows every counter, sysctl, command, event and errno.

use mobconn_abi::{Counter, EventKind};
use mobconn_guards::root;
use std::collections::BTreeSet;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The words behind an item with this macro.
fn items(page: &str, kind: &str) -> BTreeSet<String> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(&format!(".It {kind} ")));
    lines.flat_map(|line| line.split([' ', ',']).map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn missing<'a>(wanted: impl IntoIterator<Item = &'a str>, found: &BTreeSet<String>) -> Vec<&'a str> {
    wanted.into_iter().filter(|name| !found.contains(*name)).collect()
}

#[test]
fn counters_and_sysctls() {
    let found = items(&read("kmod/mobconn.4"), "Va");
    assert_eq!(missing(Counter::ALL.iter().map(|counter| counter.name()), &found), [""; 0]);
    let source = read("kmod/src/sysctl.rs");
    let names = source.split("(top, c\"").skip(1).filter_map(|rest| rest.split('"').next());
    let names: Vec<String> =
        names.filter(|name| *name != "stats").map(|name| format!("net.inet.mobconn.{name}")).collect();
    assert!(names.len() >= 5, "{names:?}");
    assert_eq!(missing(names.iter().map(String::as_str), &found), [""; 0]);
}

#[test]
fn commands_and_events() {
    let found = items(&read("kmod/mobconn.4"), "Dv");
    let header = read("kmod/mobconn.h");
    let commands = header.lines().filter(|line| line.contains("_IO")).filter_map(|line| line.split_whitespace().nth(1));
    assert_eq!(missing(commands.filter(|name| name.starts_with("MOBCONN_")), &found), [""; 0]);
    let events: Vec<String> = EventKind::ALL
        .iter()
        .map(|kind| format!("MOBCONN_EVENT_{}", kind.name().to_ascii_uppercase().replace('-', "_")))
        .collect();
    assert_eq!(missing(events.iter().map(String::as_str), &found), [""; 0]);
}

#[test]
fn errors() {
    let found = items(&read("kmod/mobconn.4"), "Bq");
    let page = read("kmod/mobconn.4");
    let source = read("kmod/src/refusal.rs");
    let errnos: Vec<&str> = source
        .split("ffi::E")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next())
        .collect();
    assert!(errnos.len() > 10 && found.contains("Er"), "{errnos:?}");
    for errno in errnos {
        assert!(page.contains(&format!(".It Bq Er E{errno}\n")), "E{errno} is not in mobconn(4)");
    }
}

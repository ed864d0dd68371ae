//! Whether the module is nearest the wire, by what pfilctl(8) says.
//!
//! Firewalls must see the stack side of a packet, or their states match no more after a move. So on input the module
//! comes first, on output last. `pfctl -d; pfctl -e` links pf anew.

use super::{Finding, bad, ok, skipped};
use std::process::Command;

/// The heads that the module links to.
const HEADS: [&str; 2] = ["inet", "inet6"];
const NAME: &str = "mobconn";

pub(super) fn check() -> Finding {
    if cfg!(not(target_os = "freebsd")) {
        return skipped("hooks", "only FreeBSD has pfilctl(8)");
    }
    match Command::new("/sbin/pfilctl").arg("heads").output() {
        Ok(output) if output.status.success() => judge(&String::from_utf8_lossy(&output.stdout)),
        Ok(output) => skipped("hooks", format!("pfilctl: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => skipped("hooks", format!("pfilctl: {error}")),
    }
}

/// The hooks of a head, in the order in which packets come to them.
fn hooks<'a>(listing: &'a str, head: &str, direction: &str) -> Vec<&'a str> {
    let mut here = false;
    let mut hooks = Vec::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, "IPv4" | "IPv6" | "IP4" | "IP6" | "Ethernet"] => here = *name == head,
            [found, hook] if here && *found == direction => hooks.push(*hook),
            _ => {}
        }
    }
    hooks
}

fn judge(listing: &str) -> Finding {
    let mut linked = 0;
    for head in HEADS {
        let (first, last) = (hooks(listing, head, "In"), hooks(listing, head, "Out"));
        let ours = |hook: &&str| hook.split(':').next() == Some(NAME);
        match (first.iter().position(ours), last.iter().rposition(ours)) {
            (None, None) => continue,
            (Some(0), Some(place)) if place + 1 == last.len() => linked += 1,
            _ => {
                let outside = first.iter().chain(last.iter().rev()).find(|hook| !ours(hook)).unwrap_or(&"another hook");
                return bad(
                    "hooks",
                    format!(
                        "on {head}, {outside} is nearer the wire than mobconn: its states do not match after a move"
                    ),
                    "Link it before mobconn: start the firewall first; or kldunload mobconn; service mobconn start",
                );
            }
        }
    }
    match linked {
        0 => bad("hooks", "the module has no hook: it sees no packet", "kldunload mobconn; service mobconn start"),
        _ => ok("hooks", "nearest the wire: firewalls see the addresses with which connections began"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn listing(inet: &str, inet6: &str) -> String {
        let head = |name: &str, kind: &str| format!("{name:>16} {kind:>8}\n");
        let hooks = |all: &str| -> String {
            all.split(' ')
                .map(|hook| hook.split_once('=').unwrap())
                .map(|(way, hook)| format!("{way:>29} {hook:>16}\n"))
                .collect()
        };
        format!(
            "Intercept point     Type Dir             Hook\n{}{}{}{}",
            head("inet", "IPv4"),
            hooks(inet),
            head("inet6", "IPv6"),
            hooks(inet6)
        )
    }

    #[test]
    fn order_matters() {
        let right6 = "In=mobconn:inet6 Out=mobconn:inet6";
        for (inet, verdict) in [
            ("In=mobconn:inet In=pf:default-in Out=pf:default-out Out=mobconn:inet", Verdict::Ok),
            ("In=mobconn:inet Out=mobconn:inet", Verdict::Ok),
            ("In=pf:default-in In=mobconn:inet Out=pf:default-out Out=mobconn:inet", Verdict::Bad),
            ("In=mobconn:inet In=pf:default-in Out=mobconn:inet Out=pf:default-out", Verdict::Bad),
            ("In=mobconn:inet In=ipfw:default Out=ipfw:default", Verdict::Bad),
        ] {
            let found = judge(&listing(inet, right6));
            assert_eq!(found.verdict, verdict, "{inet}: {found:?}");
        }
        assert_eq!(judge(&listing("In=ipfw:default Out=ipfw:default", "In=pf:a Out=pf:b")).verdict, Verdict::Bad);
        assert_eq!(judge("").verdict, Verdict::Bad);
    }
}

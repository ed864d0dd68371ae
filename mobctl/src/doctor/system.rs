//! What the operating system has to say: whether mobconn begins at boot, and whether the clock is kept.

use super::{Finding, ok, skipped, warning};
use std::process::Command;

/// What a program says, without waiting for anything but it.
fn say(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn is_yes(value: &str) -> bool {
    ["yes", "true", "on", "1"].contains(&value.to_ascii_lowercase().as_str())
}

pub(super) fn at_boot() -> Finding {
    if cfg!(not(target_os = "freebsd")) {
        return skipped("boot", "only FreeBSD has rc.conf(5)");
    }
    match say("/usr/sbin/sysrc", &["-n", "mobconn_enable"]) {
        Some(value) if is_yes(&value) => ok("boot", "mobconn_enable is set"),
        _ => warning("boot", "mobconn does not begin when this host boots", "sysrc mobconn_enable=YES"),
    }
}

pub(super) fn synchronised() -> Finding {
    if cfg!(not(target_os = "freebsd")) {
        return ok("clock", "not behind the files of this host");
    }
    let runs = |service| say("/usr/sbin/service", &[service, "onestatus"]).is_some();
    if ["ntpd", "chronyd", "openntpd"].into_iter().any(runs) {
        ok("clock", "kept by a time service")
    } else {
        warning(
            "clock",
            "no time service runs: signed DNS updates fail when the clock is five minutes off",
            "sysrc ntpd_enable=YES ntpd_sync_on_start=YES; service ntpd start",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_fail_say_nothing() {
        assert_eq!(say("/bin/sh", &["-c", "echo YES"]).as_deref(), Some("YES"));
        assert_eq!(say("/bin/sh", &["-c", "echo YES; exit 1"]), None);
        assert_eq!(say("/nonexistent/program", &[]), None);
        assert!(is_yes("yes") && is_yes("YES") && is_yes("1") && !is_yes("NO") && !is_yes(""));
    }
}

//! docs/bind.md is right: its blocks are run as they stand, but for folders, addresses and the port.

mod dns;
#[path = "common/page.rs"]
#[allow(dead_code, reason = "only one function is used")]
mod page;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The blocks with this label, one after the other.
fn blocks(label: &str) -> String {
    let page = include_str!("../../docs/bind.md");
    let begin = format!("```{label}\n");
    let parts: Vec<&str> = page.split(&begin).skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!parts.is_empty(), "no block {label}");
    parts.concat()
}

struct Named(Child);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mobctl(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mobctl"));
    command.args(words).arg("--config").arg(folder.join("mobctl.conf")).arg("--control").arg(folder.join("none"));
    command.output().unwrap()
}

fn run(folder: &Path, words: &[&str]) -> serde_json::Value {
    let output = mobctl(folder, &[words, &["--json"]].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let printed = serde_json::from_slice(&output.stdout).unwrap();
    page::check(words[0], &printed);
    printed
}

#[test]
fn the_page_about_bind_is_right() {
    let folder = tempfile::Builder::new().prefix("mobconn-page.").tempdir().unwrap();
    let at = folder.path();
    let port = dns::free_port();
    fs::create_dir(at.join("dynamic")).unwrap();
    // The key, as the page makes it.
    let page = include_str!("../../docs/bind.md");
    assert!(page.contains("\ntsig-keygen -a hmac-sha256 laptop-key > "));
    let key =
        Command::new(dns::program("tsig-keygen", "bind9")).args(["-a", "hmac-sha256", "laptop-key"]).output().unwrap();
    let key = String::from_utf8(key.stdout).unwrap();
    dns::write_secret(&at.join("laptop.key"), &key);
    dns::write_secret(&at.join("ddns.key"), &key);

    let here = at.display().to_string();
    let config = blocks("named.conf");
    for part in ["/usr/local/etc/namedb", "/var/run/named", "listen-on { any; };", "listen-on-v6 { any; };"] {
        assert!(config.contains(part), "{part}");
    }
    let config = config
        .replace("/usr/local/etc/namedb", &here)
        .replace("/var/run/named", &here)
        .replace("listen-on { any; };", "listen-on { 127.0.0.1; };")
        .replace("listen-on-v6 { any; };", "listen-on-v6 { none; }; session-keyfile none;");
    fs::write(at.join("named.conf"), config).unwrap();
    fs::write(at.join("dynamic/example.org.zone"), blocks("zone")).unwrap();
    let log = fs::File::create(at.join("log")).unwrap();
    let named = Command::new(dns::program("named", "bind9"))
        .args(["-g", "-n", "1", "-p", &port.to_string(), "-c"])
        .arg(at.join("named.conf"))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut named = Named(named);

    let config = blocks("mobctl.conf");
    assert!(config.contains("servers = [\"203.0.113.53\"]"));
    let config = config.replace("203.0.113.53", &format!("127.0.0.1:{port}"));
    let config =
        format!("host_key = \"{here}/host.key\"\n{config}key = \"{here}/ddns.key\"\nstate = \"{here}/state\"\n");
    fs::write(at.join("mobctl.conf"), config).unwrap();
    run(at, &["keygen", "host"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = fs::read_to_string(at.join("log")).unwrap();
        assert!(named.0.try_wait().unwrap().is_none() && Instant::now() < deadline, "{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let checked = run(at, &["ddns", "check"]);
    assert_eq!(checked["ddns"]["servers"][0]["state"], "ok", "{checked}");
    assert_eq!(run(at, &["ddns", "show"])["ddns"]["holder"], "nobody");
    let updated = run(at, &["ddns", "update", "192.0.2.10", "2001:db8::10"]);
    assert_eq!(updated["ddns"]["addresses"], serde_json::json!(["192.0.2.10", "2001:db8::10"]));
    let shown = run(at, &["ddns", "show"]);
    assert_eq!(shown["ddns"]["holder"], "this host");
    assert_eq!(shown["ddns"]["addresses"][1]["address"], "2001:db8::10");
    let text = mobctl(at, &["ddns", "show"]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("belongs to:  this host"));
    run(at, &["ddns", "delete"]);
    assert_eq!(run(at, &["ddns", "show"])["ddns"]["addresses"], serde_json::json!([]));
    // Without the daemon, and with a key file that others can read.
    fs::set_permissions(at.join("ddns.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let refused = mobctl(at, &["ddns", "check"]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("chmod 600"));
}

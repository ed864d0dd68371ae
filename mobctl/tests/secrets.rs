//! No secret is ever shown: not by a command, not in a log at its most talkative, not in an error about the very file that
//! holds it, not by `{:?}`.

mod common;

use common::Fake;
use mobconn_abi::TCP;
use mobctl::settings::Settings;
use mobctl::tuple;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// So many bytes of a secret in a row are a leak.
const ENOUGH: usize = 8;

/// Everything that a part of the secret may look like, with what that is.
fn looks(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut looks = Vec::new();
    for part in secret.windows(ENOUGH) {
        let joined = |of: fn(&u8) -> String, between: &str| part.iter().map(of).collect::<Vec<_>>().join(between);
        looks.push(("raw", part.to_vec()));
        looks.push(("hex", joined(|byte| format!("{byte:02x}"), "").into_bytes()));
        looks.push(("HEX", joined(|byte| format!("{byte:02X}"), "").into_bytes()));
        looks.push(("a list", joined(|byte| byte.to_string(), ", ").into_bytes()));
    }
    for start in 0..3 {
        let text = domain::utils::base64::encode_string(&secret[start..]);
        let text = text.trim_end_matches('=');
        // The last letter depends on where the secret was cut.
        for part in text.as_bytes()[..text.len() - 1].windows(ENOUGH * 4 / 3) {
            looks.push(("base 64", part.to_vec()));
            let other = part.iter().map(|letter| match letter {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            });
            looks.push(("base 64 of URLs", other.collect()));
        }
    }
    looks
}

/// What `text` gives away of the secret.
fn leak(secret: &[u8], text: &[u8]) -> Option<&'static str> {
    let is_in = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    looks(secret).into_iter().find(|(_, part)| is_in(part)).map(|(how, _)| how)
}

#[test]
fn a_leak_is_noticed() {
    let secret: Vec<u8> = (0..32u8).map(|n| n.wrapping_mul(37) ^ 0xa5).collect();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let around = |middle: &[u8]| [b"some text ".as_slice(), middle, b" and more"].concat();
    let mut cut = secret[3..].to_vec();
    cut.insert(0, 7);
    for (text, how) in [
        (around(&secret[20..28]), "raw"),
        (around(&hex.as_bytes()[11..30]), "hex"),
        (around(format!("{secret:?}").as_bytes()), "a list"),
        (around(domain::utils::base64::encode_string(&cut).as_bytes()), "base 64"),
    ] {
        assert_eq!(leak(&secret, &text), Some(how));
    }
    assert_eq!(leak(&secret, &around(&secret[20..27])), None);
}

/// A host with all the keys that there are.
struct Host {
    folder: tempfile::TempDir,
    fake: Fake,
    secrets: Vec<(&'static str, Vec<u8>)>,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let port = common::ports::free_port();
        let tsig: Vec<u8> = (0..32u8).map(|n| n.wrapping_mul(91) ^ 0x3c).collect();
        let text = format!(
            "host_key = \"{at}/host.key\"\ngroup_key = \"{at}/group.key\"\nclaims = \"{at}/claims\"\nport = {port}\n\
             listen = [\"127.0.0.1\"]\nlog_level = \"debug\"\nmobile = true\nautomatic = false\n\
             peers = [\"127.0.0.2/32\"]\n[ddns]\nname = \"laptop.example.org\"\nzone = \"example.org\"\n\
             servers = [\"127.0.0.3\"]\nkey = \"{at}/ddns.key\"\nstate = \"{at}/ddns.state\"\n"
        );
        std::fs::write(folder.path().join("mobctl.conf"), text).unwrap();
        let mut host = Self { folder, fake: Fake::new(), secrets: vec![("the DNS key", tsig.clone())] };
        let encoded = domain::utils::base64::encode_string(&tsig);
        host.write("ddns.key", &format!("hmac-sha256:laptop:{encoded}\n"));
        for (kind, what) in [("host", "the host's key"), ("group", "the group's key")] {
            assert!(host.command(&["keygen", kind]).output().unwrap().status.success());
            let text = std::fs::read_to_string(host.path(&format!("{kind}.key"))).unwrap();
            let digits = text.split_whitespace().last().unwrap();
            let key: mobconn_dprp::PublicKey = digits.parse().unwrap();
            host.secrets.push((what, key.0.to_vec()));
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let _ = std::fs::remove_file(&path);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mobctl"));
        for (option, name) in [("--config", "mobctl.conf"), ("--control", "sock")] {
            command.arg(option).arg(self.path(name));
        }
        command.arg("--device").arg(&self.fake.path).args(arguments).stdin(Stdio::null());
        command
    }

    /// What a command prints must give nothing away.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        self.check(&format!("mobctl {}", arguments.join(" ")), &said);
        String::from_utf8_lossy(&said).into_owned()
    }

    fn check(&self, who: &str, said: &[u8]) {
        for (what, secret) in &self.secrets {
            let text = String::from_utf8_lossy(said);
            assert_eq!(leak(secret, said), None, "{who} gives {what} away:\n{text}");
        }
    }
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(path).is_err() {
        assert!(Instant::now() < deadline, "nobody at {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_daemon_and_all_commands_keep_secrets() {
    let host = Host::new();
    let flow = tuple::side(TCP, "192.0.2.1:40000".parse().unwrap(), "203.0.113.1:22".parse().unwrap()).unwrap();
    host.fake.state().bind(flow, flow);
    let log = std::fs::File::create(host.path("log")).unwrap();
    let mut command = host.command(&["daemon", "-f", "--pidfile"]);
    let mut daemon = command.arg(host.path("pid")).stderr(log.try_clone().unwrap()).stdout(log).spawn().unwrap();
    wait_for(&host.path("sock"));
    for command in
        ["status", "flows", "peers", "networks", "stats", "check", "doctor", "version", "ddns show", "ddns check"]
    {
        let words: Vec<&str> = command.split(' ').collect();
        assert!(!host.says(&words).is_empty(), "{command}");
        assert!(!host.says(&[words.as_slice(), &["--json"]].concat()).is_empty(), "{command} --json");
    }
    if cfg!(target_os = "linux") {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "what it starts gains no privilege: {status}");
    }
    let public = host.says(&["keygen", "public"]);
    assert_eq!(public.trim().len(), 64, "the public key is no secret: {public}");
    host.says(&["keygen", "host"]);
    host.says(&["move", "127.0.0.1", "127.0.0.9"]);
    // SIGTERM: it takes leave of its name servers, in vain, and says so.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    let log = std::fs::read(host.path("log")).unwrap();
    assert!(log.windows(6).any(|part| part == b"begins"), "it said something");
    host.check("the log", &log);
    for file in ["claims", "ddns.state", "pid"] {
        host.check(file, &std::fs::read(host.path(file)).unwrap_or_default());
    }
    let settings = Settings::read(&host.path("mobctl.conf")).unwrap();
    host.check("{:?} of the settings", format!("{settings:?} {settings:#?}").as_bytes());
}

#[test]
fn errors_about_key_files_keep_secrets() {
    let host = Host::new();
    let text = |name: &str| std::fs::read_to_string(host.path(name)).unwrap();
    let (own, group, tsig) = (text("host.key"), text("group.key"), text("ddns.key"));
    let spoiled = [
        ("host.key", own.replacen("host-key", "host-kee", 1)),
        ("host.key", group.clone()),
        ("host.key", own.trim_end().to_owned() + "0"),
        ("host.key", own.split_whitespace().last().unwrap().to_owned()),
        ("group.key", own.clone()),
        ("group.key", group.replacen(' ', "  x", 1)),
        ("ddns.key", tsig.replacen("hmac-sha256", "hmac-sha255", 1)),
        ("ddns.key", tsig.replacen(':', " ", 1)),
        ("ddns.key", format!("key \"laptop\" {{ algorithm hmac-sha256; secret \"{}!\"; }};", &tsig[19..])),
        ("ddns.key", tsig.split(':').next_back().unwrap().to_owned()),
    ];
    for (name, content) in spoiled {
        let before = text(name);
        host.write(name, &content);
        let said = host.says(&["check"]);
        assert!(said.contains(name), "check says nothing of {name}:\n{said}");
        host.says(&["daemon", "-f"]);
        host.says(&["doctor"]);
        host.says(&["keygen", "public"]);
        host.says(&["ddns", "show"]);
        host.write(name, &before);
    }
    // Readable for all.
    std::fs::set_permissions(host.path("group.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(host.says(&["check"]).contains("group.key"));
}

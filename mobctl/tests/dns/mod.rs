//! Real name servers for the tests, on loopback ports of their own: BIND 9 and Knot, as Debian packages them.
#![allow(dead_code, reason = "every test program uses a part of it")]

#[path = "../common/ports.rs"]
mod ports;

use mobconn_dprp::PublicKey;
use mobctl::ddns::{Client, Config, Target};
use mobctl::dns::System;
use mobctl::dns::transport::{Clock, Wire, system_clock};
pub(crate) use ports::free_port;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const ZONE: &str = "example.org";
pub(crate) const NAME: &str = "laptop.example.org";
pub(crate) const MARK: &str = "_mobconn.laptop.example.org";
pub(crate) const SECRET: &str = "bW9iY29ubi10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5YWI=";
pub(crate) const OTHER_SECRET: &str = "b3RoZXItdGVzdC1zZWNyZXQtMDEyMzQ1Njc4OWFiY2Q=";
const PATIENCE: Duration = Duration::from_secs(20);

/// The zone as its administrator writes it.
const ZONE_FILE: &str = "\
$TTL 300
@       IN SOA ns.example.org. hostmaster.example.org. 1 3600 600 86400 5
        IN NS  ns.example.org.
ns      IN A   127.0.0.1
static  IN A   203.0.113.80
alias   IN CNAME static
dhcp    IN DHCID AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA=
";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bind,
    Knot,
}

/// Both.
pub(crate) const KINDS: [Kind; 2] = [Kind::Bind, Kind::Knot];

/// A name server of the tests.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    child: Option<Child>,
}

/// Says loudly which package is missing.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = folders.into_iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: tools/setup test installs it (apt-get install {package})"))
}

/// Writes a file that nobody else may read.
pub(crate) fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A key in BIND's form.
pub(crate) fn key_text(name: &str, algorithm: &str, secret: &str) -> String {
    format!("key \"{name}\" {{\n\talgorithm {algorithm};\n\tsecret \"{secret}\";\n}};\n")
}

impl Server {
    /// A server with the zone, whose key may change the records of [`NAME`] and of a few more names.
    pub(crate) fn start(kind: Kind) -> Self {
        let folder = tempfile::Builder::new().prefix("mobconn-dns.").tempdir().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        fs::write(folder.path().join("example.org.zone"), ZONE_FILE).unwrap();
        let mut server = Self { kind, address, folder, child: None };
        let (at, port) = (server.folder.path().display(), address.port());
        let config = match kind {
            Kind::Bind => format!(
                "options {{ directory \"{at}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
                 pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify no; }};\n\
                 controls {{ }};\n{}{}\
                 zone \"{ZONE}\" {{ type primary; file \"{at}/example.org.zone\"; update-policy {{\n\
                 grant laptop-key name laptop.example.org. A AAAA;\n\
                 grant laptop-key name _mobconn.laptop.example.org. TXT;\n\
                 grant wide-key.example.org zonesub ANY; }}; }};\n",
                key_text("laptop-key", "hmac-sha256", SECRET),
                key_text("wide-key.example.org", "hmac-sha512", OTHER_SECRET)
            ),
            Kind::Knot => format!(
                "server:\n  rundir: {at}\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  \
                 background-workers: 1\ndatabase:\n  storage: {at}\nlog:\n  - target: stderr\n    any: info\nkey:\n  \
                 - id: laptop-key\n    algorithm: hmac-sha256\n    secret: {SECRET}\n  - id: wide-key.example.org\n    \
                 algorithm: hmac-sha512\n    secret: {OTHER_SECRET}\nacl:\n  - id: laptop\n    key: laptop-key\n    \
                 action: [update, query]\n    update-owner: name\n    update-owner-match: equal\n    \
                 update-owner-name: [laptop, _mobconn.laptop]\n  - id: wide\n    key: wide-key.example.org\n    \
                 action: [update, query, transfer]\nzone:\n  - domain: {ZONE}\n    storage: {at}\n    file: example.org.zone\n    \
                 acl: [laptop, wide]\n    zonefile-load: difference\n    journal-content: changes\n"
            ),
        };
        fs::write(server.folder.path().join("server.conf"), config).unwrap();
        server.restart();
        server
    }

    /// Starts it, again, with what it had.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let config = self.folder.path().join("server.conf");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = match self.kind {
            Kind::Bind => {
                let mut command = Command::new(program("named", "bind9"));
                command.args(["-g", "-n", "1", "-U", "1", "-c"]).arg(&config);
                command
            }
            Kind::Knot => {
                let mut command = Command::new(program("knotd", "knot"));
                command.arg("-c").arg(&config);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while !self.answers() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{:?} does not begin:\n{}", self.kind, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        TcpStream::connect(self.address).is_ok() && self.dig(&[ZONE, "SOA", "+time=1", "+tries=1"]).contains("SOA")
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while child.try_wait().unwrap().is_none() {
                if Instant::now() > deadline {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read(self.folder.path().join("log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// What dig(1) says, answers only.
    pub(crate) fn dig(&self, words: &[&str]) -> String {
        let output = Command::new(program("dig", "bind9-dnsutils"))
            .args(["@127.0.0.1", "-p", &self.address.port().to_string(), "+noall", "+answer"])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The data of the records of a name, in order.
    pub(crate) fn records(&self, name: &str, rtype: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.dig(&[name, rtype, "+short"]).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// The addresses of a name, in order.
    pub(crate) fn addresses(&self, name: &str) -> Vec<String> {
        [self.records(name, "A"), self.records(name, "AAAA")].concat()
    }

    /// The serial number of the zone.
    pub(crate) fn serial(&self) -> u32 {
        let soa = self.dig(&[ZONE, "SOA", "+short"]);
        soa.split_whitespace().nth(2).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no SOA: {soa}"))
    }

    /// Runs nsupdate(1) with the key that may do everything.
    pub(crate) fn nsupdate(&self, lines: &str) {
        let key = self.folder.path().join("wide.key");
        write_secret(&key, &key_text("wide-key.example.org", "hmac-sha512", OTHER_SECRET));
        let script = self.folder.path().join("script");
        let port = self.address.port();
        fs::write(&script, format!("server 127.0.0.1 {port}\nzone {ZONE}\n{lines}\nsend\n")).unwrap();
        let output =
            Command::new(program("nsupdate", "bind9-dnsutils")).arg("-k").arg(&key).arg(&script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A target at this server.
    pub(crate) fn target(&self) -> Target {
        self.target_of(1, "laptop-key", "hmac-sha256", SECRET, "")
    }

    /// The same for the host with this number, with this key, and more lines of the table.
    pub(crate) fn target_of(&self, host: u8, key: &str, algorithm: &str, secret: &str, more: &str) -> Target {
        let path = self.folder.path().join(format!("{host}.key"));
        write_secret(&path, &key_text(key, algorithm, secret));
        let name = if more.contains("name =") { "" } else { "name = \"laptop.example.org\"" };
        let servers =
            if more.contains("servers =") { String::new() } else { format!("servers = [\"{}\"]", self.address) };
        let text = format!(
            "[ddns]\n{name}\n{servers}\nkey = {path:?}\nstate = {:?}\n{more}\n",
            self.folder.path().join(format!("{host}.state"))
        );
        let config: Config = mobctl::config::Config::parse(&text).unwrap().ddns.unwrap();
        Target::new(config, &PublicKey([host; 32])).unwrap()
    }

    /// The target with the key that may do everything.
    pub(crate) fn wide(&self, host: u8, more: &str) -> Target {
        self.target_of(host, "wide-key.example.org", "hmac-sha512", OTHER_SECRET, more)
    }

    /// Settings of a system whose resolver this server is.
    pub(crate) fn system(&self) -> System {
        let path = self.folder.path().join("resolv.conf");
        fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
        System { resolv_conf: path, hosts: "/nonexistent".into(), port: self.address.port() }
    }

    /// A client without memory.
    pub(crate) fn client(&self, target: &Target) -> Client {
        client(target, self.system(), system_clock())
    }
}

/// A client without memory, with a clock of its own.
pub(crate) fn client(target: &Target, system: System, clock: Clock) -> Client {
    Client::new(target.clone(), system, Wire::new(clock, None), None)
}

/// A clock that is wrong by so many seconds.
pub(crate) fn wrong_clock(ahead: i64) -> Clock {
    Arc::new(move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        now.checked_add_signed(ahead).unwrap()
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("{:?} said:\n{}", self.kind, self.log());
        }
    }
}

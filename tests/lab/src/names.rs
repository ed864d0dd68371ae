//! A real name server at the router, and the names of the world.

use crate::check;
use crate::error::{Doing, Result};
use crate::ns::Namespace;
use crate::program::{self, Program, require};
use crate::world::HOME;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The name of the mobile host.
pub const MOBILE: &str = "mobile.example.org";

/// The name of the peer, when it has one.
pub const PEER: &str = "peer.example.org";

/// A key that is nobody's but the tests'.
const SECRET: &str = "bGFiLW1vYmNvbm4tbmFtZS1zZXJ2ZXIta2V5LTAwMDA=";
const PATIENCE: Duration = Duration::from_secs(20);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BIND 9.
    Bind,
    /// Knot DNS.
    Knot,
}

/// A name server with the zone `example.org`, at the router's address in the
/// peer's network.
#[derive(Debug)]
pub struct NameServer {
    kind: Kind,
    folder: PathBuf,
    log: PathBuf,
    runs: u32,
    ttl: u32,
    program: Option<Program>,
}

/// Where a cache listens, see [`NameServer::start_cache`].
pub const CACHE: &str = "127.0.0.1";

impl NameServer {
    /// Makes zone, key and configuration below `files`, lets all hosts ask this
    /// server, and starts it in `router`. What it says goes below `logs`.
    ///
    /// # Errors
    /// When it is not installed, or does not begin.
    pub fn start(kind: Kind, router: &Namespace, files: &Path, logs: &Path) -> Result<Self> {
        require(&[("dig", "bind9-dnsutils")])?;
        require(&[if kind == Kind::Bind { ("named", "bind9") } else { ("knotd", "knot") }])?;
        let folder = files.join("names");
        fs::create_dir(&folder).doing("making a directory")?;
        let [v4, v6] = HOME.addresses(1);
        let write = |name: &str, text: String| {
            let path = name.strip_prefix('/').map_or_else(|| folder.join(name), |rest| files.join(rest));
            fs::write(&path, text).doing(format_args!("writing {}", path.display()))
        };
        write(
            "zone",
            format!("$TTL 300\n@ IN SOA ns hostmaster 1 3600 600 86400 2\n@ IN NS ns\nns IN A {v4}\nns IN AAAA {v6}\n"),
        )?;
        let key = format!("key \"mobile-key\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n");
        write("key", key.clone())?;
        fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o600)).doing("protecting a key")?;
        let at = folder.display();
        let config = match kind {
            Kind::Bind => format!(
                "options {{ directory \"{at}\"; listen-on {{ {v4}; }}; listen-on-v6 {{ {v6}; }}; pid-file none; \
                 session-keyfile none; recursion no; dnssec-validation no; notify no; }};\ncontrols {{ }};\n{key}\
                 zone \"example.org\" {{ type primary; file \"{at}/zone\"; update-policy {{\n\
                 grant mobile-key name {MOBILE}. A AAAA;\ngrant mobile-key name _mobconn.{MOBILE}. TXT;\n\
                 grant mobile-key name {PEER}. A AAAA;\ngrant mobile-key name _mobconn.{PEER}. TXT; }}; }};\n"
            ),
            Kind::Knot => format!(
                "server:\n  rundir: {at}\n  listen: [{v4}@53, {v6}@53]\n  udp-workers: 1\n  tcp-workers: 1\n  \
                 background-workers: 1\ndatabase:\n  storage: {at}\nlog:\n  - target: stderr\n    any: info\nkey:\n  \
                 - id: mobile-key\n    algorithm: hmac-sha256\n    secret: {SECRET}\nacl:\n  - id: mobile\n    key: \
                 mobile-key\n    action: [update, query]\n    update-owner: name\n    update-owner-match: equal\n    \
                 update-owner-name: [mobile, _mobconn.mobile]\nzone:\n  - domain: example.org\n    storage: {at}\n    \
                 file: zone\n    acl: mobile\n"
            ),
        };
        write("config", config)?;
        // Written in place: all hosts see these files as theirs.
        write("/resolv.conf", format!("nameserver {v4}\nsearch example.org\noptions timeout:2\n"))?;
        write("/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned())?;
        let mut server = Self { kind, folder, log: logs.to_owned(), runs: 0, ttl: 2, program: None };
        server.go(router)?;
        Ok(server)
    }

    /// Starts it, again, with what it had.
    ///
    /// # Errors
    /// When it does not begin.
    pub fn go(&mut self, router: &Namespace) -> Result<()> {
        let config = self.folder.join("config");
        let config = config.to_string_lossy();
        let words: &[&str] = match self.kind {
            Kind::Bind => &["named", "-g", "-n", "1", "-U", "1", "-c", &config],
            Kind::Knot => &["knotd", "-c", &config],
        };
        self.runs += 1;
        let mut program = Program::start(router, words, &self.log.join(format!("names-{}.log", self.runs)))?;
        program.wait_listening(router, &format!("{}:53", HOME.addresses(1)[0]))?;
        self.program = Some(program);
        let deadline = Instant::now() + PATIENCE;
        while self.dig(router, "example.org", "SOA")?.is_empty() {
            check!(Instant::now() < deadline, "the name server does not answer");
        }
        Ok(())
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.program = None;
    }

    /// Starts a resolver in `namespace`, on its loopback address, that asks this server and keeps what it says for as
    /// long as it may.
    ///
    /// # Errors
    /// When it does not begin.
    pub fn start_cache(&self, namespace: &Namespace) -> Result<Program> {
        require(&[("named", "bind9")])?;
        let (at, config) = (self.folder.display(), self.folder.join("cache.config"));
        let text = format!(
            "options {{ directory \"{at}\"; listen-on {{ {CACHE}; }}; listen-on-v6 {{ none; }}; pid-file none; \
             session-keyfile none; recursion yes; dnssec-validation no; forward only; forwarders {{ {}; }}; }};\n\
             controls {{ }};\n",
            HOME.addresses(1)[0]
        );
        fs::write(&config, text).doing("writing the configuration of a cache")?;
        let words = ["named", "-g", "-n", "1", "-U", "1", "-c", &config.to_string_lossy()];
        let mut program = Program::start(namespace, &words, &self.log.join("cache.log"))?;
        program.wait_listening(namespace, &format!("{CACHE}:53"))?;
        Ok(program)
    }

    /// What dig(1) in `namespace` says of a name, in order.
    ///
    /// # Errors
    /// When it gets no answer.
    pub fn dig(&self, namespace: &Namespace, name: &str, rtype: &str) -> Result<Vec<String>> {
        self.dig_at(&HOME.addresses(1)[0].to_string(), namespace, name, rtype)
    }

    /// As [`NameServer::dig`], of the server with this address.
    ///
    /// # Errors
    /// When it gets no answer.
    pub fn dig_at(&self, server: &str, namespace: &Namespace, name: &str, rtype: &str) -> Result<Vec<String>> {
        let at = format!("@{server}");
        let said = program::run(namespace, &["dig", &at, "+short", "+time=5", name, rtype], "")?;
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    /// The addresses of the mobile host's name, as `namespace` sees them.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn addresses(&self, namespace: &Namespace) -> Result<Vec<String>> {
        self.addresses_of(namespace, MOBILE)
    }

    /// The addresses of a name, as `namespace` sees them.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn addresses_of(&self, namespace: &Namespace, name: &str) -> Result<Vec<String>> {
        Ok([self.dig(namespace, name, "A")?, self.dig(namespace, name, "AAAA")?].concat())
    }

    /// Waits until the mobile host's name has these addresses and no others.
    ///
    /// # Errors
    /// When it has not in time.
    pub fn wait(&self, namespace: &Namespace, addresses: &[std::net::IpAddr]) -> Result<()> {
        let wanted: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.addresses(namespace)?;
            if found == wanted {
                return Ok(());
            }
            check!(Instant::now() < deadline, "{MOBILE} is {found:?} and not {wanted:?} after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// From now on hosts are configured with this TTL, in seconds.
    pub fn set_ttl(&mut self, ttl: u32) {
        self.ttl = ttl;
    }

    /// The configuration by which the host with this number has a name.
    #[must_use]
    pub fn table(&self, host: usize) -> String {
        let name = if host == 0 { MOBILE } else { PEER };
        let (key, state) = (self.folder.join("key"), self.folder.join(format!("state-{host}")));
        format!("name = \"{name}\"\n[ddns]\nttl = {}\nkey = {key:?}\nstate = {state:?}\n", self.ttl)
    }
}

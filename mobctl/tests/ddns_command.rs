//! `mobctl check` and `mobctl ddns` at a real server, as an administrator runs them.

mod dns;
#[path = "common/page.rs"]
#[expect(dead_code, reason = "every test program uses a part of it")]
mod page;

use dns::{Kind, MARK, NAME, OTHER_SECRET, SECRET, Server, key_text, write_secret};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A host with a configuration and keys of its own.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    /// With this table `[ddns]`.
    fn new(key: &str, table: &str) -> Self {
        let host = Self { folder: tempfile::Builder::new().prefix("mobconn-host.").tempdir().unwrap() };
        let at = host.folder.path().display();
        write_secret(&host.folder.path().join("ddns.key"), key);
        fs::write(
            host.config(),
            format!(
                "host_key = \"{at}/host.key\"\ngroup_key = \"{at}/group.key\"\n[ddns]\nname = \"{NAME}\"\n\
                 key = \"{at}/ddns.key\"\nstate = \"{at}/state\"\n{table}\n"
            ),
        )
        .unwrap();
        host.run(0, &["keygen", "host"]);
        host.run(0, &["keygen", "group"]);
        host
    }

    fn at(key: &str, server: &Server) -> Self {
        Self::new(key, &format!("servers = [\"{}\"]", server.address))
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("mobctl.conf")
    }

    /// Runs mobctl and checks its exit code; returns all that it said.
    fn run(&self, exit: i32, words: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mobctl"));
        command.args(words).arg("--config").arg(self.config()).arg("--control").arg(self.folder.path().join("none"));
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{words:?}: {said}");
        said
    }

    fn json(&self, exit: i32, words: &[&str]) -> Value {
        serde_json::from_str(&self.run(exit, &[words, &["--json"]].concat())).unwrap()
    }
}

fn laptop_key() -> String {
    key_text("laptop-key", "hmac-sha256", SECRET)
}

#[test]
fn check_asks_the_name_servers_and_changes_nothing() {
    for kind in dns::KINDS {
        let server = Server::start(kind);
        let host = Host::at(&laptop_key(), &server);
        let before = server.serial();
        let said = host.run(0, &["check"]);
        assert!(said.contains("is right.") && said.contains(&format!("{}  ok ", server.address)), "{kind:?}: {said}");
        let checked = &host.json(0, &["check"])["check"];
        assert_eq!((&checked["ddns"], &checked["name_servers"]["zone"]), (&NAME.into(), &"example.org".into()));
        assert_eq!(checked["name_servers"]["servers"][0]["state"], "ok", "{kind:?}");
        assert_eq!(server.serial(), before, "{kind:?}");
        assert!(server.addresses(NAME).is_empty() && server.records(MARK, "TXT").is_empty());

        let stranger = Host::at(&key_text("laptop-key", "hmac-sha256", OTHER_SECRET), &server);
        let said = stranger.run(78, &["check"]);
        assert!(said.contains("is right.") && said.contains("(BADSIG)") && said.contains("Copy the key"), "{said}");
        let checked = &stranger.json(78, &["check"])["check"]["name_servers"]["servers"][0];
        assert!(checked["state"] == "badsig" && checked["advice"].as_str().unwrap().contains("anew"), "{checked}");
        let nobody = Host::at(&key_text("nobody", "hmac-sha256", SECRET), &server);
        assert!(nobody.run(78, &["check"]).contains("(BADKEY)"));
    }
}

#[test]
fn check_without_a_network_is_bounded_and_can_do_without_servers() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let table = format!("zone = \"example.org\"\nservers = [\"{address}\", \"127.0.0.1:{}\"]", dns::free_port());
    let host = Host::new(&laptop_key(), &table);
    let began = Instant::now();
    let said = host.run(75, &["check"]);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(
        said.contains("is right.") && said.contains("does not answer") && said.contains("cannot be reached"),
        "{said}"
    );
    let asked = std::iter::repeat_with(|| silent.recv_from(&mut [0; 2048]).is_ok());
    silent.set_nonblocking(true).unwrap();
    assert!(asked.take_while(|asked| *asked).count() >= 1);
    // At boot nobody is asked.
    let said = host.run(0, &["check", "--local"]);
    assert!(said.contains("were not asked"), "{said}");
    assert!(silent.recv_from(&mut [0; 2048]).is_err());
    assert_eq!(host.json(0, &["check", "--local"])["check"]["name_servers"], Value::Null);
    // What is wrong with the files is told there as well.
    fs::set_permissions(host.folder.path().join("ddns.key"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    assert!(host.run(78, &["check", "--local"]).contains("chmod 600"));
}

#[test]
fn every_command_has_json_as_documented_and_shows_no_secret() {
    let server = Server::start(Kind::Bind);
    let host = Host::at(&laptop_key(), &server);
    for words in [
        &["check"][..],
        &["ddns", "check"],
        &["ddns", "update", "192.0.2.10", "2001:db8::10"],
        &["ddns", "show"],
        &["ddns", "delete"],
    ] {
        let said = host.run(0, &[words, &["--json"]].concat());
        page::check(words[0], &serde_json::from_str(&said).unwrap());
        for text in [said, host.run(0, words)] {
            assert!(!text.contains(&SECRET[..12]), "{text}");
        }
    }
    assert!(server.addresses(NAME).is_empty());
}

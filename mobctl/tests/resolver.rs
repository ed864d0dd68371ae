//! Names of peers, looked up in the background at a real server.

mod dns;

use dns::{Kind, Server};
use mobctl::dns::message::query;
use mobctl::dns::resolver::{Known, Resolver};
use mobctl::dns::{DnsName, System};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;
use std::fs;
use std::str::FromStr;
use std::time::{Duration, Instant};

fn answer(resolver: &Resolver, name: &str) -> Known {
    let began = Instant::now();
    let mut known = resolver.ask(name);
    // Whoever asks never waits; a slow machine is allowed for.
    assert!(began.elapsed() < Duration::from_secs(1));
    while known == Known::Pending {
        let mut fds = [PollFd::new(resolver.fd(), PollFlags::POLLIN)];
        assert_ne!(poll(&mut fds, PollTimeout::from(30_000u16)), Ok(0), "no answer for {name}");
        resolver.news();
        known = resolver.ask(name);
    }
    known
}

#[test]
fn names_are_resolved_in_the_background_and_kept_for_their_ttl() {
    let server = Server::start(Kind::Bind);
    server.nsupdate("update add peer.example.org 2 A 192.0.2.1\nupdate add peer.example.org 2 AAAA 2001:db8::1");
    let hosts = server.folder.path().join("hosts");
    fs::write(&hosts, "192.0.2.77 listed\n").unwrap();
    let resolv_conf = server.folder.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 127.0.0.1\nsearch nowhere.example.org example.org\n").unwrap();
    let resolver = Resolver::start(System { resolv_conf, hosts, port: server.address.port() }).unwrap();
    let addresses = |list: &[&str]| Known::Addresses(list.iter().map(|text| text.parse().unwrap()).collect());
    assert_eq!(answer(&resolver, "peer.example.org"), addresses(&["192.0.2.1", "2001:db8::1"]));
    assert_eq!(answer(&resolver, "alias.example.org."), addresses(&["203.0.113.80"]));
    assert_eq!(answer(&resolver, "static"), addresses(&["203.0.113.80"]));
    assert_eq!(answer(&resolver, "listed"), addresses(&["192.0.2.77"]));
    assert_eq!(answer(&resolver, "198.51.100.1"), addresses(&["198.51.100.1"]));
    assert!(matches!(answer(&resolver, "nobody.example.org."), Known::Nothing(_)));
    assert!(matches!(answer(&resolver, "a..b"), Known::Nothing(_)));
    // What has changed is seen after the TTL, and not before it is over.
    assert_eq!(answer(&resolver, "peer.example.org."), addresses(&["192.0.2.1", "2001:db8::1"]));
    server.nsupdate("update delete peer.example.org\nupdate add peer.example.org 2 A 192.0.2.2");
    let deadline = Instant::now() + Duration::from_secs(30);
    while answer(&resolver, "peer.example.org.") != addresses(&["192.0.2.2"]) {
        assert!(Instant::now() < deadline, "the old address is kept for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_answer_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), fits: bool, name in "[a-z]{1,8}(\\.[a-z]{1,8}){0,3}") {
        let name = DnsName::from_str(&name).unwrap();
        let request = query(0x1234, &name, domain::base::iana::Rtype::A, true, None).unwrap();
        if fits {
            // Far enough to get into the records.
            let mut answer = request.bytes[..request.bytes.len() - 11].to_vec();
            answer[2] |= 0x80;
            answer[7] = 3;
            answer[10..12].fill(0);
            answer.append(&mut bytes);
            bytes = answer;
        }
        if let Ok(answer) = request.decode(&bytes, 0) {
            let _ = mobctl::dns::lookup::read(&answer, &name, domain::base::iana::Rtype::A);
        }
        let key = mobctl::ddns::key::parse(b"hmac-sha256:a:bW9iY29ubi10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5YWI=", "").unwrap();
        let signed = query(0x1234, &name, domain::base::iana::Rtype::A, true, Some((&std::sync::Arc::new(key), 1))).unwrap();
        prop_assert!(signed.decode(&bytes, 0).is_err());
    }
}

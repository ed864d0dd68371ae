//! Names of peers, looked up in the background at a real server.

mod dns;

use dns::{Kind, Server};
use mobctl::dns::message::query;
use mobctl::dns::resolver::{Known, Resolver};
use mobctl::dns::{DnsName, System};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;
use std::fs;
use std::net::UdpSocket;
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

#[test]
fn who_asks_never_waits_for_the_servers() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    // One try, with all the time that this test may need.
    fs::write(&resolv_conf, "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n").unwrap();
    let port = server.local_addr().unwrap().port();
    let resolver = Resolver::start(System { resolv_conf, hosts: "/nonexistent".into(), port }).unwrap();
    // Who answers is this very thread: if it waited anywhere, there would never be an answer.
    assert_eq!(resolver.ask("peer.example.org."), Known::Pending);
    for rtype in [1, 28] {
        let mut question = [0; 512];
        let (length, client) = server.recv_from(&mut question).unwrap();
        assert_eq!(resolver.ask("peer.example.org."), Known::Pending);
        // Another name is asked for meanwhile, by another thread.
        if rtype == 1 {
            assert_eq!(resolver.ask("other.example.org."), Known::Pending);
            let mut other = [0; 512];
            let (length, client) = server.recv_from(&mut other).unwrap();
            assert!(other[..length].windows(6).any(|part| part == b"\x05other"));
            // NXDOMAIN, and nothing else.
            other[2..4].copy_from_slice(&[0x84, 3]);
            other[10..12].fill(0);
            server.send_to(&other[..length - 11], client).unwrap();
        }
        assert_eq!(u16::from_be_bytes([question[length - 15], question[length - 14]]), rtype);
        let mut answer = question[..length - 11].to_vec();
        answer[2..4].copy_from_slice(&[0x84, 0]);
        answer[10..12].fill(0);
        if rtype == 1 {
            answer[7] = 1;
            answer.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x01");
        }
        server.send_to(&answer, client).unwrap();
    }
    assert_eq!(answer(&resolver, "peer.example.org."), Known::Addresses(vec![[192, 0, 2, 1].into()]));
    assert!(matches!(answer(&resolver, "other.example.org."), Known::Nothing(_)));
}

#[test]
fn the_next_server_is_asked_and_an_answer_is_kept_until_its_ttl_is_over() {
    let server = Server::start(Kind::Knot);
    server.nsupdate("update add peer.example.org 300 A 192.0.2.1");
    let resolv_conf = server.folder.path().join("resolv.conf");
    // Nobody is at the first two.
    fs::write(
        &resolv_conf,
        "nameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.1\noptions ndots:2\nsearch org\n",
    )
    .unwrap();
    let resolver =
        Resolver::start(System { resolv_conf, hosts: "/nonexistent".into(), port: server.address.port() }).unwrap();
    let old = Known::Addresses(vec![[192, 0, 2, 1].into()]);
    // With ndots:2 the search list comes first.
    assert_eq!(answer(&resolver, "peer.example"), old);
    server.nsupdate("update delete peer.example.org\nupdate add peer.example.org 300 A 192.0.2.2");
    assert_eq!(resolver.ask("peer.example"), old, "what is known is not asked for again");
    // Unless somebody needs to know it now.
    let began = Instant::now();
    while resolver.seek("peer.example.org.") != Known::Addresses(vec![[192, 0, 2, 2].into()]) {
        assert!(began.elapsed() < Duration::from_secs(30), "the servers of the zone were not asked");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(resolver.ask("peer.example"), old);
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
        let signed = query(0x1234, &name, domain::base::iana::Rtype::A, true, Some((&key, 1))).unwrap();
        prop_assert!(signed.decode(&bytes, 0).is_err());
    }
}

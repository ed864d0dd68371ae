//! The host's name at real servers: BIND 9 and Knot.

mod dns;

use dns::{KINDS, Kind, MARK, NAME, OTHER_SECRET, SECRET, Server, client, wrong_clock};
use mobctl::dns::transport::system_clock;
use mobctl::dns::{Holder, Trouble};
use std::net::IpAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| ip(text)).collect()
}

#[test]
fn an_update_replaces_both_families_at_once() {
    for kind in KINDS {
        let server = Server::start(kind);
        let target = server.target();
        let mut client = server.client(&target);
        let serial = server.serial();
        client.publish(&ips(&["192.0.2.10", "2001:db8:a::10"])).unwrap();
        assert_eq!(server.addresses(NAME), ["192.0.2.10", "2001:db8:a::10"], "{kind:?}");
        assert!(server.dig(&[NAME, "A"]).contains(" 30 ") || server.dig(&[NAME, "A"]).contains("\t30\t"), "{kind:?}");
        assert_ne!(server.serial(), serial);
        let (serial, stamp) = (server.serial(), server.records(MARK, "TXT"));
        let before = client.wire().cost;
        client.publish(&ips(&["198.51.100.10"])).unwrap();
        let cost = client.wire().cost;
        assert_eq!(server.addresses(NAME), ["198.51.100.10"], "{kind:?}");
        // One transaction, in one exchange.
        assert_eq!((server.serial(), cost.round_trips - before.round_trips), (serial + 1, 1), "{kind:?}");
        assert_ne!(server.records(MARK, "TXT"), stamp);
        client.publish(&[]).unwrap();
        assert!(server.addresses(NAME).is_empty());
        assert_eq!(server.records(MARK, "TXT").len(), 1);
        client.publish(&ips(&["192.0.2.10"])).unwrap();
        client.release().unwrap();
        assert!(server.addresses(NAME).is_empty() && server.records(MARK, "TXT").is_empty(), "{kind:?}");
        client.release().unwrap();
    }
}

#[test]
fn a_host_without_memory_finds_its_own_mark() {
    for kind in KINDS {
        let server = Server::start(kind);
        let target = server.target();
        server.client(&target).publish(&ips(&["192.0.2.10"])).unwrap();
        let mut another = server.client(&target);
        another.publish(&ips(&["192.0.2.11"])).unwrap();
        assert_eq!(server.addresses(NAME), ["192.0.2.11"], "{kind:?}");
        let seen = another.look().unwrap();
        assert_eq!((seen.addresses, seen.mark), (vec![(ip("192.0.2.11"), 30)], Some(target.identity())));
    }
}

#[test]
fn zone_and_server_are_found_by_soa() {
    for kind in KINDS {
        let server = Server::start(kind);
        let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, "servers = []");
        let mut client = server.client(&target);
        client.publish(&ips(&["192.0.2.10"])).unwrap();
        assert_eq!(server.addresses(NAME), ["192.0.2.10"], "{kind:?}");
        let place = client.locate().unwrap();
        assert_eq!((place.zone.to_string().as_str(), place.servers), ("example.org", vec![server.address]));
        // Deep below the apex, where nothing is yet; and where no zone is.
        let deep = server.wide(1, "name = \"a.b.c.example.org\"\nservers = []");
        server.client(&deep).publish(&ips(&["192.0.2.11"])).unwrap();
        assert_eq!(server.addresses("a.b.c.example.org"), ["192.0.2.11"]);
        let nowhere = server.wide(1, "name = \"laptop.example.net\"\nservers = []");
        let trouble = server.client(&nowhere).publish(&ips(&["192.0.2.11"])).unwrap_err();
        assert!(matches!(trouble, Trouble::Refused(..) | Trouble::NoZone(_)), "{kind:?}: {trouble:?}");
    }
}

#[test]
fn two_hosts_do_not_share_a_name() {
    for kind in KINDS {
        let server = Server::start(kind);
        let (first, second) = (server.wide(1, ""), server.wide(2, ""));
        let mut one = server.client(&first);
        one.publish(&ips(&["192.0.2.10"])).unwrap();
        let mut two = server.client(&second);
        let trouble = two.publish(&ips(&["192.0.2.66"])).unwrap_err();
        assert_eq!(trouble, Trouble::Taken(first.config.name.clone(), Holder::Host(first.identity().to_string())));
        assert!(two.release().is_err());
        assert_eq!(server.addresses(NAME), ["192.0.2.10"], "{kind:?}");
        // While it has no address the name is kept for it.
        one.publish(&[]).unwrap();
        assert!(two.publish(&ips(&["192.0.2.66"])).is_err());
        // Given up, it is for anybody; and the first one notices although it remembers.
        one.release().unwrap();
        two.publish(&ips(&["192.0.2.66"])).unwrap();
        assert!(matches!(one.publish(&ips(&["192.0.2.10"])), Err(Trouble::Taken(_, Holder::Host(_)))));
        assert_eq!(server.addresses(NAME), ["192.0.2.66"], "{kind:?}");
    }
}

#[test]
fn a_fight_over_a_free_name_has_one_winner() {
    for kind in KINDS {
        let server = Server::start(kind);
        let winners: Vec<u8> = std::thread::scope(|scope| {
            let tries: Vec<_> = (1..=4u8)
                .map(|host| {
                    let mut client = server.client(&server.wide(host, ""));
                    scope.spawn(move || client.publish(&[[192, 0, 2, host].into()]).is_ok().then_some(host))
                })
                .collect();
            tries.into_iter().filter_map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "{kind:?}: {winners:?}");
        assert_eq!(server.addresses(NAME), [format!("192.0.2.{}", winners[0])], "{kind:?}");
    }
}

#[test]
fn what_others_have_put_there_stays() {
    for kind in KINDS {
        let server = Server::start(kind);
        let taken = |name: &str| {
            let target = server.wide(1, &format!("name = \"{name}.example.org\""));
            match server.client(&target).publish(&ips(&["192.0.2.10"])) {
                Err(Trouble::Taken(_, holder)) => holder,
                other => panic!("{kind:?}: {name}: {other:?}"),
            }
        };
        assert_eq!(taken("static"), Holder::Addresses);
        assert_eq!(taken("alias"), Holder::Alias);
        assert_eq!(taken("dhcp"), Holder::Dhcp);
        assert_eq!(server.addresses("static.example.org"), ["203.0.113.80"]);
        // Who says that the name is its own takes it, but not an alias.
        let owned = server.wide(1, "name = \"static.example.org\"\nowned = true");
        server.client(&owned).publish(&ips(&["192.0.2.10"])).unwrap();
        assert_eq!(server.addresses("static.example.org"), ["192.0.2.10"], "{kind:?}");
        assert!(server.records("_mobconn.static.example.org", "TXT").is_empty());
        server.client(&owned).release().unwrap();
        assert!(server.addresses("static.example.org").is_empty());
        let alias = server.wide(1, "name = \"alias.example.org\"\nowned = true");
        let trouble = server.client(&alias).publish(&ips(&["192.0.2.10"])).unwrap_err();
        assert!(matches!(trouble, Trouble::Taken(_, Holder::Alias)), "{kind:?}: {trouble:?}");
    }
}

#[test]
fn other_records_of_the_name_stay_and_nsupdate_would_leave_the_same() {
    for kind in KINDS {
        let server = Server::start(kind);
        server.nsupdate(&format!(
            "update add {NAME} 300 TXT \"a laptop\"\nupdate add {NAME} 300 SSHFP 4 2 {}",
            "ab".repeat(32)
        ));
        let mut client = server.client(&server.target());
        client.publish(&ips(&["192.0.2.10", "2001:db8:a::10"])).unwrap();
        client.publish(&ips(&["198.51.100.10", "2001:db8:b::10"])).unwrap();
        assert_eq!(server.records(NAME, "TXT"), ["\"a laptop\""]);
        assert_eq!(server.records(NAME, "SSHFP").len(), 1);
        let sections = |name: &str| -> Vec<String> {
            let mut lines: Vec<String> = ["A", "AAAA", "TXT", "SSHFP"]
                .iter()
                .flat_map(|rtype| server.dig(&[name, rtype]).lines().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            lines.sort();
            lines
        };
        let ours = sections(NAME);
        // The same by hand.
        server.nsupdate(&format!(
            "update delete {NAME} A\nupdate delete {NAME} AAAA\nupdate add {NAME} 30 A 198.51.100.10\nupdate add {NAME} 30 AAAA 2001:db8:b::10"
        ));
        assert_eq!(sections(NAME), ours, "{kind:?}");
    }
}

#[test]
fn check_changes_nothing() {
    for kind in KINDS {
        let server = Server::start(kind);
        let serial = server.serial();
        let checked = server.client(&server.target()).check().unwrap();
        assert!(checked.len() == 1 && checked[0].result.is_ok(), "{kind:?}: {checked:?}");
        server.client(&server.target()).publish(&ips(&["192.0.2.10"])).unwrap();
        let after = (server.serial(), server.addresses(NAME), server.records(MARK, "TXT"));
        assert!(server.client(&server.target()).check().unwrap()[0].result.is_ok());
        assert_eq!((server.serial(), server.addresses(NAME), server.records(MARK, "TXT")), after);
        assert_ne!(after.0, serial);
    }
}

#[test]
fn what_is_wrong_is_said_and_what_to_do() {
    for kind in KINDS {
        let server = Server::start(kind);
        let addresses = ips(&["192.0.2.10"]);
        let trouble = |key: &str, algorithm: &str, secret: &str, more: &str, ahead: i64| {
            let target = server.target_of(1, key, algorithm, secret, more);
            let clock = if ahead == 0 { system_clock() } else { wrong_clock(ahead) };
            let trouble = client(&target, server.system(), clock).publish(&addresses).unwrap_err();
            let clock = if ahead == 0 { system_clock() } else { wrong_clock(ahead) };
            let checked = client(&target, server.system(), clock).check().unwrap();
            assert_eq!(
                checked[0].result.as_ref().err().map(Trouble::code),
                Some(trouble.code()),
                "{kind:?} {checked:?}"
            );
            let failure = trouble.failure();
            (trouble.code().to_owned(), failure.message, failure.advice)
        };
        let (code, message, advice) = trouble("nobody", "hmac-sha256", SECRET, "", 0);
        assert!(
            code == "badkey" && message.contains("\"nobody\"") && advice.contains("Give the server the key"),
            "{kind:?}: {code} {message}"
        );
        let (code, message, advice) = trouble("laptop-key", "hmac-sha256", OTHER_SECRET, "", 0);
        assert!(
            code == "badsig" && message.contains("another secret") && advice.contains("anew"),
            "{kind:?}: {code} {message}"
        );
        for ahead in [-4000, 4000] {
            let (code, message, advice) = trouble("laptop-key", "hmac-sha256", SECRET, "", ahead);
            let words = if ahead < 0 { " seconds behind" } else { " seconds ahead of" };
            assert!(
                code == "badtime" && message.contains(words) && advice.contains("ntpd"),
                "{kind:?}: {code} {message}"
            );
            let seconds: i64 = message.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
            assert!((3990..=4010).contains(&seconds), "{message}");
        }
        // A name that the key has no right to.
        let (code, _, advice) = trouble("laptop-key", "hmac-sha256", SECRET, "name = \"desk.example.org\"", 0);
        // Knot says the same as for a key that it does not know.
        let expected = if kind == Kind::Bind { ("refused", "update-policy") } else { ("badkey", "acl") };
        assert!(code == expected.0 && advice.contains(expected.1), "{kind:?}: {code} {advice}");
        // A zone that the server does not have.
        let (code, message, advice) =
            trouble("laptop-key", "hmac-sha256", SECRET, "name = \"laptop.example.net\"\nzone = \"example.net\"", 0);
        assert!(
            code == "refused" && advice.contains("set zone and servers in [ddns]"),
            "{kind:?}: {code} {message} {advice}"
        );
        assert!(server.addresses(NAME).is_empty());
    }
}

#[test]
fn the_first_server_that_answers_will_do() {
    for kind in KINDS {
        let server = Server::start(kind);
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = dns::free_port();
        let more =
            format!("servers = [\"127.0.0.1:{closed}\", \"{}\", \"{}\"]", silent.local_addr().unwrap(), server.address);
        let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, &more);
        let mut client = server.client(&target);
        client.publish(&ips(&["192.0.2.10"])).unwrap();
        assert_eq!(server.addresses(NAME), ["192.0.2.10"]);
        // From then on that one is asked first.
        assert_eq!(client.locate().unwrap().servers[0], server.address, "{kind:?}");
    }
}

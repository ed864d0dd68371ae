//! The keeper and the daemon: the newest wish is delivered, whatever servers and paths do.

mod dns;

use dns::{Kind, MARK, NAME, SECRET, Server, ZONE, key_text, write_secret};
use mobctl::ddns::keeper::Report;
use mobctl::ddns::store::Store;
use mobctl::ddns::{Keeper, Target};
use mobctl::dns::transport::system_clock;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn keeper(server: &Server, target: &Target) -> Keeper {
    Keeper::start_with(target.clone(), server.system(), system_clock()).unwrap()
}

/// Waits for an event, within a generous bound.
fn wait(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !seen() {
        assert!(Instant::now() < deadline, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn current(keeper: &Keeper) -> Report {
    wait("current", || keeper.report().current);
    keeper.report()
}

#[test]
fn every_move_of_many_ends_with_the_newest() {
    let server = Server::start(Kind::Bind);
    let target = server.target();
    let keeper = keeper(&server, &target);
    for number in 1..=30u8 {
        keeper.wanted(vec![[192, 0, 2, number].into()]);
        // Some are overtaken by the next one, some are not.
        std::thread::sleep(Duration::from_millis(u64::from(number % 4) * 5));
    }
    let report = current(&keeper);
    assert_eq!((server.addresses(NAME), report.wanted), (vec!["192.0.2.30".to_owned()], ips(&["192.0.2.30"])));
    assert!(report.trouble.is_empty() && report.updates <= 30 && report.took_ms.is_some());
    let store = Store::read(&target.config.state).unwrap();
    assert_eq!((store.name.as_str(), store.addresses), (NAME, ips(&["192.0.2.30"])));
    keeper.stop();
    assert!(server.addresses(NAME).is_empty());
    assert_eq!(server.records(MARK, "TXT").len(), 1, "the name stays this host's");
    assert_eq!(Store::read(&target.config.state).unwrap().addresses, ips(&[]));
}

#[test]
fn a_server_that_was_down_gets_the_newest_when_it_is_back() {
    for kind in dns::KINDS {
        let mut server = Server::start(kind);
        // Found by SOA, which takes four exchanges.
        let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, "servers = []");
        let keeper = keeper(&server, &target);
        keeper.wanted(ips(&["192.0.2.10"]));
        current(&keeper);
        server.stop();
        keeper.wanted(ips(&["198.51.100.10"]));
        wait("a complaint", || !keeper.report().trouble.is_empty());
        let report = keeper.report();
        assert!(!report.current && report.next_try.is_some() && !report.advice.is_empty(), "{report:?}");
        // It moves on meanwhile.
        keeper.wanted(ips(&["203.0.113.10"]));
        server.restart();
        let report = current(&keeper);
        assert_eq!(server.addresses(NAME), ["203.0.113.10"], "{kind:?}");
        // The server was not looked for again: one exchange, or more only because it was slow to begin.
        assert!(report.trouble.is_empty() && report.round_trips <= 3, "{report:?}");
        keeper.stop();
    }
}

#[test]
fn after_a_crash_the_next_start_puts_it_right() {
    let server = Server::start(Kind::Bind);
    let target = server.target();
    let first = keeper(&server, &target);
    first.wanted(ips(&["192.0.2.10"]));
    current(&first);
    // As a crash leaves it.
    first.abandon();
    assert_eq!(server.addresses(NAME), ["192.0.2.10"]);
    let second = keeper(&server, &target);
    second.wanted(ips(&["198.51.100.10"]));
    let report = current(&second);
    // One to find the zone, one for the update: the mark is remembered.
    assert_eq!((server.addresses(NAME), report.round_trips), (vec!["198.51.100.10".to_owned()], 2));
    second.abandon();
    // What it knew is lost, or not true any more.
    std::fs::write(&target.config.state, "spoiled").unwrap();
    let third = keeper(&server, &target);
    third.wanted(ips(&["203.0.113.10"]));
    current(&third);
    third.abandon();
    let mut store = Store::read(&target.config.state).unwrap();
    store.stamp = Some("0000000000000001".into());
    store.write(&target.config.state).unwrap();
    let fourth = keeper(&server, &target);
    fourth.wanted(ips(&["203.0.113.11"]));
    current(&fourth);
    assert_eq!(server.addresses(NAME), ["203.0.113.11"]);
    fourth.abandon();
    // Under another name the one before is cleared.
    let renamed = server.wide(1, "name = \"notebook.example.org\"");
    let mut renamed = renamed;
    renamed.config.state.clone_from(&target.config.state);
    let fifth = keeper(&server, &renamed);
    fifth.wanted(ips(&["203.0.113.11"]));
    wait("the name before is cleared", || server.addresses(NAME).is_empty());
    assert_eq!(server.addresses("notebook.example.org"), ["203.0.113.11"]);
    fifth.stop();
}

/// A server that real ones are not: `answer` says what becomes of the real server's answers over UDP; over TCP all
/// passes.
struct Bad {
    address: SocketAddr,
    asked: Arc<AtomicU32>,
}

impl Bad {
    fn new(real: SocketAddr, answer: impl Fn(u32, &[u8], &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let port = dns::free_port();
        let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        // Both threads last as long as the test's process.
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).unwrap();
                let question = buffer[..length].to_vec();
                let number = count.fetch_add(1, Ordering::SeqCst);
                let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
                upstream.set_read_timeout(Some(PATIENCE)).unwrap();
                upstream.send_to(&question, real).unwrap();
                let length = upstream.recv(&mut buffer).unwrap();
                for datagram in answer(number, &question, &buffer[..length]) {
                    socket.send_to(&datagram, client).unwrap();
                }
            }
        });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut client, mut upstream) = (stream.unwrap(), std::net::TcpStream::connect(real).unwrap());
                let mut length = [0; 2];
                client.read_exact(&mut length).unwrap();
                let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
                client.read_exact(&mut message).unwrap();
                upstream.write_all(&[length.as_slice(), &message].concat()).unwrap();
                upstream.read_exact(&mut length).unwrap();
                let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
                upstream.read_exact(&mut message).unwrap();
                // In pieces, as TCP may deliver it.
                for piece in [length.as_slice(), &message].concat().chunks(7) {
                    let _ = client.write_all(piece);
                }
            }
        });
        Self { address, asked }
    }

    fn publish(&self, server: &Server) -> mobctl::dns::transport::Cost {
        let more = format!("zone = \"{ZONE}\"\nservers = [\"{}\"]", self.address);
        let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, &more);
        let mut client = server.client(&target);
        client.publish(&ips(&["192.0.2.10"])).unwrap();
        assert_eq!(server.addresses(NAME), ["192.0.2.10"]);
        client.wire().cost
    }
}

/// The header of an answer to `question` without anything behind it.
fn header(question: &[u8], flags: u8, rcode: u8) -> Vec<u8> {
    let mut header = question[..12].to_vec();
    header[2] |= 0x80 | flags;
    header[3] = rcode;
    header[4..12].fill(0);
    header
}

#[test]
fn answers_that_are_cut_short_come_over_tcp() {
    let server = Server::start(Kind::Bind);
    // Unsigned, so that it counts as a hint at best: no update is believed for it.
    let bad = Bad::new(server.address, |_, question, answer| vec![[&header(question, 2, 0), &answer[12..20]].concat()]);
    let more = format!("zone = \"{ZONE}\"\nservers = [\"{}\"]", bad.address);
    let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, &more);
    let trouble = server.client(&target).publish(&ips(&["192.0.2.10"])).unwrap_err();
    assert!(matches!(trouble.code(), "garbage" | "unsigned"), "{trouble:?}");
    // A server that answers nothing over UDP is asked over TCP.
    let bad = Bad::new(server.address, |_, _, _| Vec::new());
    // Mark, update, and the mark again: the server had done the update, and refuses the copy that comes over TCP.
    assert_eq!(bad.publish(&server).round_trips, 6);
    assert_eq!(bad.asked.load(Ordering::SeqCst), 9);
}

#[test]
fn a_signed_truncation_of_a_real_server_leads_to_tcp() {
    let server = Server::start(Kind::Knot);
    // So many addresses that no datagram of 1232 bytes holds them.
    let many: Vec<String> = (0..120).map(|n| format!("update add {NAME} 30 AAAA 2001:db8::{n:x}")).collect();
    server.nsupdate(&many.join("\n"));
    let mut client = server.client(&server.wide(1, ""));
    assert_eq!(client.look().unwrap().addresses.len(), 120);
    // And an update of that size begins over TCP.
    let target = server.wide(1, "owned = true");
    let list: Vec<IpAddr> = (0..200u8).map(|n| [198, 51, 100, n].into()).collect();
    server.client(&target).publish(&list).unwrap();
    assert_eq!(server.addresses(NAME).len(), 200);
}

#[test]
fn noise_before_the_answer_does_no_harm() {
    let server = Server::start(Kind::Bind);
    let bad = Bad::new(server.address, |_, question, answer| {
        let mut wrong_id = answer.to_vec();
        wrong_id[0] ^= 0xff;
        let mut bent = answer.to_vec();
        *bent.last_mut().unwrap() ^= 1;
        vec![
            Vec::new(),
            b"garbage".to_vec(),
            question.to_vec(),
            wrong_id,
            bent,
            answer[..answer.len() / 2].to_vec(),
            header(question, 0, 5),
            header(question, 0, 0),
            answer.to_vec(),
        ]
    });
    bad.publish(&server);
}

#[test]
fn a_server_that_only_says_garbage_is_told_from_one_that_is_late() {
    for kind in dns::KINDS {
        let server = Server::start(kind);
        let bad = Bad::new(server.address, |number, question, answer| match number % 3 {
            0 => vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()],
            1 => vec![header(question, 0, 0)[..11].to_vec()],
            _ => vec![answer[..answer.len() - 5].to_vec()],
        });
        let more = format!("zone = \"{ZONE}\"\nservers = [\"{}\"]", bad.address);
        let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, &more);
        let trouble = server.client(&target).publish(&ips(&["192.0.2.10"])).unwrap_err();
        assert_eq!(trouble.code(), "garbage", "{kind:?}");
        assert!(trouble.advice().contains("no name server") && trouble.is_passing());
        assert!(server.addresses(NAME).is_empty(), "{kind:?}");
        // Each answer comes when the question has been repeated already, and still counts: one update is done.
        let late = Bad::new(server.address, |_, _, answer| {
            std::thread::sleep(Duration::from_millis(600));
            vec![answer.to_vec()]
        });
        let serial = server.serial();
        let cost = late.publish(&server);
        assert_eq!(server.serial(), serial + 1, "{kind:?}");
        assert!(cost.messages > cost.round_trips, "nothing was repeated: {cost:?}");
    }
}

#[test]
fn a_lost_answer_and_a_second_copy_change_nothing() {
    for kind in dns::KINDS {
        let server = Server::start(kind);
        // The server did it; the answer is lost; the repetition is refused, as the stamp is another one by now.
        let lost = AtomicU32::new(0);
        let bad = Bad::new(server.address, move |_, question, answer| {
            let is_update = question[2] >> 3 & 15 == 5;
            if is_update && lost.fetch_add(1, Ordering::SeqCst) == 0 { Vec::new() } else { vec![answer.to_vec()] }
        });
        let serial = server.serial();
        let cost = bad.publish(&server);
        assert_eq!(server.serial(), serial + 1, "{kind:?}");
        // Mark, update, update again, mark again.
        assert!(cost.messages >= 4, "{kind:?}");
    }
}

#[test]
fn there_and_back_while_an_update_is_under_way() {
    let server = Server::start(Kind::Bind);
    // Of the second update the server's answers are lost until something else is wanted.
    let (updates, back) = (AtomicU32::new(0), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let (moved, is_back) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), Arc::clone(&back));
    let seen = Arc::clone(&moved);
    let bad = Bad::new(server.address, move |_, question, answer| {
        let is_update = question[2] >> 3 & 15 == 5;
        if is_update && updates.fetch_add(1, Ordering::SeqCst) > 0 && !is_back.load(Ordering::SeqCst) {
            seen.store(true, Ordering::SeqCst);
            return Vec::new();
        }
        vec![answer.to_vec()]
    });
    let more = format!("zone = \"{ZONE}\"\nservers = [\"{}\"]", bad.address);
    let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, &more);
    let keeper = keeper(&server, &target);
    keeper.wanted(ips(&["192.0.2.10"]));
    current(&keeper);
    keeper.wanted(ips(&["198.51.100.10"]));
    wait("the server has the second one", || moved.load(Ordering::SeqCst));
    assert_eq!(server.addresses(NAME), ["198.51.100.10"]);
    keeper.wanted(ips(&["192.0.2.10"]));
    back.store(true, Ordering::SeqCst);
    current(&keeper);
    assert_eq!(server.addresses(NAME), ["192.0.2.10"]);
    keeper.stop();
}

#[test]
fn of_two_hosts_with_one_name_the_first_keeps_it_and_the_other_gets_it_when_it_is_free() {
    let server = Server::start(Kind::Knot);
    let (first, second) = (server.wide(1, ""), server.wide(2, ""));
    let (one, two) = (keeper(&server, &first), keeper(&server, &second));
    one.wanted(ips(&["192.0.2.10"]));
    current(&one);
    two.wanted(ips(&["192.0.2.66"]));
    wait("the second one complains", || !two.report().trouble.is_empty());
    let report = two.report();
    assert!(report.trouble.contains("belongs to another host") && report.next_try.is_some(), "{report:?}");
    assert!(report.advice.contains("another name"), "{report:?}");
    // The first one moves meanwhile, and is not disturbed.
    one.wanted(ips(&["198.51.100.10"]));
    assert!(current(&one).trouble.is_empty());
    assert_eq!(server.addresses(NAME), ["198.51.100.10"]);
    one.stop();
    server.client(&first).release().unwrap();
    two.hurry();
    assert!(current(&two).trouble.is_empty());
    assert_eq!(server.addresses(NAME), ["192.0.2.66"]);
    two.stop();
}

#[test]
fn only_the_server_itself_can_say_that_the_clock_is_wrong() {
    for kind in dns::KINDS {
        let server = Server::start(kind);
        let trouble = |answer: fn(&mut Vec<u8>)| {
            let bad = Bad::new(server.address, move |_, _, real| {
                let mut bent = real.to_vec();
                answer(&mut bent);
                vec![bent]
            });
            let more = format!("zone = \"{ZONE}\"\nservers = [\"{}\"]", bad.address);
            let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, &more);
            dns::client(&target, server.system(), dns::wrong_clock(4000)).publish(&ips(&["192.0.2.10"])).unwrap_err()
        };
        assert_eq!(trouble(|_| {}).code(), "badtime", "{kind:?}");
        // The last bytes are the time of the server; those before it the code, the identity, and the signature.
        for bend in [
            |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1,
            |bytes: &mut Vec<u8>| {
                let at = bytes.len() - 13;
                bytes[at] ^= 1;
            },
            |bytes: &mut Vec<u8>| {
                let at = bytes.len() - 15;
                bytes[at] ^= 1;
            },
        ] {
            assert_eq!(trouble(bend).code(), "forged", "{kind:?}");
        }
    }
}

#[test]
fn a_recorded_update_that_is_sent_again_changes_nothing() {
    for kind in dns::KINDS {
        let server = Server::start(kind);
        let recorded = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tape = Arc::clone(&recorded);
        let bad = Bad::new(server.address, move |_, question, answer| {
            tape.lock().unwrap().push(question.to_vec());
            vec![answer.to_vec()]
        });
        let more = format!("zone = \"{ZONE}\"\nservers = [\"{}\"]", bad.address);
        let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, &more);
        let mut client = server.client(&target);
        // There and back: the records are the same as before, the stamp is not.
        for address in ["192.0.2.10", "198.51.100.10", "192.0.2.10"] {
            client.publish(&ips(&[address])).unwrap();
        }
        let (serial, tape) = (server.serial(), recorded.lock().unwrap().clone());
        for message in tape {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&message, server.address).unwrap();
            socket.recv(&mut [0; 65_536]).unwrap();
        }
        assert_eq!((server.serial(), server.addresses(NAME)), (serial, vec!["192.0.2.10".to_owned()]), "{kind:?}");
    }
}

#[test]
fn a_newer_wish_does_not_wait_for_a_server_that_is_silent() {
    let server = Server::start(Kind::Bind);
    // All questions are swallowed, over UDP and over TCP.
    let port = dns::free_port();
    let silent = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let more = format!("zone = \"{ZONE}\"\nservers = [\"127.0.0.1:{port}\", \"{}\"]", server.address);
    let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, &more);
    let keeper = keeper(&server, &target);
    keeper.wanted(ips(&["192.0.2.1"]));
    let mut buffer = [0; 2048];
    silent.recv(&mut buffer).unwrap();
    // The new wish is taken up at once: another question, before the first one is tried over TCP.
    keeper.wanted(ips(&["192.0.2.2"]));
    let first = buffer[..2].to_vec();
    while buffer[..2] == first[..] {
        silent.recv(&mut buffer).unwrap();
    }
    assert!(listener.accept().is_err(), "the old question was waited for");
    drop(listener);
    current(&keeper);
    assert_eq!(server.addresses(NAME), ["192.0.2.2"]);
    keeper.stop();
}

#[test]
fn the_end_does_not_wait_long() {
    let server = Server::start(Kind::Bind);
    let more = format!("servers = [\"127.0.0.1:{}\"]", dns::free_port());
    let target = server.target_of(1, "laptop-key", "hmac-sha256", SECRET, &more);
    let keeper = keeper(&server, &target);
    keeper.wanted(ips(&["192.0.2.1"]));
    let began = Instant::now();
    keeper.stop();
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn keys_of_every_form_are_accepted_by_the_server() {
    let server = Server::start(Kind::Bind);
    let at = server.folder.path();
    for (file, text) in [
        ("clause.key", key_text("laptop-key", "hmac-sha256", SECRET)),
        (
            "Klaptop-key.+163+00001.private",
            format!("Private-key-format: v1.3\nAlgorithm: 163 (HMAC_SHA256)\nKey: {SECRET}\n"),
        ),
        ("Klaptop-key.+163+00001.key", format!("laptop-key. IN KEY 512 3 163 {SECRET}\n")),
        ("line.key", format!("hmac-sha256:laptop-key:{SECRET}\n")),
    ] {
        write_secret(&at.join(file), &text);
        let mut target = server.target();
        target.key = mobctl::ddns::key::read(&at.join(file)).unwrap();
        let checked = server.client(&target).check().unwrap();
        assert!(checked[0].result.is_ok(), "{file}: {checked:?}");
    }
    assert!(server.dig(&[ZONE, "SOA"]).contains("SOA"));
}

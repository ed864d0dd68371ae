//! The mobile host's name in the DNS, at a real name server, while it moves.

use super::Figures;
use super::common::{CABLE, CELL, MEGABYTE, PATIENCE, Streams, WLAN, peer_address};
use super::tcp::move_by_daemon;
use crate::check;
use crate::error::{Doing, Result};
use crate::lab::{Lab, Places, Shape};
use crate::names::{CACHE, Kind, MOBILE, NameServer};
use crate::watch::Message;
use crate::world::MOBILE_NODE;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Where callers call.
const CALLS: u16 = 7100;
/// How long a call to nobody is waited for.
const RING: Duration = Duration::from_secs(2);

pub(super) fn bind(places: &Places) -> Result<Figures> {
    run(places, Kind::Bind)
}

pub(super) fn knot(places: &Places) -> Result<Figures> {
    run(places, Kind::Knot)
}

/// The addresses of the mobile host in a network.
fn addresses(lab: &Lab, interface: usize) -> [IpAddr; 2] {
    let like: [IpAddr; 2] = [[0; 4].into(), [0u16; 8].into()];
    like.map(|like| lab.mobile_address(interface, like))
}

/// What the mobile host's daemon says of its name.
fn report(lab: &Lab) -> Result<Value> {
    Ok(lab.mover()?.ask(&json!({"command": "status"}))?["ddns"].take())
}

/// The report once the name is current.
fn current(lab: &Lab) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = report(lab)?;
        if report["current"] == true {
            return Ok(report);
        }
        check!(Instant::now() < deadline, "the name does not become current: {report}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The peer calls the mobile host. Returns whether somebody answered.
fn call(lab: &Lab, address: IpAddr) -> Result<bool> {
    lab.world.peer.namespace.run(move || TcpStream::connect_timeout(&SocketAddr::new(address, CALLS), RING).is_ok())
}

/// What the name means to the peer, asked of its own resolver.
fn resolved(lab: &Lab) -> Result<IpAddr> {
    let said = crate::program::run(&lab.world.peer.namespace, &["getent", "ahostsv4", MOBILE], "")?;
    let first = said.split_whitespace().next().and_then(|word| word.parse().ok());
    first.ok_or_else(|| crate::error::Error::Check(format!("getent says {said}")))
}

fn run(places: &Places, kind: Kind) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    lab.start_names(kind)?;
    lab.start_daemons([1, 1])?;
    let mut figures = Figures::new();
    // From the start on; zone and server were found by SOA.
    lab.names()?.wait(&lab.world.peer.namespace, &addresses(&lab, WLAN))?;
    let said = current(&lab)?;
    check!(said["zone"] == "example.org", "{said}");
    // Whoever calls is answered, at every address of the host.
    let listener = lab.world.mobile.namespace.run(|| TcpListener::bind(("0.0.0.0", CALLS)))?.doing("listening")?;
    std::thread::spawn(move || listener.incoming().for_each(drop));

    let streams = Streams::start(&lab, false, 1, MEGABYTE, MEGABYTE)?;
    streams.allow(4);
    streams.wait(4)?;
    lab.mover()?.wait_claimed(1)?;
    for (from, to, until) in [(WLAN, CELL, 7), (CELL, WLAN, 9)] {
        let known = resolved(&lab)?;
        let updates = current(&lab)?["updates"].as_u64().unwrap_or_default();
        lab.world.wire.watch(|watch| watch.updates.clear());
        move_by_daemon(&lab, from, to, streams.address)?;
        let first = first_on_the_path(&lab, to)?;
        let said = current(&lab)?;
        check!(said["updates"].as_u64() > Some(updates), "no update: {said}");
        let found = lab.names()?.addresses(&lab.world.peer.namespace)?;
        let wanted = addresses(&lab, to).map(|address| address.to_string());
        check!(found == wanted, "{MOBILE} is {found:?} and not {wanted:?}");
        // A caller who remembers the address before the move reaches nobody; one who asks again reaches the host.
        check!(!call(&lab, known)?, "somebody answers at {known}, which the mobile host has left");
        let new = resolved(&lab)?;
        check!(new != known && call(&lab, new)?, "{MOBILE} is {new}, and nobody answers there");
        figures.push(format!(
            "record at the server {:.1} ms after the daemon knew, {} round trips, {} bytes sent, {} received; {first}",
            said["took_ms"].as_f64().unwrap_or_default(),
            said["round_trips"],
            said["bytes_sent"],
            said["bytes_received"]
        ));
        streams.allow(until);
        streams.wait(until)?;
    }
    // The server is down during a move and comes back later.
    lab.names_mut()?.stop();
    move_by_daemon(&lab, WLAN, CELL, streams.address)?;
    let deadline = Instant::now() + PATIENCE;
    while report(&lab)?["trouble"].as_str().is_none_or(str::is_empty) {
        check!(Instant::now() < deadline, "nobody complains that the name server is down");
        std::thread::sleep(Duration::from_millis(20));
    }
    lab.restart_names()?;
    lab.names()?.wait(&lab.world.peer.namespace, &addresses(&lab, CELL))?;
    // The peer's daemon is held: the name does not wait for the move.
    lab.daemon(1)?.signal(Signal::SIGSTOP)?;
    let (old, new) = lab.change_network(CELL, WLAN, streams.address)?;
    let report = lab.mover()?.announce_for(old, new, Duration::from_millis(100))?;
    check!(report["peers"][0]["outcome"] == "in_doubt", "{report}");
    lab.names()?.wait(&lab.world.peer.namespace, &addresses(&lab, WLAN))?;
    lab.daemon(1)?.signal(Signal::SIGCONT)?;
    streams.finish()?;
    // The daemon is killed, and the host moves before the next one starts: that one puts the name right.
    lab.end_daemon(0, Signal::SIGKILL)?;
    lab.names()?.wait(&lab.world.peer.namespace, &addresses(&lab, WLAN))?;
    let like = peer_address(&lab, false)?;
    lab.change_network(WLAN, CELL, like)?;
    lab.restart_daemon(0)?;
    lab.names()?.wait(&lab.world.peer.namespace, &addresses(&lab, CELL))?;
    // Nobody tells it of a move, and there is no connection to be moved: the name follows.
    let (old, new) = lab.change_network(CELL, WLAN, like)?;
    let since = Instant::now();
    lab.names()?.wait(&lab.world.peer.namespace, &addresses(&lab, WLAN))?;
    figures.push(format!("{old} to {new} without a word: record at the server within {:.1?}", since.elapsed()));
    // Both networks are there, and the host is to leave one: the name gives that address up while the host still has it.
    let host = &lab.world.mobile;
    host.configure(&host.interfaces[CELL], MOBILE_NODE)?;
    lab.plug_in(CELL, old);
    let [here, there] = [WLAN, CELL].map(|interface| addresses(&lab, interface));
    lab.names()?.wait(&lab.world.peer.namespace, &sorted([here, there].concat()))?;
    lab.mover()?.announce(new, old)?;
    lab.names()?.wait(&lab.world.peer.namespace, &sorted(vec![old, here[1], there[1]]))?;
    let has = crate::program::run(&host.namespace, &["ip", "-o", "address"], "")?;
    check!(has.contains(&format!(" {new}/")), "the host has lost {new} already: {has}");
    // The daemon ends: nobody is led to an address that may soon be somebody else's.
    lab.mover()?.signal(Signal::SIGTERM)?;
    lab.names()?.wait(&lab.world.peer.namespace, &[])?;
    let mark = lab.names()?.dig(&lab.world.peer.namespace, &format!("_mobconn.{MOBILE}"), "TXT")?;
    check!(mark.len() == 1, "the name is not kept for its host: {mark:?}");
    lab.finish()?;
    Ok(figures)
}

/// In the order in which the name server's are compared: of each family as dig's lines.
fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_by_key(|address| (address.is_ipv6(), address.to_string()));
    addresses
}

/// When the update of the name left for the new network, beside the first message of the move.
fn first_on_the_path(lab: &Lab, to: usize) -> Result<String> {
    let here = addresses(lab, to);
    let deadline = Instant::now() + PATIENCE;
    let update = loop {
        let found = |update: &&Message| here.contains(&update.source.ip());
        if let Some(update) = lab.world.wire.watch(|watch| watch.updates.iter().find(found).map(|update| update.at)) {
            break update;
        }
        check!(Instant::now() < deadline, "no update left from the new address");
        std::thread::sleep(Duration::from_millis(5));
    };
    let first = lab.world.wire.watch(|watch| {
        let since = watch.moves.last().map_or(update, |last| last.since);
        let of_move = |message: &&Message| message.at >= since && here.contains(&message.source.ip());
        watch.messages.iter().filter(of_move).map(|message| message.at).min().unwrap_or(update)
    });
    Ok(match update.checked_duration_since(first) {
        Some(late) => format!("the update left {late:.1?} after the first message of the move"),
        None => format!("the update left {:.1?} before the first message of the move", first - update),
    })
}

/// How long others may keep the record of the host that is called through a cache, seconds.
const TTL: u32 = 6;

/// What the caller's resolver says of the mobile host.
fn cached(lab: &Lab) -> Result<IpAddr> {
    let said = lab.names()?.dig_at(CACHE, &lab.world.peer.namespace, MOBILE, "A")?;
    let first = said.first().and_then(|word| word.parse().ok());
    first.ok_or_else(|| crate::error::Error::Check(format!("the cache says {said:?}")))
}

/// A caller with a caching resolver; the host moves faster than the TTL, and a stranger gets its old address.
pub(super) fn cache(places: &Places) -> Result<Figures> {
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    lab.start_names(Kind::Bind)?;
    lab.names_mut()?.set_ttl(TTL);
    lab.start_daemons([1, 1])?;
    lab.names()?.wait(&lab.world.peer.namespace, &addresses(&lab, WLAN))?;
    let cache = lab.names()?.start_cache(&lab.world.peer.namespace)?;
    let listener = lab.world.mobile.namespace.run(|| TcpListener::bind(("0.0.0.0", CALLS)))?.doing("listening")?;
    std::thread::spawn(move || listener.incoming().for_each(|caller| greet(caller, b"mobile")));
    let like = peer_address(&lab, false)?;
    let streams = Streams::start(&lab, false, 1, MEGABYTE, MEGABYTE)?;
    streams.allow(1);
    lab.mover()?.wait_claimed(1)?;
    // On a slow machine the record may have left the cache before the host has moved: then once more.
    let (mut at, mut elsewhere) = (WLAN, CELL);
    let (known, new, asked) = loop {
        let deadline = Instant::now() + PATIENCE;
        while cached(&lab)? != lab.mobile_address(at, like) {
            check!(Instant::now() < deadline, "the cache keeps what is over");
            std::thread::sleep(Duration::from_millis(50));
        }
        let (known, asked) = (cached(&lab)?, Instant::now());
        move_by_daemon(&lab, at, elsewhere, like)?;
        lab.names()?.wait(&lab.world.router, &addresses(&lab, elsewhere))?;
        if cached(&lab)? == known {
            break (known, lab.mobile_address(elsewhere, like), asked);
        }
        std::mem::swap(&mut at, &mut elsewhere);
    };
    // Within the TTL: nobody answers at the old address, which the server does not tell any more.
    check!(!call(&lab, known)?, "somebody answers at {known}, which the mobile host has left");
    // Then a stranger gets it. This is what the DNS cannot help: who was told before reaches the stranger, and only what
    // the stranger says can tell.
    crate::program::run(&lab.world.router, &["ip", "-batch", "-"], &format!("address add {known}/32 dev lo\n"))?;
    let stranger = lab.world.router.run(move || TcpListener::bind((known, CALLS)))?.doing("listening")?;
    std::thread::spawn(move || stranger.incoming().for_each(|caller| greet(caller, b"stranger")));
    check!(said(&lab, known)?.as_deref() == Some("stranger"), "the stranger is not there");
    let told = lab.names()?.addresses(&lab.world.router)?;
    check!(!told.contains(&known.to_string()), "the server leads to a stranger: {told:?}");
    // Whoever tries again when the TTL is over reaches the host.
    let deadline = Instant::now() + PATIENCE;
    while cached(&lab)? == known {
        check!(Instant::now() < deadline, "the cache keeps {known} for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (found, took) = (cached(&lab)?, asked.elapsed());
    check!(found == new, "the cache says {found} and not {new}");
    check!(said(&lab, found)?.as_deref() == Some("mobile"), "the mobile host is not reached at {found}");
    streams.finish()?;
    drop(cache);
    lab.finish()?;
    Ok(vec![format!(
        "TTL {TTL} s: the caller's resolver knew the new address {took:.1?} after it had been told the old one"
    )])
}

/// Says who is there.
fn greet(caller: std::io::Result<TcpStream>, name: &[u8]) {
    if let Ok(mut caller) = caller {
        // The caller may be gone.
        let _ = caller.write_all(name);
    }
}

/// Who answers the peer's call; nobody, perhaps.
fn said(lab: &Lab, address: IpAddr) -> Result<Option<String>> {
    lab.world.peer.namespace.run(move || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, CALLS), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}

impl Lab {
    /// Starts a name server, before the daemons: the mobile host then has a
    /// name.
    ///
    /// # Errors
    /// When it is not installed, or does not begin.
    pub fn start_names(&mut self, kind: Kind) -> Result<()> {
        let server = NameServer::start(kind, &self.world.router, self.files(), &self.places.logs)?;
        self.names = Some(server);
        Ok(())
    }

    fn restart_names(&mut self) -> Result<()> {
        let Self { names, world, .. } = self;
        names.as_mut().map_or(Ok(()), |names| names.go(&world.router))
    }

    fn names_mut(&mut self) -> Result<&mut NameServer> {
        self.names.as_mut().ok_or_else(|| crate::error::Error::Check("no name server was started".to_owned()))
    }

    /// The name server.
    ///
    /// # Errors
    /// When none was started.
    pub fn names(&self) -> Result<&NameServer> {
        self.names.as_ref().ok_or_else(|| crate::error::Error::Check("no name server was started".to_owned()))
    }
}

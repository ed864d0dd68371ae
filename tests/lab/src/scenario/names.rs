//! The mobile host's name in the DNS, at a real name server, while it moves.

use super::Figures;
use super::common::{CABLE, CELL, MEGABYTE, PATIENCE, Streams, WLAN};
use super::tcp::move_by_daemon;
use crate::check;
use crate::error::{Doing, Result};
use crate::lab::{Lab, Places, Shape};
use crate::names::{Kind, MOBILE, NameServer};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
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
        move_by_daemon(&lab, from, to, streams.address)?;
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
            "record at the server {:.1} ms after the daemon knew, {} round trips, {} bytes sent, {} received",
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
    streams.finish()?;
    // The daemon ends: nobody is led to an address that may soon be somebody else's.
    lab.mover()?.signal(Signal::SIGTERM)?;
    lab.names()?.wait(&lab.world.peer.namespace, &[])?;
    let mark = lab.names()?.dig(&lab.world.peer.namespace, &format!("_mobconn.{MOBILE}"), "TXT")?;
    check!(mark.len() == 1, "the name is not kept for its host: {mark:?}");
    lab.finish()?;
    Ok(figures)
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

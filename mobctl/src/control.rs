//! The conversation between mobctl and its daemon: one JSON object a line, over a Unix stream socket.

use crate::exit::{Exit, Failure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Where the daemon's socket is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/var/run/mobctl.sock";

/// Longest request in bytes. Responses are as long as the daemon has peers.
pub const REQUEST_MAX: usize = 4096;

/// What mobctl asks of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the daemon is.
    Status,
    /// The associations.
    Peers,
    /// Move everything at `old` to `new`, and answer when the outcome is known or `timeout_ms` have passed.
    Move {
        /// The address that is left.
        old: IpAddr,
        /// The new address.
        new: IpAddr,
        /// Milliseconds.
        timeout_ms: u64,
    },
    /// Tell what happens from now on, one [`Response::News`] each, until the connection is closed.
    Watch,
    /// The networks of this host.
    Networks,
    /// Look at the networks now.
    Poke {
        /// An interface whose routers somebody knows.
        #[serde(default)]
        interface: Option<String>,
        /// These.
        #[serde(default)]
        routers: Vec<IpAddr>,
    },
    /// Prefer these interfaces, the best first, to what the configuration says; none: as it says.
    Prefer {
        /// Their names.
        #[serde(default)]
        interfaces: Option<Vec<String>>,
    },
    /// Read the configuration again.
    Reload,
    /// End.
    Stop,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Peers`].
    Peers {
        /// All associations.
        peers: Vec<Peer>,
    },
    /// To [`Request::Move`].
    Move(MoveReport),
    /// To [`Request::Watch`], each time that something happens.
    News(News),
    /// To [`Request::Networks`] and [`Request::Prefer`].
    Networks(crate::networks::report::Report),
    /// To [`Request::Poke`], [`Request::Reload`] and [`Request::Stop`].
    Done,
    /// The request failed.
    Error {
        /// An exit code of sysexits(3).
        exit: u8,
        /// What went wrong.
        message: String,
        /// What to do, possibly empty.
        advice: String,
    },
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// What, in one word.
    pub kind: String,
    /// How important: `error`, `warn`, `info` or `debug`.
    pub level: String,
    /// The peer's key, if one takes part, else empty.
    pub peer: String,
    /// What happened, as the log has it.
    pub text: String,
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it began.
    pub uptime: u64,
    /// Whether this host starts associations and moves.
    pub mobile: bool,
    /// This host's public key.
    pub key: String,
    /// Addresses and ports it listens on.
    pub listen: Vec<SocketAddr>,
    /// The configuration file.
    pub config: String,
    /// Why the control device does not work now, possibly empty.
    pub device_error: String,
    /// Connections of this host that could move.
    pub connections: usize,
    /// Of these, those that lead to configured peers.
    pub eligible: usize,
    /// Claims of this host that peers confirmed.
    pub confirmed: usize,
    /// Associations.
    pub peers: usize,
    /// Moves of this host that wait for the peer.
    pub moving: usize,
    /// Hosts that do not answer, or cannot be associated with, and why.
    pub trouble: Vec<Trouble>,
    /// The last moves, newest last.
    pub moves: Vec<PastMove>,
    /// What became of datagrams, by name.
    pub datagrams: BTreeMap<String, u64>,
    /// How this host's name in the DNS is, if the daemon keeps it.
    #[serde(default)]
    pub ddns: Option<Box<crate::ddns::keeper::Report>>,
}

/// A host with which something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The host: its address, or its key when that is what is known.
    pub host: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    #[serde(default)]
    pub advice: String,
    /// Seconds ago.
    pub age: u64,
}

/// A move that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastMove {
    /// Who moved: `this host` or `peer`.
    pub who: String,
    /// The peer's key.
    pub peer: String,
    /// The address that was left.
    pub old: Option<IpAddr>,
    /// The new address.
    pub new: Option<IpAddr>,
    /// Flows that moved.
    pub flows: usize,
    /// Flows that were refused.
    pub refused: usize,
    /// From prepare to commit in this host's kernel, in milliseconds.
    pub interruption_ms: f64,
    /// Seconds ago.
    pub age: u64,
}

/// One association.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its public key.
    pub key: String,
    /// Its name as it says, possibly empty.
    pub name: String,
    /// Where it was last proved to be.
    pub address: SocketAddr,
    /// This host's address towards it.
    pub local: IpAddr,
    /// Smoothed round trip in milliseconds, once measured.
    pub round_trip_ms: Option<f64>,
    /// This host's claims that it confirmed.
    pub confirmed: usize,
    /// This host's flows to it that are not confirmed.
    pub unconfirmed: usize,
    /// Its claims.
    pub claims: usize,
    /// Moves of this host that wait for it.
    pub moving: usize,
    /// Its moves that wait for the response to the challenge.
    pub pending: usize,
    /// Seconds since the association was made.
    pub established: u64,
    /// Seconds since it was last heard.
    pub heard: u64,
}

/// The outcome of a move, peer by peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MoveReport {
    /// The address that is left.
    pub old: IpAddr,
    /// The new address.
    pub new: IpAddr,
    /// Whether the old address still was this host's.
    pub old_usable: bool,
    /// Each peer that has flows there.
    pub peers: Vec<PeerMove>,
}

/// What became of a move with one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerMove {
    /// The peer's key.
    pub peer: String,
    /// The peer's name as it says, possibly empty.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Flows that moved.
    pub flows: usize,
    /// Flows that were refused, by the peer or by this host's kernel.
    pub refused: usize,
    /// Why, if anything was refused.
    pub reason: String,
    /// From prepare to commit in this host's kernel, in milliseconds; none while it lasts.
    pub interruption_ms: Option<f64>,
}

/// What became of a move with one peer, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Committed at both ends.
    Moved,
    /// The connections ended, or a later move took its place.
    Ended,
    /// Refused as a whole; the flows stay where they were.
    Refused,
    /// The peer has not answered; both addresses are kept, and it is asked again.
    InDoubt,
}

impl Outcome {
    /// As shown in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Ended => "ended",
            Self::Refused => "refused",
            Self::InDoubt => "in-doubt",
        }
    }
}

impl Response {
    /// The response that tells `failure`.
    #[must_use]
    pub fn failure(failure: Failure) -> Self {
        Self::Error { exit: failure.exit as u8, message: failure.message, advice: failure.advice }
    }
}

/// Asks the daemon whose socket is at `path` and waits at most `patience` for the answer.
///
/// # Errors
/// A [`Failure`] that says what to do; an error that the daemon answered is one too.
pub fn ask(path: &Path, request: &Request, patience: Duration) -> Result<Response, Failure> {
    let shown = path.display();
    let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Failure::new(Exit::Unavailable, format!("{shown}: the daemon is not running"))
                .advise("Start it: service mobconn start (or, to look on: mobctl daemon -f)")
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::NoPermission, format!("{shown}: permission denied")).advise("Run mobctl as root")
        }
        _ => Failure::new(Exit::System, format!("{shown}: {error}")),
    })?;
    let line = converse(&stream, request, patience).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Failure::new(Exit::Temporary, format!("{shown}: the daemon does not answer"))
        }
        _ => Failure::new(Exit::Io, format!("{shown}: {error}")),
    })?;
    if line.is_empty() {
        return Err(Failure::new(Exit::Unavailable, format!("{shown}: the daemon ended before it answered")));
    }
    match serde_json::from_str(&line) {
        Ok(Response::Error { exit, message, advice }) => {
            Err(Failure { exit: Exit::from_code(exit).unwrap_or(Exit::Software), message, advice })
        }
        Ok(response) => Ok(response),
        Err(_) => Err(Failure::new(Exit::Protocol, format!("{shown}: the daemon speaks another language"))
            .advise("mobctl and the daemon are of different releases: service mobconn restart")),
    }
}

/// Asks the daemon to tell what happens, and calls `each` with all of it until that says no, or the daemon ends.
///
/// # Errors
/// Those of connect(2), of reading and writing, and for what is no news.
pub fn watch(path: &Path, mut each: impl FnMut(News) -> bool) -> io::Result<()> {
    let stream = UnixStream::connect(path)?;
    send(&stream, &Request::Watch, Duration::from_secs(5))?;
    for line in BufReader::new(&stream).lines() {
        match serde_json::from_str(&line?) {
            Ok(Response::News(news)) => {
                if !each(news) {
                    break;
                }
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the daemon speaks another language")),
        }
    }
    Ok(())
}

fn send(mut stream: &UnixStream, request: &Request, patience: Duration) -> io::Result<()> {
    stream.set_write_timeout(Some(patience))?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes())
}

fn converse(stream: &UnixStream, request: &Request, patience: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    send(stream, request, patience)?;
    let mut line = String::new();
    BufReader::new(stream).take(1 << 30).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_these_lines() {
        let request = Request::Move { old: [192, 0, 2, 1].into(), new: [198, 51, 100, 1].into(), timeout_ms: 10 };
        let text = r#"{"command":"move","old":"192.0.2.1","new":"198.51.100.1","timeout_ms":10}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        assert_eq!(serde_json::from_str::<Request>(r#"{"command":"status"}"#).unwrap(), Request::Status);
    }

    #[test]
    fn other_lines_are_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "status",
            r#"{"command":"explode"}"#,
            r#"{"command":"move","old":"192.0.2.1"}"#,
            r#"{"command":"move","old":"host","new":"192.0.2.1","timeout_ms":1}"#,
            r#"{"command":"move","old":"192.0.2.1","new":"192.0.2.2","timeout_ms":-1}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_failure_crosses_the_socket() {
        let failure = Failure::new(Exit::Temporary, "not now").advise("later");
        let text = serde_json::to_string(&Response::failure(failure)).unwrap();
        assert_eq!(text, r#"{"answer":"error","exit":75,"message":"not now","advice":"later"}"#);
        assert_eq!(Exit::from_code(75), Some(Exit::Temporary));
        assert_eq!(Exit::from_code(0), None);
    }
}

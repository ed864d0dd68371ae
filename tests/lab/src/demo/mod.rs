//! The demo: a download goes on while its host changes its network, twice;
//! then the same without mobconn.

mod chart;
mod transfer;

use crate::cable::{Lane, Random};
use crate::error::{Doing, Error, Result};
use crate::lab::{Counters, Lab, Places, Shape};
use crate::names::Kind;
use crate::program::{Program, require};
use crate::{ns, program};
use chart::Chart;
use mobconn_abi::Counter;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use transfer::{Transfer, download};

/// Length of the file, bytes.
const LENGTH: usize = 36_000_000;
/// The cables: the first network is fast, the second slower and farther away.
const WLAN: Lane = Lane { delay: Duration::from_millis(5), rate: 40_000_000, queue: 96 << 10, loss: 0 };
const CELL: Lane = Lane { delay: Duration::from_millis(20), rate: 25_000_000, queue: 192 << 10, loss: 0 };
const HOME: Lane = Lane { delay: Duration::from_millis(5), rate: 0, queue: 0, loss: 0 };
/// The peer's port.
const PORT: &str = "80";

/// What the peer asks of the mobile host after its first move.
const CALL: &str = "http://mobile.example.org/hello";

/// Longest that the demo may take.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Shows it, and writes `demo.svg` into the directory `build`.
///
/// # Errors
/// What is missing, or went wrong.
pub fn run(build: &Path) -> Result<()> {
    require(&[
        ("named", "bind9"),
        ("ip", "iproute2"),
        ("curl", "curl"),
        ("python3", "python3"),
        ("sha256sum", "coreutils"),
    ])?;
    let places = Places::new(build, "demo")?;
    ns::enter()?;
    println!("{INTRODUCTION}");
    println!("With mobconn\n");
    let (with, counters) = once(&places, true)?;
    println!("\nThe same without mobconn\n");
    let (without, _) = once(&places, false)?;
    table(&with, counters.as_ref(), &without);
    let chart = Chart {
        with: with.curve("with mobconn"),
        without: without.curve("without mobconn"),
        stays: with.stays(),
        total: LENGTH as u64,
    };
    let path = build.join("demo.svg");
    fs::write(&path, chart.svg()).doing(format_args!("writing {}", path.display()))?;
    println!("\nThe picture of it: {}", path.display());
    if with.reached != with.second {
        return Err(Error::Check(format!("the peer reached the mobile host at {:?} by its name", with.reached)));
    }
    if !with.identical {
        return Err(Error::Check("the download with mobconn did not complete with identical bytes".to_owned()));
    }
    Ok(())
}

const INTRODUCTION: &str = "\
A host downloads a file over HTTP (curl from python3 -m http.server, ordinary TCP) and changes its network
twice while it does. The old address is removed and the old interface goes down each time.

           em0 == wlan  192.0.2.0/24     40 Mbit/s  5 ms == \\
  mobile                                                     router == 203.0.113.0/24 == peer
           em1 == cell  198.51.100.0/24  25 Mbit/s 20 ms == /

At the router BIND serves the zone example.org. The mobile host keeps its name there, and after the first move
the peer calls it by that name.

Every packet of both hosts goes through mobconn.ko, the file that FreeBSD loads. The router drops packets that
come from a network with a source that is not of that network, as real ones do.
";

/// One run. Returns the transfer and, with mobconn, the counters of both hosts.
fn once(places: &Places, mobconn: bool) -> Result<(Transfer, Option<[Counters; 2]>)> {
    let mut shape = Shape::uniform(WLAN);
    shape.lanes = [(WLAN, WLAN), (CELL, CELL), (HOME, HOME)];
    shape.mobconn = mobconn;
    let mut lab = Lab::new(places, &shape)?;
    let mut service = None;
    if mobconn {
        lab.start_names(Kind::Bind)?;
        lab.start_daemons([1, 1])?;
        let like: [IpAddr; 2] = [[0; 4].into(), [0u16; 8].into()];
        let first = like.map(|like| lab.mobile_address(0, like));
        lab.names()?.wait(&lab.world.peer.namespace, &first)?;
        let folder = lab.files().join("hello");
        fs::create_dir(&folder).doing("making a directory")?;
        fs::write(folder.join("hello"), "hello\n").doing("writing a file")?;
        let words = ["python3", "-m", "http.server", PORT, "--directory", &folder.to_string_lossy()];
        let mut program = Program::start(&lab.world.mobile.namespace, &words, &places.logs.join("service.log"))?;
        program.wait_listening(&lab.world.mobile.namespace, &format!("127.0.0.1:{PORT}"))?;
        service = Some(program);
    }
    let share = lab.files().join("share");
    fs::create_dir(&share).doing("making a directory")?;
    let file = share.join("file");
    make_file(&file)?;
    let address = lab.world.peer.addresses().into_iter().find(std::net::IpAddr::is_ipv4);
    let address = address.ok_or_else(|| Error::Check("the peer has no IPv4 address".to_owned()))?;
    let bind = address.to_string();
    let words = ["python3", "-m", "http.server", PORT, "--bind", &bind, "--directory", &share.to_string_lossy()];
    let mut server = Program::start(&lab.world.peer.namespace, &words, &places.logs.join("server.log"))?;
    server.wait_listening(&lab.world.peer.namespace, &format!("{bind}:{PORT}"))?;
    let transfer = download(&lab, &file, &format!("http://{bind}:{PORT}/file"), address)?;
    if mobconn {
        // The second move, too, is known at the name server: the host is back where it began.
        let like: [IpAddr; 2] = [[0; 4].into(), [0u16; 8].into()];
        lab.names()?.wait(&lab.world.peer.namespace, &like.map(|like| lab.mobile_address(0, like)))?;
    }
    let counters = match mobconn {
        true => Some([lab.counters(&lab.world.mobile)?, lab.counters(&lab.world.peer)?]),
        false => None,
    };
    server.stop();
    drop(service);
    lab.finish()?;
    Ok((transfer, counters))
}

fn make_file(path: &Path) -> Result<()> {
    let mut random = Random(0x6d6f_6263_6f6e_6e00);
    let mut bytes: Vec<u8> = Vec::with_capacity(LENGTH);
    while bytes.len() < LENGTH {
        bytes.extend(random.next_u64().to_le_bytes());
    }
    bytes.truncate(LENGTH);
    fs::write(path, bytes).doing(format_args!("writing {}", path.display()))
}

/// SHA-256 of a file, as sha256sum(1) says.
fn digest(lab: &Lab, path: &Path) -> Result<String> {
    let said = program::run(&lab.world.mobile.namespace, &["sha256sum", &path.to_string_lossy()], "")?;
    Ok(said.split_whitespace().next().unwrap_or_default().to_owned())
}

fn table(with: &Transfer, counters: Option<&[Counters; 2]>, without: &Transfer) {
    let row = |name: &str, a: &str, b: &str| println!("  {name:44} {a:>18} {b:>18}");
    println!();
    row("", "with mobconn", "without");
    let bytes = |t: &Transfer| format!("{:.1} MB", t.received() as f64 / 1e6);
    row("received", &bytes(with), &bytes(without));
    row("reached by name after move 1, at", &with.reached.map_or("nowhere".to_owned(), |a| a.to_string()), "");
    let verdict = |t: &Transfer| if t.identical { "yes" } else { "no" }.to_owned();
    row("complete, bytes identical", &verdict(with), &verdict(without));
    row("moves survived", &format!("{} of 2", with.survived()), &format!("{} of 1", without.survived()));
    let ms = |time: Option<Duration>| time.map_or("never".to_owned(), |t| format!("{:.1} ms", t.as_secs_f64() * 1e3));
    for number in 0..with.moves.len() {
        let both = |what: &str, of: &dyn Fn(&Transfer) -> Option<String>| {
            let words = |t| of(t).unwrap_or_default();
            row(&format!("move {}: {what}", number + 1), &words(with), &words(without));
        };
        both("mobctl move took", &|t| t.commands.get(number).map(|took| ms(Some(*took))));
        both("first packet mobile > peer after", &|t| t.moves.get(number).map(|m| ms(m.sent)));
        both("first data peer > mobile after", &|t| t.moves.get(number).map(|m| ms(m.received_data)));
        both("curl got nothing for", &|t| {
            t.moves.get(number).map(|_| t.silence(number).map_or("ever".to_owned(), |silence| ms(Some(silence))))
        });
    }
    if let Some(counters) = counters {
        for (name, counters) in ["mobile", "peer"].into_iter().zip(counters) {
            let (input, output) = (counters.get(Counter::TranslatedIn), counters.get(Counter::TranslatedOut));
            row(&format!("packets rewritten at {name}, in and out"), &format!("{input} + {output}"), "");
        }
    }
    println!("\n  (\"after\": counted from the moment when the new address was usable)");
    // Whoever reads a pipe wants it now.
    let _ = std::io::stdout().flush();
}

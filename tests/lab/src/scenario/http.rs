//! Real programs: curl downloads from python3's HTTP server.

use super::Figures;
use super::common::{CABLE, CELL, PATIENCE, WLAN, ms, peer_address, rewritten};
use super::tcp::move_by_daemon;
use crate::cable::Random;
use crate::check;
use crate::error::{Doing, Error, Result};
use crate::lab::{Lab, Places, Shape};
use crate::program::{Program, require};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const LENGTH: usize = 5_000_000;

pub(super) fn download_v6(places: &Places) -> Result<Figures> {
    require(&[("curl", "curl"), ("python3", "python3")])?;
    let mut lab = Lab::new(places, &Shape::uniform(CABLE))?;
    lab.start_daemons([1, 1])?;
    let address = peer_address(&lab, true)?;
    let share = lab.files().join("share");
    fs::create_dir(&share).doing("making a directory")?;
    let mut random = Random(1);
    let content: Vec<u8> = (0..LENGTH).map(|_| random.next_u64() as u8).collect();
    fs::write(share.join("file"), &content).doing("writing a file")?;

    let (bind, target) = (address.to_string(), SocketAddr::new(address, 80).to_string());
    let words = ["python3", "-m", "http.server", "80", "--bind", &bind, "--directory", &share.to_string_lossy()];
    let mut server = Program::start(&lab.world.peer.namespace, &words, &places.logs.join("server.log"))?;
    server.wait_listening(&lab.world.peer.namespace, &target)?;
    let received = lab.files().join("received");
    let url = format!("http://{target}/file");
    // Slow enough that the connection is claimed long before it ends.
    let words =
        ["curl", "--silent", "--show-error", "--limit-rate", "1M", "--output", &received.to_string_lossy(), &url];
    let mut curl = Program::start(&lab.world.mobile.namespace, &words, &places.logs.join("curl.log"))?;
    lab.mover()?.wait_claimed(1)?;
    let length = || fs::metadata(&received).map_or(0, |m| m.len());
    let deadline = Instant::now() + PATIENCE;
    while length() < LENGTH as u64 / 4 {
        check!(Instant::now() < deadline, "the download does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    check!(curl.ended()?.is_none(), "curl ended before the move: {}", curl.printed());
    move_by_daemon(&lab, WLAN, CELL, address)?;
    curl.succeed(PATIENCE)?;
    let heard = lab.wait_resumed(PATIENCE, |heard| heard.received_data.is_some())?;
    let got = fs::read(&received).doing("reading what curl received")?;
    if got != content {
        let at = got.iter().zip(&content).position(|(a, b)| a != b);
        return Err(Error::Check(format!("{} bytes received, other ones from {at:?} on", got.len())));
    }
    let figures =
        vec![format!("data again {} after the address was usable", ms(heard.received_data)), rewritten(&lab)?];
    server.stop();
    lab.finish()?;
    Ok(figures)
}

//! Command line of the lab.

use mobconn_lab::kernel::Without;
use mobconn_lab::{Result, ns, program::{self, Program}, world::World};
use std::sync::Arc;
use std::time::Duration;

fn main() {
    if let Err(e) = go() {
        eprintln!("mobconn-lab: {e}");
        std::process::exit(1);
    }
}

fn go() -> Result<()> {
    ns::enter()?;
    let dir = std::path::Path::new("/tmp/labproof");
    let _ = std::fs::create_dir(dir);
    let lanes = [(Default::default(), Default::default()); 3];
    let world = World::new(Arc::new(Without), Arc::new(Without), lanes, 1, dir)?;
    let _server = Program::start(&world.peer.namespace, &["python3", "-m", "http.server", "80", "--bind", "::", "--directory", "/usr/bin"], &dir.join("server.log"))?;
    std::thread::sleep(Duration::from_millis(1000));
    for a in world.peer.addresses() {
        let url = if a.is_ipv6() { format!("http://[{a}]/curl") } else { format!("http://{a}/python3.11") };
        println!("{}", program::run(&world.mobile.namespace, &["curl", "-sS", "-o", "/tmp/labproof/out", "-w", "%{size_download} %{speed_download} %{time_total}", &url], "")?);
    }
    println!("{}", program::run(&world.router, &["ip", "-s", "link"], "")?);
    for c in 0..3 { println!("{:?}", world.wire.tally(c)); }
    world.wire.watch(|w| println!("{w:?}"));
    Ok(())
}

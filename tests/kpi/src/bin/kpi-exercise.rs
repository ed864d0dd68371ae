//! Loads a module, passes packets through its hooks, opens its devices, unloads it: `kpi-exercise FILE [NAME=VALUE...]`.
//!
//! The values are loader tunables. Ends with status 0 when there was nothing to complain about.

use mobconn_kpi::{Connection, Machine, Options, Rx, Split, Tx, Vnet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

const ROUNDS: usize = 200;

/// A UDP packet over IPv4 or IPv6, without a checksum that anybody looks at.
fn packet(v6: bool, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let udp = 8 + length;
    if v6 {
        out.extend([0x60, 0, 0, 0]);
        out.extend((udp as u16).to_be_bytes());
        out.extend([17, 64]);
        for host in [1, 2] {
            out.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
    } else {
        out.extend([0x45, 0]);
        out.extend((20 + udp as u16).to_be_bytes());
        out.extend([0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        let sum: u32 = out.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    out.extend([0x13, 0x88, 0, 80]);
    out.extend((udp as u16).to_be_bytes());
    out.extend([0, 0]);
    out.resize(out.len() + length, 0x55);
    out
}

/// A connection each of TCP (also with nothing outstanding, and with its last retransmission sent) and UDP.
fn connections() -> Vec<Connection> {
    let make = |protocol, port| {
        let side = |host, port| SocketAddr::from(([192, 0, 2, host], port));
        Connection::new(protocol, side(2, port), side(1, 5000))
    };
    vec![make(6, 80).outstanding(2), make(6, 81), make(6, 82).outstanding(12), make(17, 80)]
}

fn exercise(machine: &Machine, vnet: &Vnet) {
    vnet.set_connections(&connections());
    vnet.set_local(&["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()]);
    for split in [Split::Whole, Split::Arbitrary] {
        machine.set_split(split);
        for round in 0..ROUNDS {
            let packet = packet(round % 2 == 0, round * 7 % 1400);
            let _ = vnet.ip_output(&packet, &Tx::new("em0"));
            let _ = vnet.ip_input(&packet, &Rx::new("em0"));
        }
    }
    for device in machine.devices() {
        if let Ok(file) = vnet.open(&device, 0, 3) {
            // Any command with a 4-byte argument.
            let _ = file.ioctl(0xc004_4d01, &mut [0; 4], &mut []);
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(file) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: kpi-exercise FILE [NAME=VALUE...]");
        return ExitCode::from(64);
    };
    let tunables: Vec<String> = arguments.map(|a| a.to_string_lossy().into_owned()).collect();
    let tunables: Vec<(&str, &str)> = tunables.iter().filter_map(|t| t.split_once('=')).collect();
    let machine = Machine::boot(Options { verbose: true, ..Options::default() });
    if let Err(error) = machine.kldload(&file, &tunables) {
        eprintln!("kpi-exercise: kldload: {error}");
        return ExitCode::FAILURE;
    }
    exercise(&machine, &machine.vnet0());
    let jail = machine.vnet_create();
    exercise(&machine, &jail);
    jail.destroy();
    if let Err(error) = machine.kldunload(false) {
        eprintln!("kpi-exercise: kldunload: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

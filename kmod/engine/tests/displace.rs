//! The ports that newcomers get: free ones, and no other way out than a refusal.

#![allow(clippy::unwrap_used, reason = "a test")]

use mobconn_engine::{Address, Config, Control, Engine, Protocol, Side, TableError, Version, new};

fn made(capacity: u32) -> (Engine, Control) {
    new(&Config { capacity, key: [7; 8] }).unwrap()
}

fn side(local: u8, local_port: u16, remote: u8, remote_port: u16) -> Side {
    Side {
        local: Address::v4([10, 0, 0, local]),
        remote: Address::v4([10, 0, 1, remote]),
        local_port,
        remote_port,
        version: Version::V4,
        protocol: Protocol::Tcp,
    }
}

/// The flow that a stranger meets: its remote end went from 1 to 2.
fn stack() -> Side {
    side(1, 80, 1, 5000)
}

/// The port that a newcomer gets, towards the stack (`received`) or on the wire.
fn port(engine: &Engine, control: &mut Control, received: bool, busy: &[u16], chance: u16) -> Result<u16, TableError> {
    let newcomer = if received { stack() } else { side(1, 80, 2, 5000) };
    let busy = |side: &Side| busy.contains(if received { &side.remote_port } else { &side.local_port });
    control.displace(engine, &newcomer, received, busy, chance, 1)?;
    Ok(if received {
        control.get_by_wire(engine, &newcomer).unwrap().stack.remote_port
    } else {
        control.get(engine, &newcomer).unwrap().wire.local_port
    })
}

/// The same in a table in which the flow has moved, and `others` are bound: stack side and wire side.
fn among(others: &[(Side, Side)], received: bool, busy: &[u16], chance: u16) -> Result<u16, TableError> {
    let (engine, mut control) = made(100);
    control.add(&engine, &stack(), &side(1, 80, 2, 5000), 1).unwrap();
    for (stack, wire) in others {
        control.add(&engine, stack, wire, 1).unwrap();
    }
    port(&engine, &mut control, received, busy, chance)
}

#[test]
fn a_port_that_is_taken_is_not_given_again() {
    for chance in [0, 1, 16383, 16384, 40000, 65535] {
        for received in [true, false] {
            let first = among(&[], received, &[], chance).unwrap();
            assert!((49152..=65535).contains(&first), "{first} is no dynamic port");
            // It would be this one's stack side, or its wire side.
            let newcomer = if received { stack() } else { side(1, 80, 2, 5000) };
            let with = |port| {
                if received { Side { remote_port: port, ..newcomer } } else { Side { local_port: port, ..newcomer } }
            };
            let elsewhere = side(9, 9, 9, 9);
            let second = among(&[(with(first), elsewhere)], received, &[], chance).unwrap();
            let third = among(&[(elsewhere, with(first))], received, &[], chance).unwrap();
            // Or of a connection that the table does not know.
            let fourth = among(&[], received, &[first], chance).unwrap();
            assert!(![second, third, fourth].contains(&first), "{first} is taken");
            assert!(second == third && third == fourth && second >= 49152);
            // Two at once.
            let fifth = among(&[(with(first), elsewhere)], received, &[second], chance).unwrap();
            assert!(![first, second].contains(&fifth));
        }
    }
}

#[test]
fn a_newcomer_never_gets_its_own_port() {
    let (engine, mut control) = made(100);
    let stack = Side { remote_port: 50000, ..stack() };
    control.add(&engine, &stack, &side(1, 80, 2, 50000), 1).unwrap();
    control.displace(&engine, &stack, true, |_| false, 50000 - 49152, 1).unwrap();
    assert_ne!(control.get_by_wire(&engine, &stack).unwrap().stack.remote_port, 50000);
}

#[test]
fn without_a_free_port_the_newcomer_is_refused() {
    let all: Vec<u16> = (49152..=65535).collect();
    for received in [true, false] {
        assert_eq!(among(&[], received, &all, 5), Err(TableError::Conflict));
        // The last that is tried is good enough.
        let tried = &all[5..5 + 63];
        assert_eq!(among(&[], received, tried, 5), Ok(49152 + 5 + 63));
        assert_eq!(among(&[], received, &all[5..5 + 64], 5), Err(TableError::Conflict));
    }
}

#[test]
fn strangers_one_after_the_other_and_at_both_old_places() {
    let (engine, mut control) = made(100);
    control.add(&engine, &stack(), &side(1, 80, 2, 5000), 1).unwrap();
    let mut ports = Vec::new();
    for chance in 0..20 {
        let port = port(&engine, &mut control, true, &ports, chance).unwrap();
        assert!(!ports.contains(&port));
        ports.push(port);
        // Again, while it lives: no second one.
        assert_eq!(control.len(), 2);
        assert_eq!(self::port(&engine, &mut control, true, &[], chance + 1), Ok(port));
        control.delete(&engine, &Side { remote_port: port, ..stack() }).unwrap();
    }
    // The stranger itself moved on, and the next one comes to where it was.
    let first = port(&engine, &mut control, true, &[], 1).unwrap();
    let first = Side { remote_port: first, ..stack() };
    let prepare = mobconn_engine::Prepare {
        half: mobconn_engine::Half::Remote,
        new: Address::v4([10, 0, 1, 3]),
        generation: 1,
        hold: false,
        take: false,
    };
    control.prepare(&engine, &first, &prepare, |_| false, 1).unwrap();
    control.commit(&engine, &first, mobconn_engine::Half::Remote, 1, 1).unwrap();
    let limits = mobconn_engine::Limits { grace: 0, udp_idle: 0 };
    control.expire(&engine, 1, &limits, (0, 100), |_| true);
    let second = port(&engine, &mut control, true, &[], 1).unwrap();
    assert_ne!(second, first.remote_port);
    assert_eq!(control.len(), 3);
}

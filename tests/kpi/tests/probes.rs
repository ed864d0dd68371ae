//! Probes for dtrace(1): that they are there, when they fire, what they tell.

mod common;

use common::moves::*;
use common::{add, flow, loaded};
use mobconn_abi::{Half, TCP};
use mobconn_kpi::{Machine, Options, Rx, Tx};

/// The probes that fired since, with what they tell but for addresses of packets.
fn fired(machine: &Machine) -> Vec<Vec<String>> {
    let fired = machine.probes().into_iter().map(|fired| {
        let mut words = vec![fired.probe.clone()];
        let packet = usize::from(fired.probe.starts_with("translate") || fired.probe == "drop");
        assert!(packet == 0 || fired.arguments[0] != "0", "{fired:?}");
        words.extend(fired.arguments.into_iter().skip(packet));
        words
    });
    fired.collect()
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

#[test]
fn the_manual_page_names_them_all() {
    let machine = loaded(Options::default());
    let page = include_str!("../../../kmod/mobconn.4");
    let probes = machine.enable_probes();
    assert_eq!(probes.len(), 5);
    for (name, types) in probes {
        let types: Vec<String> = types.iter().map(|kind| format!("\"{kind}\"")).collect();
        let line = format!(".It Fn mobconn:::{name} {}", types.join(" "));
        assert!(page.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn who_is_not_asked_says_nothing() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    moves(&vnet, at_peer(false, TCP, 1), Half::Remote, place(false, 2), 1).expect("a move");
    assert_eq!(machine.probes(), []);
}

#[test]
fn a_moved_flow_is_followed() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    assert_eq!(machine.enable_probes().len(), 5);
    let stack = at_peer(false, TCP, 1);
    moves(&vnet, stack, Half::Remote, place(false, 2), 3).expect("a move");
    let sides = ["tcp 192.0.2.80:80 198.51.100.10:5000", "tcp 192.0.2.80:80 203.0.113.17:5000"];
    assert_eq!(fired(&machine), [words(["rebind", sides[0], sides[1], "2", "3"])]);

    let _ = vnet.ip_input(&segment(&at_peer(false, TCP, 2), true, Kind::Data, b"x"), &Rx::new("em0"));
    assert_eq!(fired(&machine), [words(["translate-in", "4"])]);
    let _ = vnet.ip_output(&segment(&stack, false, Kind::Data, b"x"), &Tx::new("em0"));
    assert_eq!(fired(&machine), [words(["translate-out", "4"])]);
}

#[test]
fn a_stranger_is_noticed() {
    let machine = loaded(Options::default());
    let vnet = machine.vnet0();
    assert_eq!(machine.enable_probes().len(), 5);
    let (stack, wire) = flow(true, TCP, 1000);
    add(&vnet, stack, wire).expect("add");
    assert_eq!(fired(&machine), [[""; 0]; 0]);
    let _ = vnet.ip_input(&segment(&stack, true, Kind::Data, b"x"), &Rx::new("em0"));
    assert_eq!(fired(&machine), [words(["drop", "6", "0", "dropped_stray"])]);

    let _ = vnet.ip_input(&segment(&stack, true, Kind::Syn, b""), &Rx::new("em0"));
    machine.quiesce();
    let told = fired(&machine);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((told[0][0].as_str(), told[0][2].as_str()), ("displace", "tcp [2001:db8::1]:1000 [2001:db8::2]:80"));
    assert!(told[0][1].starts_with("tcp [2001:db8::1]:1000 [2001:db8::2]:"), "{told:?}");
    assert_eq!(told[1], words(["translate-in", "6"]));
    assert_eq!(vnet.events().len(), 1, "it came in again");
}

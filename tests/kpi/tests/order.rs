//! Hooks run in the order in which pfil(9) has them.

#[path = "common/cc.rs"]
mod cc;

use mobconn_kpi::{Machine, Options, Rx, Tx};

#[test]
fn without_append_a_hook_is_nearest_the_wire() {
    let machine = Machine::boot(Options::default());
    let module = cc::compile("testmod/order.c", "order");
    machine.kldload(&module, &[]).unwrap_or_else(|error| panic!("{error}: {:?}", machine.console()));
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, 1, 1, 2, 2, 0, 8, 0, 0];
    let sum: u32 = packet[..20].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    let vnet = machine.vnet0();
    let _ = vnet.ip_input(&packet, &Rx::new("em0"));
    assert_eq!(machine.sysctl_get("debug.order").as_deref(), Ok("ibiaic"));
    let _ = vnet.ip_output(&packet, &Tx::new("em0"));
    assert_eq!(machine.sysctl_get("debug.order").as_deref(), Ok("ocoaob"));
    assert_eq!(machine.kldunload(false), Ok(()));
    let _ = vnet.ip_input(&packet, &Rx::new("em0"));
}

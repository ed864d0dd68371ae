//! Route look-ups (net/route/nhop.h) and questions for local addresses.

use crate::complaint::complain;
use crate::connections::v6;
use crate::foreign::{eternal, shared};
use crate::layout::{IF_XNAME, Ifnet};
use crate::thread;
use crate::vnet::VnetState;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

shared! {
    /// `struct nhop_object`.
    Nhop(128) {
        flags, set_flags: u16 = 0;
        mtu, set_mtu: u16 = 2;
        ifp, set_ifp: usize = 32;
        aifp, set_aifp: usize = 48;
    }
}

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    fib4_lookup,
    fib6_lookup,
    in6_splitscope,
    in_localip,
    in6_localip,
    if_name,
    if_getindex,
    if_getmtu,
    if_getflags,
    if_gethwassist,
    if_gethwtsomax,
    if_gethwtsomaxsegcount,
    if_gethwtsomaxsegsize,
];

/// Next hops handed out: by interface and MTU. They are never freed, as a reader may hold one.
static NHOPS: Mutex<Option<HashMap<(usize, u16), usize>>> = Mutex::new(None);

fn context(who: &str) -> &'static VnetState {
    if !thread::current(|thread| thread.in_epoch()) {
        complain!("{who} outside the network epoch");
    }
    crate::vnet::current().unwrap_or_else(|| complain!("{who}: curvnet is not set"))
}

fn lookup(fib: u32, destination: IpAddr, flags: u32, who: &str) -> usize {
    let vnet = context(who);
    if fib != 0 {
        complain!("{who}: FIB {fib} of 1");
    }
    if flags != 0 {
        complain!("{who} with flags {flags:#x}: a reference to the next hop is not emulated");
    }
    let local = vnet.is_local(destination);
    let Some(name) = (if local { Some("lo0".to_owned()) } else { vnet.towards(destination) }) else { return 0 };
    let ifnet = vnet.ifnet(&name);
    let mtu = u16::try_from(ifnet.mtu()).unwrap_or(u16::MAX);
    let mut nhops = NHOPS.lock().unwrap();
    *nhops.get_or_insert_default().entry((ifnet.address(), mtu)).or_insert_with(|| {
        // SAFETY: eternal memory of that size.
        let nhop = unsafe { Nhop::new(eternal(Nhop::SIZE).as_ptr()) }.unwrap_or_else(|| unreachable!());
        nhop.set_mtu(mtu);
        nhop.set_ifp(ifnet.address());
        nhop.set_aifp(ifnet.address());
        nhop.address()
    })
}

fn v4(address: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(address.to_ne_bytes()))
}

extern "C" fn fib4_lookup(fib: u32, destination: u32, _scope: u32, flags: u32, _flowid: u32) -> usize {
    lookup(fib, v4(destination), flags, "fib4_lookup")
}

extern "C" fn fib6_lookup(fib: u32, destination: *const u8, scope: u32, flags: u32, _flowid: u32) -> usize {
    let who = "fib6_lookup";
    let IpAddr::V6(mut destination) = v6(destination) else { unreachable!() };
    if destination.is_unicast_link_local() {
        let mut octets = destination.octets();
        if octets[2..4] != [0, 0] || scope == 0 {
            complain!("{who}: {destination} with its scope in it, or without");
        }
        octets[2..4].copy_from_slice(&(scope as u16).to_be_bytes());
        destination = octets.into();
    }
    lookup(fib, IpAddr::V6(destination), flags, who)
}

extern "C" fn in6_splitscope(from: *const u8, to: *mut u8, scope: *mut u32) {
    let IpAddr::V6(address) = v6(from) else { unreachable!() };
    let (mut octets, mut found) = (address.octets(), [0; 2]);
    if address.is_unicast_link_local() {
        found.copy_from_slice(&octets[2..4]);
        octets[2..4].fill(0);
    }
    // SAFETY: the caller's address.
    unsafe { crate::foreign::store(to, &octets) };
    // SAFETY: the caller's scope.
    unsafe { crate::foreign::store(scope.cast(), &u32::from(u16::from_be_bytes(found)).to_ne_bytes()) };
}

extern "C" fn in_localip(address: u32) -> bool {
    context("in_localip").is_local(v4(address))
}

extern "C" fn in6_localip(address: *const u8) -> i32 {
    // It takes the lock of the address list, and needs no epoch.
    let who = "in6_localip";
    let vnet = crate::vnet::current().unwrap_or_else(|| complain!("{who}: curvnet is not set"));
    i32::from(vnet.is_local(v6(address)))
}

fn interface(at: usize, who: &str) -> Ifnet {
    if !crate::kernel::kernel().interfaces.lock().unwrap().contains(&at) {
        complain!("{who}: {at:#x} is no interface");
    }
    // SAFETY: an interface of this crate; they are never freed.
    unsafe { Ifnet::new(at as *mut u8) }.unwrap_or_else(|| unreachable!())
}

extern "C" fn if_name(ifp: usize) -> usize {
    interface(ifp, "if_name").address() + IF_XNAME
}

extern "C" fn if_getindex(ifp: usize) -> i32 {
    interface(ifp, "if_getindex").index().into()
}

extern "C" fn if_getmtu(ifp: usize) -> i32 {
    interface(ifp, "if_getmtu").mtu()
}

extern "C" fn if_getflags(ifp: usize) -> i32 {
    interface(ifp, "if_getflags").flags()
}

extern "C" fn if_gethwassist(ifp: usize) -> i32 {
    interface(ifp, "if_gethwassist").hwassist() as i32
}

extern "C" fn if_gethwtsomax(ifp: usize) -> u32 {
    interface(ifp, "if_gethwtsomax").tsomax()
}

extern "C" fn if_gethwtsomaxsegcount(ifp: usize) -> u32 {
    interface(ifp, "if_gethwtsomaxsegcount").tsomaxsegcount()
}

extern "C" fn if_gethwtsomaxsegsize(ifp: usize) -> u32 {
    interface(ifp, "if_gethwtsomaxsegsize").tsomaxsegsize()
}

//! Virtual network stacks: their variables, constructors and destructors, addresses and routes.
//!
//! A variable of a VNET is at `curvnet->vnet_data_base + address`, where the address lies in a master region that holds
//! initial values in the kernel. Here nothing may touch the master region itself: an access that forgot `V_` faults.

use crate::call;
use crate::complaint::complain;
use crate::connections::{INFO, INFO_VNET, Pcbs};
use crate::foreign::{self, eternal};
use crate::kernel::kernel;
use crate::layout::{IF_XNAME, IFNAMSIZ, Ifnet, Prison, Ucred, VnetC, VnetSysinit};
use crate::mbuf::csum;
use crate::memory::{self, PAGE};
use crate::packet::{Event, Route};
use crate::pfil::{Head, TYPES};
use crate::thread;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

/// `VNET_MAGIC_N`.
const MAGIC: u32 = 0x5e4a_6f28;
/// Pages of the kernel's own VNET variables, and of those that modules may bring (`VNET_MODMIN`).
const OWN: usize = PAGE;
const MODSPACE: usize = 8 * PAGE;
const SIZE: usize = OWN + MODSPACE;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    vnet_register_sysinit,
    vnet_deregister_sysinit,
    vnet_register_sysuninit,
    vnet_deregister_sysuninit,
];

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[("VNET_MAGIC_N", MAGIC)];

/// Where the master region begins: `VNET_START`.
pub(crate) fn start() -> usize {
    static START: OnceLock<usize> = OnceLock::new();
    *START.get_or_init(|| {
        let at = memory::reserve(SIZE, true);
        memory::protect(at, SIZE, libc::PROT_NONE);
        at
    })
}

/// The kernel's own VNET variables: symbol and offset.
pub(crate) const VARIABLES: [(&str, usize); 5] = [
    ("vnet_entry_inet_pfil_head", 0),
    ("vnet_entry_inet6_pfil_head", 8),
    ("vnet_entry_loif", 16),
    ("vnet_entry_tcbinfo", PCBINFOS[0]),
    ("vnet_entry_udbinfo", PCBINFOS[1]),
];
/// Offsets of the lists of connections among them: TCP's and UDP's.
const PCBINFOS: [usize; 2] = [64, 64 + INFO.next_multiple_of(64)];

/// Constructors and destructors, and the initial values of module variables.
#[derive(Debug, Default)]
pub(crate) struct Sysinits {
    constructors: Vec<VnetSysinit>,
    destructors: Vec<VnetSysinit>,
    initial: Vec<(usize, Vec<u8>)>,
    used: usize,
}

// SAFETY: the handles are addresses of module data, which does not belong to a thread.
unsafe impl Send for Sysinits {}

impl Sysinits {
    fn insert(list: &mut Vec<VnetSysinit>, new: VnetSysinit) {
        let key = |s: &VnetSysinit| (s.subsystem(), s.order());
        let at = list.partition_point(|s| key(s) <= key(&new));
        list.insert(at, new);
    }

    /// Whether any lies in the range.
    pub(crate) fn any_in(&self, range: &std::ops::Range<usize>) -> bool {
        self.constructors.iter().chain(&self.destructors).any(|s| range.contains(&s.address()))
    }
}

/// One VNET.
#[derive(Debug)]
pub(crate) struct VnetState {
    c: VnetC,
    data: usize,
    /// `inet` and `inet6`.
    pub(crate) heads: [Head; 2],
    prison: Prison,
    ucreds: Mutex<HashMap<u32, usize>>,
    ifnets: RwLock<HashMap<String, Ifnet>>,
    local: RwLock<HashSet<IpAddr>>,
    routes: RwLock<Vec<Route>>,
    forwarding: AtomicBool,
    gone: AtomicBool,
    router: RwLock<Opaque<Option<Router>>>,
    /// Connections.
    pub(crate) pcbs: Pcbs,
    /// What came out on its own.
    pub(crate) events: Events,
    /// What its firewall has seen: whether sent, and the packet.
    pub(crate) firewall: Mutex<Vec<(bool, Vec<u8>)>>,
}

/// Answers to which interface leads to an address.
type Router = Arc<dyn Fn(IpAddr) -> Option<String> + Send + Sync>;
/// Is told what came out on its own.
type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// What has nothing to show.
#[derive(Default)]
struct Opaque<T>(T);

impl<T> std::fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

/// Packets that nobody waits for: sent by a module on its own, or come up from a queue.
#[derive(Debug, Default)]
pub(crate) struct Events {
    kept: Mutex<Vec<Event>>,
    listener: Mutex<Opaque<Option<Listener>>>,
}

impl Events {
    /// Tells the listener, or keeps the event until somebody asks.
    pub(crate) fn tell(&self, event: Event) {
        let listener = self.listener.lock().unwrap().0.clone();
        match listener {
            Some(listener) => listener(event),
            None => self.kept.lock().unwrap().push(event),
        }
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.kept.lock().unwrap())
    }

    pub(crate) fn listen(&self, listener: Option<Listener>) {
        self.listener.lock().unwrap().0 = listener;
    }
}

// SAFETY: the handles are addresses of memory that lives for ever; fields that change while others read are written
// under locks or before the VNET is shared.
unsafe impl Send for VnetState {}
// SAFETY: as above.
unsafe impl Sync for VnetState {}

impl VnetState {
    /// Address of `struct vnet`.
    pub(crate) fn address(&self) -> usize {
        self.c.address()
    }

    /// Whether it was destroyed.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Credentials of a user of this stack's jail.
    pub(crate) fn ucred(&self, uid: u32) -> usize {
        let mut ucreds = self.ucreds.lock().unwrap();
        *ucreds.entry(uid).or_insert_with(|| {
            // SAFETY: eternal memory of that size.
            let cred = unsafe { Ucred::new(eternal(Ucred::SIZE).as_ptr()) }.unwrap_or_else(|| unreachable!());
            cred.set_ref(1);
            cred.set_uid(uid);
            cred.set_ruid(uid);
            cred.set_prison(self.prison.address());
            cred.address()
        })
    }

    /// The interface of this name, made when it is first used.
    pub(crate) fn ifnet(&self, name: &str) -> Ifnet {
        if let Some(&ifnet) = self.ifnets.read().unwrap().get(name) {
            return ifnet;
        }
        let mut ifnets = self.ifnets.write().unwrap();
        *ifnets.entry(name.to_owned()).or_insert_with(|| {
            // SAFETY: eternal memory of that size.
            let ifnet = unsafe { Ifnet::new(eternal(Ifnet::SIZE).as_ptr()) }.unwrap_or_else(|| unreachable!());
            let index = {
                let mut all = kernel().interfaces.lock().unwrap();
                all.push(ifnet.address());
                all.len()
            };
            ifnet.set_index(u16::try_from(index).unwrap_or(u16::MAX));
            ifnet.set_idxgen(index as u16 ^ 0x5a5a);
            ifnet.set_mtu(1500);
            ifnet.set_hwassist(csum::OFFLOADED);
            ifnet.set_vnet(self.address());
            let bytes = &name.as_bytes()[..name.len().min(IFNAMSIZ - 1)];
            // SAFETY: the name field of the new structure, NUL-terminated because the rest is zero.
            unsafe { foreign::store(ifnet.as_ptr().wrapping_add(IF_XNAME), bytes) };
            ifnet
        })
    }

    /// Whether the address is one of this host's.
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.local.read().unwrap().contains(&address)
    }

    /// Whether the host has no address of that family.
    pub(crate) fn has_no_ipv4(&self) -> bool {
        !self.local.read().unwrap().iter().any(IpAddr::is_ipv4)
    }

    pub(crate) fn set_local(&self, addresses: &[IpAddr]) {
        *self.local.write().unwrap() = addresses.iter().copied().collect();
    }

    pub(crate) fn set_routes(&self, routes: &[Route]) {
        let mut sorted = routes.to_vec();
        sorted.sort_by_key(|route| std::cmp::Reverse(route.length));
        *self.routes.write().unwrap() = sorted;
    }

    pub(crate) fn set_forwarding(&self, on: bool) {
        self.forwarding.store(on, Ordering::Release);
    }

    pub(crate) fn forwards(&self) -> bool {
        self.forwarding.load(Ordering::Acquire)
    }

    /// The interface towards a destination; `named` when there is no routing table.
    pub(crate) fn route(&self, destination: IpAddr, named: &str) -> Option<String> {
        let routes = self.routes.read().unwrap();
        if routes.is_empty() {
            return Some(named.to_owned());
        }
        routes.iter().find(|route| within(destination, route)).map(|route| route.ifname.clone())
    }

    /// Lets a function say which interface leads to an address, instead of the routing table.
    pub(crate) fn set_router(&self, router: Option<Router>) {
        self.router.write().unwrap().0 = router;
    }

    /// The interface towards a destination, for a packet of this host; `named` (or, without a name, the first
    /// interface) when there is neither router nor routing table.
    pub(crate) fn egress(&self, destination: IpAddr, named: &str) -> Option<String> {
        let router = self.router.read().unwrap().0.clone();
        if let Some(router) = router.filter(|_| named.is_empty()) {
            return router(destination);
        }
        self.route(destination, if named.is_empty() { "em0" } else { named })
    }

    /// The interface towards a gateway that a packet is forced to; a link-local IPv6 one has it embedded.
    pub(crate) fn towards(&self, gateway: IpAddr) -> Option<String> {
        if let IpAddr::V6(v6) = gateway
            && v6.is_unicast_link_local()
        {
            let [_, _, high, low, ..] = v6.octets();
            let index = u16::from_be_bytes([high, low]);
            let ifnets = self.ifnets.read().unwrap();
            return ifnets.iter().find(|(_, ifnet)| ifnet.index() == index).map(|(name, _)| name.clone());
        }
        self.egress(gateway, "")
    }

    /// Addresses of `V_tcbinfo` and `V_udbinfo`.
    pub(crate) fn pcbinfos(&self) -> [usize; 2] {
        PCBINFOS.map(|offset| self.data + offset)
    }

    fn own(&self, offset: usize, value: usize) {
        // SAFETY: one of the kernel's own variables, inside the first page of the VNET's data.
        unsafe { foreign::store((self.data + offset) as *mut u8, &value.to_le_bytes()) };
    }

    /// Where a variable of this VNET is, by its address in the master region.
    pub(crate) fn variable(&self, address: usize) -> usize {
        self.data + (address - start())
    }

    fn store(&self, address: usize, bytes: &[u8]) {
        let at = self.variable(address);
        // SAFETY: `place` gave out the range, which lies inside the VNET's data.
        unsafe { foreign::store(at as *mut u8, bytes) };
    }
}

fn within(address: IpAddr, route: &Route) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(ip),
    };
    let mask = if route.length == 0 { 0 } else { u128::MAX << (128 - u32::from(route.length).min(128)) };
    address.is_ipv4() == route.prefix.is_ipv4() && (bits(address) ^ bits(route.prefix)) & mask == 0
}

/// The VNET at this address.
pub(crate) fn at(address: usize) -> Option<&'static VnetState> {
    kernel().vnets.read().unwrap().iter().find(|vnet| vnet.address() == address).copied()
}

/// `curvnet`.
pub(crate) fn current() -> Option<&'static VnetState> {
    let address = thread::current(|thread| thread.td().vnet());
    if address == 0 {
        return None;
    }
    Some(at(address).unwrap_or_else(|| complain!("curvnet is {address:#x}, which is no VNET")))
}

fn run(sysinit: VnetSysinit, vnet: &VnetState) {
    thread::current(|thread| {
        let td = thread.td();
        let before = td.vnet();
        td.set_vnet(vnet.address());
        call::one(sysinit.func(), sysinit.arg());
        if td.vnet() != vnet.address() {
            complain!("a VNET constructor or destructor left curvnet changed");
        }
        td.set_vnet(before);
    });
}

/// Makes a VNET and runs the constructors for it.
pub(crate) fn create() -> &'static VnetState {
    let id = kernel().vnets.read().unwrap().len();
    let memory = (eternal(VnetC::SIZE + 64).as_ptr() as usize).next_multiple_of(64);
    // SAFETY: eternal memory of that size, aligned as the structure is.
    let c = unsafe { VnetC::new(memory as *mut u8) }.unwrap_or_else(|| unreachable!());
    // SAFETY: eternal memory of that size.
    let prison = unsafe { Prison::new(eternal(Prison::SIZE).as_ptr()) }.unwrap_or_else(|| unreachable!());
    let data = memory::reserve(SIZE, false);
    c.set_magic(MAGIC);
    c.set_data_mem(data);
    c.set_data_base(data.wrapping_sub(start()));
    prison.set_id(i32::try_from(id).unwrap_or(i32::MAX));
    prison.set_vnet(c.address());
    let vnet: &'static VnetState = Box::leak(Box::new(VnetState {
        c,
        data,
        heads: [Head::new("inet", TYPES[0]), Head::new("inet6", TYPES[1])],
        firewall: Mutex::default(),
        prison,
        ucreds: Mutex::default(),
        ifnets: RwLock::default(),
        local: RwLock::default(),
        routes: RwLock::default(),
        forwarding: AtomicBool::new(false),
        gone: AtomicBool::new(false),
        router: RwLock::default(),
        pcbs: Pcbs::default(),
        events: Events::default(),
    }));
    vnet.own(0, std::ptr::from_ref(&vnet.heads[0]) as usize);
    vnet.own(8, std::ptr::from_ref(&vnet.heads[1]) as usize);
    vnet.own(16, vnet.ifnet("lo0").address());
    for info in PCBINFOS {
        vnet.own(info + INFO_VNET, vnet.address());
    }
    let constructors = {
        let sysinits = kernel().sysinits.lock().unwrap();
        for (address, bytes) in &sysinits.initial {
            vnet.store(*address, bytes);
        }
        kernel().vnets.write().unwrap().push(vnet);
        sysinits.constructors.clone()
    };
    for sysinit in constructors {
        run(sysinit, vnet);
    }
    vnet
}

/// Runs the destructors for a VNET and takes its memory away.
pub(crate) fn destroy(vnet: &'static VnetState) {
    if vnet.gone.swap(true, Ordering::AcqRel) {
        complain!("the VNET is destroyed twice");
    }
    vnet.c.set_shutdown(1);
    let destructors = kernel().sysinits.lock().unwrap().destructors.clone();
    for sysinit in destructors.into_iter().rev() {
        run(sysinit, vnet);
    }
    let left = kernel().hooks.of(vnet);
    if !left.is_empty() {
        complain!("the hooks {left:?} are left in a VNET that is gone");
    }
    // Readers that saw the hooks linked may still be inside.
    crate::epoch::wait();
    let tasks = kernel().tasks.within(&(vnet.data..vnet.data + SIZE));
    if !tasks.is_empty() {
        complain!("the tasks {tasks:?} are left in a VNET that is gone");
    }
    let locks = kernel().locks.within(&(vnet.data..vnet.data + SIZE));
    if !locks.is_empty() {
        complain!("the locks {locks:?} are left in a VNET that is gone");
    }
    kernel().vnets.write().unwrap().retain(|each| !std::ptr::eq(*each, vnet));
    kernel().tasks.forget(&(vnet.data..vnet.data + SIZE), "vnet_destroy");
    kernel().fragments.forget(vnet.address());
    crate::connections::forget(vnet);
    memory::protect(vnet.data, SIZE, libc::PROT_NONE);
    vnet.c.set_magic(0xdead_beef);
    vnet.c.set_data_base(0);
}

/// Room for `size` bytes of a module's VNET variables: their address in the master region.
pub(crate) fn place(size: usize, align: usize) -> Option<usize> {
    let mut sysinits = kernel().sysinits.lock().unwrap();
    let begin = sysinits.used.next_multiple_of(align.max(8));
    if begin + size > MODSPACE {
        return None;
    }
    sysinits.used = begin + size;
    Some(start() + OWN + begin)
}

/// Gives every VNET, now and later, these initial values.
pub(crate) fn publish(address: usize, bytes: Vec<u8>) {
    let mut sysinits = kernel().sysinits.lock().unwrap();
    for vnet in &*kernel().vnets.read().unwrap() {
        vnet.store(address, &bytes);
    }
    sysinits.initial.push((address, bytes));
}

/// Takes a module's variables back.
pub(crate) fn retract(address: usize) {
    let mut sysinits = kernel().sysinits.lock().unwrap();
    sysinits.initial.retain(|(at, _)| *at != address);
    if sysinits.initial.is_empty() {
        sysinits.used = 0;
    }
}

fn sysinit(at: *mut u8) -> VnetSysinit {
    // SAFETY: the structure that VNET_SYSINIT declares.
    unsafe { VnetSysinit::new(at) }.unwrap_or_else(|| complain!("vnet sysinit at address 0"))
}

fn each_vnet() -> Vec<&'static VnetState> {
    kernel().vnets.read().unwrap().clone()
}

extern "C" fn vnet_register_sysinit(at: *mut u8) {
    let new = sysinit(at);
    Sysinits::insert(&mut kernel().sysinits.lock().unwrap().constructors, new);
    for vnet in each_vnet() {
        run(new, vnet);
    }
}

extern "C" fn vnet_deregister_sysinit(at: *mut u8) {
    let old = sysinit(at);
    kernel().sysinits.lock().unwrap().constructors.retain(|s| *s != old);
}

extern "C" fn vnet_register_sysuninit(at: *mut u8) {
    let new = sysinit(at);
    Sysinits::insert(&mut kernel().sysinits.lock().unwrap().destructors, new);
}

extern "C" fn vnet_deregister_sysuninit(at: *mut u8) {
    let old = sysinit(at);
    for vnet in each_vnet() {
        run(old, vnet);
    }
    kernel().sysinits.lock().unwrap().destructors.retain(|s| *s != old);
}

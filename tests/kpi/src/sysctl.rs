//! sysctl(9): nodes of modules, their handlers, loader tunables. See `oids` for nodes that are made at run time.

use crate::call;
use crate::complaint::complain;
use crate::errno::Errno;
use crate::foreign::{self, text};
use crate::kernel::kernel;
use crate::layout::{Oid, Req};
use crate::thread::{self, Entry};
use crate::vnet::VnetState;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};

const CTLTYPE: u32 = 0xf;
const NODE: u32 = 1;
const INT: u32 = 2;
const STRING: u32 = 3;
const S64: u32 = 4;
const UINT: u32 = 6;
const LONG: u32 = 7;
const ULONG: u32 = 8;
const U64: u32 = 9;
const U8: u32 = 10;
const S32: u32 = 14;
const U32: u32 = 15;
const WR: u32 = 0x4000_0000;
const TUN: u32 = 0x0008_0000;
const NOFETCH: u32 = 0x1000;
const VNET: u32 = 0x0002_0000;
const PRISON: u32 = 0x0400_0000;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![
    sysctl_handle_int,
    sysctl_handle_long,
    sysctl_handle_64,
    sysctl_handle_bool,
    sysctl_handle_string,
    sysctl_handle_counter_u64,
];

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[
    ("CTLFLAG_WR", WR),
    ("CTLFLAG_TUN", TUN),
    ("CTLFLAG_NOFETCH", NOFETCH),
    ("CTLFLAG_VNET", VNET),
    ("CTLFLAG_PRISON", PRISON),
];

/// The registered nodes.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Mutex<Nodes>,
    /// A handler returned.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Nodes {
    /// By full name.
    named: BTreeMap<String, Oid>,
    /// Threads in the handler of the node at that address.
    running: BTreeMap<usize, usize>,
}

/// A node whose handler runs; one made at run time is not removed meanwhile.
struct Running(Oid);

impl Drop for Running {
    fn drop(&mut self) {
        let tree = &kernel().sysctls;
        let mut nodes = tree.nodes.lock().unwrap();
        if let Some(threads) = nodes.running.get_mut(&self.0.address()) {
            *threads -= 1;
        }
        tree.idle.notify_all();
    }
}

// SAFETY: the handles are addresses of module data, which does not belong to a thread.
unsafe impl Send for Tree {}
// SAFETY: as above; the map is under a lock.
unsafe impl Sync for Tree {}

impl Tree {
    /// Registers nodes, parents first, and gives tunables their values from the kernel environment.
    pub(crate) fn register(&self, oids: &[Oid]) {
        let mut names: Vec<(usize, String)> = Vec::new();
        let mut left: Vec<Oid> = oids.to_vec();
        while !left.is_empty() {
            let before = left.len();
            left.retain(|&oid| {
                let known = names.iter().find(|(at, _)| *at == oid.parent()).map(|(_, name)| name.clone());
                let Some(parent) = known.or_else(|| crate::variables::node(oid.parent()).map(str::to_owned)) else {
                    return true;
                };
                // SAFETY: a node's name is a string.
                let full = format!("{parent}.{}", unsafe { text(oid.name() as *const u8) });
                // A node's children hang on a list at its begin.
                names.push((oid.address(), full.clone()));
                if self.nodes.lock().unwrap().named.insert(full.clone(), oid).is_some() {
                    complain!("the sysctl {full} is registered twice");
                }
                false
            });
            if left.len() == before {
                complain!("{} sysctl nodes hang below no known node", left.len());
            }
        }
        for (at, name) in &names {
            let oid = oids.iter().find(|oid| oid.address() == *at);
            if let Some(oid) = oid.filter(|oid| oid.kind() & (TUN | NOFETCH) == TUN) {
                fetch(*oid, name);
            }
        }
    }

    /// Takes nodes out.
    pub(crate) fn unregister(&self, oids: &[Oid]) {
        self.nodes.lock().unwrap().named.retain(|_, oid| !oids.contains(oid));
    }

    /// Names that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let nodes = self.nodes.lock().unwrap();
        let named = nodes.named.iter();
        named.filter(|(n, o)| n.starts_with(prefix) && o.kind() & CTLTYPE != NODE).map(|(n, _)| n.clone()).collect()
    }

    /// Registers a node made at run time; gives a tunable its value from the kernel environment.
    pub(crate) fn add(&self, name: &str, oid: Oid) {
        if self.nodes.lock().unwrap().named.insert(name.to_owned(), oid).is_some() {
            complain!("the sysctl {name} is registered twice");
        }
        if oid.kind() & (TUN | NOFETCH) == TUN {
            fetch(oid, name);
        }
    }

    /// Takes out a node made at run time, and waits for the threads in its handler.
    pub(crate) fn remove(&self, name: &str) {
        let mut nodes = self.nodes.lock().unwrap();
        let Some(oid) = nodes.named.remove(name) else { return };
        while nodes.running.get(&oid.address()).is_some_and(|threads| *threads > 0) {
            nodes = self.idle.wait(nodes).unwrap();
        }
        nodes.running.remove(&oid.address());
    }

    fn find(&self, name: &str) -> Result<Running, Errno> {
        let mut nodes = self.nodes.lock().unwrap();
        let oid = nodes.named.get(name).copied().ok_or(Errno::ENOENT)?;
        *nodes.running.entry(oid.address()).or_default() += 1;
        Ok(Running(oid))
    }
}

/// Bytes of a value of that type, from text; `None` if it is no such value.
fn parse(kind: u32, value: &str) -> Option<Vec<u8>> {
    let value = value.trim();
    if kind & CTLTYPE == STRING {
        return Some([value.as_bytes(), &[0]].concat());
    }
    let (digits, negative) = value.strip_prefix('-').map_or((value, false), |digits| (digits, true));
    let (digits, factor) = match digits.char_indices().last() {
        Some((at, 'k' | 'K')) => (&digits[..at], 1_i128 << 10),
        Some((at, 'm' | 'M')) => (&digits[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&digits[..at], 1 << 30),
        _ => (digits, 1),
    };
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => digits.parse::<i128>(),
    };
    let number = parsed.ok()?.checked_mul(if negative { -factor } else { factor })?;
    match kind & CTLTYPE {
        INT | S32 => i32::try_from(number).ok().map(|n| n.to_le_bytes().to_vec()),
        UINT | U32 => u32::try_from(number).ok().map(|n| n.to_le_bytes().to_vec()),
        LONG | S64 => i64::try_from(number).ok().map(|n| n.to_le_bytes().to_vec()),
        ULONG | U64 => u64::try_from(number).ok().map(|n| n.to_le_bytes().to_vec()),
        U8 => u8::try_from(number).ok().map(|n| vec![n]),
        _ => None,
    }
}

/// Text of a value, as sysctl(8) prints it.
fn print(kind: u32, bytes: &[u8]) -> String {
    let wide = |width: usize| -> String {
        let values: Vec<String> = bytes
            .chunks_exact(width)
            .map(|chunk| {
                let mut raw = [0; 8];
                raw[..width].copy_from_slice(chunk);
                let value = u64::from_le_bytes(raw);
                match kind & CTLTYPE {
                    INT | S32 => (value as i32).to_string(),
                    LONG | S64 => (value as i64).to_string(),
                    _ => value.to_string(),
                }
            })
            .collect();
        values.join(" ")
    };
    match kind & CTLTYPE {
        INT | UINT | S32 | U32 => wide(4),
        LONG | ULONG | S64 | U64 => wide(8),
        U8 => wide(1),
        STRING => String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned(),
        _ => format!("{bytes:02x?}"),
    }
}

/// Calls a node's handler with room for the old value and, if given, the new one.
fn handle(oid: Oid, new: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
    let mut old = vec![0_u8; 64 * 1024];
    let mut raw = [0_u64; Req::SIZE / 8];
    // SAFETY: an array of the size of the structure, which outlives the call.
    let req = unsafe { Req::new(raw.as_mut_ptr().cast()) }.unwrap_or_else(|| unreachable!());
    req.set_td(thread::current(|thread| thread.td().address()));
    req.set_oldptr(old.as_mut_ptr() as usize);
    req.set_oldlen(old.len());
    req.set_validlen(old.len());
    req.set_oldfunc(give as *const () as usize);
    req.set_newfunc(take as *const () as usize);
    if let Some(new) = new {
        req.set_newptr(new.as_ptr() as usize);
        req.set_newlen(new.len());
    }
    let mut arg1 = oid.arg1();
    if oid.kind() & VNET != 0 && arg1 != 0 {
        let vnet = crate::vnet::current().unwrap_or_else(|| complain!("a sysctl of a VNET without one"));
        arg1 = vnet.variable(arg1);
    }
    let error = call::four(oid.handler(), oid.address(), arg1, oid.arg2() as usize, req.address());
    Errno::check(error)?;
    old.truncate(req.oldidx());
    Ok(old)
}

/// Gives a tunable its value from the environment.
fn fetch(oid: Oid, name: &str) {
    let Some(value) = kernel().environment.lock().unwrap().get(name).cloned() else { return };
    let bytes = parse(oid.kind(), &value);
    let set = bytes.ok_or(Errno::EINVAL).and_then(|bytes| handle(oid, Some(&bytes)));
    if let Err(error) = set {
        kernel().say(&format!("Setting sysctl {name} failed: {}\n", error.0));
    }
}

/// sysctl(3) of one node, from inside a VNET.
pub(crate) fn get(vnet: &'static VnetState, name: &str) -> Result<String, Errno> {
    let running = kernel().sysctls.find(name)?;
    let oid = running.0;
    let _entry = Entry::new("sysctl", vnet.address(), vnet.ucred(0));
    if oid.kind() & CTLTYPE == NODE {
        return Err(Errno(21));
    }
    handle(oid, None).map(|bytes| print(oid.kind(), &bytes))
}

/// The same, setting it.
pub(crate) fn set(vnet: &'static VnetState, name: &str, value: &str) -> Result<(), Errno> {
    let running = kernel().sysctls.find(name)?;
    let oid = running.0;
    let _entry = Entry::new("sysctl", vnet.address(), vnet.ucred(0));
    let host = kernel().vnet0.get().is_some_and(|vnet0| std::ptr::eq(*vnet0, vnet));
    if oid.kind() & WR == 0 || (!host && oid.kind() & (VNET | PRISON) == 0) {
        return Err(Errno::EPERM);
    }
    let bytes = parse(oid.kind(), value).ok_or(Errno::EINVAL)?;
    handle(oid, Some(&bytes)).map(drop)
}

fn request(req: *mut u8) -> Req {
    // SAFETY: the request that `handle` made and the handler passes on.
    unsafe { Req::new(req) }.unwrap_or_else(|| complain!("a sysctl handler without a request"))
}

/// `req->oldfunc`: SYSCTL_OUT.
extern "C" fn give(req: *mut u8, from: *const u8, length: usize) -> i32 {
    let req = request(req);
    let room = req.oldlen() - req.oldidx();
    // SAFETY: the handler gives `length` bytes.
    let bytes = unsafe { foreign::bytes(from, length) };
    let now = &bytes[..length.min(room)];
    let to = (req.oldptr() + req.oldidx()) as *mut u8;
    // SAFETY: not more than there is room.
    unsafe { foreign::store(to, now) };
    req.set_oldidx(req.oldidx() + now.len());
    if length > room { Errno::ENOMEM.0 } else { 0 }
}

/// `req->newfunc`: SYSCTL_IN.
extern "C" fn take(req: *mut u8, to: *mut u8, length: usize) -> i32 {
    let req = request(req);
    if req.newptr() == 0 {
        return 0;
    }
    if req.newlen() - req.newidx() < length {
        return Errno::EINVAL.0;
    }
    // SAFETY: inside the new value.
    let bytes = unsafe { foreign::bytes((req.newptr() + req.newidx()) as *const u8, length) };
    // SAFETY: the handler gives a place of `length` bytes.
    unsafe { foreign::store(to, &bytes) };
    req.set_newidx(req.newidx() + length);
    0
}

/// What the handlers of numbers do: the value at `arg1`, or `arg2` itself, out; then the new one in.
fn number(arg1: *mut u8, arg2: i64, req: *mut u8, width: usize) -> i32 {
    let value = if arg1.is_null() {
        arg2.to_le_bytes()[..width].to_vec()
    } else {
        // SAFETY: the node's variable.
        unsafe { foreign::bytes(arg1, width) }
    };
    let error = give(req, value.as_ptr(), width);
    if error != 0 || request(req).newptr() == 0 {
        return error;
    }
    if arg1.is_null() { Errno::EPERM.0 } else { take(req, arg1, width) }
}

extern "C" fn sysctl_handle_int(_oid: usize, arg1: *mut u8, arg2: i64, req: *mut u8) -> i32 {
    number(arg1, arg2, req, 4)
}

extern "C" fn sysctl_handle_long(_oid: usize, arg1: *mut u8, _arg2: i64, req: *mut u8) -> i32 {
    if arg1.is_null() { Errno::EINVAL.0 } else { number(arg1, 0, req, 8) }
}

extern "C" fn sysctl_handle_64(_oid: usize, arg1: *mut u8, arg2: i64, req: *mut u8) -> i32 {
    number(arg1, arg2, req, 8)
}

extern "C" fn sysctl_handle_bool(_oid: usize, arg1: *mut u8, arg2: i64, req: *mut u8) -> i32 {
    number(arg1, arg2, req, 1)
}

extern "C" fn sysctl_handle_string(_oid: usize, arg1: *mut u8, _arg2: i64, req: *mut u8) -> i32 {
    // SAFETY: the node's string.
    let value = unsafe { text(arg1) };
    let error = give(req, [value.as_bytes(), &[0]].concat().as_ptr(), value.len() + 1);
    if error != 0 || request(req).newptr() == 0 {
        return error;
    }
    complain!("writing a string sysctl is not emulated");
}

extern "C" fn sysctl_handle_counter_u64(_oid: usize, arg1: *mut u8, _arg2: i64, req: *mut u8) -> i32 {
    // SAFETY: the node's variable: the handle of a counter.
    let counter = unsafe { arg1.cast::<usize>().read() };
    let value = crate::counter::fetch(counter).to_le_bytes();
    let error = give(req, value.as_ptr(), 8);
    if error != 0 || request(req).newptr() == 0 {
        return error;
    }
    complain!("resetting a counter sysctl is not emulated");
}

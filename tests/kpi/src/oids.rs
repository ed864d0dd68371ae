//! sysctl_ctx_init(9): nodes that a module makes at run time, and that the kernel waits for when it removes them.

use crate::complaint::complain;
use crate::foreign::{eternal, store, text};
use crate::kernel::kernel;
use crate::layout::Oid;
use crate::thread;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// `CTLFLAG_DYN`.
const DYN: u32 = 0x0200_0000;
/// `struct sysctl_ctx_list`, a TAILQ_HEAD: first, last.
type List = [usize; 2];

pub(crate) const SYMBOLS: &[crate::symbols::Function] =
    crate::symbols![sysctl_ctx_init, sysctl_add_oid, sysctl_ctx_free];

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[("CTLFLAG_DYN", DYN)];

/// The contexts by address, each with the names and addresses of its nodes in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Contexts(Mutex<BTreeMap<usize, Vec<(String, usize)>>>);

impl Contexts {
    /// Full name of the node whose list of children is at this address; that list is a node's first field.
    fn node(&self, children: usize) -> Option<String> {
        let contexts = self.0.lock().unwrap();
        contexts.values().flatten().find(|(_, at)| *at == children).map(|(name, _)| name.clone())
    }

    /// Names of all nodes.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().values().flatten().map(|(name, _)| name.clone()).collect()
    }
}

/// A string that the kernel keeps.
fn copy(string: &str) -> usize {
    let at = eternal(string.len() + 1).as_ptr();
    // SAFETY: fresh memory of that size, whose last byte stays zero.
    unsafe { store(at, string.as_bytes()) };
    at as usize
}

extern "C" fn sysctl_ctx_init(list: *mut List) -> i32 {
    // SAFETY: the module's list.
    unsafe { list.write([0, list as usize]) };
    if kernel().contexts.0.lock().unwrap().insert(list as usize, Vec::new()).is_some() {
        complain!("sysctl_ctx_init: the context is in use");
    }
    0
}

extern "C" fn sysctl_add_oid(
    list: *mut List,
    parent: usize,
    number: i32,
    name: *const u8,
    kind: u32,
    arg1: usize,
    arg2: i64,
    handler: usize,
    fmt: usize,
    descr: *const u8,
    _label: *const u8,
) -> *mut u8 {
    thread::check_sleep("sysctl_add_oid");
    // SAFETY: a name is a string.
    let name = unsafe { text(name) };
    // SAFETY: a description is a string.
    let descr = unsafe { text(descr) };
    let above = crate::variables::node(parent).map(str::to_owned).or_else(|| kernel().contexts.node(parent));
    let Some(above) = above else { complain!("sysctl_add_oid: {name} hangs below no known node") };
    let full = format!("{above}.{name}");
    let memory = Box::into_raw(Box::new([0_u64; Oid::SIZE / 8])).cast::<u8>();
    // SAFETY: memory of that size, which lives until the context is freed.
    let oid = unsafe { Oid::new(memory) }.unwrap_or_else(|| unreachable!());
    oid.set_parent(parent);
    oid.set_number(number);
    oid.set_kind(kind | DYN);
    oid.set_arg1(arg1);
    oid.set_arg2(arg2);
    oid.set_name(copy(&name));
    oid.set_handler(handler);
    oid.set_fmt(fmt);
    oid.set_descr(copy(&descr));
    if let Some(nodes) = kernel().contexts.0.lock().unwrap().get_mut(&(list as usize)) {
        nodes.push((full.clone(), memory as usize));
    } else {
        complain!("sysctl_add_oid: {full} is added to no context");
    }
    kernel().sysctls.add(&full, oid);
    memory
}

extern "C" fn sysctl_ctx_free(list: *mut List) -> i32 {
    thread::check_sleep("sysctl_ctx_free");
    let Some(nodes) = kernel().contexts.0.lock().unwrap().remove(&(list as usize)) else {
        complain!("sysctl_ctx_free: a context that sysctl_ctx_init did not see");
    };
    for (name, at) in nodes.into_iter().rev() {
        kernel().sysctls.remove(&name);
        // SAFETY: made by sysctl_add_oid, and no handler runs with it any more.
        drop(unsafe { Box::from_raw(at as *mut [u64; Oid::SIZE / 8]) });
    }
    0
}

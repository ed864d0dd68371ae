//! pfil(9): heads, hooks, links, and running a head's chain.

use crate::call;
use crate::complaint::complain;
use crate::foreign::{eternal, text};
use crate::kernel::kernel;
use crate::layout::{PfilHookArgs, PfilLinkArgs};
use crate::mbuf::{self, M};
use crate::stack;
use crate::thread;
use crate::vnet::VnetState;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};

const VERSION: i32 = 2;
pub(crate) const IN: i32 = 0x0001_0000;
pub(crate) const OUT: i32 = 0x0002_0000;
const FWD: i32 = 0x0004_0000;
const HEADPTR: i32 = 0x0010_0000;
const HOOKPTR: i32 = 0x0020_0000;
const APPEND: i32 = 0x0040_0000;
const UNLINK: i32 = 0x0080_0000;

pub(crate) const PASS: i32 = 0;
pub(crate) const DROPPED: i32 = 1;
pub(crate) const CONSUMED: i32 = 2;

/// `PFIL_TYPE_IP4` and `PFIL_TYPE_IP6`.
pub(crate) const TYPES: [i32; 2] = [0, 1];

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![pfil_add_hook, pfil_link, pfil_remove_hook];

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[
    ("PFIL_VERSION", VERSION as u32),
    ("PFIL_IN", IN as u32),
    ("PFIL_OUT", OUT as u32),
    ("PFIL_FWD", FWD as u32),
    ("PFIL_HEADPTR", HEADPTR as u32),
    ("PFIL_HOOKPTR", HOOKPTR as u32),
    ("PFIL_APPEND", APPEND as u32),
    ("PFIL_UNLINK", UNLINK as u32),
    ("PFIL_PASS", PASS as u32),
    ("PFIL_DROPPED", DROPPED as u32),
    ("PFIL_CONSUMED", CONSUMED as u32),
    ("PFIL_TYPE_IP4", TYPES[0] as u32),
    ("PFIL_TYPE_IP6", TYPES[1] as u32),
];

/// `pa_mbuf_chk`.
type Check = extern "C" fn(*mut usize, usize, i32, usize, usize) -> i32;

#[derive(Debug)]
struct Hook {
    address: usize,
    module: String,
    rule: String,
    kind: i32,
    flags: i32,
    check: usize,
    ruleset: usize,
    vnet: &'static VnetState,
}

/// The hooks of a machine, by the handle that the module has.
#[derive(Debug, Default)]
pub(crate) struct Hooks(Mutex<HashMap<usize, Arc<Hook>>>);

impl Hooks {
    /// Hooks whose function lies in the range.
    pub(crate) fn within(&self, range: &Range<usize>) -> Vec<String> {
        let hooks = self.0.lock().unwrap();
        hooks.values().filter(|h| range.contains(&h.check)).map(|h| format!("{}:{}", h.module, h.rule)).collect()
    }

    /// Hooks of a VNET.
    pub(crate) fn of(&self, vnet: &VnetState) -> Vec<String> {
        let hooks = self.0.lock().unwrap();
        let own = hooks.values().filter(|h| std::ptr::eq(h.vnet, vnet));
        own.map(|h| format!("{}:{}", h.module, h.rule)).collect()
    }
}

/// A hook linked to a head.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    hook: Arc<Hook>,
    check: Check,
    ruleset: usize,
}

/// A filtering point of a VNET. Begins as `struct pfil_head`: with the number of its hooks for input and for output.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head {
    hooked: [AtomicI32; 2],
    /// Its name.
    pub(crate) name: &'static str,
    kind: i32,
    input: AtomicPtr<Vec<Link>>,
    output: AtomicPtr<Vec<Link>>,
    /// Serialises changes.
    lock: Mutex<()>,
}

impl Head {
    pub(crate) fn new(name: &'static str, kind: i32) -> Self {
        let empty = || AtomicPtr::new(Box::into_raw(Box::new(Vec::new())));
        let hooked = [AtomicI32::new(0), AtomicI32::new(0)];
        Self { hooked, name, kind, input: empty(), output: empty(), lock: Mutex::new(()) }
    }

    fn chain(&self, direction: i32) -> &[Link] {
        let chain = if direction == IN { &self.input } else { &self.output };
        // SAFETY: always a leaked vector, which is never freed: links are few, and a reader may hold it.
        unsafe { &*chain.load(Ordering::Acquire) }
    }

    /// Whether no hook is linked in that direction.
    pub(crate) fn is_empty(&self, direction: i32) -> bool {
        self.chain(direction).is_empty()
    }

    fn replace(&self, direction: i32, links: Vec<Link>) {
        let chain = if direction == IN { &self.input } else { &self.output };
        self.hooked[usize::from(direction == OUT)].store(links.len() as i32, Ordering::Relaxed);
        chain.store(Box::into_raw(Box::new(links)), Ordering::Release);
    }

    fn remove(&self, direction: i32, hook: usize) -> bool {
        let links = self.chain(direction);
        let rest: Vec<_> = links.iter().filter(|link| link.hook.address != hook).cloned().collect();
        let found = rest.len() < links.len();
        if found {
            self.replace(direction, rest);
        }
        found
    }

    fn insert(&self, direction: i32, link: Link, append: bool) {
        let mut links = self.chain(direction).to_vec();
        // Without PFIL_APPEND a hook comes nearest the wire: first on input, last on output.
        if (direction == OUT) != append {
            links.push(link);
        } else {
            links.insert(0, link);
        }
        self.replace(direction, links);
    }

    /// The first link's function, for measurements: with its ruleset.
    pub(crate) fn first(&self, direction: i32) -> Option<(Check, usize)> {
        self.chain(direction).first().map(|link| (link.check, link.ruleset))
    }

    /// Runs the hooks. `contiguous` is what the IP layer reads of the packet afterwards, in bytes.
    pub(crate) fn run(
        &self,
        m: M,
        direction: i32,
        forward: bool,
        ifp: usize,
        inp: usize,
        contiguous: usize,
    ) -> Result<M, i32> {
        let flags = direction | if forward { FWD } else { 0 };
        let mut m = m;
        for link in self.chain(direction) {
            let mut pointer = m.address();
            let before = thread::current(|t| (t.held.borrow().len(), t.trackers.borrow().len(), t.td().vnet()));
            let verdict = stack::watched(|| (link.check)(&raw mut pointer, ifp, flags, link.ruleset, inp));
            let after = thread::current(|t| (t.held.borrow().len(), t.trackers.borrow().len(), t.td().vnet()));
            let who = &link.hook.module;
            if before != after {
                complain!(
                    "hook {who} of {}: locks, epoch sections, curvnet were {before:?}, are {after:?} after it",
                    self.name
                );
            }
            match verdict {
                PASS => {
                    let Some(passed) = M::at(pointer, "a hook's packet") else {
                        complain!("hook {who} of {} returns PASS with a null mbuf", self.name);
                    };
                    mbuf::verify(passed, contiguous, who);
                    m = passed;
                }
                DROPPED | CONSUMED => {
                    if pointer != 0 {
                        complain!("hook {who} of {} returns {verdict} and leaves the mbuf to nobody", self.name);
                    }
                    return Err(verdict);
                }
                other => complain!("hook {who} of {} returns {other}, which is no verdict", self.name),
            }
        }
        Ok(m)
    }
}

/// Names of a hook: of its module and of its rule.
fn names(module: usize, rule: usize) -> (String, String) {
    // SAFETY: a string, by the KPI.
    let module = unsafe { text(module as *const u8) };
    // SAFETY: a string, by the KPI.
    let rule = unsafe { text(rule as *const u8) };
    (module, rule)
}

fn current_vnet(who: &str) -> &'static VnetState {
    crate::vnet::current().unwrap_or_else(|| complain!("{who}: curvnet is not set"))
}

extern "C" fn pfil_add_hook(arguments: *mut u8) -> usize {
    let who = "pfil_add_hook";
    thread::check_sleep(who);
    // SAFETY: the caller's structure.
    let arguments = unsafe { PfilHookArgs::new(arguments) }.unwrap_or_else(|| complain!("{who}: no arguments"));
    if arguments.version() != VERSION {
        complain!("{who}: version {}", arguments.version());
    }
    call::check(arguments.mbuf_chk(), who);
    let address = eternal(16).as_ptr() as usize;
    let (module, rule) = names(arguments.modname(), arguments.rulname());
    let hook = Hook {
        address,
        module,
        rule,
        kind: arguments.type_(),
        flags: arguments.flags(),
        check: arguments.mbuf_chk(),
        ruleset: arguments.ruleset(),
        vnet: current_vnet(who),
    };
    let mut hooks = kernel().hooks.0.lock().unwrap();
    let same = |h: &Hook| std::ptr::eq(h.vnet, hook.vnet) && h.module == hook.module && h.rule == hook.rule;
    if hooks.values().any(|h| same(h)) {
        kernel().say(&format!("pfil: duplicate hook \"{}:{}\"\n", hook.module, hook.rule));
    }
    hooks.insert(address, Arc::new(hook));
    address
}

fn link(arguments: PfilLinkArgs) -> Result<(), i32> {
    let who = "pfil_link";
    if arguments.version() != VERSION {
        complain!("{who}: version {}", arguments.version());
    }
    thread::check_sleep(who);
    let vnet = current_vnet(who);
    let flags = arguments.flags();
    let head = if flags & HEADPTR != 0 {
        vnet.heads.iter().find(|head| std::ptr::from_ref(*head) as usize == arguments.head())
    } else {
        // SAFETY: a string, by the KPI.
        let name = unsafe { text(arguments.head() as *const u8) };
        vnet.heads.iter().find(|head| head.name == name)
    };
    let hooks = kernel().hooks.0.lock().unwrap();
    let hook = if flags & HOOKPTR != 0 {
        let hook = hooks.get(&arguments.hook());
        Some(hook.unwrap_or_else(|| complain!("{who}: {:#x} is no hook", arguments.hook())))
    } else {
        let (module, rule) = names(arguments.hook(), arguments.rulname());
        hooks.values().find(|h| std::ptr::eq(h.vnet, vnet) && h.module == module && h.rule == rule)
    };
    let (Some(head), Some(hook)) = (head, hook) else { return Err(ENOENT) };
    let wanted = [IN, OUT].into_iter().filter(|direction| flags & direction != 0);
    let guard = head.lock.lock().unwrap();
    if flags & UNLINK != 0 {
        let found = wanted.filter(|direction| head.remove(*direction, hook.address)).count() > 0;
        return if found { Ok(()) } else { Err(ENOENT) };
    }
    if head.kind != hook.kind || (hook.flags & flags) & !(IN | OUT) != 0 {
        return Err(EINVAL);
    }
    if wanted.clone().any(|direction| head.chain(direction).iter().any(|l| l.hook.address == hook.address)) {
        return Err(EEXIST);
    }
    for direction in wanted {
        // SAFETY: checked to be code when the hook was added; this is the prototype of pa_mbuf_chk.
        let check: Check = unsafe { std::mem::transmute(hook.check) };
        let link = Link { hook: Arc::clone(hook), check, ruleset: hook.ruleset };
        head.insert(direction, link, flags & APPEND != 0);
    }
    drop(guard);
    Ok(())
}

extern "C" fn pfil_link(arguments: *mut u8) -> i32 {
    // SAFETY: the caller's structure.
    let arguments = unsafe { PfilLinkArgs::new(arguments) }.unwrap_or_else(|| complain!("pfil_link: no arguments"));
    link(arguments).err().unwrap_or(0)
}

extern "C" fn pfil_remove_hook(hook: usize) {
    let who = "pfil_remove_hook";
    let vnet = current_vnet(who);
    let Some(found) = kernel().hooks.0.lock().unwrap().remove(&hook) else {
        complain!("{who}: {hook:#x} is no hook");
    };
    if !std::ptr::eq(found.vnet, vnet) {
        complain!("{who}: the hook belongs to another VNET than curvnet");
    }
    for head in &vnet.heads {
        let _guard = head.lock.lock().unwrap();
        for direction in [IN, OUT] {
            head.remove(direction, hook);
        }
    }
}

/// What a firewall passes to its hook.
extern "C" fn look(slot: *mut usize, _ifp: usize, flags: i32, ruleset: usize, _inp: usize) -> i32 {
    // SAFETY: as the heads call hooks.
    let m = unsafe { slot.read() };
    let m = M::at(m, "the firewall").unwrap_or_else(|| complain!("a null mbuf comes to the firewall"));
    let Some(vnet) = crate::vnet::at(ruleset) else { return DROPPED };
    // Firewalls leave alone what they, or hooks like them, have sent on its way.
    if !m.has(mbuf::flag::SKIP_FIREWALL) {
        vnet.firewall.lock().unwrap().push((flags & OUT != 0, mbuf::gather(m)));
    }
    PASS
}

/// Switches the VNET's firewall on, which links its hooks nearest the wire as pf(4) does, or off.
pub(crate) fn firewall(vnet: &'static VnetState, on: bool) {
    /// Its hooks have no handle.
    const ADDRESS: usize = 1;
    for head in &vnet.heads {
        let _guard = head.lock.lock().unwrap();
        for direction in [IN, OUT] {
            head.remove(direction, ADDRESS);
            if on {
                let (module, rule) = ("firewall".to_owned(), head.name.to_owned());
                let (check, ruleset) = (look as *const () as usize, vnet.address());
                let hook =
                    Hook { address: ADDRESS, module, rule, kind: head.kind, flags: IN | OUT, check, ruleset, vnet };
                head.insert(direction, Link { hook: Arc::new(hook), check: look, ruleset }, false);
            }
        }
    }
}

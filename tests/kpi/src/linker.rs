//! kldload(8) and kldunload(8): versions, modules and their events, SYSINITs, what must be gone afterwards.

use crate::call;
use crate::complaint::complain;
use crate::elf::{self, Image};
use crate::errno::Errno;
use crate::foreign::text;
use crate::kernel::kernel;
use crate::layout::{ModDepend, ModMetadata, Moduledata, Oid, Sysinit};
use crate::memory;
use crate::thread::Entry;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

const MDT_DEPEND: i32 = 1;
const MDT_MODULE: i32 = 2;

const MOD_LOAD: usize = 0;
const MOD_UNLOAD: usize = 1;
const MOD_QUIESCE: usize = 3;

/// Constants of FreeBSD's headers, by name.
pub(crate) const FACTS: &[(&str, u32)] = &[
    ("MDT_DEPEND", MDT_DEPEND as u32),
    ("MDT_MODULE", MDT_MODULE as u32),
    ("MOD_LOAD", MOD_LOAD as u32),
    ("MOD_UNLOAD", MOD_UNLOAD as u32),
    ("MOD_QUIESCE", MOD_QUIESCE as u32),
];

/// The images whose code may run.
static IMAGES: RwLock<Vec<Arc<Image>>> = RwLock::new(Vec::new());
/// Where images were, so that a jump there can be named.
static FORMER: RwLock<Vec<Range<usize>>> = RwLock::new(Vec::new());

/// A loaded file.
#[derive(Debug)]
pub(crate) struct Loaded {
    image: Arc<Image>,
    modules: Vec<Module>,
    oids: Vec<Oid>,
}

// SAFETY: the handles are addresses of module data, which does not belong to a thread.
unsafe impl Send for Loaded {}

#[derive(Clone, Debug)]
struct Module {
    name: String,
    data: Moduledata,
}

/// Modules of the file that is being loaded; MOD_LOAD failures take them out.
static LOADING: Mutex<Vec<(String, usize)>> = Mutex::new(Vec::new());

/// Whether a function of a module or of the kernel begins or lies there.
pub(crate) fn is_code(at: usize) -> bool {
    IMAGES.read().unwrap().iter().any(|image| image.is_code(at)) || crate::symbols::is_entry(at)
}

/// The place of an address in words, for the fault handler.
pub(crate) fn describe(at: usize) -> Option<String> {
    if let Ok(images) = IMAGES.try_read()
        && let Some(image) = images.iter().find(|image| image.range.contains(&at))
    {
        return Some(image.describe(at));
    }
    let former = FORMER.try_read().ok()?;
    former.iter().any(|range| range.contains(&at)).then(|| "a module that is unloaded".to_owned())
}

fn metadata(image: &Image) -> impl Iterator<Item = ModMetadata> {
    // SAFETY: the set holds pointers to such structures in the image.
    image.set("modmetadata_set").into_iter().filter_map(|at| unsafe { ModMetadata::new(at as *mut u8) })
}

fn label(metadata: ModMetadata) -> String {
    // SAFETY: a string, by the declaration of the metadata.
    unsafe { text(metadata.md_cval() as *const u8) }
}

/// Whether what the file depends on is there in a fitting version.
fn check_dependencies(image: &Image) -> Result<(), String> {
    let running = kernel().options.osreldate;
    for entry in metadata(image).filter(|entry| entry.md_type() == MDT_DEPEND) {
        let name = label(entry);
        // SAFETY: the data of a dependency is this structure.
        let Some(depend) = (unsafe { ModDepend::new(entry.md_data() as *mut u8) }) else {
            return Err(format!("the dependency on {name} has no versions"));
        };
        let wanted = depend.md_ver_minimum()..=depend.md_ver_maximum();
        if name != "kernel" || !wanted.contains(&running) {
            return Err(format!("depends on {name} - not available or version mismatch"));
        }
    }
    Ok(())
}

fn modules(image: &Image) -> Vec<Module> {
    let entries = metadata(image).filter(|entry| entry.md_type() == MDT_MODULE);
    let data = entries.filter_map(|entry| {
        // SAFETY: the data of a module is this structure.
        unsafe { Moduledata::new(entry.md_data() as *mut u8) }
    });
    data.map(|data| {
        // SAFETY: a module's name is a string.
        let name = unsafe { text(data.name() as *const u8) };
        Module { name, data }
    })
    .collect()
}

/// When a SYSINIT runs.
fn key(sysinit: &Sysinit) -> (u32, u32) {
    (sysinit.subsystem(), sysinit.order())
}

/// What a linker set of the module loaded last holds.
pub(crate) fn set_of_last(set: &str) -> Vec<usize> {
    kernel().modules.lock().unwrap().last().map(|file| file.image.set(set)).unwrap_or_default()
}

fn sysinits(image: &Image, set: &str) -> Vec<Sysinit> {
    // SAFETY: the set holds pointers to such structures in the image.
    let all = image.set(set).into_iter().filter_map(|at| unsafe { Sysinit::new(at as *mut u8) });
    all.filter(|sysinit| sysinit.subsystem() != 0).collect()
}

fn event(data: Moduledata, module: usize, what: usize) -> i32 {
    match data.evhand() {
        0 if what == MOD_LOAD => 0,
        0 => Errno::EBUSY.0,
        handler => call::three(handler, module, what, data.priv_()),
    }
}

/// The SYSINIT function of DECLARE_MODULE: sends MOD_LOAD.
pub(crate) fn register_init(data: *mut u8) {
    // SAFETY: the argument that DECLARE_MODULE gives its SYSINIT.
    let data = unsafe { Moduledata::new(data) }.unwrap_or_else(|| complain!("module_register_init: no data"));
    // SAFETY: a module's name is a string.
    let name = unsafe { text(data.name() as *const u8) };
    let error = event(data, data.address(), MOD_LOAD);
    if error != 0 {
        event(data, data.address(), MOD_UNLOAD);
        LOADING.lock().unwrap().retain(|(_, at)| *at != data.address());
        kernel().say(&format!("module_register_init: MOD_LOAD ({name}) error {error}\n"));
    }
}

/// kldload(2).
pub(crate) fn load(path: &Path, tunables: &[(&str, &str)]) -> Result<(), Errno> {
    let data = std::fs::read(path).map_err(|_| Errno::ENOENT)?;
    {
        let mut environment = kernel().environment.lock().unwrap();
        for (name, value) in tunables {
            environment.insert((*name).to_owned(), (*value).to_owned());
        }
    }
    let entry = Entry::new("kldload", 0, 0);
    let refused = |why: String| {
        kernel().say(&format!("kldload: {}: {why}\n", path.display()));
        Errno::ENOEXEC
    };
    let image = elf::load(&data).map_err(refused)?;
    check_dependencies(&image).map_err(refused)?;
    let image = Arc::new(image);
    let found = modules(&image);
    let mut loaded = kernel().modules.lock().unwrap();
    let taken = |name: &str| loaded.iter().any(|file| file.modules.iter().any(|module| module.name == name));
    if found.iter().any(|module| taken(&module.name)) {
        return Err(Errno::EEXIST);
    }
    if let Some((at, initial)) = &image.vnet {
        crate::vnet::publish(*at, initial.clone());
    }
    IMAGES.write().unwrap().push(Arc::clone(&image));
    *LOADING.lock().unwrap() = found.iter().map(|m| (m.name.clone(), m.data.address())).collect();
    // SAFETY: the set holds pointers to such structures in the image.
    let oids =
        image.set("sysctl_set").into_iter().filter_map(|at| unsafe { Oid::new(at as *mut u8) }).collect::<Vec<_>>();
    kernel().sysctls.register(&oids);
    let mut inits = sysinits(&image, "sysinit_set");
    inits.sort_by_key(key);
    for sysinit in inits {
        call::one(sysinit.func(), sysinit.udata());
    }
    let alive = std::mem::take(&mut *LOADING.lock().unwrap());
    let file = Loaded {
        image,
        modules: found.iter().filter(|m| alive.iter().any(|(_, at)| *at == m.data.address())).cloned().collect(),
        oids,
    };
    if !found.is_empty() && file.modules.is_empty() {
        entry.rename("kldload, after its module refused");
        finish(&file);
        return Err(Errno::ENOEXEC);
    }
    loaded.push(file);
    Ok(())
}

/// kldunload(2) of the file loaded last.
pub(crate) fn unload(force: bool) -> Result<(), Errno> {
    let _entry = Entry::new("kldunload", 0, 0);
    let mut loaded = kernel().modules.lock().unwrap();
    let file = loaded.last().ok_or(Errno::ENOENT)?;
    for module in &file.modules {
        let error = event(module.data, module.data.address(), MOD_QUIESCE);
        if error != 0 && error != Errno::EOPNOTSUPP.0 && error != Errno::EINVAL.0 && !force {
            return Err(Errno(error));
        }
    }
    for module in &file.modules {
        Errno::check(event(module.data, module.data.address(), MOD_UNLOAD))?;
    }
    if let Some(file) = loaded.pop() {
        finish(&file);
    }
    Ok(())
}

/// What follows the last event: nodes, SYSUNINITs, and a look at what is left.
fn finish(file: &Loaded) {
    kernel().sysctls.unregister(&file.oids);
    let mut uninits = sysinits(&file.image, "sysuninit_set");
    uninits.sort_by_key(|sysuninit| std::cmp::Reverse(key(sysuninit)));
    for sysuninit in uninits {
        call::one(sysuninit.func(), sysuninit.udata());
    }
    let range = &file.image.range;
    let kernel = kernel();
    let left: [(&str, Vec<String>); 8] = [
        ("tasks", kernel.tasks.within(range)),
        ("sysctls", kernel.contexts.names()),
        ("hooks", kernel.hooks.within(range)),
        ("devices", kernel.devices.within(range)),
        ("malloc types", kernel.malloc.types_in(range)),
        ("locks", kernel.locks.within(range)),
        ("lists of knotes", kernel.waiting.lists()),
        ("knotes", kernel.waiting.notes_of(range)),
    ];
    for (what, names) in left {
        if !names.is_empty() {
            complain!("the module is unloaded, and its {what} {names:?} are left");
        }
    }
    kernel.tasks.forget(range, "kldunload");
    if kernel.callbacks.pending().iter().any(|function| range.contains(function)) {
        complain!("the module is unloaded, and an epoch callback of it is left");
    }
    if kernel.sysinits.lock().unwrap().any_in(range) {
        complain!("the module is unloaded, and a VNET constructor or destructor of it is left");
    }
    if kernel.counters.live() > 0 {
        complain!("the module is unloaded, and {} counters are left", kernel.counters.live());
    }
    // What it gave to the kernel is the kernel's.
    kernel.netisr.wait_idle();
    if crate::ip::in_flight() == 0 && kernel.live_mbufs() > 0 {
        complain!("the module is unloaded, and {} mbufs are left", kernel.live_mbufs());
    }
    kernel.malloc.check_all();
    kernel.mbufs.check_all();
    kernel.clusters.check_all();
    if let Some((at, _)) = &file.image.vnet {
        crate::vnet::retract(*at);
    }
    IMAGES.write().unwrap().retain(|image| !Arc::ptr_eq(image, &file.image));
    FORMER.write().unwrap().push(range.clone());
    // Whoever still runs there faults, and the handler says where.
    memory::protect(range.start, range.len(), libc::PROT_NONE);
}

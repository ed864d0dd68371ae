//! What the module says about itself: `set_modmetadata_set`, see module(9).

use crate::module::{Module, Place};
use object::{Object, ObjectSection};

/// The oldest and the newest kernel that the module serves: those of the branch
/// that `MOBCONN_FREEBSD` names, from its first release on.
fn kernels_served() -> (i32, i32) {
    match std::env::var("MOBCONN_FREEBSD").as_deref() {
        Ok("15") => (1_500_068, 1_599_999),
        _ => (1_400_097, 1_499_999),
    }
}

const SET: &str = "set_modmetadata_set";
const DEPEND: i32 = 1;
const MODULE: i32 = 2;
const VERSION: i32 = 3;

/// One entry of the set: `struct mod_metadata`.
struct Entry<'a> {
    kind: i32,
    data: Place,
    label: &'a str,
}

fn entries<'a>(module: &Module<'a>) -> Option<Vec<Entry<'a>>> {
    let set = module.elf.section_by_name(SET)?;
    (0..set.size() / 8)
        .map(|i| {
            let entry = module.pointer(Place { section: set.index().0, offset: i * 8 })?;
            let field = |offset| Place { offset: entry.offset + offset, ..entry };
            Some(Entry {
                kind: module.int(field(4))?,
                data: module.pointer(field(8))?,
                label: module.string(module.pointer(field(16))?)?,
            })
        })
        .collect()
}

/// Compares name, version and the dependency on the kernel with what they must be.
#[must_use]
pub fn metadata(module: &Module<'_>, version: u32) -> Vec<String> {
    let Some(entries) = entries(module) else { return vec![format!("{SET} is missing or damaged")] };
    let of = |kind, label| entries.iter().filter(move |entry| entry.kind == kind && entry.label == label);
    let mut complaints = Vec::new();
    if of(MODULE, "mobconn").count() != 1 || entries.iter().filter(|entry| entry.kind == MODULE).count() != 1 {
        complaints.push("it does not declare exactly the module mobconn".into());
    }
    let versions: Vec<_> = of(VERSION, "mobconn").map(|entry| module.int(entry.data)).collect();
    if versions != [i32::try_from(version).ok()] {
        complaints.push(format!("its version is {versions:?}, not {version}"));
    }
    let kernels: Vec<_> = of(DEPEND, "kernel")
        .map(|entry| [0, 4, 8].map(|offset| module.int(Place { offset: entry.data.offset + offset, ..entry.data })))
        .collect();
    let (first, last) = kernels_served();
    match kernels.as_slice() {
        [[Some(oldest), Some(preferred), Some(newest)]]
            if *newest == last && (first..=last).contains(oldest) && (*oldest..=last).contains(preferred) => {}
        other => complaints.push(format!("its kernels are {other:?}, not {first} or later to {last}")),
    }
    complaints
}

/// The linker sets that the kernel linker looks for: none empty, none lost.
#[must_use]
pub fn sets(module: &Module<'_>) -> Vec<String> {
    // Malloc type, lock of the bells, module, vnet begin and end; the same but the module. No
    // static sysctl: its handler could run on when the module is gone.
    let wanted = [
        ("set_sysinit_set", 5),
        ("set_sysuninit_set", 4),
        ("set_sysctl_set", 0),
        (SET, 3),
        ("set_vnet", 1),
        ("set_sdt_providers_set", 1),
        ("set_sdt_probes_set", 5),
        ("set_sdt_argtypes_set", 14),
    ];
    wanted
        .iter()
        .filter_map(|(name, count)| {
            let found = module.elf.section_by_name(name).map_or(0, |section| section.size() / 8);
            (found != *count).then(|| format!("{name} has {found} entries, not {count}"))
        })
        .collect()
}

//! What the module takes from the kernel, and what it calls its own things.

use crate::module::Module;
use object::{Object, ObjectSymbol};
use std::collections::BTreeSet;

/// Compares the symbols that the module takes from the kernel with the
/// reviewed list: one name a line, sorted.
#[must_use]
pub fn undefined(module: &Module<'_>, reviewed: &str) -> Vec<String> {
    let listed: Vec<&str> = reviewed.lines().collect();
    let mut complaints = Vec::new();
    if !listed.is_sorted() || listed.windows(2).any(|pair| pair.first() == pair.last()) {
        complaints.push("the reviewed list is not sorted, or names something twice".into());
    }
    let listed: BTreeSet<&str> = listed.into_iter().collect();
    let needed: BTreeSet<&str> = module
        .elf
        .symbols()
        .filter(ObjectSymbol::is_undefined)
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| !name.is_empty())
        .collect();
    complaints.extend(needed.difference(&listed).map(|name| format!("needs {name}, which was not reviewed")));
    complaints.extend(listed.difference(&needed).map(|name| format!("{name} was reviewed but is not needed")));
    complaints
}

/// Names that the kernel linker or another module could take for its own: all
/// are local, and carry the module's name or that of a Rust crate.
#[must_use]
pub fn names(module: &Module<'_>) -> Vec<String> {
    let defined = module.elf.symbols().filter(|symbol| symbol.is_definition());
    defined
        .filter_map(|symbol| {
            let name = symbol.name().ok()?;
            if symbol.is_global() {
                return Some(format!("{name} is global"));
            }
            let own = name.is_empty()
                || name.starts_with("_R")
                || name.starts_with(".L")
                || name.to_ascii_lowercase().contains("mobconn");
            (!own).then(|| format!("{name} does not carry the module's name"))
        })
        .collect()
}

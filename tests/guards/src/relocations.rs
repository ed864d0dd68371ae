//! The relocations that FreeBSD's kernel linker knows, for code that lies in
//! the top two gigabytes.

use crate::module::Module;
use object::elf::{R_X86_64_32S, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32};
use object::{Object, ObjectSection, RelocationFlags};

const KNOWN: [u32; 4] = [R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_32S];

/// Relocations of any other type.
#[must_use]
pub fn types(module: &Module<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut seen = 0_usize;
    for section in module.elf.sections() {
        for (offset, relocation) in section.relocations() {
            seen += 1;
            match relocation.flags() {
                RelocationFlags::Elf { r_type } if KNOWN.contains(&r_type) => {}
                flags => complaints.push(format!("{}+{offset:#x}: {flags:?}", section.name().unwrap_or("?"))),
            }
        }
    }
    if seen == 0 {
        complaints.push("no relocation at all: is this a relocatable object?".into());
    }
    complaints
}

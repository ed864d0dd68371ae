//! The kernel's symbol table: what a module's undefined symbols are resolved to.
//!
//! A function is an entry in low memory that jumps to this crate; a variable is a low blob. Both live as long
//! as the process.

use crate::memory::LOW;
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

/// A function that modules call: its name and where it is.
pub(crate) type Function = (&'static str, *const ());

/// A list of [`Function`]s from functions of those names.
macro_rules! symbols {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as *const ())),*] };
}
pub(crate) use symbols;

/// A resolved symbol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    /// Its address, below 2 GiB.
    pub(crate) address: usize,
}

static TABLE: OnceLock<HashMap<&'static str, Symbol>> = OnceLock::new();

/// An entry point: notes how deep the stack is (see `stack`), then jumps.
fn trampoline(target: usize) -> usize {
    let at = LOW.lock().unwrap().take(64, 16);
    let cell = (crate::stack::CELL as u32).to_le_bytes();
    let mut code = Vec::new();
    // cmp rsp, gs:[cell]; jae over the next; mov gs:[cell], rsp
    code.extend([0x65, 0x48, 0x3b, 0x24, 0x25]);
    code.extend(cell);
    code.extend([0x73, 9, 0x65, 0x48, 0x89, 0x24, 0x25]);
    code.extend(cell);
    // movabs r11, target; jmp r11
    code.extend([0x49, 0xbb]);
    code.extend(target.to_le_bytes());
    code.extend([0x41, 0xff, 0xe3]);
    assert!(code.len() <= 64);
    // SAFETY: 64 fresh bytes of the low heap, writable and executable.
    unsafe { crate::foreign::store(at as *mut u8, &code) };
    at
}

fn table() -> &'static HashMap<&'static str, Symbol> {
    TABLE.get_or_init(|| {
        let functions = [
            crate::cdev::SYMBOLS,
            crate::clock::SYMBOLS,
            crate::connections::SYMBOLS,
            crate::counter::SYMBOLS,
            crate::epoch::SYMBOLS,
            crate::ip::SYMBOLS,
            crate::ip::REASSEMBLY_SYMBOLS,
            crate::routing::SYMBOLS,
            crate::libkern::SYMBOLS,
            crate::lock::SYMBOLS,
            crate::malloc::SYMBOLS,
            crate::mbuf::SYMBOLS,
            crate::mbuf::UMA_SYMBOLS,
            crate::misc::SYMBOLS,
            crate::netisr::SYMBOLS,
            crate::pfil::SYMBOLS,
            crate::printf::SYMBOLS,
            crate::oids::SYMBOLS,
            crate::sanitizer::SYMBOLS,
            crate::sdt::SYMBOLS,
            crate::sanitizer::VOLATILE,
            crate::sysctl::SYMBOLS,
            crate::tags::SYMBOLS,
            crate::taskqueue::SYMBOLS,
            crate::user::SYMBOLS,
            crate::vnet::SYMBOLS,
            crate::waiting::SYMBOLS,
        ];
        let mut table = HashMap::new();
        for &(name, function) in functions.iter().copied().flatten() {
            table.insert(name, Symbol { address: trampoline(function as usize) });
        }
        for (name, address) in crate::variables::all() {
            table.insert(name, Symbol { address });
        }
        table
    })
}

/// The symbol of this name, if the emulated kernel has it.
pub(crate) fn lookup(name: &str) -> Option<Symbol> {
    table().get(name).copied()
}

/// Address of a symbol that the emulated kernel has.
pub(crate) fn address(name: &str) -> usize {
    lookup(name).map_or_else(|| panic!("no symbol {name}"), |symbol| symbol.address)
}

/// Whether an entry point of the kernel begins at this address.
pub(crate) fn is_entry(address: usize) -> bool {
    static ENTRIES: OnceLock<HashSet<usize>> = OnceLock::new();
    ENTRIES.get_or_init(|| table().values().map(|symbol| symbol.address).collect()).contains(&address)
}

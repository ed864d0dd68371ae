//! What the crate believes about FreeBSD's structures and constants, against what the C compiler makes of the headers.

#[path = "common/cc.rs"]
mod cc;

use object::{Object, ObjectSection, ObjectSymbol};
use std::collections::HashMap;

/// The constants of the object, by name.
fn constants(file: &object::File<'_>) -> HashMap<String, Vec<u8>> {
    let mut found = HashMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition()) {
        let (Ok(name), Some(section)) = (symbol.name(), symbol.section_index()) else { continue };
        let data = file.section_by_index(section).and_then(|section| section.data()).expect("a section");
        let at = symbol.address() as usize;
        // Zeros may be in a section without bytes.
        let bytes = data.get(at..at + symbol.size() as usize).map_or_else(|| vec![0; 8], <[u8]>::to_vec);
        found.insert(name.to_owned(), bytes);
    }
    found
}

#[test]
fn agrees_with_the_compiler() {
    let object = std::fs::read(cc::compile("testmod/layout.c", "layout")).expect("the object");
    let file = object::File::parse(&*object).expect("an object");
    let mut constants = constants(&file);
    let mut wrong = Vec::new();
    let mut check = |name: String, mine: u64| {
        let theirs = constants.remove(&name).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")));
        if theirs != Some(mine) {
            wrong.push(format!("{name}: {mine:#x} here, {theirs:#x?} there"));
        }
    };
    let mut sizes = std::collections::BTreeMap::new();
    for (structure, size, fields) in mobconn_kpi::facts::structures() {
        sizes.insert(structure, size);
        for (field, offset) in fields {
            check(format!("field_{structure}_{field}"), *offset as u64);
        }
    }
    for (structure, size) in sizes {
        check(format!("size_{structure}"), size as u64);
    }
    for (name, value) in mobconn_kpi::facts::values() {
        check(format!("value_{name}"), u64::from(value));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let bits = constants.remove("bits").expect("bits");
    assert_eq!(bits[28..32], 0x3456_7812_u32.to_le_bytes(), "m_type and m_flags");
    assert_eq!(bits[108..112], 0xbcde_f09a_u32.to_le_bytes(), "ext_type and ext_flags");
    let state = constants.remove("state").expect("state");
    assert_eq!(state[612..616], 0x0009_0000_u32.to_le_bytes(), "t_port and t_state");
    assert!(constants.is_empty(), "not looked at: {:?}", constants.keys());
}

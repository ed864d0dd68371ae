//! The guards, held against the module that was built.

use mobconn_abi::ABI_VERSION;
use mobconn_guards::module::Module;
use mobconn_guards::{abi, instructions, metadata, mobconn_ko, relocations, root, symbols};

fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn with_module(guard: impl Fn(&Module<'_>) -> Vec<String>) {
    let bytes = mobconn_ko();
    none(guard(&Module::parse(&bytes).unwrap()));
}

#[test]
fn takes_exactly_the_reviewed_symbols_from_the_kernel() {
    let reviewed = std::fs::read_to_string(root().join("kmod/symbols.txt")).unwrap();
    with_module(|module| symbols::undefined(module, &reviewed));
}

#[test]
fn keeps_its_names_to_itself() {
    with_module(symbols::names);
}

#[test]
fn has_only_relocations_that_the_kernel_linker_knows() {
    with_module(relocations::types);
}

#[test]
fn has_no_floating_point_and_no_large_frame() {
    with_module(instructions::instructions);
}

#[test]
fn says_what_it_is() {
    with_module(|module| metadata::metadata(module, ABI_VERSION));
}

#[test]
fn has_lost_no_linker_set() {
    with_module(metadata::sets);
}

#[test]
fn speaks_the_same_interface_in_c() {
    let header = std::fs::read_to_string(root().join("kmod/mobconn.h")).unwrap();
    none(abi::compare(&header).unwrap());
}

//! Every guard complains when what it guards is broken.

use mobconn_guards::module::Module;
use mobconn_guards::{abi, instructions, metadata, mobconn_ko, relocations, root, symbols};
use object::write::{Object, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
};

/// A little object with one function.
struct Little {
    object: Object<'static>,
    text: SectionId,
}

impl Little {
    fn new(code: &[u8]) -> Self {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = object.add_section(Vec::new(), b".text".to_vec(), SectionKind::Text);
        object.append_section_data(text, code, 16);
        let mut little = Self { object, text };
        little.symbol("mobconn_function", SymbolScope::Compilation, Some(text), code.len() as u64);
        little
    }

    fn symbol(&mut self, name: &str, scope: SymbolScope, section: Option<SectionId>, size: u64) -> SymbolId {
        self.object.add_symbol(Symbol {
            name: name.into(),
            value: 0,
            size,
            kind: SymbolKind::Text,
            scope,
            weak: false,
            section: section.map_or(SymbolSection::Undefined, SymbolSection::Section),
            flags: SymbolFlags::None,
        })
    }

    /// With a relocation of type `r_type` against `symbol`.
    fn relocated(mut self, r_type: u32, symbol: &str) -> Self {
        let symbol = self.symbol(symbol, SymbolScope::Unknown, None, 0);
        let flags = RelocationFlags::Elf { r_type };
        self.object.add_relocation(self.text, Relocation { offset: 0, symbol, addend: -4, flags }).unwrap();
        self
    }

    fn complaints(&self, guard: impl Fn(&Module<'_>) -> Vec<String>) -> Vec<String> {
        let bytes = self.object.write().unwrap();
        guard(&Module::parse(&bytes).unwrap())
    }
}

const RET: &[u8] = &[0xc3];
const FOUR_NOPS: &[u8] = &[0x90, 0x90, 0x90, 0x90, 0xc3];

#[track_caller]
fn one(complaints: &[String], part: &str) {
    assert!(
        complaints.len() == 1 && complaints.first().is_some_and(|complaint| complaint.contains(part)),
        "wanted one complaint about {part}: {complaints:?}"
    );
}

#[test]
fn a_symbol_that_nobody_reviewed() {
    let little = Little::new(FOUR_NOPS).relocated(object::elf::R_X86_64_PLT32, "bcopy");
    one(&little.complaints(|module| symbols::undefined(module, "")), "needs bcopy");
    assert!(little.complaints(|module| symbols::undefined(module, "bcopy\n")).is_empty());
}

#[test]
fn a_reviewed_symbol_that_is_not_needed() {
    let little = Little::new(RET);
    one(&little.complaints(|module| symbols::undefined(module, "malloc\n")), "malloc was reviewed");
}

#[test]
fn a_list_in_disorder() {
    let little = Little::new(RET);
    let complaints = little.complaints(|module| symbols::undefined(module, "b\na\n"));
    assert!(complaints.iter().any(|complaint| complaint.contains("not sorted")), "{complaints:?}");
}

#[test]
fn a_global_name_and_a_foreign_one() {
    let mut little = Little::new(RET);
    let text = little.text;
    little.symbol("mobconn_public", SymbolScope::Dynamic, Some(text), 0);
    one(&little.complaints(symbols::names), "mobconn_public is global");
    let mut little = Little::new(RET);
    let text = little.text;
    little.symbol("memcpy", SymbolScope::Compilation, Some(text), 0);
    one(&little.complaints(symbols::names), "memcpy does not carry");
}

#[test]
fn a_global_offset_table() {
    let good = Little::new(FOUR_NOPS).relocated(object::elf::R_X86_64_PLT32, "malloc");
    assert!(good.complaints(relocations::types).is_empty());
    let bad = Little::new(FOUR_NOPS).relocated(object::elf::R_X86_64_REX_GOTPCRELX, "malloc");
    one(&bad.complaints(relocations::types), "r_type: 42");
}

#[test]
fn no_relocations() {
    one(&Little::new(RET).complaints(relocations::types), "no relocation");
}

#[test]
fn floating_point_and_vectors() {
    let broken: [&[u8]; 6] = [
        &[0xd9, 0xe8],             // fld1
        &[0x0f, 0x6f, 0xc1],       // movq mm0, mm1
        &[0xf2, 0x0f, 0x58, 0xc1], // addsd xmm0, xmm1
        &[0x0f, 0x28, 0x00],       // movaps xmm0, [rax]
        &[0xc5, 0xf8, 0x77],       // vzeroupper
        &[0x0f, 0xae, 0x00],       // fxsave [rax]
    ];
    for code in broken {
        let code = [code, RET].concat();
        let complaints = Little::new(&code).complaints(instructions::instructions);
        assert_eq!(complaints.len(), 1, "{code:x?}: {complaints:?}");
    }
    assert!(Little::new(FOUR_NOPS).complaints(instructions::instructions).is_empty());
}

#[test]
fn a_frame_that_is_too_large() {
    // sub rsp, 0x1000
    let code = [0x48, 0x81, 0xec, 0x00, 0x10, 0x00, 0x00, 0xc3];
    one(&Little::new(&code).complaints(instructions::instructions), "4096 bytes of stack");
}

#[test]
fn code_outside_of_any_function() {
    let mut little = Little::new(RET);
    // Two aligned bytes after the function: mov eax, ecx
    little.object.append_section_data(little.text, &[0x89, 0xc8], 16);
    one(&little.complaints(instructions::instructions), "outside of any function");
}

#[test]
fn no_metadata() {
    one(&Little::new(RET).complaints(|module| metadata::metadata(module, 1)), "missing");
    assert_eq!(Little::new(RET).complaints(metadata::sets).len(), 7);
}

/// The real module with the first `from` in it replaced.
fn patched(from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = mobconn_ko();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes.get_mut(at..at + to.len()).unwrap().copy_from_slice(to);
    bytes
}

#[test]
fn metadata_of_another_kernel() {
    let range: Vec<u8> = {
        let bytes = mobconn_ko();
        let newest = 1_499_999_i32.to_le_bytes();
        let at = bytes.windows(4).position(|window| window == newest).unwrap();
        bytes.get(at..at + 4).unwrap().to_vec()
    };
    let bytes = patched(&range, &1_599_999_i32.to_le_bytes());
    one(&metadata::metadata(&Module::parse(&bytes).unwrap(), 1), "its kernels are");
}

#[test]
fn metadata_of_another_version() {
    let bytes = mobconn_ko();
    one(&metadata::metadata(&Module::parse(&bytes).unwrap(), 2), "its version is");
}

#[test]
fn an_interface_that_differs() {
    let header = std::fs::read_to_string(root().join("kmod/mobconn.h")).unwrap();
    let broken = |from: &str, to: &str| {
        assert!(header.contains(from), "{from}");
        abi::compare(&header.replacen(from, to, 1)).unwrap()
    };
    assert!(broken("\tuint32_t\tgeneration;", "\tuint64_t\tgeneration;").len() > 1);
    one(&broken("_IO('M', 10)", "_IO('M', 12)"), "MOBCONN_FLUSH");
    one(&broken("MOBCONN_GRACE\t\t3", "MOBCONN_GRACE\t\t4"), "MOBCONN_GRACE");
    one(&broken("Bindings made", "Bindings lost"), "Bindings lost");
    one(&broken("X(again, ", "X(once, "), "once");
    one(
        &broken("#define\tMOBCONN_UDP\t", "#define\tMOBCONN_SCTP\t132\n#define\tMOBCONN_UDP\t"),
        "MOBCONN_SCTP is in C only",
    );
    assert!(abi::compare("#error broken\n").is_err());
}

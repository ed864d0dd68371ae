//! The kernel saves no floating point and vector registers for a module, and
//! its stacks are four pages.

use crate::module::Module;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use object::{Object, ObjectSymbol, SymbolKind};

/// Most bytes of stack that one function may take at once.
const FRAME_MAX: u64 = 2048;

/// Beginnings of the names of processor features that use registers the
/// kernel does not save.
const FORBIDDEN: &[&str] = &[
    "FPU", "MMX", "SSE", "SSSE", "AVX", "AES", "VAES", "FMA", "F16C", "GFNI", "PCLMUL", "SHA", "D3NOW", "XSAVE",
    "FXSR", "AMX",
];

fn forbidden(instruction: &Instruction) -> bool {
    let features = instruction.cpuid_features().iter().any(|feature| {
        let name = format!("{feature:?}");
        FORBIDDEN.iter().any(|beginning| name.starts_with(beginning))
    });
    let registers = instruction
        .op_registers()
        .any(|register| register.is_vector_register() || register.is_st() || register.is_mm() || register.is_k());
    features || registers
}

trait Registers {
    fn op_registers(&self) -> impl Iterator<Item = Register>;
}

impl Registers for Instruction {
    fn op_registers(&self) -> impl Iterator<Item = Register> {
        (0..self.op_count()).filter(|i| self.op_kind(*i) == OpKind::Register).map(|i| self.op_register(i))
    }
}

/// Stack that `instruction` takes, in bytes.
fn frame(instruction: &Instruction) -> u64 {
    let takes = instruction.mnemonic() == Mnemonic::Sub && instruction.op0_register() == Register::RSP;
    let fixed = matches!(instruction.op1_kind(), OpKind::Immediate8to64 | OpKind::Immediate32to64);
    if takes && fixed { instruction.immediate(1) } else { 0 }
}

/// Looks at every instruction of every function, and at what lies between
/// them, which must be padding.
#[must_use]
pub fn instructions(module: &Module<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut seen = 0_usize;
    for (index, section, bytes) in module.text() {
        let mut functions: Vec<(u64, u64, &str)> = module
            .elf
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.section_index().is_some_and(|s| s.0 == index))
            .map(|symbol| (symbol.address(), symbol.size(), symbol.name().unwrap_or("?")))
            .collect();
        functions.sort_unstable();
        let mut covered = 0_u64;
        for (start, size, name) in functions {
            let end = start + size;
            if let Some(gap) = bytes.get(covered as usize..start.max(covered) as usize) {
                padding(gap, covered, section, &mut complaints);
            }
            covered = covered.max(end);
            let Some(code) = bytes.get(start as usize..end as usize) else {
                complaints.push(format!("{name} lies outside of {section}"));
                continue;
            };
            for instruction in Decoder::with_ip(64, code, start, DecoderOptions::NONE).iter() {
                seen += 1;
                let at = instruction.ip();
                if instruction.is_invalid() {
                    complaints.push(format!("{name}: {section}+{at:#x}: not an instruction"));
                } else if forbidden(&instruction) {
                    complaints.push(format!("{name}: {section}+{at:#x}: {:?}", instruction.code()));
                } else if frame(&instruction) > FRAME_MAX {
                    complaints.push(format!("{name}: takes {} bytes of stack", frame(&instruction)));
                }
            }
        }
        padding(bytes.get(covered as usize..).unwrap_or_default(), covered, section, &mut complaints);
    }
    if seen == 0 {
        complaints.push("no instruction at all".into());
    }
    complaints
}

/// Complains about bytes that are no padding: neither zero, nor a breakpoint,
/// nor a nop.
fn padding(bytes: &[u8], start: u64, section: &str, complaints: &mut Vec<String>) {
    if bytes.iter().all(|byte| matches!(byte, 0 | 0xcc)) {
        return;
    }
    for instruction in Decoder::with_ip(64, bytes, start, DecoderOptions::NONE).iter() {
        let filler = [Mnemonic::Nop, Mnemonic::Int3].contains(&instruction.mnemonic());
        // Zeros, two at a time.
        let zero = instruction.mnemonic() == Mnemonic::Add && instruction.len() == 2;
        if !filler && !zero {
            complaints.push(format!("{section}+{:#x}: code outside of any function", instruction.ip()));
            return;
        }
    }
}

//! The kernel's printf(9) family: variadic entry points and the format language.

use crate::complaint::complain;
use crate::foreign::{self, text};
use crate::kernel::kernel;
use std::arch::naked_asm;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![printf, log, vlog, panic, snprintf, make_dev_s];

/// The arguments of a variadic call: the six integer registers, then the stack. Kernel code passes nothing in vector
/// registers.
#[derive(Debug)]
pub(crate) struct Arguments {
    registers: *const u64,
    stack: *const u64,
    next: usize,
}

impl Arguments {
    /// The next argument.
    pub(crate) fn word(&mut self) -> u64 {
        let index = self.next;
        self.next += 1;
        let at = if index < 6 { self.registers.wrapping_add(index) } else { self.stack.wrapping_add(index - 6) };
        // SAFETY: the entry point saved six registers; what lies behind them is the caller's frame, where the format
        // says there is another argument.
        unsafe { at.read() }
    }
}

/// Declares a C-variadic entry point that saves its registers and calls a Rust function with them.
macro_rules! variadic {
    ($name:ident, $with:ident) => {
        #[unsafe(naked)]
        extern "C" fn $name() {
            naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "sub rsp, 48",
                "mov [rsp], rdi",
                "mov [rsp + 8], rsi",
                "mov [rsp + 16], rdx",
                "mov [rsp + 24], rcx",
                "mov [rsp + 32], r8",
                "mov [rsp + 40], r9",
                "mov rdi, rsp",
                "lea rsi, [rbp + 16]",
                "call {with}",
                "leave",
                "ret",
                with = sym $with,
            )
        }
    };
}

variadic!(printf, with_printf);
variadic!(log, with_log);
variadic!(panic, with_panic);
variadic!(snprintf, with_snprintf);
variadic!(make_dev_s, with_make_dev_s);

const fn arguments(registers: *const u64, stack: *const u64) -> Arguments {
    Arguments { registers, stack, next: 0 }
}

fn formatted(arguments: &mut Arguments) -> String {
    let format = arguments.word() as *const u8;
    // SAFETY: a format is a string.
    let template = unsafe { text(format) };
    format_kernel(&template, arguments)
}

extern "C" fn with_printf(registers: *const u64, stack: *const u64) -> i32 {
    let line = formatted(&mut arguments(registers, stack));
    kernel().say(&line);
    line.len() as i32
}

extern "C" fn with_log(registers: *const u64, stack: *const u64) {
    let mut arguments = arguments(registers, stack);
    let level = arguments.word() as u32;
    if level > 7 {
        complain!("log: level {level}");
    }
    let line = formatted(&mut arguments);
    kernel().say(&line);
}

/// `va_list` of the System V ABI.
#[repr(C)]
struct VaList {
    integers_used: u32,
    vectors_used: u32,
    stack: *const u64,
    registers: *const u64,
}

extern "C" fn vlog(level: u32, format: *const u8, list: *const VaList) {
    if level > 7 {
        complain!("log: level {level}");
    }
    // SAFETY: the caller's va_list.
    let list = unsafe { &*list };
    // SAFETY: a format is a string.
    let template = unsafe { text(format) };
    let mut arguments =
        Arguments { registers: list.registers, stack: list.stack, next: list.integers_used as usize / 8 };
    kernel().say(&format_kernel(&template, &mut arguments));
}

extern "C" fn with_panic(registers: *const u64, stack: *const u64) {
    let line = formatted(&mut arguments(registers, stack));
    complain!("panic: {line}");
}

extern "C" fn with_snprintf(registers: *const u64, stack: *const u64) -> i32 {
    let mut arguments = arguments(registers, stack);
    let (to, size) = (arguments.word() as *mut u8, arguments.word() as usize);
    let line = formatted(&mut arguments);
    if size > 0 {
        let mut bytes = line.as_bytes()[..line.len().min(size - 1)].to_vec();
        bytes.push(0);
        // SAFETY: the caller gives `size` bytes.
        unsafe { foreign::store(to, &bytes) };
    }
    line.len() as i32
}

extern "C" fn with_make_dev_s(registers: *const u64, stack: *const u64) -> i32 {
    let mut arguments = arguments(registers, stack);
    let (args, result) = (arguments.word(), arguments.word());
    let name = formatted(&mut arguments);
    crate::cdev::make(args as *mut u8, result as *mut usize, &name)
}

/// Formats as the kernel's printf does, except `%b` and `%D`.
fn format_kernel(template: &str, arguments: &mut Arguments) -> String {
    let mut out = String::new();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(&f) = chars.peek().filter(|f| "-+ #0'".contains(**f)) {
            flags.push(f);
            chars.next();
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.next_if_eq(&'*').is_some() {
                return Some(arguments.word() as usize);
            }
            let mut value = None;
            while let Some(d) = chars.peek().and_then(|c| c.to_digit(10)) {
                value = Some(value.unwrap_or(0) * 10 + d as usize);
                chars.next();
            }
            value
        };
        let width = number(&mut chars).unwrap_or(0);
        let precision = if chars.next_if_eq(&'.').is_some() { Some(number(&mut chars).unwrap_or(0)) } else { None };
        let mut long = false;
        let mut short = 0_u32;
        while let Some(&m) = chars.peek().filter(|m| "lhqjtz".contains(**m)) {
            long |= m != 'h';
            short += u32::from(m == 'h');
            chars.next();
        }
        let mut conversion = chars.next().unwrap_or('%');
        if conversion == '%' {
            out.push('%');
            continue;
        }
        let word = arguments.word();
        let unsigned = match (long, short) {
            (true, _) => word,
            (false, 0) => u64::from(word as u32),
            (false, 1) => u64::from(word as u16),
            (false, _) => u64::from(word as u8),
        };
        let mut body = match conversion {
            'd' | 'i' => {
                conversion = 'd';
                let value = if long { word as i64 } else { i64::from(word as i32) };
                if value >= 0 && flags.contains('+') { format!("+{value}") } else { value.to_string() }
            }
            'u' => unsigned.to_string(),
            'x' | 'X' | 'o' => {
                let digits = match conversion {
                    'x' => format!("{unsigned:x}"),
                    'X' => format!("{unsigned:X}"),
                    _ => format!("{unsigned:o}"),
                };
                let prefix = if flags.contains('#') && unsigned != 0 && conversion != 'o' { "0x" } else { "" };
                format!("{prefix}{digits}")
            }
            'p' => format!("{word:#x}"),
            'c' => char::from(word as u8).to_string(),
            's' => match precision {
                // SAFETY: with a precision the text may lack a NUL, but has as many readable bytes or one.
                Some(most) => unsafe { bounded(word as *const u8, most) },
                // SAFETY: a string.
                None => unsafe { text(word as *const u8) },
            },
            other => complain!("printf: %{other} is not emulated, in {template:?}"),
        };
        if conversion != 's' && conversion != 'c' {
            let digits = precision.unwrap_or(if flags.contains('0') && !flags.contains('-') { width } else { 0 });
            while body.len() < digits {
                let at = usize::from(body.starts_with(['-', '+']));
                body.insert(at, '0');
            }
        }
        let pad = " ".repeat(width.saturating_sub(body.len()));
        if flags.contains('-') {
            body.push_str(&pad);
        } else {
            body.insert_str(0, &pad);
        }
        out.push_str(&body);
    }
    out
}

/// # Safety
/// `most` bytes at `pointer` are readable, or as many as there are up to a NUL.
unsafe fn bounded(pointer: *const u8, most: usize) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < most {
        let at = pointer.wrapping_add(bytes.len());
        // SAFETY: not beyond `most`, nor beyond a NUL.
        let byte = unsafe { at.read() };
        if byte == 0 {
            break;
        }
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

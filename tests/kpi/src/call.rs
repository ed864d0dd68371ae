//! Calls from the kernel into module code.

use crate::complaint::complain;
use crate::linker;

/// Complains unless `function` can be called: a function of a loaded module or one of the kernel's entry points.
pub(crate) fn check(function: usize, who: &str) {
    if !linker::is_code(function) {
        complain!("{who}: {function:#x} is no function");
    }
}

/// Calls `function(a)`.
pub(crate) fn one(function: usize, a: usize) -> usize {
    check(function, "call");
    // SAFETY: checked to be code; the KPI's prototype for this kind of function takes one word.
    let function: extern "C" fn(usize) -> usize = unsafe { std::mem::transmute(function) };
    crate::stack::watched(|| function(a))
}

/// Calls `function(a, b)`.
pub(crate) fn two(function: usize, a: usize, b: usize) {
    check(function, "call");
    // SAFETY: checked to be code; the KPI's prototype for this kind of function takes two words.
    let function: extern "C" fn(usize, usize) = unsafe { std::mem::transmute(function) };
    crate::stack::watched(|| function(a, b));
}

/// Calls `function(a, b, c)`, which returns an int.
pub(crate) fn three(function: usize, a: usize, b: usize, c: usize) -> i32 {
    check(function, "call");
    // SAFETY: checked to be code; the prototype takes three words.
    let function: extern "C" fn(usize, usize, usize) -> i32 = unsafe { std::mem::transmute(function) };
    crate::stack::watched(|| function(a, b, c))
}

/// Calls `function(a, b, c, d)`, which returns an int.
pub(crate) fn four(function: usize, a: usize, b: usize, c: usize, d: usize) -> i32 {
    check(function, "call");
    // SAFETY: checked to be code; the prototype takes four words.
    let function: extern "C" fn(usize, usize, usize, usize) -> i32 = unsafe { std::mem::transmute(function) };
    crate::stack::watched(|| function(a, b, c, d))
}

/// Calls `function(a, b, c, d, e)`, which returns an int.
pub(crate) fn five(function: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> i32 {
    check(function, "call");
    // SAFETY: checked to be code; the prototype takes five words.
    let function: extern "C" fn(usize, usize, usize, usize, usize) -> i32 = unsafe { std::mem::transmute(function) };
    crate::stack::watched(|| function(a, b, c, d, e))
}

//! Small services: random numbers, privileges, module registration.

use crate::complaint::complain;
use crate::foreign;
use crate::kernel::kernel;
use crate::layout::{Td, Ucred};

pub(crate) const SYMBOLS: &[crate::symbols::Function] =
    crate::symbols![arc4random, arc4random_buf, priv_check, priv_check_cred, module_register_init, __stack_chk_fail,];

extern "C" fn arc4random() -> u32 {
    kernel().rng.word() as u32
}

extern "C" fn arc4random_buf(to: *mut u8, length: usize) {
    let mut bytes = vec![0; length];
    for chunk in bytes.chunks_mut(8) {
        let word = kernel().rng.word().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    // SAFETY: the caller gives `length` bytes.
    unsafe { foreign::store(to, &bytes) };
}

extern "C" fn priv_check(td: *mut u8, privilege: i32) -> i32 {
    // SAFETY: a thread, by the KPI.
    let td = unsafe { Td::new(td) }.unwrap_or_else(|| complain!("priv_check: no thread"));
    priv_check_cred(td.ucred() as *mut u8, privilege)
}

extern "C" fn priv_check_cred(cred: *mut u8, _privilege: i32) -> i32 {
    const EPERM: i32 = 1;
    // SAFETY: credentials, by the KPI.
    let cred = unsafe { Ucred::new(cred) }.unwrap_or_else(|| complain!("priv_check_cred: no credentials"));
    if cred.uid() == 0 { 0 } else { EPERM }
}

extern "C" fn module_register_init(data: *mut u8) {
    crate::linker::register_init(data);
}

extern "C" fn __stack_chk_fail() {
    complain!("stack smashing detected in the module");
}

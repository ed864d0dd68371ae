//! User memory: copyin(9) and copyout(9) reach the regions of the call in progress, and nothing else.

use crate::complaint::complain;
use crate::foreign;
use crate::layout::{Iovec, Uio};
use crate::thread;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![copyin, copyout, uiomove];

const EFAULT: i32 = 14;

/// What the process that makes the call has mapped.
#[derive(Debug, Default)]
pub(crate) struct UserMemory {
    regions: Vec<(u64, Vec<u8>)>,
}

impl UserMemory {
    /// Memory of these regions: address and bytes.
    pub(crate) const fn new(regions: Vec<(u64, Vec<u8>)>) -> Self {
        Self { regions }
    }

    /// The regions, as they are now.
    pub(crate) fn into_regions(self) -> Vec<(u64, Vec<u8>)> {
        self.regions
    }

    /// The bytes at `address`, as far as they are mapped, at most `length`.
    fn mapped(&mut self, address: u64, length: usize) -> &mut [u8] {
        for (start, bytes) in &mut self.regions {
            let Some(offset) = address.checked_sub(*start) else { continue };
            let Ok(offset) = usize::try_from(offset) else { continue };
            if offset < bytes.len() {
                let end = bytes.len().min(offset.saturating_add(length));
                return &mut bytes[offset..end];
            }
        }
        &mut []
    }
}

/// Runs `f` on the mapped part of the range: EFAULT if that is not all of it, after what could be copied was.
fn access(who: &str, address: u64, length: usize, mut f: impl FnMut(usize, &mut [u8])) -> i32 {
    thread::check_sleep(who);
    thread::current(|thread| {
        let mut user = thread.user.borrow_mut();
        let Some(user) = user.as_mut() else {
            return EFAULT;
        };
        let mut done = 0;
        while done < length {
            let Some(at) = address.checked_add(done as u64) else { return EFAULT };
            let bytes = user.mapped(at, length - done);
            if bytes.is_empty() {
                return EFAULT;
            }
            f(done, bytes);
            done += bytes.len();
        }
        0
    })
}

/// copyin(9).
pub(crate) extern "C" fn copyin(from: u64, to: *mut u8, length: usize) -> i32 {
    access("copyin", from, length, |at, bytes| {
        // SAFETY: the caller gives a buffer of `length` bytes.
        unsafe { foreign::store(to.wrapping_add(at), bytes) };
    })
}

/// copyout(9).
pub(crate) extern "C" fn copyout(from: *const u8, to: u64, length: usize) -> i32 {
    access("copyout", to, length, |at, bytes| {
        // SAFETY: the caller gives `length` bytes.
        let source = unsafe { foreign::bytes(from.wrapping_add(at), bytes.len()) };
        bytes.copy_from_slice(&source);
    })
}

/// uiomove(9), for a read into user memory: as much as there is room for.
extern "C" fn uiomove(from: *const u8, length: i32, uio: *mut u8) -> i32 {
    thread::check_sleep("uiomove");
    // SAFETY: the uio of the call in progress, by the KPI.
    let uio = unsafe { Uio::new(uio) }.unwrap_or_else(|| complain!("uiomove: no uio"));
    if length < 0 {
        complain!("uiomove: a length of {length}");
    }
    if uio.segflg() != 0 || uio.rw() != 0 {
        complain!("uiomove: only reads into user memory are emulated");
    }
    let mut done = 0;
    let wanted = (i64::from(length)).min(uio.resid()) as usize;
    while done < wanted {
        // SAFETY: the vectors of the uio.
        let iov = unsafe { Iovec::new(uio.iov() as *mut u8) }.unwrap_or_else(|| complain!("uiomove: no vector"));
        let part = (iov.len() as usize).min(wanted - done);
        if part == 0 {
            uio.set_iov(uio.iov() + Iovec::SIZE);
            uio.set_iovcnt(uio.iovcnt() - 1);
            continue;
        }
        let error = copyout(from.wrapping_add(done), iov.base(), part);
        if error != 0 {
            return error;
        }
        iov.set_base(iov.base() + part as u64);
        iov.set_len(iov.len() - part as u64);
        uio.set_resid(uio.resid() - part as i64);
        uio.set_offset(uio.offset() + part as i64);
        done += part;
    }
    0
}

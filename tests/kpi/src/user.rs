//! User memory: copyin(9) and copyout(9) reach the regions of the call in progress, and nothing else.

use crate::foreign;
use crate::thread;

pub(crate) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![copyin, copyout];

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

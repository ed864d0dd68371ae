//! `/dev/mobconn`: from the kernel's ioctl entry to a command.
//!
//! Context: process context; may sleep. The argument was copied in by the
//! kernel and is copied out by it; what a pointer in it refers to is copied by
//! the command. curvnet is not set; the calling thread's network stack counts.

use crate::command;
use crate::reader;
use crate::refusal::Refusal;
use crate::vnet::Instance;
use core::ffi::{c_char, c_int};
use mobconn_abi::{self as abi, argument_length};
use mobconn_sys::{ffi, priv_check};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The argument of a command, once: as `T`.
fn argument<T>(bytes: &mut [u8]) -> Result<&mut T, Refusal>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    T::mut_from_bytes(bytes).map_err(|_| Refusal::Invalid)
}

/// Whether `number` changes anything; then the descriptor must be writable.
const fn changes(number: u32) -> bool {
    !matches!(number, abi::INFO | abi::FLOW_FIND | abi::FLOW_GET | abi::FLOW_LIST | abi::STATS | abi::EGRESS_GET)
}

/// Runs one command.
///
/// # Safety
/// `thread` is the calling thread.
unsafe fn run(number: u32, bytes: &mut [u8], writable: bool, thread: *mut ffi::thread) -> Result<(), Refusal> {
    match number {
        // Set by fcntl(2); each read says whether it may wait.
        ffi::mobconn_fionbio => return Ok(()),
        ffi::mobconn_fioasync if bytes == [0; 4] => return Ok(()),
        ffi::mobconn_fionread => {
            // SAFETY: the calling thread (contract).
            let ready = unsafe { reader::ready_bytes(thread) }?;
            *argument(bytes)? = ready;
            return Ok(());
        }
        _ => {}
    }
    if number != abi::INFO {
        // Root of a jail without a network stack of its own must not see the host's.
        // SAFETY: the calling thread (contract).
        unsafe { priv_check(thread, ffi::PRIV_NETINET_PF) }?;
    }
    if changes(number) && !writable {
        return Err(Refusal::ReadOnly);
    }
    // SAFETY: the calling thread, in a device command.
    let instance = unsafe { Instance::of_thread(thread) }.ok_or(Refusal::Absent)?;
    match number {
        abi::INFO => command::info(instance, argument(bytes)?),
        abi::FLOW_ADD => command::flow_add(instance, argument(bytes)?)?,
        abi::FLOW_DELETE => command::flow_delete(instance, argument(bytes)?)?,
        abi::FLOW_GET => command::flow_get(instance, argument(bytes)?)?,
        abi::FLOW_FIND => command::flow_find(instance, argument(bytes)?)?,
        abi::FLOW_LIST => command::flow_list(instance, argument(bytes)?)?,
        abi::MOVE_PREPARE => command::move_prepare(instance, argument(bytes)?)?,
        abi::MOVE_COMMIT => command::move_commit(instance, argument(bytes)?)?,
        abi::MOVE_ABORT => command::move_abort(instance, argument(bytes)?)?,
        abi::EXPIRE => command::expire(instance, argument(bytes)?),
        abi::FLUSH => command::flush(instance),
        abi::EGRESS_SET => command::egress_set(instance, argument(bytes)?)?,
        abi::EGRESS_GET => command::egress_get(instance, argument(bytes)?),
        abi::STATS => command::stats(instance, argument(bytes)?, writable)?,
        _ => return Err(Refusal::Unknown),
    }
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mobconn_ioctl(
    _device: *mut ffi::cdev,
    command: ffi::u_long,
    data: *mut c_char,
    flags: c_int,
    thread: *mut ffi::thread,
) -> c_int {
    let Ok(number) = u32::try_from(command) else { return ffi::ENOTTY as c_int };
    let length = argument_length(number);
    let bytes = if length == 0 || data.is_null() {
        &mut []
    } else {
        // SAFETY: the kernel's copy of the argument, as long as the number says, aligned for any type, this command's alone.
        unsafe { core::slice::from_raw_parts_mut(data.cast::<u8>(), length) }
    };
    // SAFETY: the kernel passes the calling thread.
    match unsafe { run(number, bytes, flags & ffi::FWRITE as c_int != 0, thread) } {
        Ok(()) => 0,
        Err(refusal) => refusal.errno() as c_int,
    }
}

//! The system calls for which there is no safe wrapper: ioctl(2), procctl(2), sysctl(3) and sysctlbyname(3).
//!
//! All unsafe code of mobctl is here. They may sleep; each is made from the only
//! thread that has the file or the buffer.

use crate::device::{Argument, Channel, ChannelError};
use crate::errno::Errno;
use crate::networks::routesock;
use mobconn_abi as abi;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::{CStr, c_ulong};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;
use zerocopy::IntoBytes;

/// The open control device.
#[derive(Debug)]
pub(super) struct IoctlChannel {
    file: File,
}

impl IoctlChannel {
    /// Opens the device at `path` for reading and writing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::options().read(true).write(true).open(path)? })
    }
}

impl Channel for IoctlChannel {
    fn call(&mut self, command: u32, argument: Argument<'_>) -> Result<(), ChannelError> {
        let with_array = matches!(command, abi::FLOW_LIST | abi::MOVE_PREPARE | abi::MOVE_COMMIT | abi::MOVE_ABORT);
        let (bytes, array_given) = match argument {
            Argument::None => (&mut [][..], false),
            Argument::Plain(bytes) => (bytes, false),
            Argument::List(list, records) => {
                list.buffer = records.as_mut_ptr().expose_provenance() as u64;
                list.count = u32::try_from(records.len()).map_err(|_| TOO_LARGE)?;
                (list.as_mut_bytes(), true)
            }
            Argument::Batch(batch, entries) => {
                batch.entries = entries.as_mut_ptr().expose_provenance() as u64;
                batch.count = u32::try_from(entries.len()).map_err(|_| TOO_LARGE)?;
                (batch.as_mut_bytes(), true)
            }
        };
        if with_array != array_given || bytes.len() != abi::argument_length(command) {
            return Err(ChannelError::Protocol("a command with an argument of another command"));
        }
        // SAFETY: the kernel copies `argument_length(command)` bytes in and out, which is the length of `bytes`; beyond
        // them it follows the one address in a list or batch, which was set above to an array of `count` elements of a
        // type that any bytes make valid (zerocopy's FromBytes), borrowed mutably until the call returns.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), c_ulong::from(command), bytes.as_mut_ptr()) };
        if result == 0 {
            return Ok(());
        }
        Err(failed(io::Error::last_os_error()))
    }

    fn events(&mut self, wait: Duration, into: &mut [abi::Event]) -> Result<usize, ChannelError> {
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(0),
            Ok(_) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let length = self.file.read(into.as_mut_bytes()).map_err(failed)?;
        Ok(length / size_of::<abi::Event>())
    }
}

fn failed(error: io::Error) -> ChannelError {
    error.raw_os_error().map_or(ChannelError::Io(error), |errno| ChannelError::Errno(Errno(errno)))
}

const TOO_LARGE: ChannelError = ChannelError::Errno(Errno::E2BIG);

/// The value of the sysctl `name`, with room for growth since its size was asked for.
///
/// # Errors
/// Those of sysctl(3), except `ENOMEM`: a value that outgrew its room comes cut off.
pub(super) fn sysctl(name: &CStr) -> io::Result<Vec<u8>> {
    let mut length = 0;
    // SAFETY: `name` is a C string; without a buffer the kernel only stores the size in `length`.
    let result =
        unsafe { libc::sysctlbyname(name.as_ptr(), std::ptr::null_mut(), &raw mut length, std::ptr::null(), 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    length += length / 8 + 4096;
    let mut value = vec![0u8; length];
    // SAFETY: `value` has `length` bytes that the kernel may write, and nothing else refers to them during the call.
    let result =
        unsafe { libc::sysctlbyname(name.as_ptr(), value.as_mut_ptr().cast(), &raw mut length, std::ptr::null(), 0) };
    if result != 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOMEM) {
            return Err(error);
        }
    }
    value.truncate(length);
    Ok(value)
}

/// The value of the sysctl with this number, otherwise as [`sysctl`].
///
/// # Errors
/// Those of sysctl(3), except `ENOMEM`.
pub(super) fn sysctl_number(name: &[i32]) -> io::Result<Vec<u8>> {
    let depth = u32::try_from(name.len()).map_err(io::Error::other)?;
    let mut length = 0;
    // SAFETY: `name` has `depth` numbers; without a buffer the kernel only stores the size in `length`.
    let result =
        unsafe { libc::sysctl(name.as_ptr(), depth, std::ptr::null_mut(), &raw mut length, std::ptr::null(), 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    length += length / 8 + 4096;
    let mut value = vec![0u8; length];
    // SAFETY: as above, and `value` has `length` bytes that the kernel may write.
    let result =
        unsafe { libc::sysctl(name.as_ptr(), depth, value.as_mut_ptr().cast(), &raw mut length, std::ptr::null(), 0) };
    if result != 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOMEM) {
            return Err(error);
        }
    }
    value.truncate(length);
    Ok(value)
}

/// The flags (`IN6_IFF_*`) of an IPv6 address of an interface.
///
/// # Errors
/// Those of ioctl(2): `EADDRNOTAVAIL` when the interface does not have it.
pub(super) fn in6_flags(socket: &impl AsRawFd, interface: &str, ip: std::net::Ipv6Addr) -> io::Result<u32> {
    let mut request = [0_u8; routesock::IN6_IFREQ];
    let name = interface.bytes().take(routesock::IFR_IFRU - 1);
    request.iter_mut().zip(name).for_each(|(to, from)| *to = from);
    let address = routesock::sockaddr6(ip);
    request.iter_mut().skip(routesock::IFR_IFRU).zip(address).for_each(|(to, from)| *to = from);
    // SAFETY: the command's argument is a struct in6_ifreq, and `request` is as long as one.
    if unsafe { libc::ioctl(socket.as_raw_fd(), routesock::GET_FLAGS, request.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = request.get(routesock::IFR_IFRU..).and_then(|flags| flags.first_chunk());
    Ok(flags.copied().map(u32::from_ne_bytes).unwrap_or_default())
}

/// Sets a control of this process that is a number.
///
/// # Errors
/// Those of procctl(2).
pub(super) fn procctl(command: i32, mut value: i32) -> io::Result<()> {
    let own = libc::id_t::from(std::process::id());
    // SAFETY: the argument of the commands that this is called with is an int, which `value` is.
    if unsafe { libc::procctl(libc::P_PID, own, command, (&raw mut value).cast()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

//! The control device of the user-space host: a Unix stream socket.
//!
//! Little-endian frames, one request at a time. A request is command, access
//! flags, argument length and number of regions (32 bits each), the argument,
//! and for each region its user address (64 bits), its length (32 bits) and its
//! bytes. A response is an errno, the argument length, the argument, and for
//! each region its length and bytes. A region is the memory that a pointer in
//! the argument refers to.
//!
//! Reading events is a command too, [`READ`]: its argument says how many
//! milliseconds to wait, and comes back as the number of bytes that the one
//! region then begins with.

use super::{Argument, Channel, ChannelError};
use crate::errno::Errno;
use mobconn_abi::Event;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use zerocopy::IntoBytes;

/// `FREAD | FWRITE` of fcntl.h in the kernel: mobctl opens the device for both.
const FFLAG: u32 = 1 | 2;
/// A user-space host that does not answer for this long is taken for dead.
const PATIENCE: Duration = Duration::from_secs(10);

/// The command that reads events; no ioctl of the module has its group.
pub const READ: u32 = 0xc004_5200;

/// A channel over the socket of a user-space host.
#[derive(Debug)]
pub struct SocketChannel {
    stream: UnixStream,
}

impl SocketChannel {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::over(UnixStream::connect(path)?)
    }

    /// A channel over a connected stream.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    fn exchange(
        &mut self,
        command: u32,
        argument: &mut [u8],
        region: Option<(u64, &mut [u8])>,
    ) -> Result<(), ChannelError> {
        let result = self.try_exchange(command, argument, region);
        if matches!(result, Err(ChannelError::Io(_) | ChannelError::Protocol(_))) {
            // What comes next on this stream could be the rest of this response.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        result
    }

    fn try_exchange(
        &mut self,
        command: u32,
        argument: &mut [u8],
        region: Option<(u64, &mut [u8])>,
    ) -> Result<(), ChannelError> {
        let mut request =
            Vec::with_capacity(16 + argument.len() + region.as_ref().map_or(0, |(_, bytes)| 12 + bytes.len()));
        for word in [command, FFLAG, count(argument)?, u32::from(region.is_some())] {
            request.extend_from_slice(&word.to_le_bytes());
        }
        request.extend_from_slice(argument);
        if let Some((address, bytes)) = &region {
            request.extend_from_slice(&address.to_le_bytes());
            request.extend_from_slice(&count(bytes)?.to_le_bytes());
            request.extend_from_slice(bytes);
        }
        self.stream.write_all(&request).map_err(ChannelError::Io)?;

        let errno = self.word()?;
        self.fill(argument)?;
        if let Some((_, bytes)) = region {
            self.fill(bytes)?;
        }
        if errno == 0 { Ok(()) } else { Err(ChannelError::Errno(Errno(errno.cast_signed()))) }
    }

    fn word(&mut self) -> Result<u32, ChannelError> {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes).map_err(ChannelError::Io)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a length, which must be that of `into`, and as many bytes.
    fn fill(&mut self, into: &mut [u8]) -> Result<(), ChannelError> {
        if self.word()? != count(into)? {
            return Err(ChannelError::Protocol("a response of another length than its request"));
        }
        self.stream.read_exact(into).map_err(ChannelError::Io)
    }
}

impl Channel for SocketChannel {
    fn call(&mut self, command: u32, argument: Argument<'_>) -> Result<(), ChannelError> {
        // The address is only a name here: the host finds the region by it.
        match argument {
            Argument::None => self.exchange(command, &mut [], None),
            Argument::Plain(bytes) => self.exchange(command, bytes, None),
            Argument::List(list, records) => {
                let address = records.as_ptr().addr() as u64;
                list.buffer = address;
                list.count = count(records)?;
                self.exchange(command, list.as_mut_bytes(), Some((address, records.as_mut_bytes())))
            }
            Argument::Batch(batch, entries) => {
                let address = entries.as_ptr().addr() as u64;
                batch.entries = address;
                batch.count = count(entries)?;
                self.exchange(command, batch.as_mut_bytes(), Some((address, entries.as_mut_bytes())))
            }
        }
    }

    fn events(&mut self, wait: Duration, into: &mut [Event]) -> Result<usize, ChannelError> {
        // Well within the time after which the host is taken for dead.
        let wait = wait.min(PATIENCE / 2);
        let mut argument = u32::try_from(wait.as_millis()).unwrap_or(0);
        let address = into.as_ptr().addr() as u64;
        match self.exchange(READ, argument.as_mut_bytes(), Some((address, into.as_mut_bytes()))) {
            Err(ChannelError::Errno(Errno::EAGAIN)) => return Ok(0),
            result => result?,
        }
        match argument as usize / size_of::<Event>() {
            count if count <= into.len() => Ok(count),
            _ => Err(ChannelError::Protocol("more events than there was room for")),
        }
    }
}

fn count<T>(items: &[T]) -> Result<u32, ChannelError> {
    u32::try_from(items.len()).map_err(|_| ChannelError::Protocol("a request that is too large"))
}

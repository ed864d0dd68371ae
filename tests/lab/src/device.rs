//! `/dev/mobconn` of a user-space host: a Unix stream socket in front of the
//! module's ioctls.
//!
//! Little-endian frames, one request at a time.
//!
//! ```text
//! request   u32 command, u32 fflag, u32 argument length, u32 regions, argument,
//!           per region: u64 user address, u32 length, bytes
//! response  u32 errno, u32 argument length, argument,
//!           per region: u32 length, bytes
//! ```
//!
//! The command [`READ`] reads events: its argument says how many milliseconds
//! to wait, and comes back as the number of bytes that the one region then
//! begins with.

use crate::error::{Doing, Result};
use crate::kernel::{Kernel, Reader, Region};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The command that reads events.
const READ: u32 = 0xc004_5200;
/// Longest argument of an ioctl, bytes.
const ARGUMENT_MAX: usize = 8191;
/// Most regions of user memory.
const REGIONS_MAX: u32 = 8;
/// Most bytes in all regions of one request.
const REGION_BYTES_MAX: usize = 16 << 20;

/// Serves the device of `kernel` at `path` for as long as the process lives.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(path: &Path, kernel: Arc<dyn Kernel>) -> Result<()> {
    let listener = UnixListener::bind(path).doing(format_args!("making the device {}", path.display()))?;
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let kernel = Arc::clone(&kernel);
            let answer = move || {
                // The caller sees the closed connection; there is nobody else to tell.
                let _ = converse(&stream, kernel.as_ref());
            };
            if thread::Builder::new().name("ioctl".to_owned()).spawn(answer).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("device".to_owned()).spawn(accept).doing("starting a thread")?;
    Ok(())
}

/// Answers requests until the caller closes, or breaks the rules.
fn converse(mut stream: &UnixStream, kernel: &dyn Kernel) -> io::Result<()> {
    let mut reader = None;
    loop {
        let [command, fflag, length, regions] = words(&mut stream)?;
        if length as usize > ARGUMENT_MAX || regions > REGIONS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut argument = bytes(&mut stream, length as usize)?;
        let mut room = REGION_BYTES_MAX;
        let mut memory = Vec::new();
        for _ in 0..regions {
            let [low, high, length] = words(&mut stream)?;
            room = room.checked_sub(length as usize).ok_or(io::ErrorKind::InvalidData)?;
            let address = u64::from(high) << 32 | u64::from(low);
            memory.push(Region { address, bytes: bytes(&mut stream, length as usize)? });
        }
        let result = if command == READ {
            read(kernel, &mut reader, &mut argument, &mut memory)
        } else {
            kernel.ioctl(fflag, command, &mut argument, &mut memory)
        };
        let errno = result.err().unwrap_or(0);
        let mut response = errno.to_le_bytes().to_vec();
        for part in std::iter::once(&argument).chain(memory.iter().map(|region| &region.bytes)) {
            response.extend(u32::try_from(part.len()).map_err(|_| io::ErrorKind::InvalidData)?.to_le_bytes());
            response.extend(part);
        }
        stream.write_all(&response)?;
    }
}

fn read(
    kernel: &dyn Kernel,
    reader: &mut Option<Box<dyn Reader>>,
    argument: &mut [u8],
    memory: &mut [Region],
) -> std::result::Result<(), u32> {
    const EINVAL: u32 = 22;
    let wait = u32::from_le_bytes(argument.try_into().map_err(|_| EINVAL)?);
    let region = memory.first_mut().ok_or(EINVAL)?;
    let reader = match reader {
        Some(reader) => reader,
        None => reader.insert(kernel.open()?),
    };
    let length = reader.read(Duration::from_millis(wait.into()), &mut region.bytes)?;
    argument.copy_from_slice(&u32::try_from(length).map_err(|_| EINVAL)?.to_le_bytes());
    Ok(())
}

fn words<const N: usize>(stream: &mut impl Read) -> io::Result<[u32; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes)?;
        *word = u32::from_le_bytes(bytes);
    }
    Ok(words)
}

fn bytes(stream: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Input, Output, Place};
    use std::net::IpAddr;

    /// Adds one to every byte of the argument and of the memory; errno is the command.
    struct Increment;

    impl Kernel for Increment {
        fn output(&self, _: &[u8], _: &str) -> Output {
            Output::Nothing
        }
        fn input(&self, _: &[u8], _: &str) -> Input {
            Input::Nothing
        }
        fn join(&self, _: Place) {}
        fn set_local(&self, _: &[IpAddr]) {}
        fn set_mtu(&self, _: &str, _: u32) {}
        fn ioctl(
            &self,
            _: u32,
            command: u32,
            argument: &mut [u8],
            regions: &mut [Region],
        ) -> std::result::Result<(), u32> {
            let all = argument.iter_mut().chain(regions.iter_mut().flat_map(|region| region.bytes.iter_mut()));
            all.for_each(|byte| *byte += 1);
            if command == 0 { Ok(()) } else { Err(command) }
        }
    }

    fn conversation(request: &[u8]) -> Vec<u8> {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        ours.write_all(request).expect("room in the socket");
        ours.shutdown(std::net::Shutdown::Write).expect("an open socket");
        // It ends with the end of the requests, or when they break the rules.
        let _ = converse(&theirs, &Increment);
        drop(theirs);
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).expect("an answer");
        answer
    }

    #[test]
    fn a_request_with_memory() {
        let mut request = Vec::new();
        for word in [22_u32, 3, 2, 1] {
            request.extend(word.to_le_bytes());
        }
        request.extend([1, 2]);
        request.extend(0x1000_u64.to_le_bytes());
        request.extend(3_u32.to_le_bytes());
        request.extend([7, 8, 9]);
        let answer = conversation(&request);
        assert_eq!(answer, [22, 0, 0, 0, 2, 0, 0, 0, 2, 3, 3, 0, 0, 0, 8, 9, 10]);
    }

    #[test]
    fn excess_closes_the_connection() {
        for (length, regions) in [(8192_u32, 0_u32), (0, 9)] {
            let mut request = Vec::new();
            for word in [0, 3, length, regions] {
                request.extend(word.to_le_bytes());
            }
            assert!(conversation(&request).is_empty(), "{length} bytes, {regions} regions");
        }
    }
}

//! TUN devices: where a host's IP layer meets the lab.

use crate::error::{Doing, Error, Result};
use crate::ns::Namespace;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Longest packet that a device carries, bytes.
pub const MTU: usize = 1500;

nix::ioctl_readwrite_bad!(
    /// `TUNSETIFF` of `<linux/if_tun.h>`.
    tun_set_interface,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    Request
);

/// A TUN device: whole IP packets, without a header, without offloads.
#[derive(Debug)]
pub struct Tun {
    name: String,
    index: u32,
    file: File,
}

impl Tun {
    /// Makes the device `name` in `namespace`.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no `/dev/net/tun` or it is forbidden.
    pub fn new(namespace: &Namespace, name: &str) -> Result<Self> {
        let wanted = name.to_owned();
        namespace.run(move || Self::make(wanted))?
    }

    fn make(name: String) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
        let file = file.map_err(|e| {
            match e.kind() {
            io::ErrorKind::NotFound => Error::Missing(
                "/dev/net/tun is missing: load the kernel's tun driver (modprobe tun), or make the node \
                 (mknod /dev/net/tun c 10 200)"
                    .to_owned(),
            ),
            io::ErrorKind::PermissionDenied => Error::Missing(
                "/dev/net/tun may not be opened: as root, chmod 0666 /dev/net/tun (which is its usual mode), or run as \
                 root"
                    .to_owned(),
            ),
            _ if e.raw_os_error() == Some(libc::ENXIO) || e.raw_os_error() == Some(libc::ENODEV) => {
                Error::Missing("the kernel has no tun driver: modprobe tun".to_owned())
            }
            _ => Error::System { doing: "opening /dev/net/tun".to_owned(), source: e },
        }
        })?;
        let mut request = Request { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
        for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: the kernel reads and writes one struct ifreq, which `Request` is laid out as and as long as.
        unsafe { tun_set_interface(file.as_raw_fd(), &raw mut request) }
            .doing(format_args!("making the device {name}"))?;
        let index = if_nametoindex(name.as_str()).doing(format_args!("looking up the device {name}"))?;
        Ok(Self { name, index, file })
    }

    /// Interface name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Interface index in its namespace.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The next packet that the host sends; `None` when there is none now.
    ///
    /// # Errors
    /// When the device fails.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match (&self.file).read(buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // An interface that is down.
            Err(e) if e.raw_os_error() == Some(Errno::EIO as i32) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Gives the host a packet. False when it does not take it: the interface
    /// is down, or its queue is full.
    pub fn deliver(&self, packet: &[u8]) -> bool {
        (&self.file).write(packet).is_ok_and(|n| n == packet.len())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;

/// `struct ifreq` with its flags.
#[repr(C)]
#[derive(Debug)]
pub struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

//! The one place that decides between "FreeBSD kernel" and "anything else".
//!
//! Either module offers the same functions: the way to the control device, the
//! list of connections, the boot, and the local address of an IPv4 datagram.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
use freebsd as here;

#[cfg(not(target_os = "freebsd"))]
mod linux;
#[cfg(not(target_os = "freebsd"))]
use linux as here;

pub use here::{NAME, SIGINFO, Source4, announce_destination4, boot, connections, destination4, open_channel};

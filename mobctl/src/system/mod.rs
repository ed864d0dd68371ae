//! The one place that decides between "FreeBSD kernel" and "anything else".
//!
//! Either module offers the same functions: the way to the control device, the
//! list of connections, the networks, and the local address of an IPv4 datagram.

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
use freebsd as here;

#[cfg(not(target_os = "freebsd"))]
mod linux;
#[cfg(not(target_os = "freebsd"))]
use linux as here;

pub use here::{
    NAME, SIGINFO, Source4, Watcher, alias, announce_destination4, boot, connections, destination4, keep_apart,
    open_channel,
};

/// Runs a program of the system's, and fails with what it says.
fn run(program: &str, words: &[&str]) -> std::io::Result<()> {
    let output = std::process::Command::new(program).args(words).stdin(std::process::Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(std::io::Error::other(format!("{program} {}: {said}", words.join(" "))))
}

//! What a thread must be in to call the network stack, and what the module
//! asks it: addresses, connections.

use crate::ffi;
use core::mem::MaybeUninit;

/// Which network stack functions of this thread speak of, see vnet(9).
pub struct CurVnet(*mut ffi::vnet);

impl CurVnet {
    /// Makes `vnet` the thread's until the value is dropped.
    ///
    /// # Safety
    /// The vnet is alive until then.
    #[must_use]
    pub unsafe fn set(vnet: *mut ffi::vnet) -> Self {
        // SAFETY: changes the calling thread's own state.
        Self(unsafe { ffi::mobconn_curvnet_set(vnet) })
    }
}

impl Drop for CurVnet {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { ffi::mobconn_curvnet_set(self.0) };
    }
}

/// Runs `action` inside the network epoch, where nothing may sleep.
pub fn in_net_epoch<R>(action: impl FnOnce() -> R) -> R {
    let mut tracker = MaybeUninit::<ffi::epoch_tracker>::zeroed();
    // SAFETY: a tracker on this stack, which stays until the exit.
    unsafe { ffi::mobconn_net_epoch_enter(tracker.as_mut_ptr()) };
    let result = action();
    // SAFETY: entered above, by this thread.
    unsafe { ffi::mobconn_net_epoch_exit(tracker.as_mut_ptr()) };
    result
}

/// A connection's ends, as the host knows them.
pub type ConnectionSide = ffi::mobconn_side;

/// Whether curvnet has a connection with exactly these ends, `TIME_WAIT`
/// included. Process context, or the network epoch; no connection is locked.
#[must_use]
pub fn is_connected(side: &ConnectionSide) -> bool {
    // SAFETY: reads the side; the caller holds no lock of a connection.
    unsafe { ffi::mobconn_is_connected(side) != 0 }
}

/// Lets the retransmission (or persist) timer of a TCP connection of curvnet
/// run out now, if it runs; returns whether it did. Context as above.
#[must_use]
pub fn tcp_resume(side: &ConnectionSide) -> bool {
    // SAFETY: as above.
    unsafe { ffi::mobconn_tcp_resume(side) != 0 }
}

/// As [`tcp_resume`], for a connection that is to leave cutting its data into
/// segments to no interface any more (TSO).
#[must_use]
pub fn tcp_no_tso(side: &ConnectionSide) -> bool {
    // SAFETY: as above.
    unsafe { ffi::mobconn_tcp_no_tso(side) != 0 }
}

/// Most bytes of a packet that an interface takes.
///
/// # Safety
/// `interface` is alive.
#[must_use]
pub unsafe fn if_getmtu(interface: *mut ffi::ifnet) -> usize {
    // SAFETY: alive (contract).
    usize::try_from(unsafe { ffi::if_getmtu(interface) }).unwrap_or(usize::MAX)
}

/// in_localip(9) of four octets: whether an interface of curvnet has the address.
#[must_use]
pub fn in_localip(address: [u8; 4]) -> bool {
    let address = ffi::in_addr { s_addr: u32::from_ne_bytes(address) };
    // SAFETY: plain data; inside the network epoch.
    unsafe { ffi::in_localip(address) }
}

/// Index of an interface.
///
/// # Safety
/// `interface` is alive: an argument of a running hook.
#[must_use]
pub unsafe fn if_getindex(interface: *mut ffi::ifnet) -> u32 {
    // SAFETY: alive (contract); reads a field that never changes.
    unsafe { ffi::if_getindex(interface) }.cast_unsigned()
}

/// in6_localip(9).
#[must_use]
pub fn in6_localip(address: [u8; 16]) -> bool {
    let mut address: ffi::in6_addr = {
        // SAFETY: sixteen octets either way.
        unsafe { core::mem::transmute(address) }
    };
    // SAFETY: a local; inside the network epoch.
    unsafe { ffi::in6_localip(&raw mut address) != 0 }
}

//! mbuf(9): the packet that a pfil(9) hook was given.
//!
//! Context: the hook, inside the network epoch; nothing here sleeps. The
//! packet belongs to the kernel again when the hook returns, unless it was
//! freed: then the hook's slot is null.

use crate::ffi;
use core::ffi::c_int;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};

/// Data bytes of an mbuf with a packet header.
const MHLEN: usize = ffi::mobconn_mhlen as usize;
/// Room for a link header that a copied packet keeps at its start.
const LINK_HEADER: usize = 16;

const PKTHDR: usize = ffi::mobconn_pkthdr as usize;
const CSUM_DATA: usize = ffi::mobconn_csum_data as usize;
const PH_LOC: usize = ffi::mobconn_ph_loc as usize;

/// The packet was freed, because memory is short or it cannot be reshaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed;

/// A packet: a chain of mbufs that begins with a packet header.
pub struct Mbuf<'a> {
    slot: *mut *mut ffi::mbuf,
    // What the slot holds; null when the packet was freed.
    first: *mut ffi::mbuf,
    hook: PhantomData<&'a mut ffi::mbuf>,
}

impl Mbuf<'_> {
    /// The packet that `slot` holds.
    ///
    /// # Safety
    /// `slot` is the first argument of a running hook: a valid packet whose
    /// owner is the hook until it returns, and used by nothing else until then.
    #[inline]
    pub unsafe fn new(slot: *mut *mut ffi::mbuf) -> Self {
        // SAFETY: valid for reads (caller).
        let first = unsafe { slot.read() };
        Self { slot, first, hook: PhantomData }
    }

    fn replace(&mut self, first: *mut ffi::mbuf) -> Result<(), Freed> {
        self.first = first;
        // SAFETY: the slot is valid for writes (see `new`).
        unsafe { self.slot.write(first) };
        if first.is_null() { Err(Freed) } else { Ok(()) }
    }

    /// Pointer to the field of type `T` at `offset` of the first mbuf.
    #[inline]
    const fn field<T>(&self, offset: usize) -> *mut T {
        self.first.wrapping_byte_add(offset).cast()
    }

    #[inline]
    fn header(&self) -> *mut ffi::pkthdr {
        self.field(PKTHDR)
    }

    /// The first mbuf, for those who only look; null when the packet was freed.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const ffi::mbuf {
        self.first
    }

    /// Whether the packet was freed.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.first.is_null()
    }

    /// Length of the packet in bytes; 0 when it is gone.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        if self.first.is_null() {
            return 0;
        }
        // SAFETY: the packet is alive and begins with a packet header (see `new`).
        let len = unsafe { (*self.header()).len };
        usize::try_from(len).unwrap_or(0)
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `M_*` flags of the first mbuf; 0 when the packet is gone.
    #[must_use]
    #[inline]
    pub fn flags(&self) -> u32 {
        if self.first.is_null() {
            return 0;
        }
        // SAFETY: the packet is alive.
        let first = unsafe { &*self.first };
        first.m_flags()
    }

    /// Sets `M_*` flags of the first mbuf.
    #[inline]
    pub fn set_flags(&mut self, flags: u32) {
        if self.first.is_null() {
            return;
        }
        // SAFETY: the packet is alive, and only the hook uses it now.
        let first = unsafe { &mut *self.first };
        first.set_m_flags(first.m_flags() | flags);
    }

    /// The bytes of the first mbuf; none when they are not mapped or the
    /// packet is gone.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        if self.first.is_null() || self.flags() & ffi::M_EXTPG != 0 {
            return &[];
        }
        // SAFETY: the packet is alive.
        let first = unsafe { &*self.first };
        let len = usize::try_from(first.m_len).unwrap_or(0);
        // SAFETY: m_data is mapped and valid for m_len bytes, which nothing changes while the packet is the hook's.
        unsafe { core::slice::from_raw_parts(first.m_data.cast(), len) }
    }

    /// The bytes of the first mbuf if this packet alone has them.
    #[inline]
    pub fn data_mut(&mut self) -> Option<&mut [u8]> {
        if !self.m_writable() {
            return None;
        }
        // SAFETY: not gone, or it would not be writable.
        let first = unsafe { &*self.first };
        let len = usize::try_from(first.m_len).unwrap_or(0);
        // SAFETY: as in `data`, and M_WRITABLE(9) says that nobody else refers to them.
        Some(unsafe { core::slice::from_raw_parts_mut(first.m_data.cast(), len) })
    }

    /// `M_WRITABLE`; false when the packet is gone.
    #[inline]
    pub fn m_writable(&mut self) -> bool {
        // SAFETY: the packet is alive.
        !self.first.is_null() && unsafe { ffi::mobconn_m_writable(self.first) } != 0
    }

    /// Whether the first `len` bytes lie in mapped mbufs; m_pullup(9) and its
    /// kin must not be asked otherwise.
    fn is_mapped(&self, len: usize) -> bool {
        let mut left = len;
        let mut at = self.first;
        while left > 0 && !at.is_null() {
            // SAFETY: a member of a living chain.
            let mbuf = unsafe { &*at };
            if mbuf.m_flags() & ffi::M_EXTPG != 0 {
                return false;
            }
            left = left.saturating_sub(usize::try_from(mbuf.m_len).unwrap_or(0));
            // SAFETY: every member of the union is the pointer to the next one.
            at = unsafe { mbuf.__bindgen_anon_1.m_next };
        }
        true
    }

    /// Frees the packet unless its first `len` bytes can be reshaped.
    fn reshapable(&mut self, len: usize) -> Result<c_int, Freed> {
        if self.first.is_null() {
            return Err(Freed);
        }
        if len > MHLEN || !self.is_mapped(len) {
            self.m_freem();
            return Err(Freed);
        }
        c_int::try_from(len).map_err(|_| Freed)
    }

    /// m_pullup(9): makes the first `len` bytes contiguous.
    ///
    /// # Errors
    /// [`Freed`] when memory is short, or `len` is more than an mbuf holds and
    /// not contiguous already.
    pub fn m_pullup(&mut self, len: usize) -> Result<(), Freed> {
        if self.data().len() >= len {
            return Ok(());
        }
        let count = self.reshapable(len)?;
        // SAFETY: the packet is alive, ours and mapped; it is replaced by what comes back, or gone.
        let first = unsafe { ffi::m_pullup(self.first, count) };
        self.replace(first)
    }

    /// m_copyup(9): as [`Mbuf::m_pullup`], into memory that is this packet's alone.
    ///
    /// # Errors
    /// [`Freed`] when memory is short, or `len` is more than an mbuf holds.
    pub fn m_copyup(&mut self, len: usize) -> Result<(), Freed> {
        let count = self.reshapable(len)?;
        let room = if len.saturating_add(LINK_HEADER) <= MHLEN { LINK_HEADER } else { 0 };
        // SAFETY: as above.
        let first = unsafe { ffi::m_copyup(self.first, count, room as c_int) };
        self.replace(first)?;
        // SAFETY: replace found that there is one.
        let first = unsafe { &mut *first };
        // M_COPYFLAGS brings the old mbuf's M_RDONLY along; the storage is new.
        first.set_m_flags(first.m_flags() & !ffi::M_RDONLY);
        Ok(())
    }

    /// m_freem(9): the packet is gone afterwards.
    pub fn m_freem(&mut self) {
        if !self.first.is_null() {
            // SAFETY: the packet is alive and ours; it is not touched again.
            unsafe { ffi::m_freem(self.first) };
            let _ = self.replace(null_mut());
        }
    }

    /// ip_output(9): has the packet, whose IPv4 header is complete, routed and
    /// sent. It is gone afterwards, sent or not.
    pub fn ip_output(&mut self) {
        if !self.first.is_null() {
            // SAFETY: a whole packet, ours, which is not touched again; inside the network epoch, as every hook; no
            // options, route, multicast state or connection are passed.
            unsafe {
                ffi::ip_output(self.first, null_mut(), null_mut(), ffi::IP_RAWOUTPUT as c_int, null_mut(), null_mut())
            };
            let _ = self.replace(null_mut());
        }
    }

    /// The same for IPv6.
    pub fn ip6_output(&mut self) {
        if !self.first.is_null() {
            // SAFETY: as above.
            unsafe { ffi::ip6_output(self.first, null_mut(), null_mut(), 0, null_mut(), null_mut(), null_mut()) };
            let _ = self.replace(null_mut());
        }
    }

    /// Has the packet sent to `gateway` when [`Mbuf::ip_output`] or
    /// [`Mbuf::ip6_output`] sends it. IPv4 in the first four bytes; a
    /// link-local one has its scope embedded.
    ///
    /// # Errors
    /// [`Freed`] when memory is short: the packet is gone.
    pub fn next_hop(&mut self, gateway: &[u8; 16], v6: bool) -> Result<(), Freed> {
        if self.first.is_null() {
            return Err(Freed);
        }
        // SAFETY: a packet with a header, ours; the array is only read.
        if unsafe { ffi::mobconn_next_hop(self.first, gateway.as_ptr(), c_int::from(v6)) } != 0 {
            self.m_freem();
            return Err(Freed);
        }
        Ok(())
    }

    /// The way that [`Mbuf::ip_output`] or [`Mbuf::ip6_output`] would choose
    /// for the packet, whose IP header is contiguous. `before`: the interface
    /// that it was made for, or null. None: there is no way.
    ///
    /// # Safety
    /// Inside the network epoch; `before` is alive or null.
    #[must_use]
    pub unsafe fn way(&self, v6: bool, before: *mut ffi::ifnet) -> Option<Way> {
        if self.data().len() < if v6 { 40 } else { 20 } {
            return None;
        }
        let mut way = ffi::mobconn_way { interface: null_mut(), mtu: 0, tso: 0 };
        // SAFETY: the packet is alive, with a whole header; the interface and the epoch are the caller's promise.
        let found = unsafe { ffi::mobconn_way(self.first, c_int::from(v6), before, &raw mut way) };
        (found != 0).then_some(Way(way))
    }

    /// A packet of these bytes that seems to have been received by the
    /// interface of `way`, for [`OwnedMbuf::netisr_queue`]. None: it is too
    /// long, or memory is short.
    #[must_use]
    pub fn received(&self, bytes: &[u8], way: &Way) -> Option<OwnedMbuf> {
        if bytes.len() > MHLEN || self.first.is_null() {
            return None;
        }
        // SAFETY: as in `len`.
        let fib = unsafe { (*self.header()).fibnum };
        // SAFETY: the bytes fit; the interface is alive while the network epoch lasts, in which `way` was found.
        let packet = unsafe {
            ffi::mobconn_received(bytes.as_ptr().cast(), bytes.len() as c_int, way.0.interface, c_int::from(fib))
        };
        NonNull::new(packet).map(OwnedMbuf)
    }

    /// The size of the segments into which the interface is to cut the
    /// packet, if it is.
    #[must_use]
    pub fn tso_segsz(&self) -> Option<u16> {
        if self.csum_flags() & ffi::CSUM_TSO == 0 {
            return None;
        }
        // SAFETY: as in `len`.
        let header = unsafe { &*self.header() };
        // SAFETY: a packet with this flag has the size there.
        let sizes = unsafe { header.PH_per.sixteen };
        let [_, size, ..] = sizes;
        Some(size)
    }

    /// ip_reass(9): gives a received IPv4 fragment to reassembly. Some: the
    /// whole datagram, which takes the place of the packet.
    pub fn ip_reass(&mut self) -> Option<()> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: the packet is alive and ours, its IP header is contiguous (the hook's own promise), and it is not touched
        // again; inside the network epoch.
        let whole = unsafe { ffi::ip_reass(self.first) };
        self.replace(whole).ok()
    }

    /// The same for IPv6; the fragment header lies at `offset`.
    pub fn frag6_input(&mut self, offset: usize) -> Option<()> {
        let Ok(mut offset) = c_int::try_from(offset) else {
            self.m_freem();
            return None;
        };
        if self.first.is_null() {
            return None;
        }
        let mut packet = self.first;
        // SAFETY: as above; both pointers are to locals.
        let next = unsafe { ffi::frag6_input(&raw mut packet, &raw mut offset, ffi::IPPROTO_FRAGMENT as c_int) };
        let whole = if next == ffi::IPPROTO_DONE as c_int { null_mut() } else { packet };
        self.replace(whole).ok()
    }

    /// Takes the packet out of the hook's hands. None: it is gone.
    pub fn take(&mut self) -> Option<OwnedMbuf> {
        let first = NonNull::new(self.first)?;
        let _ = self.replace(null_mut());
        Some(OwnedMbuf(first))
    }

    /// `CSUM_*` flags.
    #[must_use]
    #[inline]
    pub fn csum_flags(&self) -> u32 {
        if self.first.is_null() {
            return 0;
        }
        // SAFETY: as in `len`.
        unsafe { (*self.header()).csum_flags }
    }

    /// The sum that the hardware made of a received packet.
    #[must_use]
    pub fn csum_data(&self) -> u32 {
        if self.first.is_null() {
            return 0;
        }
        // SAFETY: as in `len`; the field lies in the packet header.
        unsafe { self.field::<u32>(CSUM_DATA).read() }
    }

    /// Replaces the hardware's sum.
    pub fn set_csum_data(&mut self, sum: u32) {
        if !self.first.is_null() {
            // SAFETY: as in `csum_data`, and only the hook uses the packet now.
            unsafe { self.field::<u32>(CSUM_DATA).write(sum) };
        }
    }

    /// A word that goes with the packet as long as it stays in the IP layer
    /// and below; 0 unless set.
    #[must_use]
    #[inline]
    pub fn mark(&self) -> usize {
        if self.first.is_null() {
            return 0;
        }
        // SAFETY: as in `len`; the field lies in the packet header.
        unsafe { self.field::<usize>(PH_LOC).read() }
    }

    /// Sets that word.
    #[inline]
    pub fn set_mark(&mut self, mark: usize) {
        if !self.first.is_null() {
            // SAFETY: as in `mark`, and only the hook uses the packet now.
            unsafe { self.field::<usize>(PH_LOC).write(mark) };
        }
    }

    /// Whether the packet came in through an interface. (Of a packet that is
    /// being sent: whether it is forwarded.)
    #[must_use]
    #[inline]
    pub fn has_rcvif(&self) -> bool {
        // Packets with a send tag have it in the place of the interface.
        if self.first.is_null() || self.csum_flags() & ffi::CSUM_SND_TAG != 0 {
            return false;
        }
        // SAFETY: as in `len`.
        let header = unsafe { &*self.header() };
        // SAFETY: without a send tag the union holds the interface, or null.
        let interface = unsafe { header.__bindgen_anon_1.rcvif };
        !interface.is_null()
    }
}

/// Where a packet goes, as long as the network epoch lasts in which it was
/// asked for.
pub struct Way(ffi::mobconn_way);

impl Way {
    /// Most bytes of a packet there.
    #[must_use]
    pub fn mtu(&self) -> usize {
        usize::try_from(self.0.mtu).unwrap_or(usize::MAX)
    }

    /// Whether the interface cuts the packet into segments as TCP wants it.
    #[must_use]
    pub fn tso(&self) -> bool {
        self.0.tso != 0
    }
}

/// A packet that is nobody else's, kept for later.
pub struct OwnedMbuf(NonNull<ffi::mbuf>);

// SAFETY: the packet is the value's alone, and mbufs belong to no thread.
unsafe impl Send for OwnedMbuf {}

impl OwnedMbuf {
    /// Calls `action` with the packet, and frees what it left of it.
    pub fn give<R>(self, action: impl FnOnce(Mbuf<'_>) -> R) -> R {
        let mut slot = self.0.as_ptr();
        core::mem::forget(self);
        // SAFETY: the slot is a local, and holds a packet that is ours.
        let result = action(unsafe { Mbuf::new(&raw mut slot) });
        if !slot.is_null() {
            // SAFETY: still in the slot, so nobody has taken or freed it.
            unsafe { ffi::m_freem(slot) };
        }
        result
    }

    /// Remembers the interface that the packet came from by number, as long
    /// as it is kept: the interface may go.
    pub fn m_rcvif_serialize(&mut self) {
        // SAFETY: a received packet, ours.
        unsafe { ffi::m_rcvif_serialize(self.0.as_ptr()) };
    }

    /// Has a received packet come in again, in another thread: netisr(9). It
    /// is dropped if its interface has gone. Inside the network epoch.
    pub fn netisr_queue(self, v6: bool, serialized: bool) {
        if serialized {
            // SAFETY: a packet on which `m_rcvif_serialize` was called.
            let interface = unsafe { ffi::m_rcvif_restore(self.0.as_ptr()) };
            if interface.is_null() {
                return;
            }
        }
        let first = self.0.as_ptr();
        core::mem::forget(self);
        let protocol = if v6 { ffi::NETISR_IPV6 } else { ffi::NETISR_IP };
        // SAFETY: a received packet that begins with its IP header, ours, which is not touched again; curvnet is set.
        unsafe { ffi::netisr_queue(protocol, first) };
    }
}

impl Drop for OwnedMbuf {
    fn drop(&mut self) {
        // SAFETY: alive, and nobody else's.
        unsafe { ffi::m_freem(self.0.as_ptr()) };
    }
}

//! The hooks of one network stack: linked nearest the wire, and kept there.
//!
//! A firewall that is switched on links itself nearest the wire, in front of
//! us: it would see wire sides, which it has no state for. Nobody tells us of
//! that. So the packet path compares how many hooks its head has with what it
//! was ([`Hooks::others_came`]), and a thread looks now and then whether there
//! are others at all (off and on again leaves their number as it was). Then a
//! second hook is linked nearest the wire, and only after that the first one
//! is taken away: no packet passes untranslated, and one that meets both is
//! translated once (`hook`).
//!
//! Context: the packet path reads two numbers; all else in process context
//! with curvnet set, and may sleep. One sx(9), in which nothing of ours is
//! locked.

use crate::hook;
use crate::text::log;
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicU64, Ordering};
use mobconn_engine::Version;
use mobconn_sys::{Errno, Head, Hook, HookArgs, NoMemory, Sx, ffi};

/// The names of a head's hooks, taken in turn.
type Names = [&'static CStr; 2];
const INET: Names = [c"inet", c"inet-2"];
const INET6: Names = [c"inet6", c"inet6-2"];

/// The hooks of a network stack.
pub(crate) struct Hooks {
    heads: [Head; 2],
    /// How many hooks each head had when ours was linked.
    noted: [AtomicU64; 2],
    linked: Sx<Linked>,
}

/// What is linked now.
struct Linked {
    hooks: [Option<Hook>; 2],
    /// Which of its names each hook has.
    turns: [usize; 2],
}

impl Hooks {
    /// None linked yet.
    pub(crate) fn new() -> Result<Self, NoMemory> {
        let linked = Sx::new(Linked { hooks: [None, None], turns: [0; 2] }, c"mobconn hooks")?;
        let heads = [Head::of_curvnet(false), Head::of_curvnet(true)];
        Ok(Self { heads, noted: Default::default(), linked })
    }

    /// Links the hooks.
    ///
    /// # Safety
    /// `ruleset` is for `hook` until the first epoch after [`Hooks::unlink`].
    pub(crate) unsafe fn link(&self, ruleset: *mut c_void) {
        let mut linked = self.linked.xlock();
        let Linked { hooks, turns } = &mut *linked;
        for (version, (hook, turn)) in [Version::V4, Version::V6].into_iter().zip(hooks.iter_mut().zip(turns)) {
            // SAFETY: as promised.
            match unsafe { make(version, *turn, ruleset) } {
                Ok(made) => *hook = Some(made),
                // A kernel may have been built without one of the two protocols.
                Err(Errno(error)) => log!(Warning, "no hook for {version:?}: error {error}"),
            }
            self.note(version, 0);
        }
    }

    /// Whether hooks came or went since ours was linked. Anywhere.
    #[inline]
    pub(crate) fn others_came(&self, version: Version) -> bool {
        let (Some(head), Some(noted)) = (self.heads.get(version as usize), self.noted.get(version as usize)) else {
            return false;
        };
        head.hooks() != noted.load(Ordering::Relaxed)
    }

    /// Whether another hook is linked to either head.
    pub(crate) fn are_others(&self) -> bool {
        const ONE_EACH_WAY: u64 = 1 << 32 | 1;
        self.heads.iter().any(|head| head.hooks() > ONE_EACH_WAY)
    }

    /// Links other hooks nearest the wire, and unlinks those that were. Does
    /// nothing after [`Hooks::unlink`].
    ///
    /// # Safety
    /// As for [`Hooks::link`].
    pub(crate) unsafe fn relink(&self, ruleset: *mut c_void) {
        let mut linked = self.linked.xlock();
        let Linked { hooks, turns } = &mut *linked;
        for (version, (hook, turn)) in [Version::V4, Version::V6].into_iter().zip(hooks.iter_mut().zip(turns)) {
            if hook.is_none() {
                continue;
            }
            let before = self.heads.get(version as usize).map_or(0, Head::hooks);
            // SAFETY: as promised.
            match unsafe { make(version, 1_usize.wrapping_sub(*turn), ruleset) } {
                Ok(made) => {
                    *turn = 1_usize.wrapping_sub(*turn);
                    drop(hook.replace(made));
                }
                Err(Errno(error)) => log!(Warning, "no second hook for {version:?}: error {error}"),
            }
            // What came meanwhile is noticed as different.
            self.note(version, before);
        }
    }

    /// Unlinks the hooks, for good. Packets may still be in them until an
    /// epoch after.
    pub(crate) fn unlink(&self) {
        self.linked.xlock().hooks = [None, None];
    }

    /// Notes how many hooks there are; `count` of them, or 0: those now.
    fn note(&self, version: Version, count: u64) {
        if let (Some(head), Some(noted)) = (self.heads.get(version as usize), self.noted.get(version as usize)) {
            noted.store(if count == 0 { head.hooks() } else { count }, Ordering::Relaxed);
        }
    }
}

/// # Safety
/// As for [`Hooks::link`].
unsafe fn make(version: Version, turn: usize, ruleset: *mut c_void) -> Result<Hook, Errno> {
    let (head, kind, names, check): (_, _, Names, ffi::pfil_mbuf_chk_t) = match version {
        Version::V4 => (c"inet", ffi::PFIL_TYPE_IP4, INET, Some(hook::inet)),
        Version::V6 => (c"inet6", ffi::PFIL_TYPE_IP6, INET6, Some(hook::inet6)),
    };
    let name = names.get(turn).copied().unwrap_or(head);
    // SAFETY: curvnet is set, the same whenever a hook is linked or dropped; the ruleset is the caller's promise.
    unsafe { Hook::link(c"mobconn", &HookArgs { head, kind, name, check, ruleset }) }
}

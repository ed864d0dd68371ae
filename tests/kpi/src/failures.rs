//! Which allocation fails next.

use crate::options::Failures;
use crate::rng::Rng;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The plan, and how far it is.
#[derive(Debug)]
pub(crate) struct Plan {
    active: AtomicBool,
    now: Mutex<Failures>,
    rng: Rng,
}

impl Plan {
    pub(crate) fn new(failures: Failures, seed: u64) -> Self {
        Self {
            active: AtomicBool::new(failures != Failures::None),
            now: Mutex::new(failures),
            rng: Rng::new(seed ^ 0x6661_696c),
        }
    }

    /// Replaces the plan.
    pub(crate) fn set(&self, failures: Failures) {
        *self.now.lock().unwrap() = failures;
        self.active.store(failures != Failures::None, Ordering::Release);
    }

    /// Whether the allocation that asks fails.
    pub(crate) fn next(&self) -> bool {
        if !self.active.load(Ordering::Acquire) {
            return false;
        }
        let mut now = self.now.lock().unwrap();
        match &mut *now {
            Failures::None => false,
            Failures::All => true,
            Failures::PerMillion(rate) => self.rng.below(1_000_000) < *rate as usize,
            Failures::After(0) => {
                *now = Failures::None;
                self.active.store(false, Ordering::Release);
                true
            }
            Failures::After(left) => {
                *left -= 1;
                false
            }
        }
    }
}

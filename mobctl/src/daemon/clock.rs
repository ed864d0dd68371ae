//! The monotonic clock, as the protocol and as poll(2) want it.

use mobconn_dprp::Instant;
use std::time::Duration;

/// Microseconds since the daemon began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// Milliseconds for poll(2) from `now` until `deadline`, rounded up so that it has passed afterwards; at most one minute.
pub(super) fn poll_millis(now: Instant, deadline: Instant) -> u16 {
    let wait = deadline.since(now).min(Duration::from_secs(60));
    u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_rounded_up() {
        let at = Instant::from_micros;
        assert_eq!(poll_millis(at(5000), at(5000)), 0);
        assert_eq!(poll_millis(at(5000), at(4000)), 0);
        assert_eq!(poll_millis(at(5000), at(5001)), 1);
        assert_eq!(poll_millis(at(5000), at(7000)), 2);
        assert_eq!(poll_millis(at(0), at(u64::MAX)), 60_000);
    }
}

//! The gate closes and opens, and those in `poll_ready` are told.

use super::State;
use crate::{
    cooldown::booking::{Closed, Moved},
    policy::{Closing, later},
    wakers::Wakers,
};
use std::task::Waker;
use tokio::time::Instant;

impl State {
    /// Closes the gate for at least that long. `current` begins a new epoch.
    pub(in crate::cooldown) fn close(
        &mut self,
        closing: Closing,
        current: bool,
        now: Instant,
        wakers: &mut Wakers,
    ) -> Moved {
        let until = later(now, closing.wait);
        let longer = self.closed_until(now).is_none_or(|closed| until > closed.until);
        if longer {
            self.closed = Some(Closed { until, reason: closing.reason });
            // They set their timers anew, or learn that `max_wait` is too short for this.
            self.wake_handles(wakers);
        }
        if current {
            self.epoch += 1;
        }
        if longer || current {
            self.rebook(now, wakers);
        }
        match (current, longer) {
            (true, _) => Moved::Closed(closing),
            (false, true) => Moved::Extended,
            (false, false) => Moved::No,
        }
    }

    /// Opens the gate, forgets the refusals, and disregards answers that are still on their way.
    pub(in crate::cooldown) fn reset(&mut self, now: Instant, wakers: &mut Wakers) {
        self.tell();
        self.policy.reset();
        self.epoch += 1;
        self.closed = None;
        self.wake_handles(wakers);
        self.rebook(now, wakers);
        self.release(now, None, wakers);
    }

    /// The policy says something else than before, by itself: the gate is closed for at least so long, or in a new epoch
    /// for just so long.
    #[cfg(feature = "redis")]
    pub(in crate::cooldown) fn renew(
        &mut self,
        closing: Closing,
        new_epoch: bool,
        now: Instant,
        wakers: &mut Wakers,
    ) {
        if new_epoch {
            // It may have been opened.
            self.closed = None;
            self.wake_handles(wakers);
        }
        if new_epoch || !closing.wait.is_zero() {
            self.close(closing, new_epoch, now, wakers);
        }
        self.rebook(now, wakers);
        self.release(now, None, wakers);
    }

    /// Until when the gate is closed, if it is.
    #[inline]
    pub(in crate::cooldown) fn closed_until(&mut self, now: Instant) -> Option<Closed> {
        if self.closed.is_some_and(|closed| closed.until <= now) {
            self.closed = None;
        }
        self.closed
    }

    /// A service handle waits in `poll_ready`.
    pub(in crate::cooldown) fn watch(&mut self, key: &mut Option<u64>, waker: &Waker, wakers: &mut Wakers) {
        self.crowd().handles.watch(key, waker, wakers);
    }

    /// It waits no longer.
    pub(in crate::cooldown) fn unwatch(&mut self, key: &mut Option<u64>, wakers: &mut Wakers) {
        if let Some(crowd) = &mut self.crowd {
            crowd.handles.unwatch(key, wakers);
            self.go_home();
        }
    }

    pub(super) fn wake_handles(&mut self, wakers: &mut Wakers) {
        if let Some(crowd) = &mut self.crowd {
            crowd.handles.wake_all(wakers);
        }
    }
}

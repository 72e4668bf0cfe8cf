use super::units::{Nanos, clamped};

/// Windows that follow one another. Knows when the one that runs ends.
#[derive(Clone, Debug)]
struct Windows {
    length: Nanos,
    end: Nanos,
}

impl Windows {
    /// Windows that begin at `phase` and whole lengths before and after it. The first one that runs is that
    /// of time 0.
    const fn new(length: Nanos, phase: Nanos) -> Self {
        let end = match phase % length {
            0 => length,
            phase => phase,
        };
        Self { length, end }
    }

    /// How many windows have ended since it was last asked.
    const fn advance(&mut self, now: Nanos) -> u64 {
        if now < self.end {
            return 0;
        }
        let ended = (now - self.end) / self.length + 1;
        self.end = self.end.saturating_add(ended.saturating_mul(self.length));
        ended
    }
}

/// A counter that starts over with each window.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    limit: u64,
    windows: Windows,
    used: u64,
}

impl Fixed {
    pub(super) const fn new(limit: u64, window: Nanos, phase: Nanos) -> Self {
        Self { limit, windows: Windows::new(window, phase), used: 0 }
    }

    /// Keeps the count, if the windows are the same.
    pub(super) fn change(&mut self, limit: u64, window: Nanos, phase: Nanos, now: Nanos) {
        let mut new = Self::new(limit, window, phase);
        new.advance(now);
        if (new.windows.length, new.windows.end) == (self.windows.length, self.windows.end) {
            new.used = self.used;
        }
        *self = new;
    }

    pub(super) const fn advance(&mut self, now: Nanos) {
        if self.windows.advance(now) > 0 {
            self.used = 0;
        }
    }

    pub(super) fn wait(&self, now: Nanos, units: u64) -> Option<Nanos> {
        if self.used.saturating_add(units) <= self.limit {
            return Some(0);
        }
        (units <= self.limit).then(|| self.windows.end - now)
    }

    pub(super) const fn take(&mut self, units: u64) {
        self.used = self.used.saturating_add(units);
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) const fn window(&self) -> Nanos {
        self.windows.length
    }

    pub(super) const fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// The time until the count starts over, used or not: a fixed window says when it ends.
    pub(super) const fn full_in(&self, now: Nanos) -> Nanos {
        self.windows.end - now
    }
}

/// The count of this window, and of the last one in proportion to how much of it a window up to now would
/// still cover.
///
/// As Cloudflare describes it in [How we built rate limiting capable of scaling to millions of domains][source].
///
/// [source]: https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
#[derive(Clone, Debug)]
pub(super) struct SlidingCounter {
    limit: u64,
    windows: Windows,
    previous: u64,
    current: u64,
}

impl SlidingCounter {
    pub(super) const fn new(limit: u64, window: Nanos, phase: Nanos) -> Self {
        Self { limit, windows: Windows::new(window, phase), previous: 0, current: 0 }
    }

    /// Keeps the counts, if the windows are the same.
    pub(super) fn change(&mut self, limit: u64, window: Nanos, phase: Nanos, now: Nanos) {
        let mut new = Self::new(limit, window, phase);
        new.advance(now);
        if (new.windows.length, new.windows.end) == (self.windows.length, self.windows.end) {
            (new.previous, new.current) = (self.previous, self.current);
        }
        *self = new;
    }

    pub(super) const fn advance(&mut self, now: Nanos) {
        match self.windows.advance(now) {
            0 => {}
            1 => (self.previous, self.current) = (self.current, 0),
            _ => (self.previous, self.current) = (0, 0),
        }
    }

    /// What is used now, in units × the length of a window.
    fn used(&self, now: Nanos) -> u128 {
        let left = u128::from(self.windows.end - now);
        let current = u128::from(self.current) * u128::from(self.windows.length);
        current.saturating_add(u128::from(self.previous) * left)
    }

    pub(super) fn wait(&self, now: Nanos, units: u64) -> Option<Nanos> {
        let length = u128::from(self.windows.length);
        let used = self.used(now).saturating_add(u128::from(units) * length);
        if used <= u128::from(self.limit) * length {
            return Some(0);
        }
        let left = self.windows.end - now;
        let spare = u128::from(self.limit.checked_sub(units)?);
        if let Some(spare) = spare.checked_sub(u128::from(self.current)) {
            // It is the last window that is in the way: until so much of this one is over that it fits.
            return Some(left - clamped(spare * length / u128::from(self.previous)).min(left));
        }
        // This window is in the way, and it will be the last one: the same, in the next window.
        let covered = clamped(spare * length / u128::from(self.current));
        Some(left.saturating_add(self.windows.length - covered.min(self.windows.length)))
    }

    pub(super) const fn take(&mut self, units: u64) {
        self.current = self.current.saturating_add(units);
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) const fn window(&self) -> Nanos {
        self.windows.length
    }

    pub(super) fn remaining(&self, now: Nanos) -> u64 {
        let length = u128::from(self.windows.length);
        clamped((u128::from(self.limit) * length).saturating_sub(self.used(now)) / length)
    }

    pub(super) const fn full_in(&self, now: Nanos) -> Nanos {
        let left = self.windows.end - now;
        match (self.previous, self.current) {
            (0, 0) => 0,
            (_, 0) => left,
            _ => left.saturating_add(self.windows.length),
        }
    }
}

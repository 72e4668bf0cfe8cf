use super::units::{Nanos, clamped};

/// A token bucket that starts full. Its level is kept in units × `per`, so that it is exact for every rate.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    limit: u64,
    per: Nanos,
    depth: u64,
    level: u128,
    at: Nanos,
}

impl Bucket {
    pub(super) fn new(limit: u64, per: Nanos, depth: u64, at: Nanos) -> Self {
        Self { limit, per, depth, level: u128::from(depth) * u128::from(per), at }
    }

    /// Keeps what is in it, as far as it fits.
    pub(super) fn change(&mut self, limit: u64, per: Nanos, depth: u64) {
        let whole = self.level / u128::from(self.per);
        let part = self.level % u128::from(self.per);
        let part = part * u128::from(per) / u128::from(self.per);
        (self.limit, self.per, self.depth) = (limit, per, depth);
        self.level = (whole * u128::from(per) + part).min(self.full());
    }

    fn full(&self) -> u128 {
        u128::from(self.depth) * u128::from(self.per)
    }

    pub(super) fn advance(&mut self, now: Nanos) {
        let gained = u128::from(now - self.at) * u128::from(self.limit);
        self.level = self.level.saturating_add(gained).min(self.full());
        self.at = now;
    }

    pub(super) fn wait(&self, units: u64) -> Option<Nanos> {
        let needed = u128::from(units) * u128::from(self.per);
        if self.level >= needed {
            return Some(0);
        }
        (units <= self.depth && self.limit > 0)
            .then(|| clamped((needed - self.level).div_ceil(u128::from(self.limit))))
    }

    pub(super) fn take(&mut self, units: u64) {
        self.level = self.level.saturating_sub(u128::from(units) * u128::from(self.per));
    }

    pub(super) const fn depth(&self) -> u64 {
        self.depth
    }

    pub(super) fn remaining(&self) -> u64 {
        clamped(self.level / u128::from(self.per))
    }

    /// The time in which it fills from empty.
    pub(super) fn window(&self) -> Option<Nanos> {
        (self.limit > 0).then(|| clamped(self.full().div_ceil(u128::from(self.limit))))
    }

    pub(super) fn full_in(&self) -> Option<Nanos> {
        self.wait(self.depth)
    }
}

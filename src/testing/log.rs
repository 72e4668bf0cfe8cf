use super::units::Nanos;
use std::collections::VecDeque;

/// A log of the calls of the last `window`. A call leaves it exactly one window after it came.
#[derive(Clone, Debug)]
pub(super) struct Log {
    limit: u64,
    window: Nanos,
    /// When, and how many units. One entry per point in time.
    entries: VecDeque<(Nanos, u64)>,
    used: u64,
}

impl Log {
    pub(super) const fn new(limit: u64, window: Nanos) -> Self {
        Self { limit, window, entries: VecDeque::new(), used: 0 }
    }

    /// Keeps the log, as far as it reaches back.
    pub(super) const fn change(&mut self, limit: u64, window: Nanos) {
        (self.limit, self.window) = (limit, window);
    }

    pub(super) fn advance(&mut self, now: Nanos) {
        while let Some(&(at, units)) = self.entries.front() {
            if now - at < self.window {
                break;
            }
            self.used -= units;
            self.entries.pop_front();
        }
    }

    pub(super) fn wait(&self, now: Nanos, units: u64) -> Option<Nanos> {
        let mut excess = self.used.saturating_add(units).saturating_sub(self.limit);
        if excess == 0 {
            return Some(0);
        }
        if units > self.limit {
            return None;
        }
        for &(at, units) in &self.entries {
            excess = excess.saturating_sub(units);
            if excess == 0 {
                return Some(at.saturating_add(self.window) - now);
            }
        }
        None
    }

    pub(super) fn take(&mut self, now: Nanos, units: u64) {
        if units == 0 {
            return;
        }
        let units = units.min(u64::MAX - self.used);
        match self.entries.back_mut() {
            Some((at, so_far)) if *at == now => *so_far += units,
            _ => self.entries.push_back((now, units)),
        }
        self.used += units;
        // Where refused calls are logged too: what lies before the newest `limit` units changes no decision.
        while let Some(&(_, oldest)) = self.entries.front() {
            if self.entries.len() == 1 || self.used - oldest < self.limit {
                break;
            }
            self.used -= oldest;
            self.entries.pop_front();
        }
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) const fn window(&self) -> Nanos {
        self.window
    }

    pub(super) const fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    pub(super) fn full_in(&self, now: Nanos) -> Nanos {
        self.entries.back().map_or(0, |&(at, _)| at.saturating_add(self.window) - now)
    }
}

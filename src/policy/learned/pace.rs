use crate::policy::later;
use std::time::Duration;
use tokio::time::Instant;

/// Departures at even distances: calls leave at their slots, and nothing is stored while nobody comes.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    slot: Option<Instant>,
    /// The last departure, and the slot before it.
    last: Option<(Instant, Option<Instant>)>,
    /// The last call waited for its slot: there are more calls than may leave.
    pub(super) is_full: bool,
}

/// A timer may be that late.
const TICK: Duration = Duration::from_millis(5);

impl Pace {
    pub(super) const fn new() -> Self {
        Self { slot: None, last: None, is_full: false }
    }

    pub(super) const fn slot(&self) -> Option<Instant> {
        self.slot
    }

    /// A call of so many requests leaves. Returns for how long nobody wanted the slot that it takes.
    pub(super) fn depart(&mut self, at: Instant, gap: Duration, requests: u32) -> Duration {
        let late = self.slot.map_or(Duration::ZERO, |slot| at.saturating_duration_since(slot));
        self.is_full = late <= TICK + gap / 10;
        self.last = Some((at, self.slot));
        let base = self.slot.filter(|_| late <= TICK).unwrap_or(at);
        self.slot = Some(later(base, gap.saturating_mul(requests)));
        if self.is_full { Duration::ZERO } else { late }
    }

    /// The last call has not left after all.
    pub(super) fn recall(&mut self, at: Instant) {
        if let Some((_, before)) = self.last.take_if(|(last, _)| *last == at) {
            self.slot = before;
        }
    }
}

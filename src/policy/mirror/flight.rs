//! The calls that are in flight, by the time at which they left.

use crate::{Cost, signal::Unit};
use std::time::Duration;
use tokio::time::Instant;

/// Of many calls in flight it is known how many, not which: those that left about the same time share a slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    slots: [Slot; Self::SLOTS],
    len: usize,
}

/// Calls that left from this time on, until the next slot begins, and have not been answered.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    from: Option<Instant>,
    requests: u64,
    input: u64,
    output: u64,
}

impl Slot {
    fn begins_by(&self, at: Instant) -> bool {
        self.from.is_some_and(|from| from <= at)
    }

    fn add(&mut self, cost: Cost) {
        self.requests = self.requests.saturating_add(cost.requests.into());
        self.input = self.input.saturating_add(cost.input_tokens.into());
        self.output = self.output.saturating_add(cost.output_tokens.into());
    }

    fn remove(&mut self, cost: Cost) {
        self.requests = self.requests.saturating_sub(cost.requests.into());
        self.input = self.input.saturating_sub(cost.input_tokens.into());
        self.output = self.output.saturating_sub(cost.output_tokens.into());
    }

    fn amount(&self, unit: Unit) -> f64 {
        let amount = match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.input.saturating_add(self.output),
            Unit::InputTokens => self.input,
            Unit::OutputTokens => self.output,
            Unit::Other => 0,
        };
        amount as f64
    }
}

impl Flight {
    const SLOTS: usize = 16;

    /// A call leaves. Slots are at least `grain` long; where there are too few for that, the oldest two become one.
    pub(super) fn depart(&mut self, at: Instant, cost: Cost, grain: Duration) {
        let newest = self.slots[..self.len].last().and_then(|slot| slot.from);
        if newest.is_none_or(|from| at.saturating_duration_since(from) > grain) {
            if self.len == Self::SLOTS {
                let [first, second, ..] = &mut self.slots;
                first.requests = first.requests.saturating_add(second.requests);
                first.input = first.input.saturating_add(second.input);
                first.output = first.output.saturating_add(second.output);
                self.slots.copy_within(2.., 1);
                self.len -= 1;
            }
            self.slots[self.len] = Slot { from: Some(at), ..Slot::default() };
            self.len += 1;
        }
        if let Some(newest) = self.slots[..self.len].last_mut() {
            newest.add(cost);
        }
    }

    /// The call that left at `departed` is in flight no longer.
    pub(super) fn end(&mut self, departed: Instant, cost: Cost) {
        let index = self.slot_of(departed);
        if let Some(slot) = self.slots[..self.len].get_mut(index) {
            slot.remove(cost);
        }
    }

    /// How much is in flight of what left at `departed` or later, or so little earlier that it may have overtaken.
    pub(super) fn since(&self, departed: Instant, unit: Unit) -> f64 {
        let from = self.slot_of(departed).saturating_sub(1);
        self.slots[..self.len].get(from..).unwrap_or_default().iter().map(|slot| slot.amount(unit)).sum()
    }

    fn slot_of(&self, departed: Instant) -> usize {
        self.slots[..self.len].iter().take_while(|slot| slot.begins_by(departed)).count().saturating_sub(1)
    }
}

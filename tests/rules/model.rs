//! What the rules say about the gate, in the fewest words: until when it is closed, and in which epoch it is.

use std::time::Duration;
use tokio::time::Instant;

/// After 0, 1, 2, and 3 or more 429s in a row, where the server says nothing.
const STEPS: [u64; 4] = [500, 1500, 3000, 7000];

/// What the upstream answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    /// In seconds, as a field of the answer.
    pub(crate) retry_after: Option<u64>,
    /// What it tells of its counters: limit and what remains, with a reset in ten seconds.
    pub(crate) counters: Option<(u64, u64)>,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) epoch: u64,
    closed_until: Option<Instant>,
    refusals: usize,
}

impl Model {
    pub(crate) const fn new() -> Self {
        Self { epoch: 0, closed_until: None, refusals: 0 }
    }

    pub(crate) fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.closed_until.filter(|until| *until > now)
    }

    /// Rule 4, and the steps of the policies. Whether the gate has closed.
    pub(crate) fn answered(&mut self, said: Said, left_in: u64, now: Instant) -> bool {
        let (refused, told) = (matches!(said.status, 429 | 503), said.retry_after.map(Duration::from_secs));
        if left_in != self.epoch {
            // Others of its burst were heard before: it counts only if it says until when.
            if let (true, Some(told)) = (refused, told) {
                self.close(told, now);
            }
            return false;
        }
        match said.status {
            200 => self.refusals = 0,
            429 => self.refusals += 1,
            _ => {}
        }
        if refused {
            let step = Duration::from_millis(STEPS[self.refusals.min(3)]);
            self.close(told.unwrap_or(step), now);
            self.epoch += 1;
        }
        refused
    }

    pub(crate) fn cool_for(&mut self, wait: Duration, now: Instant) {
        self.close(wait, now);
        self.epoch += 1;
    }

    pub(crate) fn reset(&mut self) {
        self.closed_until = None;
        self.refusals = 0;
        self.epoch += 1;
    }

    /// A closing is made longer, and never shorter.
    fn close(&mut self, wait: Duration, now: Instant) {
        let until = now + wait;
        if self.closed_until(now).is_none_or(|closed| until > closed) {
            self.closed_until = Some(until);
        }
    }
}

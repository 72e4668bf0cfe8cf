use super::{Answer, Closing};
use crate::signal::Verdict;
use std::{sync::Arc, time::Duration};

/// How long the gate closes where a quota is exhausted and nobody said until when.
pub(super) const EXHAUSTED: Duration = Duration::from_secs(60);

/// The steps after refusals in a row: the server's own advice where there is one, else a wait that grows with
/// each refusal. A success starts over.
#[derive(Clone, Debug)]
pub(super) struct Escalation {
    /// Shared by the gates of all keys.
    steps: Arc<[Duration; 4]>,
    /// Refusals for a quota in a row, one per epoch.
    refusals: u32,
}

impl Escalation {
    pub(super) const STEPS: [Duration; 4] = [
        Duration::from_millis(500),
        Duration::from_millis(1500),
        Duration::from_millis(3000),
        Duration::from_millis(7000),
    ];

    pub(super) fn new(steps: [Duration; 4]) -> Self {
        Self { steps: Arc::new(steps), refusals: 0 }
    }

    /// The same with other steps.
    pub(super) fn with_steps(self, steps: [Duration; 4]) -> Self {
        Self { steps: Arc::new(steps), ..self }
    }

    pub(super) fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        let verdict = answer.signal.verdict;
        let told = answer.signal.hints.retry_after.map(Closing::told);
        if !answer.current {
            return told.filter(|_| verdict.is_pushback());
        }
        match verdict {
            Verdict::Accepted => {
                self.refusals = 0;
                return None;
            }
            // Waiting does not cure it, so there is no hurry to ask again, and no step to climb.
            Verdict::Exhausted => return Some(told.unwrap_or(Closing::adaptive(EXHAUSTED))),
            Verdict::Throttled => self.refusals = self.refusals.saturating_add(1),
            // The upstream is busy, which is not a quota: it closes the gate but climbs no step.
            Verdict::Overloaded => {}
            Verdict::Failed | Verdict::Refused | Verdict::Rejected => return None,
        }
        let step = self.steps[(self.refusals as usize).min(self.steps.len() - 1)];
        Some(told.unwrap_or(Closing::adaptive(step)))
    }

    /// There is something to start over from. (A refusal that comes in between closes the gate, and what left
    /// before that clears nothing.)
    pub(super) const fn needs_success(&self) -> bool {
        self.refusals != 0
    }

    pub(super) fn reset(&mut self) {
        self.refusals = 0;
    }
}

impl Default for Escalation {
    fn default() -> Self {
        Self::new(Self::STEPS)
    }
}

use super::line::{Line, Look, Settings};
use crate::{
    WaitReason,
    arrival::came,
    deferred::{Permit, poll_until},
    record::{Arm, CallRecord, Outcome, Statistics},
    signal::{Rejected, Signal},
    wakers::Wakers,
};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep};

/// What the layer and its services share.
#[derive(Debug)]
pub(super) struct Shared {
    line: Mutex<Line>,
    pub(super) statistics: Statistics,
}

impl Shared {
    pub(super) fn new(settings: Settings, statistics: Statistics) -> Self {
        Self { line: Mutex::new(Line::new(settings)), statistics }
    }

    pub(super) fn settings(&self) -> Settings {
        self.with(|line, _| line.settings())
    }

    pub(super) fn line_mut(&mut self) -> &mut Line {
        self.line.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the line, then wakes whom that concerns. No code of others runs under the lock, so nothing can
    /// panic there.
    fn with<T>(&self, work: impl FnOnce(&mut Line, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::default();
        let result = work(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner), &mut wakers);
        drop(wakers);
        result
    }
}

/// One request on its way through a group. Dropping it leaves the group and writes the record.
#[derive(Debug)]
pub(super) struct Member {
    shared: Arc<Shared>,
    arrived: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Outside the rollout: the line does not know of it.
    Control,
    Waiting {
        ticket: u64,
    },
    /// Its turn has come; `sent` once the inner service has the call.
    Started {
        at: Instant,
        sent: bool,
    },
    Ended,
}

impl Member {
    pub(super) fn enter(shared: &Arc<Shared>) -> Self {
        let now = came();
        let stage = match shared.with(|line, _| line.enter(now)) {
            Ok(()) => Stage::Started { at: now, sent: false },
            Err(ticket) => {
                tracing::debug!("call waits for its group");
                Stage::Waiting { ticket }
            }
        };
        Self { shared: Arc::clone(shared), arrived: now, stage }
    }

    pub(super) fn control(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), arrived: came(), stage: Stage::Control }
    }

    pub(super) const fn arrived(&self) -> Instant {
        self.arrived
    }

    pub(super) fn answered(&mut self, signal: &Signal) {
        self.end(signal.verdict.into(), Some(signal));
    }

    fn end(&mut self, outcome: Outcome, signal: Option<&Signal>) {
        let now = Instant::now();
        let (arm, started, sent) = match self.stage {
            Stage::Ended => return,
            Stage::Control => (Arm::Control, Some(self.arrived), true),
            Stage::Waiting { ticket } => {
                self.shared.with(|line, wakers| line.cancel(ticket, now, wakers));
                (Arm::Treated, None, false)
            }
            Stage::Started { at, sent } => {
                self.shared.with(|line, wakers| line.finish(now, wakers));
                (Arm::Treated, Some(at), sent)
            }
        };
        self.stage = Stage::Ended;
        let mut record = CallRecord::timed(outcome, self.arrived, started, now, WaitReason::Batch);
        record.status = signal.and_then(|signal| signal.status);
        record.arm = arm;
        let statistics = &self.shared.statistics;
        if arm == Arm::Treated && outcome != Outcome::Cancelled {
            statistics.record_batched(record.waited + record.service);
        }
        if sent && statistics.attempts_claimed() {
            // A cooldown that writes to the same book counts the attempts that come to it.
            statistics.record_wait(record.wait_reason, record.waited);
        } else {
            statistics.record(&record);
        }
    }
}

impl Permit for Member {
    fn may_send(&mut self) -> bool {
        if let Stage::Started { sent, .. } = &mut self.stage {
            *sent = true;
        }
        !matches!(self.stage, Stage::Waiting { .. })
    }

    fn poll_leave(
        &mut self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Rejected>> {
        loop {
            let Stage::Waiting { ticket } = self.stage else { return Poll::Ready(Ok(())) };
            let now = Instant::now();
            match self.shared.with(|line, wakers| line.look(ticket, now, cx, wakers)) {
                Look::Start => self.stage = Stage::Started { at: now, sent: false },
                Look::Wait(None) => return Poll::Pending,
                Look::Wait(Some(until)) => {
                    ready!(poll_until(timer.as_mut(), until, cx));
                }
            }
        }
    }

    fn confirm(&mut self) -> Result<bool, Rejected> {
        Ok(self.may_send())
    }
}

impl Drop for Member {
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Ended) {
            self.end(Outcome::Cancelled, None);
        }
    }
}

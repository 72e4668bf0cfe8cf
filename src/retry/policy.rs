use super::{ByClone, CopyRequest, deposits::Deposits};
use crate::{
    Handle,
    signal::{Classify, HttpClassifier, Signal, Verdict},
};
use std::{
    any::type_name,
    fmt,
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};
use tower::retry::{Policy, budget::Budget};

/// Retries throttled and overloaded calls without sleeping. See the [module docs](super).
///
/// `C` reads the responses ([`Classify`]), `K` copies the requests ([`CopyRequest`]).
#[must_use]
#[derive(Clone)]
pub struct RetryPolicy<C = HttpClassifier, K = ByClone> {
    classify: C,
    copy: K,
    retries_left: u32,
    budget: Option<Arc<dyn Budget + Send + Sync>>,
    decline: Option<(Handle, Duration)>,
}

impl RetryPolicy {
    /// Up to 3 retries, out of tower's default budget: at most a fifth more calls than without, and 10 a
    /// second in any case.
    pub fn new() -> Self {
        Self {
            classify: HttpClassifier::new(),
            copy: ByClone,
            retries_left: 3,
            budget: Some(Arc::new(Deposits::default())),
            decline: None,
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl<C, K> RetryPolicy<C, K> {
    /// How many times one call is sent again at most. Default: 3. Zero never retries.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.retries_left = retries;
        self
    }

    /// The budget that all calls pay their retries from; a retry that it cannot pay is not made. Default:
    /// that of [`TpsBudget::default`](tower::retry::budget::TpsBudget), which is told of accepted calls by eights.
    pub fn budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        self.budget = Some(Arc::new(budget));
        self
    }

    /// Retries without a budget: `max_retries` is then the only bound.
    pub fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// Does not retry while the gate is closed for longer than this: the answer goes to the caller, or to the
    /// [fallback](crate::FallbackLayer), at once. Default: always waits for the gate.
    ///
    /// With a bound of zero a 429 is hardly ever retried, because it closes the gate itself. Where the cooldown
    /// has a [`max_wait`](crate::AdaptiveCooldownLayer::max_wait), use the same time here: the caller then gets the
    /// upstream's answer and not a rejection.
    pub fn decline_if_closed_for(mut self, handle: Handle, longer_than: Duration) -> Self {
        self.decline = Some((handle, longer_than));
        self
    }

    /// How responses are read. Default: [`HttpClassifier`]. It should be the one that the cooldown uses.
    pub fn classify<C2>(self, classify: C2) -> RetryPolicy<C2, K> {
        let Self { copy, retries_left, budget, decline, .. } = self;
        RetryPolicy { classify, copy, retries_left, budget, decline }
    }

    /// How requests are copied. Default: [`ByClone`]. A request that is not copied is not retried.
    pub fn copy_with<K2>(self, copy: K2) -> RetryPolicy<C, K2> {
        let Self { classify, retries_left, budget, decline, .. } = self;
        RetryPolicy { classify, copy, retries_left, budget, decline }
    }

    /// Whether to go again, and what that costs; the reason why not goes to the log.
    fn decide(&mut self, signal: &Signal, can_send: bool) -> Result<(), &'static str> {
        if !matches!(signal.verdict, Verdict::Throttled | Verdict::Overloaded) {
            if let (Verdict::Accepted, Some(budget)) = (signal.verdict, &self.budget) {
                budget.deposit();
            }
            return Err("not a matter of waiting");
        }
        if signal.bypassed {
            return Err("outside the rollout");
        }
        if signal.hints.should_retry == Some(false) {
            return Err("the server says not to");
        }
        if signal.hints.exhausted_for.is_some() {
            return Err("the wait is too long");
        }
        if self.retries_left == 0 {
            return Err("no retries left");
        }
        if !can_send {
            return Err("the request was not kept whole");
        }
        if let Some((handle, longer_than)) = &self.decline {
            if handle.snapshot().closed_for.is_some_and(|closed_for| closed_for > *longer_than) {
                return Err("the gate is closed for too long");
            }
        }
        if self.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return Err("the budget is spent");
        }
        self.retries_left -= 1;
        Ok(())
    }
}

impl<Req, Res, Err, C, K> Policy<Req, Res, Err> for RetryPolicy<C, K>
where
    C: Classify<Res, Err>,
    K: CopyRequest<Req>,
{
    type Future = Ready<()>;

    fn retry(&mut self, copy: &mut Req, result: &mut Result<Res, Err>) -> Option<Ready<()>> {
        let signal = self.classify.classify(result.as_ref());
        let can_send = self.copy.can_send(copy);
        match self.decide(&signal, can_send) {
            Ok(()) => {
                tracing::debug!(verdict = ?signal.verdict, retries_left = self.retries_left, "retrying");
                Some(ready(()))
            }
            Err(why) => {
                if signal.verdict.is_pushback() {
                    tracing::debug!(verdict = ?signal.verdict, why, "not retrying");
                }
                None
            }
        }
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        self.copy.copy(request)
    }
}

impl<C, K> fmt::Debug for RetryPolicy<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("classify", &type_name::<C>())
            .field("copy", &type_name::<K>())
            .field("retries_left", &self.retries_left)
            .field("budget", &self.budget.is_some())
            .field("decline_if_closed_for", &self.decline.as_ref().map(|(_, longer_than)| longer_than))
            .finish()
    }
}

//! Who takes part.

use crate::{
    peers::{self, Client as BoxClient, Upstream},
    scenario::Scenario,
};
use std::time::Duration;
use tower::{ServiceBuilder, retry::RetryLayer, util::BoxCloneService};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    policy::{Known, Ladder, Learned, Policy},
    retry::RetryPolicy,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Learned,
    TowerRetry,
    TowerRetryAfter,
    AwsAdaptive,
    VectorArc,
    ResilienceAdaptive,
    Sre,
    Ladder,
    Known08,
    Known10,
    Known12,
    Oracle,
}

impl Client {
    pub(crate) const ALL: [Self; 12] = [
        Self::Learned,
        Self::TowerRetry,
        Self::TowerRetryAfter,
        Self::AwsAdaptive,
        Self::VectorArc,
        Self::ResilienceAdaptive,
        Self::Sre,
        Self::Ladder,
        Self::Known08,
        Self::Known10,
        Self::Known12,
        Self::Oracle,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::TowerRetry => "tower-retry",
            Self::TowerRetryAfter => "tower-retry-after",
            Self::AwsAdaptive => "aws-adaptive",
            Self::VectorArc => "vector-arc",
            Self::ResilienceAdaptive => "resilience-adaptive",
            Self::Sre => "sre",
            Self::Ladder => "ladder",
            Self::Known08 => "known-0.8",
            Self::Known10 => "known-1.0",
            Self::Known12 => "known-1.2",
            Self::Oracle => "oracle",
        }
    }

    /// A client over this upstream.
    pub(crate) fn over(self, upstream: impl Upstream, scenario: &Scenario, seed: u64) -> BoxClient {
        match self {
            Self::Learned => cooldown(upstream, Learned::new()),
            Self::TowerRetry => peers::tower_retry(upstream, false, seed),
            Self::TowerRetryAfter => peers::tower_retry(upstream, true, seed),
            Self::AwsAdaptive => peers::aws_adaptive(upstream, seed),
            Self::VectorArc => peers::vector_arc(upstream, seed),
            Self::ResilienceAdaptive => peers::resilience_adaptive(upstream, seed),
            Self::Sre => peers::sre(upstream, seed),
            Self::Ladder => cooldown(upstream, Ladder::new()),
            Self::Known08 => cooldown(upstream, Known::new(scenario.declared.quota(0.8))),
            Self::Known10 => cooldown(upstream, Known::new(scenario.declared.quota(1.0))),
            Self::Known12 => cooldown(upstream, Known::new(scenario.declared.quota(1.2))),
            Self::Oracle => unreachable!("the oracle runs before the race"),
        }
    }
}

/// This crate's cooldown, and a retry that goes on until a call is granted.
pub(crate) fn cooldown(upstream: impl Upstream, policy: impl Policy + 'static) -> BoxClient {
    let retry = RetryPolicy::new().max_retries(u32::MAX).without_budget();
    BoxCloneService::new(
        ServiceBuilder::new()
            .layer(RetryLayer::new(retry))
            .layer(AdaptiveCooldownLayer::with_policy(policy))
            .service(upstream),
    )
}

/// Sends evenly, at `factor` times what the upstream sustains, which it is told. With a quota that changes it knows that
/// too.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    rates: Vec<(Duration, f64)>,
    start: tokio::time::Instant,
    next: Option<tokio::time::Instant>,
    factor: f64,
    max_in_flight: Option<usize>,
}

impl Pacer {
    /// `rates` from which time on.
    pub(crate) fn new(rates: Vec<(Duration, f64)>, max_in_flight: Option<usize>, factor: f64) -> Self {
        Self { rates, start: tokio::time::Instant::now(), next: None, factor, max_in_flight }
    }
}

impl Policy for Pacer {
    fn departure(
        &self,
        arrived: tokio::time::Instant,
        _: tower_cooldown::Cost,
    ) -> tower_cooldown::policy::Departure {
        use tower_cooldown::{WaitReason, policy::Departure};
        match self.next.filter(|next| *next > arrived) {
            Some(next) => Departure::new(next, WaitReason::Preflight),
            None => Departure::now(arrived),
        }
    }

    fn depart(&mut self, at: tokio::time::Instant, _: tower_cooldown::Cost) {
        let since = at - self.start;
        let rate = self.rates.iter().rev().find(|(from, _)| *from <= since).map_or(1.0, |(_, rate)| *rate);
        if !rate.is_finite() {
            return; // in flight is all that counts
        }
        // A timer may be late by a tick; the pace is kept all the same.
        let base = self.next.filter(|next| at - *next < Duration::from_millis(5)).unwrap_or(at);
        self.next = Some(base + Duration::from_secs_f64(1.0 / (rate * self.factor)));
    }

    fn max_in_flight(&self) -> Option<usize> {
        self.max_in_flight
    }

    fn answered(
        &mut self,
        _: &tower_cooldown::policy::Answer<'_>,
    ) -> Option<tower_cooldown::policy::Closing> {
        None
    }

    fn reset(&mut self) {}
}

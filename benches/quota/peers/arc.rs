//! Vector's adaptive request concurrency, from its published description and `sinks/util/adaptive_concurrency`: the
//! number of calls in flight grows by one per round trip while the limit was reached and nothing pushed back, and
//! shrinks to 0.9 of itself when something did, or when answers take longer than usual. One decision per round trip.
//! Refused calls are sent again after a Fibonacci backoff with full jitter.

use super::{Client, Upstream, is_refused, jittered};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use tower::{BoxError, ServiceExt, service_fn, util::BoxCloneService};

const MAX: usize = 200;
const DECREASE: f64 = 0.9;
const ALPHA: f64 = 0.4;
const DEVIATIONS: f64 = 2.5;
const LONGEST: Duration = Duration::from_secs(30);

pub(crate) fn vector_arc(upstream: impl Upstream, seed: u64) -> Client {
    let shared = Arc::new(Shared {
        permits: Semaphore::new(1),
        control: Mutex::new(Control::new()),
        rng: Mutex::new(fastrand::Rng::with_seed(seed)),
    });
    BoxCloneService::new(service_fn(move |call: super::Call| {
        let (upstream, shared) = (upstream.clone(), Arc::clone(&shared));
        async move {
            let (mut this, mut next) = (1, 1);
            loop {
                let permit = shared.permits.acquire().await?;
                let sent = Instant::now();
                shared.lock().sent();
                let answer = upstream.clone().oneshot(call.clone()).await?;
                let refused = is_refused(&answer);
                let change = shared.lock().answered(sent.elapsed(), refused, Instant::now());
                match change {
                    Change::None => drop(permit),
                    Change::More => {
                        shared.permits.add_permits(1);
                        drop(permit);
                    }
                    // This permit is the first one to go; the others go when they come back.
                    Change::Fewer(fewer) => {
                        permit.forget();
                        shared.lock().debt += fewer - 1;
                    }
                    Change::PayDebt => permit.forget(),
                }
                if !refused {
                    return Ok::<_, BoxError>(answer);
                }
                let up_to = Duration::from_secs(this).min(LONGEST);
                (this, next) = (next, this + next);
                let backoff = jittered(&mut shared.rng.lock().expect("no panics"), up_to);
                sleep(backoff).await;
            }
        }
    }))
}

struct Shared {
    permits: Semaphore,
    control: Mutex<Control>,
    rng: Mutex<fastrand::Rng>,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Control> {
        self.control.lock().expect("no panics")
    }
}

enum Change {
    None,
    More,
    Fewer(usize),
    PayDebt,
}

struct Control {
    limit: usize,
    in_flight: usize,
    /// Permits to take out of circulation.
    debt: usize,
    reached_limit: bool,
    pushed_back: bool,
    /// Sum and number of the successes of this round trip.
    current: (f64, u32),
    /// Mean and variance of those before.
    past: Option<(f64, f64)>,
    next_update: Instant,
}

impl Control {
    fn new() -> Self {
        Self {
            limit: 1,
            in_flight: 0,
            debt: 0,
            reached_limit: false,
            pushed_back: false,
            current: (0.0, 0),
            past: None,
            next_update: Instant::now(),
        }
    }

    fn sent(&mut self) {
        self.in_flight += 1;
        self.reached_limit |= self.in_flight >= self.limit;
    }

    fn answered(&mut self, took: Duration, refused: bool, now: Instant) -> Change {
        self.in_flight -= 1;
        if refused {
            self.pushed_back = true;
        } else {
            self.current.0 += took.as_secs_f64();
            self.current.1 += 1;
        }
        if self.debt > 0 {
            self.debt -= 1;
            return Change::PayDebt;
        }
        if now < self.next_update {
            return Change::None;
        }
        let rtt = (self.current.1 > 0).then(|| self.current.0 / f64::from(self.current.1));
        let Some((mean, variance)) = self.past else {
            if let Some(rtt) = rtt {
                self.past = Some((rtt, 0.0));
                self.next_update = now + Duration::from_secs_f64(rtt);
            }
            self.start_round();
            return Change::None;
        };
        let slower = rtt.is_some_and(|rtt| rtt >= mean + DEVIATIONS * variance.sqrt() && variance > 0.0);
        let no_slower = rtt.is_some_and(|rtt| rtt <= mean);
        let change = if self.limit < MAX && self.reached_limit && !self.pushed_back && no_slower {
            self.limit += 1;
            Change::More
        } else if self.limit > 1 && (self.pushed_back || slower) {
            let limit = ((self.limit as f64 * DECREASE).floor() as usize).max(1);
            let fewer = self.limit - limit;
            self.limit = limit;
            Change::Fewer(fewer)
        } else {
            Change::None
        };
        if let Some(rtt) = rtt {
            let difference = rtt - mean;
            let mean = mean + ALPHA * difference;
            let variance = (1.0 - ALPHA) * (variance + ALPHA * difference * difference);
            self.past = Some((mean, variance));
            self.next_update = now + Duration::from_secs_f64(mean);
        } else {
            self.next_update = now + Duration::from_secs_f64(mean);
        }
        self.start_round();
        change
    }

    fn start_round(&mut self) {
        self.reached_limit = self.in_flight >= self.limit;
        self.pushed_back = false;
        self.current = (0.0, 0);
    }
}

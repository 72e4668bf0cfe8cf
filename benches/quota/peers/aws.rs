//! The adaptive retry mode of the AWS SDKs: a client-side token bucket whose rate follows a cubic curve, as the SDK
//! reference describes it and as `aws-smithy-runtime` 1.x does it (`client_rate_limiter.rs`): the rate is multiplied by
//! 0.7 at each throttled response, and returns to the last maximum along `0.4 (t − K)³`. Backoff between attempts is
//! full jitter over 2ⁿ seconds, up to 20 s.

use super::{Client, Upstream, is_refused, jittered};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tower::{BoxError, ServiceExt, service_fn, util::BoxCloneService};

const MIN_FILL_RATE: f64 = 0.5;
const MIN_CAPACITY: f64 = 1.0;
const SMOOTH: f64 = 0.8;
const BETA: f64 = 0.7;
const SCALE: f64 = 0.4;
const LONGEST: Duration = Duration::from_secs(20);

pub(crate) fn aws_adaptive(upstream: impl Upstream, seed: u64) -> Client {
    let limiter = Arc::new(Mutex::new(Limiter::new(Instant::now())));
    let rng = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    BoxCloneService::new(service_fn(move |call| {
        let (upstream, limiter, rng) = (upstream.clone(), Arc::clone(&limiter), Arc::clone(&rng));
        async move {
            let mut refusals = 0;
            loop {
                loop {
                    let wait = limiter.lock().expect("no panics").acquire(Instant::now());
                    match wait {
                        Some(wait) => sleep(wait).await,
                        None => break,
                    }
                }
                let answer = upstream.clone().oneshot(clone(&call)).await?;
                let refused = is_refused(&answer);
                limiter.lock().expect("no panics").answered(Instant::now(), refused);
                if !refused {
                    return Ok::<_, BoxError>(answer);
                }
                let up_to = Duration::from_secs(1 << refusals.min(5)).min(LONGEST);
                let backoff = jittered(&mut rng.lock().expect("no panics"), up_to);
                sleep(backoff).await;
                refusals += 1;
            }
        }
    }))
}

fn clone(call: &super::Call) -> super::Call {
    call.clone()
}

struct Limiter {
    start: Instant,
    enabled: bool,
    fill_rate: f64,
    capacity: f64,
    tokens: f64,
    last_refill: f64,
    measured: f64,
    last_bucket: f64,
    count: f64,
    last_max: f64,
    last_throttle: f64,
}

impl Limiter {
    fn new(start: Instant) -> Self {
        Self {
            start,
            enabled: false,
            fill_rate: 0.0,
            capacity: f64::MAX,
            tokens: 0.0,
            last_refill: 0.0,
            measured: 0.0,
            last_bucket: 0.0,
            count: 0.0,
            last_max: 0.0,
            last_throttle: 0.0,
        }
    }

    /// How long to wait before asking again; none where a token was taken.
    fn acquire(&mut self, now: Instant) -> Option<Duration> {
        if !self.enabled {
            return None;
        }
        self.refill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        let wait = (1.0 - self.tokens) / self.fill_rate;
        Some(Duration::from_secs_f64(wait).max(Duration::from_millis(1)))
    }

    fn refill(&mut self, now: Instant) {
        let now = (now - self.start).as_secs_f64();
        self.tokens = (self.tokens + (now - self.last_refill) * self.fill_rate).min(self.capacity);
        self.last_refill = now;
    }

    fn answered(&mut self, at: Instant, throttled: bool) {
        let now = (at - self.start).as_secs_f64();
        self.count += 1.0;
        let bucket = (now * 2.0).floor() / 2.0;
        if bucket > self.last_bucket {
            let rate = self.count / (bucket - self.last_bucket);
            self.measured = rate * SMOOTH + self.measured * (1.0 - SMOOTH);
            self.count = 0.0;
            self.last_bucket = bucket;
        }
        let rate = if throttled {
            let used = if self.enabled { self.measured.min(self.fill_rate) } else { self.measured };
            self.last_max = used;
            self.last_throttle = now;
            self.enabled = true;
            used * BETA
        } else {
            let window = (self.last_max * (1.0 - BETA) / SCALE).cbrt();
            SCALE * (now - self.last_throttle - window).powi(3) + self.last_max
        };
        let rate = rate.min(2.0 * self.measured);
        self.refill(at);
        self.fill_rate = rate.max(MIN_FILL_RATE);
        self.capacity = rate.max(MIN_CAPACITY);
        self.tokens = self.tokens.min(self.capacity);
    }
}

//! Client-side throttling as in Google's SRE book (chapter "Handling Overload"): a call is refused at the client with
//! probability `max(0, (requests − K accepts) / (requests + 1))`, both counted over two minutes, K = 2. Calls that were
//! refused, there or here, are tried again after a backoff with full jitter.

use super::{Client, Upstream, is_refused, jittered};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tower::{BoxError, ServiceExt, service_fn, util::BoxCloneService};

const K: f64 = 2.0;
const SPAN: u64 = 120;
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

pub(crate) fn sre(upstream: impl Upstream, seed: u64) -> Client {
    let shared = Arc::new(Mutex::new(Throttle {
        start: Instant::now(),
        seconds: VecDeque::new(),
        rng: fastrand::Rng::with_seed(seed),
    }));
    BoxCloneService::new(service_fn(move |call: super::Call| {
        let (upstream, shared) = (upstream.clone(), Arc::clone(&shared));
        async move {
            let mut up_to = FIRST;
            loop {
                let send = shared.lock().expect("no panics").asks(Instant::now());
                if send {
                    let answer = upstream.clone().oneshot(call.clone()).await?;
                    if !is_refused(&answer) {
                        shared.lock().expect("no panics").accepted(Instant::now());
                        return Ok::<_, BoxError>(answer);
                    }
                }
                let backoff = jittered(&mut shared.lock().expect("no panics").rng, up_to);
                sleep(backoff).await;
                up_to = (up_to * 2).min(LONGEST);
            }
        }
    }))
}

struct Throttle {
    start: Instant,
    /// Second, requests, accepts.
    seconds: VecDeque<(u64, f64, f64)>,
    rng: fastrand::Rng,
}

impl Throttle {
    fn second(&mut self, now: Instant) -> &mut (u64, f64, f64) {
        let second = (now - self.start).as_secs();
        while self.seconds.front().is_some_and(|(first, ..)| first + SPAN <= second) {
            self.seconds.pop_front();
        }
        if self.seconds.back().is_none_or(|(last, ..)| *last != second) {
            self.seconds.push_back((second, 0.0, 0.0));
        }
        self.seconds.back_mut().expect("one was put there")
    }

    /// Whether the call may be sent. It counts as a request either way.
    fn asks(&mut self, now: Instant) -> bool {
        self.second(now);
        let (requests, accepts) = self
            .seconds
            .iter()
            .fold((0.0, 0.0), |(requests, accepts), second| (requests + second.1, accepts + second.2));
        let refuse = ((requests - K * accepts) / (requests + 1.0)).max(0.0);
        self.second(now).1 += 1.0;
        self.rng.f64() >= refuse
    }

    fn accepted(&mut self, now: Instant) {
        self.second(now).2 += 1.0;
    }
}

//! What this crate is compared with. Both retry three times, then ask the fallback.

use crate::{
    client::{Client, Request},
    scale::{Random, Scale},
};
use http::StatusCode;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tower::{ServiceExt, service_fn};

const RETRIES: usize = 3;

/// The bare client: after a 429, a 5xx or an error it waits 0.5, 1, then 2 s, give or take a quarter.
pub(crate) fn bare(primary: impl Client, fallback: impl Client, scale: Scale) -> impl Client {
    let random = Arc::new(Random::new(7));
    service_fn(move |request: Request| {
        let (primary, fallback, random) = (primary.clone(), fallback.clone(), Arc::clone(&random));
        async move {
            for attempt in 0..=RETRIES {
                match primary.clone().oneshot(request.clone()).await {
                    Ok(response) if !worth_retrying(response.status()) => return Ok(response),
                    _ if attempt == RETRIES => {}
                    _ => {
                        let backoff = scale.down(Duration::from_millis(500 << attempt));
                        sleep(random.between(backoff * 3 / 4, backoff * 5 / 4)).await;
                    }
                }
            }
            fallback.oneshot(request).await
        }
    })
}

/// The first version's rules as it applied them: tasks share what happened, but none of them says what it is
/// about to do. All that read the same history leave together.
pub(crate) fn first_version(primary: impl Client, fallback: impl Client, scale: Scale) -> impl Client {
    let history = Arc::new(Mutex::new(History::new(scale)));
    service_fn(move |request: Request| {
        let (primary, fallback, history) = (primary.clone(), fallback.clone(), Arc::clone(&history));
        async move {
            for attempt in 0..=RETRIES {
                let wait = lock(&history).preflight(Instant::now());
                sleep(wait).await;
                let result = primary.clone().oneshot(request.clone()).await;
                let status = result.as_ref().ok().map(http::Response::status);
                let cooldown = lock(&history).record(Instant::now(), status);
                match result {
                    Ok(response) if !worth_retrying(response.status()) => return Ok(response),
                    _ if attempt == RETRIES => {}
                    _ => sleep(cooldown).await,
                }
            }
            fallback.oneshot(request).await
        }
    })
}

struct History {
    scale: Scale,
    /// When calls ended, and whether the server asked for rest (429, 503).
    calls: VecDeque<(Instant, bool)>,
    consecutive_429s: usize,
}

impl History {
    const fn new(scale: Scale) -> Self {
        Self { scale, calls: VecDeque::new(), consecutive_429s: 0 }
    }

    fn preflight(&self, now: Instant) -> Duration {
        let scaled = |ms| self.scale.down(Duration::from_millis(ms));
        let last = |ms| self.calls.iter().rev().take_while(move |(at, _)| now - *at < scaled(ms));
        if last(3000).any(|(_, refused)| *refused) {
            scaled(1500)
        } else if last(2000).count() >= 2 {
            scaled(1000)
        } else {
            Duration::ZERO
        }
    }

    /// Returns how long to wait before a retry.
    fn record(&mut self, now: Instant, status: Option<StatusCode>) -> Duration {
        const STEPS: [u64; 4] = [500, 1500, 3000, 7000];
        match status {
            Some(StatusCode::TOO_MANY_REQUESTS) => self.consecutive_429s += 1,
            Some(status) if status.is_success() => self.consecutive_429s = 0,
            _ => {}
        }
        let refused = matches!(status, Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE));
        self.calls.push_back((now, refused));
        if self.calls.len() > 100 {
            self.calls.pop_front();
        }
        self.scale.down(Duration::from_millis(STEPS[self.consecutive_429s.min(STEPS.len() - 1)]))
    }
}

fn worth_retrying(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

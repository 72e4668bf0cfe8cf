use super::{Counts, HintStyle, Limit, Limiter, Neighbour};
use crate::{Cost, InvalidSetting};
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, Sleep, sleep};
use tower::{BoxError, Service};

/// A simulated upstream: limits, latency, hints. See the [module docs](super).
///
/// Settings come first; clones share the upstream. A request takes one request and no tokens from the limits, unless a
/// [`Cost`] is among its extensions. It is granted or refused when it arrives there, half a round trip after it was
/// sent; a call that its caller gives up is counted all the same.
///
/// # Readiness
/// It is always ready.
///
/// # Panics
/// Calls need a tokio runtime with time enabled, if there is a latency.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    start: Instant,
    hints: HintStyle,
    latency: Range,
    work: Range,
    failures: f64,
    state: Mutex<State>,
}

struct State {
    limiter: Limiter,
    random: fastrand::Rng,
}

/// From `mean − spread` to `mean + spread`, evenly distributed.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    mean: Duration,
    spread: Duration,
}

impl Range {
    fn new(field: &'static str, mean: Duration, spread: Duration) -> Result<Self, InvalidSetting> {
        if spread > mean {
            return Err(InvalidSetting::new(field, format!("{spread:?} of spread is more than {mean:?}")));
        }
        Ok(Self { mean, spread })
    }

    fn draw(self, random: &mut fastrand::Rng) -> Duration {
        if self.spread.is_zero() {
            return self.mean;
        }
        self.mean - self.spread + self.spread.mul_f64(2.0 * random.f64())
    }
}

/// Wall clocks in hints begin at this time: the first second of 2026.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

impl Upstream {
    /// An upstream that admits what all of these limits admit, and answers at once. Its time starts now.
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Self {
        let state = State { limiter: Limiter::new(limits), random: fastrand::Rng::with_seed(1) };
        Self {
            shared: Arc::new(Shared {
                start: Instant::now(),
                hints: HintStyle::None,
                latency: Range::default(),
                work: Range::default(),
                failures: 0.0,
                state: Mutex::new(state),
            }),
        }
    }

    /// Someone else who uses the same limits. May be called several times.
    #[must_use]
    pub fn neighbour(mut self, neighbour: &Neighbour) -> Self {
        let state = self.settings().state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.limiter = state.limiter.clone().neighbour(neighbour);
        self
    }

    /// How it tells of its limits. Default: not at all.
    #[must_use]
    pub fn hints(mut self, hints: HintStyle) -> Self {
        self.settings().hints = hints;
        self
    }

    /// The time that a round trip takes on the network: from `mean - spread` to `mean + spread`, half of it each way.
    /// Default: none.
    ///
    /// # Errors
    /// If `spread` is longer than `mean`.
    pub fn latency(mut self, mean: Duration, spread: Duration) -> Result<Self, InvalidSetting> {
        self.settings().latency = Range::new("latency", mean, spread)?;
        Ok(self)
    }

    /// The time for which it works on a call that it granted, which is what a [concurrency](Limit::concurrency) limit
    /// looks at. Default: none.
    ///
    /// # Errors
    /// If `spread` is longer than `mean`.
    pub fn work(mut self, mean: Duration, spread: Duration) -> Result<Self, InvalidSetting> {
        self.settings().work = Range::new("work", mean, spread)?;
        Ok(self)
    }

    /// The share of granted calls that are answered 500 all the same, from 0 to 1. Default: 0.
    ///
    /// # Errors
    /// If it is not in that range.
    pub fn failures(mut self, share: f64) -> Result<Self, InvalidSetting> {
        if !(0.0..=1.0).contains(&share) {
            return Err(InvalidSetting::new("failures", format!("must be from 0 to 1, is {share}")));
        }
        self.settings().failures = share;
        Ok(self)
    }

    /// Where its random numbers begin. Default: 1.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        let state = self.settings().state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.random = fastrand::Rng::with_seed(seed);
        self
    }

    /// The calls so far, as they arrived.
    pub fn counts(&self) -> Counts {
        self.shared.lock().limiter.counts()
    }

    /// Those of its neighbours.
    pub fn neighbour_counts(&self) -> Counts {
        let mut state = self.shared.lock();
        state.limiter.advance(self.shared.start.elapsed());
        state.limiter.neighbour_counts()
    }

    /// The limits as they stand now.
    pub fn limiter(&self) -> Limiter {
        self.shared.lock().limiter.clone()
    }

    fn settings(&mut self) -> &mut Shared {
        if Arc::get_mut(&mut self.shared).is_none() {
            // A late setting: an upstream of its own, with the same limits.
            let Shared { start, hints, latency, work, failures, .. } = *self.shared;
            let state = self.shared.lock();
            let own = State { limiter: state.limiter.clone(), random: state.random.clone() };
            drop(state);
            self.shared = Arc::new(Shared { start, hints, latency, work, failures, state: Mutex::new(own) });
        }
        Arc::get_mut(&mut self.shared).expect("this handle alone has what was just made")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call has arrived: what becomes of it, and how long it takes until the answer is back.
    fn arrive(&self, cost: Cost) -> (Response<String>, Duration) {
        let since = self.start.elapsed();
        let mut state = self.lock();
        let State { limiter, random } = &mut *state;
        let decision = limiter.offer(since, cost);
        let mut response = Response::new(String::new());
        if self.hints.needs_readings() || decision.retry_after.is_some() {
            let readings = if self.hints.needs_readings() { limiter.readings() } else { Vec::new() };
            let now = SystemTime::UNIX_EPOCH + EPOCH + since;
            self.hints.write(response.headers_mut(), &decision, &readings, now);
        }
        let mut wait = self.latency.draw(random) / 2;
        if decision.granted {
            let work = self.work.draw(random);
            limiter.finish(since + work, cost);
            wait += work;
            if self.failures > 0.0 && random.f64() < self.failures {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
        } else {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            *response.body_mut() = self.hints.body(&decision);
        }
        (response, wait)
    }
}

impl<B> Service<Request<B>> for Upstream {
    type Response = Response<String>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let cost = request.extensions().get::<Cost>().copied().unwrap_or_default();
        let shared = Arc::clone(&self.shared);
        let there = {
            let mut state = shared.lock();
            shared.latency.draw(&mut state.random) / 2
        };
        Answering { stage: Stage::Going { cost, there }, shared, timer: None }
    }
}

pin_project! {
    /// The future of [`Upstream`]: there, and back.
    pub struct Answering {
        stage: Stage,
        shared: Arc<Shared>,
        #[pin]
        timer: Option<Sleep>,
    }
}

enum Stage {
    Going { cost: Cost, there: Duration },
    Returning { response: Option<Response<String>>, back: Duration },
}

impl Future for Answering {
    type Output = Result<Response<String>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let wait = match this.stage {
                Stage::Going { there, .. } => *there,
                Stage::Returning { back, .. } => *back,
            };
            if !wait.is_zero() {
                if this.timer.is_none() {
                    this.timer.set(Some(sleep(wait)));
                }
                if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                    ready!(timer.poll(cx));
                }
                this.timer.set(None);
            }
            match this.stage {
                Stage::Going { cost, .. } => {
                    let (response, back) = this.shared.arrive(*cost);
                    *this.stage = Stage::Returning { response: Some(response), back };
                }
                Stage::Returning { response, .. } => {
                    let response = response.take();
                    return Poll::Ready(Ok(response.expect("a future is not polled after it has completed")));
                }
            }
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("hints", &self.shared.hints)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").finish_non_exhaustive()
    }
}

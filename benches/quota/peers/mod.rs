//! What others do about an unknown quota. Where a peer is a crate that can be stacked, the crate itself runs; the
//! others are written anew from their published algorithms, each of which is named in its file.

mod arc;
mod aws;
mod backoff;
mod resilience;
mod sre;

pub(crate) use self::{
    arc::vector_arc, aws::aws_adaptive, backoff::tower_retry, resilience::resilience_adaptive, sre::sre,
};

use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tower::{
    BoxError, Service,
    util::{BoxCloneService, rng::Rng},
};

/// A call as the race makes it.
pub(crate) type Call = Request<()>;
pub(crate) type Answer = Response<String>;
/// Any client: it retries by itself until the upstream grants the call.
pub(crate) type Client = BoxCloneService<Call, Answer, BoxError>;

/// The upstream without any client.
pub(crate) trait Upstream:
    Service<Call, Response = Answer, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Upstream for S where
    S: Service<Call, Response = Answer, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static
{
}

fn is_refused(answer: &Answer) -> bool {
    answer.status() == StatusCode::TOO_MANY_REQUESTS
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    let seconds: f64 = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Random numbers for all calls of one client.
#[derive(Clone)]
struct Random(Arc<Mutex<fastrand::Rng>>);

impl Random {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }
}

impl Rng for Random {
    fn next_u64(&mut self) -> u64 {
        self.0.lock().expect("no panics").u64(..)
    }
}

/// A random time up to this.
fn jittered(rng: &mut fastrand::Rng, up_to: Duration) -> Duration {
    up_to.mul_f64(rng.f64())
}

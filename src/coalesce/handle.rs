use super::{batch::Trigger, shared::Shared};
use futures::future::BoxFuture;
use std::{error::Error, fmt, hash::Hash, sync::Arc, time::Duration};

/// Sends what waits, and ends a [`Coalesce`](super::Coalesce) in good order. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    control: Arc<dyn Control>,
}

/// What a handle does, whatever the requests are.
trait Control: Send + Sync {
    fn close_all(&self, trigger: Trigger);
    fn until_idle(&self) -> BoxFuture<'_, ()>;
    fn held(&self) -> usize;
}

impl<S, Req, T, E, K, P> Control for Shared<S, Req, T, E, K, P>
where
    K: Hash + Eq + Clone + Send + Sync,
    S: Send,
    Req: Send,
    T: Send,
    E: Send + Sync,
    P: Send + Sync,
{
    fn close_all(&self, trigger: Trigger) {
        Self::close_all(self, trigger);
    }

    fn until_idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(Self::until_idle(self))
    }

    fn held(&self) -> usize {
        Self::held(self)
    }
}

impl Handle {
    pub(super) fn new<S, Req, T, E, K, P>(shared: Arc<Shared<S, Req, T, E, K, P>>) -> Self
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        S: Send + 'static,
        Req: Send + 'static,
        T: Send + 'static,
        E: Send + Sync + 'static,
        P: Send + Sync + 'static,
    {
        Self { control: shared }
    }

    /// Closes every open batch now, whatever its linger. They leave as soon as fewer than `max_in_flight` others
    /// of their key are in flight.
    pub fn flush(&self) {
        self.control.close_all(Trigger::Flush);
    }

    /// Takes in no more requests, for good; sends what waits; and waits until all of it is answered, for
    /// `deadline` at most.
    ///
    /// From now on `poll_ready` and calls get [`BatchError::Closed`](super::BatchError::Closed). Dropping the future
    /// leaves that so, and what waits is sent all the same.
    ///
    /// # Errors
    /// If something is left at the deadline. It is not given up: it is answered when its call ends, or with
    /// `Closed` when its runtime shuts down.
    pub async fn drain(&self, deadline: Duration) -> Result<(), NotDrained> {
        self.control.close_all(Trigger::Drain);
        let idle = tokio::time::timeout(deadline, self.control.until_idle()).await;
        idle.map_err(|_| NotDrained { left: self.held() })
    }

    /// Requests that wait or are in flight. Those that hold a place in the waiting room, because their service is
    /// ready and not called yet, count too.
    pub fn held(&self) -> usize {
        self.control.held()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("held", &self.held()).finish()
    }
}

/// Requests were left when the deadline of a [drain](Handle::drain) came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotDrained {
    /// How many.
    pub left: usize,
}

impl fmt::Display for NotDrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests were not answered before the deadline", self.left)
    }
}

impl Error for NotDrained {}

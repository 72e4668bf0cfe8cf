use super::{
    BatchError, Handle, Overflow, ResponseFuture, Split, Whole,
    layer::Settings,
    shared::{Seat, Shared},
};
use std::{
    fmt,
    future::Future,
    hash::Hash,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tower::Service;

/// The service that [`CoalesceLayer`](super::CoalesceLayer) makes. See the [module docs](super).
pub struct Coalesce<S, Req, T, K = (), P = Whole>
where
    S: Service<Vec<Req>>,
{
    shared: Arc<Shared<S, Req, T, S::Error, K, P>>,
    room: Room,
}

/// A place in the waiting room, reserved by `poll_ready`.
#[derive(Default)]
enum Room {
    #[default]
    None,
    /// It keeps its place in the queue while it is polled again.
    Queued(Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + Sync>>),
    /// A permit of the room is ours.
    Reserved,
}

impl<S, Req, T, K, P> Coalesce<S, Req, T, K, P>
where
    S: Service<Vec<Req>>,
{
    pub(super) fn new(inner: S, settings: Settings<Req, K, P>) -> Self {
        Self { shared: Arc::new(Shared::new(inner, settings)), room: Room::None }
    }

    /// Flushes and drains this service and its clones.
    pub fn handle(&self) -> Handle
    where
        S: Send + 'static,
        S::Error: Send + Sync + 'static,
        Req: Send + 'static,
        T: Send + 'static,
        K: Hash + Eq + Clone + Send + Sync + 'static,
        P: Send + Sync + 'static,
    {
        Handle::new(Arc::clone(&self.shared))
    }

    /// Keeps a place in the waiting room.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BatchError<S::Error>>>
    where
        K: Hash + Eq + Clone,
    {
        if let Room::None = self.room {
            let room = &self.shared.room;
            self.room = match Seat::take(room) {
                Some(seat) => {
                    seat.keep();
                    Room::Reserved
                }
                None if room.is_closed() => return Poll::Ready(Err(BatchError::Closed)),
                // The call will say so, or find that there is room by then.
                None if self.shared.settings.overflow == Overflow::Reject => return Poll::Ready(Ok(())),
                None => {
                    self.shared.exhausted();
                    Room::Queued(Box::pin(Arc::clone(room).acquire_owned()))
                }
            };
        }
        if let Room::Queued(permit) = &mut self.room {
            let permit = ready!(permit.as_mut().poll(cx));
            self.room = Room::None;
            let Ok(permit) = permit else { return Poll::Ready(Err(BatchError::Closed)) };
            permit.forget();
            self.room = Room::Reserved;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, Req, T, K, P> Service<Req> for Coalesce<S, Req, T, K, P>
where
    S: Service<Vec<Req>> + Clone + Send + 'static,
    S::Response: IntoIterator<Item = Result<T, S::Error>>,
    S::Future: Send,
    S::Error: Send + Sync + 'static,
    Req: Send + 'static,
    T: Send + 'static,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    P: Split<Req, S::Response, S::Error> + Send + Sync + 'static,
{
    type Response = T;
    type Error = BatchError<S::Error>;
    type Future = ResponseFuture<Req, T, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_room(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let reserved = matches!(std::mem::take(&mut self.room), Room::Reserved);
        self.shared.enter(reserved, request)
    }
}

impl<S, Req, T, K, P> Drop for Coalesce<S, Req, T, K, P>
where
    S: Service<Vec<Req>>,
{
    fn drop(&mut self) {
        if let Room::Reserved = self.room {
            self.shared.room.add_permits(1);
        }
    }
}

impl<S, Req, T, K, P> Clone for Coalesce<S, Req, T, K, P>
where
    S: Service<Vec<Req>>,
{
    /// The clone shares the batches. It has no place in the waiting room of its own yet.
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), room: Room::None }
    }
}

impl<S, Req, T, K, P> fmt::Debug for Coalesce<S, Req, T, K, P>
where
    S: Service<Vec<Req>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce")
            .field("settings", &self.shared.settings)
            .field("held", &self.shared.held())
            .finish_non_exhaustive()
    }
}

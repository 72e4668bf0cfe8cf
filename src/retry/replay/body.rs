use super::{ReplayError, shared::Shared};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// A body whose copies can each be sent, one after another, as long as it is small enough. See the
/// [module docs](super).
///
/// A copy begins at the beginning, however far the original was read.
pub struct ReplayBody<B> {
    shared: Arc<Mutex<Shared<B>>>,
    /// Given when it is first read.
    id: u64,
}

impl<B: Body + Unpin> ReplayBody<B> {
    /// Keeps up to `max_bytes` of this body for its copies.
    pub fn new(body: B, max_bytes: usize) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared::new(body, max_bytes))), id: 0 }
    }
}

impl<B> ReplayBody<B> {
    /// Whether a copy, made now or before, can be read from the beginning, once this body has been read.
    pub fn is_kept(&self) -> bool {
        self.lock().is_kept()
    }

    /// Whether this body, of which nothing has been read, can be. One that is not kept can be read by the first of its
    /// copies.
    pub fn can_start(&self) -> bool {
        self.id == 0 && self.lock().can_start()
    }

    /// The bytes that are kept at present.
    pub fn kept_bytes(&self) -> usize {
        self.lock().kept_bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Shared<B>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body + Unpin> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = ReplayError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let mut shared = this.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let superseded = match shared.read_by(&mut this.id) {
            Ok(superseded) => superseded,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        if Arc::strong_count(&this.shared) == 1 {
            shared.forget();
        }
        let frame = shared.poll_frame(cx);
        let discarded = if frame.is_pending() { shared.wait(cx.waker()) } else { None };
        drop(shared);
        // Without the lock: with a waker that is woken or dropped, a task may end that holds another copy.
        drop(discarded);
        superseded.into_iter().for_each(Waker::wake);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream(self.id)
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint(self.id)
    }
}

impl<B> Clone for ReplayBody<B> {
    /// Begins at the beginning.
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), id: 0 }
    }
}

impl<B: Body + Default + Unpin> Default for ReplayBody<B> {
    fn default() -> Self {
        Self::new(B::default(), 0)
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        match Arc::strong_count(&self.shared) {
            1 => {}
            copies => self.lock().leave(self.id, copies == 2),
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.lock();
        f.debug_struct("ReplayBody")
            .field("is_kept", &shared.is_kept())
            .field("kept_bytes", &shared.kept_bytes())
            .finish_non_exhaustive()
    }
}

//! Bodies: of requests, which can be sent again if they are small, and of answers, which hold their place.

use axum::body::Body as AnyBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{Request, StatusCode};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest body that is kept, to be sent again. Prompts are shorter, and longer ones pass as streams.
const MAX_KEPT: u64 = 256 * 1024;
/// What all bodies that are kept may take at a time, in KiB.
const MAX_KEPT_TOGETHER: usize = 64 * 1024;
/// The longest that a client may take to send a body that is kept.
const PATIENCE: Duration = Duration::from_secs(30);

pin_project! {
    /// The body of a request.
    #[project = Projected]
    pub(crate) enum RequestBody {
        /// Kept: there can be copies.
        Whole { bytes: Option<Bytes>, memory: Option<Arc<OwnedSemaphorePermit>> },
        /// Passes once.
        Stream { #[pin] body: AnyBody },
    }
}

/// The memory for bodies that are kept.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Semaphore>);

impl Memory {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_KEPT_TOGETHER)))
    }

    /// Reads the body if it is known to be small and there is room for it; else it stays a stream.
    pub(crate) async fn keep(&self, body: AnyBody) -> Result<RequestBody, StatusCode> {
        let Some(length) = body.size_hint().exact().filter(|length| *length <= MAX_KEPT) else {
            return Ok(RequestBody::Stream { body });
        };
        if length == 0 {
            return Ok(RequestBody::Whole { bytes: None, memory: None });
        }
        let Ok(room) = Arc::clone(&self.0).try_acquire_many_owned(length.div_ceil(1024) as u32) else {
            return Ok(RequestBody::Stream { body });
        };
        match tokio::time::timeout(PATIENCE, body.collect()).await {
            Ok(Ok(body)) => {
                Ok(RequestBody::Whole { bytes: Some(body.to_bytes()), memory: Some(Arc::new(room)) })
            }
            Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
        }
    }
}

/// A copy of the request, if its body is kept.
#[allow(clippy::ptr_arg, reason = "a closure of this shape is asked for")]
pub(crate) fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let RequestBody::Whole { bytes, memory } = request.body() else { return None };
    let mut copy = Request::new(RequestBody::Whole { bytes: bytes.clone(), memory: memory.clone() });
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project() {
            Projected::Whole { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Projected::Stream { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { bytes, .. } => bytes.is_none(),
            Self::Stream { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream { body } => body.size_hint(),
        }
    }
}

/// Counts one exchange for as long as it lives.
#[derive(Debug)]
pub(crate) struct Open(Arc<AtomicUsize>);

impl Open {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

pin_project! {
    /// The body of an answer, with the place that it holds until it ends or its reader goes away.
    pub(crate) struct Held<B> {
        #[pin]
        body: B,
        open: Option<Open>,
    }
}

impl<B> Held<B> {
    pub(crate) const fn new(body: B, open: Open) -> Self {
        Self { body, open: Some(open) }
    }
}

impl<B: Body> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            *this.open = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A body that is said to be so long, and never comes, or fails.
    struct Slow {
        length: u64,
        fails: bool,
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            if self.fails { Poll::Ready(Some(Err(axum::Error::new("broken off")))) } else { Poll::Pending }
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.length)
        }
    }

    fn slow(length: u64) -> AnyBody {
        AnyBody::new(Slow { length, fails: false })
    }

    async fn is_kept(memory: &Memory, body: AnyBody) -> bool {
        matches!(memory.keep(body).await, Ok(RequestBody::Whole { .. }))
    }

    #[tokio::test(start_paused = true)]
    async fn small_bodies_are_kept_and_copied() {
        let memory = Memory::new();
        let body = memory.keep(AnyBody::from("hello")).await.unwrap();
        let request = Request::post("/a").header("x-a", "1").extension(7_u8).body(body).unwrap();
        let copy = copy(&request).unwrap();
        assert_eq!((copy.uri().path(), copy.method().as_str()), ("/a", "POST"));
        assert_eq!((copy.headers().len(), copy.extensions().get::<u8>()), (1, Some(&7)));
        for body in [request.into_body(), copy.into_body()] {
            assert_eq!(body.size_hint().exact(), Some(5));
            assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        }
        assert!(is_kept(&memory, AnyBody::empty()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn others_pass_as_they_come() {
        let memory = Memory::new();
        assert!(!is_kept(&memory, slow(MAX_KEPT + 1)).await);
        let chunks = futures::stream::iter([Ok::<_, Infallible>("hello")]);
        let stream = memory.keep(AnyBody::from_stream(chunks)).await.unwrap();
        assert!(copy(&Request::new(stream)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_comes_back() {
        let memory = Memory::new();
        let full = || AnyBody::from(vec![0; MAX_KEPT as usize]);
        let mut kept = Vec::new();
        for _ in 0..MAX_KEPT_TOGETHER * 1024 / MAX_KEPT as usize {
            kept.push(memory.keep(full()).await.unwrap());
        }
        assert!(!is_kept(&memory, full()).await, "there is no room");
        kept.pop();
        assert!(is_kept(&memory, full()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_do_not_send_what_they_said() {
        let memory = Memory::new();
        assert_eq!(memory.keep(slow(5)).await.err(), Some(StatusCode::REQUEST_TIMEOUT));
        let broken = AnyBody::new(Slow { length: 5, fails: true });
        assert_eq!(memory.keep(broken).await.err(), Some(StatusCode::BAD_REQUEST));
    }
}

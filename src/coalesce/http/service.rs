use super::{
    Answer, Answers, Codec, Exchange, HttpBody, HttpError, Joinable, Share, body, key::key_of, layer::Options,
};
use crate::coalesce::{BatchError, Coalesce, Handle, Split, Whole};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, request::Parts};
use http_body::Body;
use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll},
};
use tower::{BoxError, Service};

/// The service that [`HttpCoalesceLayer`](super::HttpCoalesceLayer) makes. See the [module docs](super).
pub struct HttpCoalesce<S, B, C, P = Whole>
where
    S: Service<Request<B>>,
    Exchange<S, C, B>: Service<Vec<Joinable>, Response = Answers<S::Error>, Error = HttpError<S::Error>>,
{
    inner: S,
    coalesce: Coalesce<Exchange<S, C, B>, Joinable, Answer, Bytes, P>,
    options: Options<C>,
}

impl<S, B, C, P> HttpCoalesce<S, B, C, P>
where
    S: Service<Request<B>>,
    Exchange<S, C, B>: Service<Vec<Joinable>, Response = Answers<S::Error>, Error = HttpError<S::Error>>,
{
    pub(super) const fn new(
        inner: S,
        coalesce: Coalesce<Exchange<S, C, B>, Joinable, Answer, Bytes, P>,
        options: Options<C>,
    ) -> Self {
        Self { inner, coalesce, options }
    }

    /// Flushes and drains this service and its clones.
    pub fn handle(&self) -> Handle
    where
        S: Send + 'static,
        S::Error: Send + Sync + 'static,
        B: 'static,
        C: Codec,
        P: Send + Sync + 'static,
    {
        self.coalesce.handle()
    }
}

impl<C: Codec> Options<C> {
    /// Whether this may be a request to join, as far as can be told without its body.
    fn may_join<B: Body>(&self, head: &Parts, body: &B) -> bool {
        // A body of a length that is not known is a stream.
        let small = body.size_hint().exact().is_some_and(|size| size <= self.max_request as u64);
        small && (self.apart.is_some() || head.extensions.is_empty()) && self.codec.recognizes(head)
    }

    /// The key of those that it may be joined with, and its share; `None` if it passes through.
    fn read(&self, head: &Parts, body: &Bytes) -> Option<(Bytes, Share)> {
        let share = self.codec.read(head, body)?;
        let apart = self.apart.as_ref().map(|apart| apart(head));
        Some((key_of(head, apart.as_deref(), &share), share))
    }
}

impl<S, B, B2, C, P> Service<Request<B>> for HttpCoalesce<S, B, C, P>
where
    S: Service<Request<B>, Response = Response<B2>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + Sync + 'static,
    C: Codec,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    B2: Body<Data = Bytes> + Send + 'static,
    B2::Error: Into<BoxError>,
    P: Split<Joinable, Answers<S::Error>, HttpError<S::Error>> + Send + Sync + 'static,
{
    type Response = Response<HttpBody<B2>>;
    type Error = BatchError<HttpError<S::Error>>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.coalesce.poll_room(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner.clone();
        let (head, body) = request.into_parts();
        if !self.options.may_join(&head, &body) {
            return Box::pin(through(inner, Request::from_parts(head, body)));
        }
        let options = self.options.clone();
        // The one with the place in the waiting room goes; a clone stays.
        let fresh = self.coalesce.clone();
        let mut coalesce = std::mem::replace(&mut self.coalesce, fresh);
        Box::pin(async move {
            let item = |error| BatchError::Item(HttpError::RequestBody(error));
            let body = body::read(body, options.max_request).await.map_err(item)?;
            match options.read(&head, &body) {
                Some((key, share)) => {
                    let response = coalesce.call(Joinable { head, body, key, share }).await?;
                    Ok(response.map(HttpBody::split))
                }
                None => {
                    drop(coalesce);
                    through(inner, Request::from_parts(head, B::from(body))).await
                }
            }
        })
    }
}

/// A request that is none of ours.
async fn through<S, B, B2>(
    mut inner: S,
    request: Request<B>,
) -> Result<Response<HttpBody<B2>>, BatchError<HttpError<S::Error>>>
where
    S: Service<Request<B>, Response = Response<B2>>,
{
    let error = |error| BatchError::Item(HttpError::Service(error));
    poll_fn(|cx| inner.poll_ready(cx)).await.map_err(error)?;
    let response = inner.call(request).await.map_err(error)?;
    Ok(response.map(HttpBody::through))
}

impl<S, B, C, P> Clone for HttpCoalesce<S, B, C, P>
where
    S: Service<Request<B>> + Clone,
    Exchange<S, C, B>: Service<Vec<Joinable>, Response = Answers<S::Error>, Error = HttpError<S::Error>>,
{
    /// The clone shares the batches.
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), coalesce: self.coalesce.clone(), options: self.options.clone() }
    }
}

impl<S, B, C, P> fmt::Debug for HttpCoalesce<S, B, C, P>
where
    S: Service<Request<B>>,
    Exchange<S, C, B>: Service<Vec<Joinable>, Response = Answers<S::Error>, Error = HttpError<S::Error>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCoalesce")
            .field("coalesce", &self.coalesce)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

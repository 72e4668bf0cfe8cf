//! One HTTP call for several requests.

use super::{Codec, HttpError, Share, SplitFrom, body};
use crate::coalesce::Split;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header, request, response};
use http_body::Body;
use std::{
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};
use tower::{BoxError, Service};

/// A request that may be joined with others of the same key.
#[derive(Clone, Debug)]
pub struct Joinable {
    pub(super) head: request::Parts,
    pub(super) body: Bytes,
    pub(super) key: Bytes,
    pub(super) share: Share,
}

/// A response whose body has been read.
pub(super) type Answer = Response<Bytes>;

/// The answers to the requests of one call.
#[derive(Debug)]
pub struct Answers<E> {
    status: StatusCode,
    each: Vec<Result<Answer, HttpError<E>>>,
}

impl<E> IntoIterator for Answers<E> {
    type Item = Result<Answer, HttpError<E>>;
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.each.into_iter()
    }
}

/// Splits calls that were refused as a request's fault: 400, 413 and 422. So the one request that is to blame gets that
/// answer, and the others theirs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitRefused;

impl<E> Split<Joinable, Answers<E>, HttpError<E>> for SplitRefused {
    fn copy(&self, requests: &[Joinable]) -> Option<Vec<Joinable>> {
        Some(requests.to_vec())
    }

    fn splits(&self, result: Result<&Answers<E>, &HttpError<E>>) -> bool {
        result.is_ok_and(|answers| matches!(answers.status.as_u16(), 400 | 413 | 422))
    }
}

/// Sends several requests as one.
#[derive(Debug)]
pub struct Exchange<S, C, B> {
    inner: S,
    codec: Arc<C>,
    max_response: usize,
    body: PhantomData<fn(B)>,
}

impl<S, C, B> Exchange<S, C, B> {
    pub(super) const fn new(inner: S, codec: Arc<C>, max_response: usize) -> Self {
        Self { inner, codec, max_response, body: PhantomData }
    }
}

impl<S: Clone, C, B> Clone for Exchange<S, C, B> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.codec), self.max_response)
    }
}

impl<S, C, B, B2> Service<Vec<Joinable>> for Exchange<S, C, B>
where
    S: Service<Request<B>, Response = Response<B2>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    C: Codec,
    B: From<Bytes>,
    B2: Body<Data = Bytes> + Send + 'static,
    B2::Error: Into<BoxError>,
{
    type Response = Answers<S::Error>;
    type Error = HttpError<S::Error>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(HttpError::Service)
    }

    fn call(&mut self, mut requests: Vec<Joinable>) -> Self::Future {
        let (codec, max) = (Arc::clone(&self.codec), self.max_response);
        let shares: Vec<Share> = requests.iter().map(|request| request.share.clone()).collect();
        let bodies: Vec<Bytes> = requests.iter().map(|request| request.body.clone()).collect();
        let mut head = requests.swap_remove(0).head;
        let body = match &*bodies {
            [alone] => alone.clone(), // it goes as it came
            bodies => match join(&*codec, &mut head, bodies) {
                Ok(body) => body,
                Err(error) => return Box::pin(async { Err(error) }),
            },
        };
        let call = self.inner.call(Request::from_parts(head, B::from(body)));
        Box::pin(async move {
            let (head, body) = call.await.map_err(HttpError::Service)?.into_parts();
            let body = body::read(body, max).await.map_err(HttpError::ResponseBody)?;
            answers(&*codec, head, body, &shares)
        })
    }
}

fn join<E>(codec: &impl Codec, head: &mut request::Parts, bodies: &[Bytes]) -> Result<Bytes, HttpError<E>> {
    let body = codec.join(head, bodies).map_err(HttpError::Codec)?;
    // The answer has to be read, so it must not be encoded.
    head.headers.remove(header::ACCEPT_ENCODING);
    if let Some(length) = head.headers.get_mut(header::CONTENT_LENGTH) {
        *length = body.len().into();
    }
    Ok(body)
}

fn answers<E>(
    codec: &impl Codec,
    mut head: response::Parts,
    body: Bytes,
    shares: &[Share],
) -> Result<Answers<E>, HttpError<E>> {
    let (status, requests) = (head.status, shares.len());
    if requests == 1 {
        return Ok(Answers { status, each: vec![Ok(Response::from_parts(head, body))] });
    }
    if !status.is_success() {
        // The same answer for all; `Bytes` are cheap to clone.
        let each = shares.iter().map(|_| Ok(Response::from_parts(head.clone(), body.clone())));
        return Ok(Answers { status, each: each.collect() });
    }
    if head.headers.contains_key(header::CONTENT_ENCODING) {
        return Err(HttpError::Codec(super::CodecError::new("the answer is encoded and cannot be split")));
    }
    let parts = codec.split(&head, &body, shares).map_err(HttpError::Codec)?;
    // What describes the whole body does not describe a part.
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::ETAG, header::CONTENT_RANGE] {
        head.headers.remove(name);
    }
    head.headers.remove("content-md5");
    head.headers.remove("digest");
    let each = parts.into_iter().enumerate().map(|(position, part)| {
        let mut head = head.clone();
        head.extensions.insert(SplitFrom { requests, position, estimated_tokens: part.input_tokens });
        Ok(Response::from_parts(head, part.body))
    });
    Ok(Answers { status, each: each.collect() })
}

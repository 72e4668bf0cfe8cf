use super::{Answers, Codec, Exchange, HttpCoalesce, HttpError, Joinable, SplitRefused};
use crate::{
    InvalidSetting,
    coalesce::{CoalesceLayer, Whole},
};
use bytes::Bytes;
use http::{Request, request::Parts};
use std::{any::type_name, fmt, marker::PhantomData, sync::Arc};
use tower::Service;
use tower_layer::Layer;

/// Joins HTTP requests with bodies of the type `B`. Made by [`CoalesceLayer::http`]; see the [module docs](super).
#[must_use]
pub struct HttpCoalesceLayer<C, B, P = Whole> {
    coalesce: CoalesceLayer<Joinable, Bytes, P>,
    options: Options<C>,
    body: PhantomData<fn(B)>,
}

pub(super) struct Options<C> {
    pub(super) codec: Arc<C>,
    pub(super) max_request: usize,
    pub(super) max_response: usize,
    pub(super) apart: Option<Arc<Apart>>,
}

pub(super) type Apart = dyn Fn(&Parts) -> Vec<u8> + Send + Sync;

impl<P> CoalesceLayer<Joinable, (), P> {
    /// This layer for HTTP requests, with a codec that joins them.
    ///
    /// The key, the counting of items and the weights are those of the codec, and so are the bounds, where they are
    /// lower than the layer's own. `max_items` counts inputs then: a request may have several.
    pub fn http<C: Codec, B>(self, codec: C) -> HttpCoalesceLayer<C, B, P> {
        let mut coalesce = self
            .key(|request: &Joinable| request.key.clone())
            .count_items(|request| request.share.inputs)
            .weigh(|request| request.share.weight);
        coalesce.at_most(codec.max_inputs(), codec.max_weight());
        let options = Options {
            codec: Arc::new(codec),
            max_request: 1024 * 1024,
            max_response: 128 * 1024 * 1024,
            apart: None,
        };
        HttpCoalesceLayer { coalesce, options, body: PhantomData }
    }
}

impl<C, B, P> HttpCoalesceLayer<C, B, P> {
    /// Tries the halves of a joined call that was [refused](SplitRefused) with 400, 413 or 422, and so on, down to the
    /// one request that is to blame. Default: all of them get that answer.
    pub fn split_refused(self) -> HttpCoalesceLayer<C, B, SplitRefused> {
        let Self { coalesce, options, body } = self;
        HttpCoalesceLayer { coalesce: coalesce.split(SplitRefused), options, body }
    }

    /// Requests for which this says different things are never joined: for tenants that headers and URI do not tell,
    /// such as those that an extension names. Default: nothing says so.
    ///
    /// Without it, a request that has extensions passes through, for nobody knows what they mean; with it, requests
    /// with extensions are joined too, and the call has those of the first.
    pub fn keep_apart(mut self, apart: impl Fn(&Parts) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.options.apart = Some(Arc::new(apart));
        self
    }

    /// Requests with a body larger than this pass through. Default: 1 MiB.
    ///
    /// # Errors
    /// If `max` is zero.
    pub fn max_request(mut self, max: usize) -> Result<Self, InvalidSetting> {
        self.options.max_request = InvalidSetting::positive("max_request", max)?.get();
        Ok(self)
    }

    /// A call whose answer is larger than this fails with [`ReadError::TooLarge`](super::ReadError::TooLarge).
    /// Default: 128 MiB.
    ///
    /// # Errors
    /// If `max` is zero.
    pub fn max_response(mut self, max: usize) -> Result<Self, InvalidSetting> {
        self.options.max_response = InvalidSetting::positive("max_response", max)?.get();
        Ok(self)
    }
}

impl<S, B, C, P> Layer<S> for HttpCoalesceLayer<C, B, P>
where
    Exchange<S, C, B>: Service<Vec<Joinable>, Response = Answers<S::Error>, Error = HttpError<S::Error>>,
    S: Service<Request<B>> + Clone,
    P: Clone,
{
    type Service = HttpCoalesce<S, B, C, P>;

    fn layer(&self, inner: S) -> Self::Service {
        let exchange =
            Exchange::new(inner.clone(), Arc::clone(&self.options.codec), self.options.max_response);
        HttpCoalesce::new(inner, self.coalesce.layer(exchange), self.options.clone())
    }
}

impl<C> Clone for Options<C> {
    fn clone(&self) -> Self {
        Self { codec: Arc::clone(&self.codec), apart: self.apart.clone(), ..*self }
    }
}

impl<C, B, P: Clone> Clone for HttpCoalesceLayer<C, B, P> {
    fn clone(&self) -> Self {
        Self { coalesce: self.coalesce.clone(), options: self.options.clone(), body: PhantomData }
    }
}

impl<C> fmt::Debug for Options<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("codec", &type_name::<C>())
            .field("max_request", &self.max_request)
            .field("max_response", &self.max_response)
            .finish_non_exhaustive()
    }
}

impl<C, B, P> fmt::Debug for HttpCoalesceLayer<C, B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCoalesceLayer")
            .field("coalesce", &self.coalesce)
            .field("options", &self.options)
            .finish()
    }
}

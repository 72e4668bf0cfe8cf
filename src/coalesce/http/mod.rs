//! Many HTTP requests, one HTTP call.
//!
//! [`CoalesceLayer::http`](super::CoalesceLayer::http) puts the layer around any HTTP client whose requests carry
//! bodies that can be made from `Bytes`: `Full<Bytes>`, axum's, reqwest's. Who uses the client sees no difference but
//! in the number of calls:
//!
//! ```
//! # #[cfg(feature = "embeddings")] {
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{BoxError, ServiceBuilder};
//! use tower_cooldown::{AdaptiveCooldownLayer, CoalesceLayer, coalesce::http::OpenAiEmbeddings};
//!
//! # fn main() -> Result<(), BoxError> {
//! # let http = tower::service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())) });
//! let client = ServiceBuilder::new()
//!     .layer(CoalesceLayer::new(256)?.http(OpenAiEmbeddings))
//!     .layer(AdaptiveCooldownLayer::new())
//!     .service(http); // hyper, reqwest, ..
//! # let _: &dyn tower::Service<Request<Full<Bytes>>, Response = _, Error = _, Future = _> = &client;
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! A [`Codec`] says which requests can be joined, joins their bodies, and splits the answer. `OpenAiEmbeddings` and
//! `GeminiEmbeddings` come with the feature `embeddings`.
//!
//! # What shares a call
//!
//! Only requests that have the same method, URI, headers and codec's key (model, dimensions, ..), compared byte by byte,
//! so that two credentials or tenants never share one, whatever header names them. Left out are only `content-length`,
//! `accept-encoding`, `traceparent`, `tracestate`, `x-request-id` and `x-client-request-id`, of which the call has those
//! of the first request. A request with extensions passes through, since they may name a tenant, until
//! [`keep_apart`](HttpCoalesceLayer::keep_apart) says which do.
//!
//! # What passes through
//!
//! Requests that the codec does not know, those with a body of unknown length (a stream) or above
//! [`max_request`](HttpCoalesceLayer::max_request), and those that ask for a streamed answer. They go to the inner
//! service as they came, and their responses come back unread. A request that is alone in its batch goes and comes as
//! it is, too.
//!
//! # Answers
//!
//! Each caller gets the status and the headers of the call's answer, and its own part of the body, with a [`SplitFrom`]
//! in the extensions. Where the answer is an error (not 2xx), all get the same; with
//! [`split_refused`](HttpCoalesceLayer::split_refused) a 400, 413 or 422 goes to the one request that is to blame. Where
//! an answer cannot be split for certain, nobody gets any ([`HttpError::Codec`]).
//!
//! # Readiness, cancellation, panics
//!
//! As in the [layer itself](super). A request joins when its future is first polled, not when it is called. A panic of
//! the codec's `read` or of `keep_apart` is the caller's own; one in `join` or `split` is that of the call.

mod body;
mod codec;
#[cfg(feature = "embeddings")]
mod embeddings;
mod error;
mod exchange;
mod key;
mod layer;
mod service;

#[cfg(feature = "embeddings")]
pub use self::embeddings::{GeminiEmbeddings, OpenAiEmbeddings};
pub use self::{
    body::{HttpBody, ReadError},
    codec::{Codec, CodecError, Part, Share, SplitFrom, share_out},
    error::HttpError,
    exchange::{Answers, Exchange, Joinable, SplitRefused},
    layer::HttpCoalesceLayer,
    service::HttpCoalesce,
};

use self::exchange::Answer;

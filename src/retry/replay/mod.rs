//! Makes request bodies that are streams fit to be sent again, up to a size.
//!
//! [`ReplayLayer`] goes outside of the retry. It wraps the request's body into a [`ReplayBody`], which keeps what has
//! been read from it as long as there is another copy that may have to be sent. [`ByReplay`] tells the retry how to
//! copy such requests:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, StreamBody};
//! use std::convert::Infallible;
//! use tower::{BoxError, ServiceBuilder, ServiceExt, retry::RetryLayer};
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer,
//!     retry::{
//!         RetryPolicy,
//!         replay::{ByReplay, ReplayBody, ReplayLayer},
//!     },
//! };
//!
//! # use futures::stream;
//! # use http_body::Frame;
//! # type Stream = StreamBody<stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, Infallible>, 2>>>;
//! # static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # let client = tower::service_fn(|request: Request<ReplayBody<Stream>>| async move {
//! #     let text = request.into_body().collect().await?.to_bytes();
//! #     let first = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
//! #     Ok::<_, BoxError>(Response::builder().status(if first { 429 } else { 200 }).body(text)?)
//! # });
//! let client = ServiceBuilder::new()
//!     .layer(ReplayLayer::new(64 * 1024))
//!     .layer(RetryLayer::new(RetryPolicy::new().copy_with(ByReplay)))
//!     .layer(AdaptiveCooldownLayer::new())
//!     .service(client); // refuses the first call, after it has read the body
//!
//! # let frames = ["one, ", "two"].map(|text| Ok(Frame::data(Bytes::from(text))));
//! # let stream = stream::iter(frames);
//! let response = client.oneshot(Request::new(StreamBody::new(stream))).await?;
//! assert_eq!(response.into_body(), "one, two");
//! # Ok(())
//! # }
//! ```
//!
//! A client that wants its own type of body gets it by a `map_request` at the bottom of the stack:
//!
//! ```
//! use http::Request;
//! use tower::util::MapRequestLayer;
//! use tower_cooldown::retry::replay::ReplayBody;
//!
//! # type Body = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, std::convert::Infallible>;
//! let bottom = MapRequestLayer::new(|request: Request<ReplayBody<Body>>| request.map(axum::body::Body::new));
//! # let _: MapRequestLayer<_> = bottom;
//! ```
//!
//! # What is kept
//!
//! No more than the layer's bytes of data, and at most 1024 frames. A body that says that it is longer is not kept at
//! all. One that turns out to be longer is passed through once: what was kept is dropped as soon as it is known, and the
//! answer to that call is final. So it is after an error of the body itself.
//!
//! What was kept is dropped as soon as nobody can ask for it: when the retry is done with the call, and, while a copy is
//! sent for the last time, piece by piece.
//!
//! # If the answer comes before the end of the request
//!
//! The next copy sends what was read so far, and goes on to read from the original body, which then belongs to it. A
//! client that still sends the older copy gets [`ReplayError::Superseded`] from it.
//!
//! # Cancellation and panics
//!
//! A copy that is dropped while it is read leaves the body as it is, for the next copy. If the body itself panics, that
//! is its caller's panic; nothing is held that others wait for.
//!
//! The idea of a body that is shared by its copies is that of linkerd's proxy.

mod body;
mod copy;
mod error;
mod layer;
mod shared;

pub use self::{
    body::ReplayBody,
    copy::ByReplay,
    error::ReplayError,
    layer::{Replay, ReplayLayer},
};

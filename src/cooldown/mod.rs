//! Waits before calls, counts 429s, closes the gate after them, and records each call.
//!
//! [`AdaptiveCooldownLayer`] wraps a client. It knows when calls left and what came back, and from that its
//! [policy](crate::policy) decides when the next may leave. While the upstream asks for rest, none does.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
//! use tower_cooldown::AdaptiveCooldownLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # let client = tower::service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(String::new())) });
//! let cooldown = AdaptiveCooldownLayer::new();
//! let handle = cooldown.handle();
//! let mut client = ServiceBuilder::new().layer(cooldown).service(client);
//!
//! let response = client.ready().await?.call(Request::new("hello".to_owned())).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(handle.statistics().snapshot().attempts.accepted, 1);
//! # Ok(())
//! # }
//! ```
//!
//! With a quota that is known, a bound on the wait, and an HTTP answer for calls that are not sent:
//!
//! ```
//! use std::time::Duration;
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer, InvalidSetting,
//!     cooldown::TooManyRequests,
//!     policy::{Known, Quota},
//! };
//!
//! # fn main() -> Result<(), InvalidSetting> {
//! let quota = Quota::new(500, Duration::from_secs(60))?;
//! let layer = AdaptiveCooldownLayer::with_policy(Known::new(quota))
//!     .name("openai")
//!     .max_wait(Duration::from_secs(20))
//!     .reject_with(TooManyRequests);
//! # let _ = layer;
//! # Ok(())
//! # }
//! ```
//!
//! # Sharing
//!
//! The gate lives in the layer. Clones of the layer, every service that it makes, and their clones share it;
//! `Layer::layer` never makes a new one, so that it does not matter how often axum calls it. Building needs no
//! runtime. The inner service has to be `Clone`; for one that is not, put tower's `Buffer` below. Nothing is
//! boxed, and the error type stays that of the inner service.
//!
//! # Readiness
//!
//! `poll_ready` is a hint: it answers `Pending` while the gate is closed, so that `LoadShed` sheds and
//! `Balance` goes elsewhere, and it may answer `Pending` again after it answered `Ready`. It reserves nothing. It
//! does not speak for calls outside a partial [rollout](AdaptiveCooldownLayer::rollout), or where calls would
//! be rejected because of [`max_wait`](AdaptiveCooldownLayer::max_wait) or may be because of their own
//! [deadline](AdaptiveCooldownLayer::deadline): then it is `Ready`, and `call` decides.
//! What counts is `call`: it books a departure, and the future waits for it. While it waits, nothing of the
//! inner service is held.
//!
//! `Balance` needs to know each endpoint's load: measure it around this layer, with
//! `tower::load::PendingRequests` for one, whose services cannot be cloned.
//!
//! A router that waits for all of its services, such as `Steer`, waits for a closed gate too; bound that with
//! [`max_wait`](AdaptiveCooldownLayer::max_wait). So it is with `tower::timeout`, which does not cover the
//! time spent in `poll_ready`.
//!
//! # Order
//!
//! Calls leave in the order in which they came, spaced by the policy, also when the gate opens after a
//! closing. A burst of 429s to calls that left together is one signal, not many, and a success that was on its
//! way before a refusal does not undo it. A 429 that was on its way makes the closing longer only if it says
//! until when.
//!
//! A call that is let go, but finds the inner service not ready, asks the policy once more when it is, so that
//! calls which pile up below are not sent all at once. A call that has asked again is sent the next time, if the
//! gate is open.
//!
//! # Cancellation
//!
//! A future that is dropped before it is sent gives its departure to those behind it, as far as the policy can
//! take one back. Dropped in flight, it is recorded as cancelled. One that is kept and not polled costs those behind
//! it no more than its own departure; in flight it counts for as long as it lives, where the policy
//! [bounds](crate::policy::Policy::max_in_flight) the calls in flight.
//!
//! # Panics
//!
//! If the inner service panics, the call is recorded as cancelled; the gate and all other calls go on.
//! Waiting needs a tokio runtime with time enabled, as all of tokio's timers do.
//!
//! # Errors
//!
//! Without [`max_wait`](AdaptiveCooldownLayer::max_wait) and [`deadline`](AdaptiveCooldownLayer::deadline), only
//! those of the inner service. With one of them, calls that would wait for too long are [rejected](Reject).
//!
//! # Differences from `tower::limit`
//!
//! `RateLimit` needs to be told a rate, does not look at responses, and cannot be cloned: each handle counts
//! for itself. `ConcurrencyLimit` bounds calls in flight, not calls per time; put it below this layer, so
//! that its permits are not held by calls that wait.

mod anchor;
mod attempt;
mod booking;
mod deadline;
pub mod future;
mod gate;
mod grpc_status;
mod handle;
#[cfg(feature = "keyed")]
#[cfg_attr(docsrs, doc(cfg(feature = "keyed")))]
pub mod keyed;
mod layer;
mod ready;
mod reject;
mod service;
mod state;
mod untold;

pub use self::{
    deadline::{GrpcTimeout, NoDeadline, TimeLeft},
    future::ResponseFuture,
    grpc_status::GrpcStatus,
    handle::{GateSnapshot, Handle},
    layer::AdaptiveCooldownLayer,
    reject::{IntoError, NeverReject, Reject, TooManyRequests},
    service::AdaptiveCooldown,
};

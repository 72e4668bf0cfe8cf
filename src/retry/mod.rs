//! Goes again after a 429 or a 503: a policy for [`tower::retry::RetryLayer`].
//!
//! It never sleeps. The gate of an [`AdaptiveCooldown`](crate::AdaptiveCooldown) below has seen the same
//! refusal and lets the next attempt go when the upstream is ready for it, together with everybody else's. So
//! put the retry outside of the cooldown:
//!
//! ```
//! use http::{Request, Response};
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer};
//! use tower_cooldown::{AdaptiveCooldownLayer, retry::RetryPolicy};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # static CALLS: AtomicU32 = AtomicU32::new(0);
//! # let client = tower::service_fn(|_: Request<String>| async {
//! #     let status = if CALLS.fetch_add(1, Ordering::Relaxed) == 0 { 429 } else { 200 };
//! #     Ok::<_, BoxError>(Response::builder().status(status).body(String::new())?)
//! # });
//! let mut client = ServiceBuilder::new()
//!     .layer(RetryLayer::new(RetryPolicy::new().max_retries(3)))
//!     .layer(AdaptiveCooldownLayer::new())
//!     .service(client); // refuses the first call
//!
//! let response = client.ready().await?.call(Request::new("hello".to_owned())).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! What is retried: [throttled](crate::signal::Verdict::Throttled) and
//! [overloaded](crate::signal::Verdict::Overloaded) answers, up to [`max_retries`](RetryPolicy::max_retries)
//! times, while the [budget](RetryPolicy::budget) lasts, if the request can be
//! [copied](RetryPolicy::copy_with), and unless the gate is closed for
//! [too long](RetryPolicy::decline_if_closed_for). In all other cases the answer goes to the caller as it is.
//!
//! # Which requests can be sent again
//!
//! Those that are `Clone`, such as an `http::Request<Full<Bytes>>`. For others say how they are copied:
//!
//! ```
//! # #[cfg(feature = "reqwest")] {
//! use tower_cooldown::retry::RetryPolicy;
//!
//! // `None` where the body is a stream: such a request is sent once.
//! let policy = RetryPolicy::new().copy_with(|request: &reqwest::Request| request.try_clone());
//! # let _ = policy;
//! # }
//! ```
//!
//! Bodies that are neither, such as tonic's and axum's, can be sent again up to a size by `retry::replay` (feature
//! `replay`).
//!
//! # Readiness, errors, cancellation, panics
//!
//! Those of `tower::retry::Retry`: readiness is that of the service below; before another attempt that is waited for
//! inside of the future, which is where the gate makes it wait. Errors are the service's own. Dropping the future drops
//! the attempt that is in flight or waits, and its place at the gate goes to the next. A panic of the service is the
//! caller's.
//!
//! # Differences from a policy that sleeps
//!
//! tower's `ExponentialBackoff` waits for a time of its own, whatever others have learned meanwhile; the waits of many
//! callers end together. Here the policy decides only *whether*, and the gate *when*, for all callers at once.
//! Errors of the transport are not retried: whether that is safe depends on the request.
//!
//! # Without a cooldown below
//!
//! Do not use it so: the next attempt would leave at once. For the same reason a call that a
//! [`Rollout`](crate::Rollout) let past the cooldown is not retried.

mod deposits;
mod policy;
#[cfg(feature = "replay")]
#[cfg_attr(docsrs, doc(cfg(feature = "replay")))]
pub mod replay;

pub use self::policy::RetryPolicy;
pub use crate::request::{ByClone, CopyRequest};

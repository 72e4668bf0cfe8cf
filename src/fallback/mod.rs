//! A second service takes the call when the first cannot serve it.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_cooldown::{FallbackLayer, record::Statistics};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! # let primary = service_fn(|_: Request<String>| async {
//! #     Ok::<_, BoxError>(Response::builder().status(503).body(String::new())?)
//! # });
//! # let second = service_fn(|_: Request<String>| async {
//! #     Ok::<_, BoxError>(Response::new("from the second".to_owned()))
//! # });
//! let statistics = Statistics::new();
//! let mut client = ServiceBuilder::new()
//!     .layer(FallbackLayer::new(second).statistics(&statistics))
//!     .service(primary); // answers 503
//!
//! let response = client.ready().await?.call(Request::new("hello".to_owned())).await?;
//! assert_eq!(response.body(), "from the second");
//! assert_eq!(statistics.snapshot().fallback_rate(), Some(1.0));
//! # Ok(())
//! # }
//! ```
//!
//! Two providers seldom speak the same protocol: translate around the second service, with `tower`'s
//! `map_request` and `map_response` where that cannot fail, or in a `service_fn` where it can. The example
//! `bulk_tagging` does the latter.
//!
//! # When
//!
//! Where the first service was over its quota (after the [retries](crate::retry) below), was overloaded,
//! answered another 5xx, failed with an error, or was not called at all because its gate would have made the
//! call [wait for too long](crate::AdaptiveCooldownLayer::max_wait). A 4xx that is the caller's fault goes
//! back to the caller. Which [reasons](crate::record::FallbackReason) count can be changed:
//!
//! ```
//! # let second = tower::service_fn(|request: String| async { Ok::<_, std::io::Error>(request) });
//! use tower_cooldown::{FallbackLayer, record::FallbackReason};
//!
//! let layer = FallbackLayer::new(second)
//!     .also(FallbackReason::ClientError)
//!     .except(FallbackReason::Transport);
//! # let _ = layer;
//! ```
//!
//! It is for clients. A server has no second service to turn to; in axum, use the cooldown with
//! [`TooManyRequests`](crate::cooldown::TooManyRequests) instead.
//!
//! # Readiness
//!
//! `poll_ready` is that of the first service; an error there goes to the caller. The second service is readied
//! when it is needed. To fall back while the first is cooling, give its cooldown a
//! [`max_wait`](crate::AdaptiveCooldownLayer::max_wait).
//!
//! # Errors
//!
//! [`FallbackError`]: the first service's error as it was, or what both of them said if both failed. An answer
//! of the second service is passed on whatever its status. To give the stack a boxed error again, put
//! `.map_err(BoxError::from)` around it.
//!
//! # Cancellation
//!
//! Dropping the future drops whichever call is in flight, and counts the call as cancelled.
//!
//! # Panics
//!
//! A panic of either service is its caller's; the call is counted as cancelled, and other calls go on.
//!
//! # Differences from `tower::steer` and `tower::load_shed`
//!
//! `Steer` chooses a service by the request, before anything is sent; here the first one's answer decides, and its
//! readiness alone is waited for. `LoadShed` fails calls while a service is not ready; this layer does not look at that.
//! Outside of a `LoadShed` it serves what that one sheds, for the reason
//! [`Transport`](crate::record::FallbackReason::Transport).

pub mod error;
pub mod future;
mod layer;
mod service;

pub use self::{error::FallbackError, future::ResponseFuture, layer::FallbackLayer, service::Fallback};

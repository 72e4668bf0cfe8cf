//! Tower middleware for people who call rate-limited services.
//!
//! Stack it on the client that you have. It keeps your calls inside a limit, uses what the limit allows,
//! answers for every call that it was given, and shows what happened.
//!
//! ```text
//!     caller
//!       │
//!       ▼
//!     MicroBatch         small groups, one after another, a pause between (or Coalesce: many requests, one call)
//!       ▼
//!     Fallback           a second service, when the first one cannot serve
//!       ▼
//!     Retry              tower's, with a policy: throttled → again, without a sleep of its own
//!       ▼
//!     AdaptiveCooldown   waits before the call, counts 429s, closes the gate, records each call
//!       ▼
//!     client             hyper, reqwest, a tonic channel, an axum handler, service_fn
//! ```
//!
//! Each is an ordinary [`tower::Layer`], useful alone ([`ServiceBuilderExt`] has them as methods of tower's builder):
//!
//! | layer | |
//! |---|---|
//! | [`AdaptiveCooldownLayer`] | [waits before calls and after 429s](cooldown), by a [policy] |
//! | [`MicroBatchLayer`] | [small groups with a pause](micro_batch) |
//! | [`CoalesceLayer`] | [many requests, one call](coalesce) |
//! | [`FallbackLayer`] | [a second service](fallback) |
//! | `BodyHintsLayer` (feature `body`) | reads limits that are told in the body |
//! | [`RetryPolicy`](retry::RetryPolicy) | [a policy](retry) for tower's own `RetryLayer` |
//!
//! New here? The [guide] begins with [your first stack](guide::first_stack).
//!
//! # The stack
//!
//! ```
//! use http::{Request, Response};
//! use std::time::Duration;
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer, FallbackLayer, MicroBatchLayer,
//!     policy::{Known, Quota},
//!     record::Statistics,
//!     retry::RetryPolicy,
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # let first = service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new("tagged".to_owned())) });
//! # let second = first.clone();
//! let statistics = Statistics::new();
//! let quota = Quota::new(15, Duration::from_secs(60))?; // or nothing: AdaptiveCooldownLayer::new()
//! let mut client = ServiceBuilder::new()
//!     .layer(MicroBatchLayer::new(2)?.statistics(&statistics))
//!     .layer(FallbackLayer::new(second).statistics(&statistics))
//!     .layer(RetryLayer::new(RetryPolicy::new()))
//!     .layer(AdaptiveCooldownLayer::with_policy(Known::new(quota)).statistics(&statistics))
//!     .service(first); // your client
//!
//! let response = client.ready().await?.call(Request::new("tag this page".to_owned())).await?;
//! assert_eq!(response.body(), "tagged");
//! println!("{}", statistics.snapshot());
//! # Ok(())
//! # }
//! ```
//!
//! # The order of layers
//!
//! Outermost first: load shedding, a timeout for the whole call, micro-batch, fallback, retry, cooldown, a
//! timeout per attempt, a concurrency limit, the client.
//!
//! - Retry outside of the cooldown: each attempt passes the gate and is counted. The gate is a point in time,
//!   so a wait before the retry and the wait at the gate overlap; they do not add up.
//! - A concurrency limit inside of the cooldown: outside, its permits are held by calls that only wait.
//! - A timeout outside covers the waiting; one inside covers each attempt.
//!
//! # If it does not compile
//!
//! `ServiceExt`'s methods hide which bound is missing. Call `tower::Service::call(&mut client, request)` in their
//! place, or put `.check_service::<Client, Request, Response, Error>()` before `.service(client)`, and the compiler says
//! which one, and what to do about it. Most often the body of the request is not `Clone` (see
//! [`CopyRequest`](retry::CopyRequest)), the inner service is not, or after
//! [`max_wait`](AdaptiveCooldownLayer::max_wait) the error cannot be made from a [`Rejected`].
//!
//! # Around a server
//!
//! In axum the gate guards what is below it: handlers that call one upstream. Their 429s and 503s close it, for
//! all routes that share the layer; so use a layer per upstream, with `max_wait` and
//! [`TooManyRequests`](cooldown::TooManyRequests).
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `keyed` | no | [a gate per key](cooldown) (`cooldown::keyed`) |
//! | `body` | no | `BodyHintsLayer`: limits that a service tells in the body of its answer |
//! | `replay` | no | [`retry`]: request bodies that are streams can be sent again, up to a size (`retry::replay`) |
//! | `prometheus` | no | `export::prometheus`: [metrics](export) in Prometheus' text format |
//! | `metrics` | no | `export::metrics`: the same through the `metrics` facade |
//! | `opentelemetry` | no | `export::opentelemetry`: the same through OpenTelemetry |
//! | `redis` | no | a gate that many processes share, on Redis or Valkey (`fleet`) |
//! | `reqwest` | no | `reqwest::Response` is read like other responses |
//! | `serde` | no | `Serialize` for snapshots and records |
//! | `testing` | no | `testing`: simulated upstreams with a quota, for your tests |
//! | `http-coalesce` | no | [`CoalesceLayer`] for HTTP requests, with a codec |
//! | `embeddings` | no | codecs for OpenAI's and Gemini's embeddings; with it `http-coalesce` |
//!
//! # Time
//!
//! All time is tokio's, so a test can pause it: `#[tokio::test(start_paused = true)]` runs hours of cooling in
//! no time.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod arrival;
#[cfg(feature = "body")]
#[cfg_attr(docsrs, doc(cfg(feature = "body")))]
pub mod body_hints;
mod clone_service;
pub mod coalesce;
pub mod cooldown;
pub mod cost;
mod deferred;
mod error;
pub mod export;
pub mod fallback;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod fleet;
pub mod guide;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
#[doc = include_str!("../docs/fleet.md")]
pub mod fleet_costs {}
mod lanes;
pub mod micro_batch;
#[doc = include_str!("../docs/overhead.md")]
pub mod overhead {}
pub mod policy;
pub mod record;
mod request;
pub mod retry;
pub mod rollout;
mod service_builder;
pub mod signal;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod wait_reason;
mod wakers;

#[cfg(feature = "body")]
pub use self::body_hints::{BodyHintsLayer, BodyHintsService};
pub use self::{
    clone_service::CloneService,
    coalesce::{Coalesce, CoalesceLayer},
    cooldown::{AdaptiveCooldown, AdaptiveCooldownLayer, Handle},
    cost::Cost,
    error::InvalidSetting,
    fallback::{Fallback, FallbackLayer},
    micro_batch::{MicroBatch, MicroBatchLayer},
    rollout::Rollout,
    service_builder::ServiceBuilderExt,
    signal::Rejected,
    wait_reason::WaitReason,
};

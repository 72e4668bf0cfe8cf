//! Simulated upstreams with a quota, for testing a stack without a network and without waiting.
//!
//! An [`Upstream`] is an ordinary `tower::Service`. It enforces [`Limit`]s as services do, tells of them in the
//! [`HintStyle`] of a vendor, takes its time to answer, and shares its quota with [`Neighbour`]s if it is told to. All
//! time is tokio's, so on a paused clock an hour takes a moment, and the same seed gives the same answers.
//!
//! ```
//! use http::Request;
//! use std::time::Duration;
//! use tower::{BoxError, ServiceBuilder, ServiceExt, retry::RetryLayer};
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer,
//!     retry::RetryPolicy,
//!     testing::{HintStyle, Limit, Upstream},
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] // `#[tokio::test(start_paused = true)]` in yours
//! # async fn main() -> Result<(), BoxError> {
//! let upstream = Upstream::new([Limit::fixed_window(15, Duration::from_secs(60))?]).hints(HintStyle::RetryAfter);
//! let client = ServiceBuilder::new()
//!     .layer(RetryLayer::new(RetryPolicy::new().max_retries(1000).without_budget()))
//!     .layer(AdaptiveCooldownLayer::new())
//!     .service(upstream.clone());
//!
//! for _ in 0..100 {
//!     let response = client.clone().oneshot(Request::new(())).await?;
//!     assert_eq!(response.status(), 200);
//! }
//! let counts = upstream.counts();
//! assert_eq!(counts.granted, 100);
//! assert!(counts.refused < 20, "{counts:?}");
//! # Ok(())
//! # }
//! ```
//!
//! The limits alone, as pure functions of time, are in [`Limiter`].

mod bucket;
mod capacity;
mod hints;
mod limit;
mod limiter;
mod log;
mod neighbour;
mod reading;
mod state;
mod units;
mod upstream;
mod window;

pub use self::{
    hints::HintStyle,
    limit::Limit,
    limiter::Limiter,
    neighbour::Neighbour,
    reading::{Counts, Decision, Reading},
    units::Unit,
    upstream::{Answering, Upstream},
};

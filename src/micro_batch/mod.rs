//! Small groups, one after another, with a pause between.
//!
//! [`MicroBatchLayer::new(2)`](MicroBatchLayer::new) lets requests pass in the order in which they came, two
//! at a time; the next two start when both have finished and a pause (500 ms) is over. It is what a script
//! does that works through a list in chunks, for any number of tasks that share the client.
//!
//! ```
//! use http::{Request, Response};
//! use std::time::Duration;
//! use tokio::time::Instant;
//! use tower::{BoxError, ServiceBuilder, ServiceExt};
//! use tower_cooldown::MicroBatchLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # let client = tower::service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(String::new())) });
//! let client = ServiceBuilder::new().layer(MicroBatchLayer::new(2)?).service(client);
//!
//! let start = Instant::now();
//! let calls = (0..5).map(|n| client.clone().oneshot(Request::new(format!("page {n}"))));
//! futures::future::try_join_all(calls).await?; // groups of 2, 2, and 1
//! assert_eq!(start.elapsed(), Duration::from_millis(1000)); // two pauses
//! # Ok(())
//! # }
//! ```
//!
//! The pause and the number of calls at once inside a group are settings:
//!
//! ```
//! use std::time::Duration;
//! use tower_cooldown::{InvalidSetting, MicroBatchLayer};
//!
//! # fn main() -> Result<(), InvalidSetting> {
//! let layer = MicroBatchLayer::new(10)?
//!     .pause(Duration::from_secs(1))
//!     .parallel(3)?;
//! # let _ = layer;
//! # Ok(())
//! # }
//! ```
//!
//! The layer reads responses, to record how calls ended. Those that are not HTTP need a
//! [classifier](crate::signal#your-own-rules):
//!
//! ```
//! # use tower::Layer;
//! use tower_cooldown::{
//!     InvalidSetting, MicroBatchLayer,
//!     signal::{Signal, Verdict},
//! };
//!
//! # fn main() -> Result<(), InvalidSetting> {
//! let layer = MicroBatchLayer::new(2)?.classify(|result: Result<&u32, &std::io::Error>| {
//!     Signal::new(if result.is_ok() { Verdict::Accepted } else { Verdict::Failed })
//! });
//! let statistics = layer.get_statistics();
//! # let _ = (layer.layer(()), statistics);
//! # Ok(())
//! # }
//! ```
//!
//! To make *fewer* calls, where the service takes an array, see [`coalesce`](crate::coalesce#which-layer-when), which
//! has both side by side.
//!
//! # Groups
//!
//! A group is full when it has had its number of requests, whether they came together or one after another: a
//! caller that sends one request at a time gets two without a pause, then a pause. A group that is not full
//! waits for nobody: what came starts at once. When all of a group have finished and the pause is over, the
//! next request begins a new group.
//!
//! Put it outside of the other layers, so that a call stays in its group while it is retried or falls back;
//! the groups then slow down together with the upstream.
//!
//! # Sharing
//!
//! The line of waiting requests lives in the layer; its clones and all services made from it share it.
//! There is no task and nothing is boxed; waiting needs a tokio runtime with time enabled.
//!
//! # Readiness
//!
//! `poll_ready` is that of the inner service. A call waits in its future, and holds nothing of the inner
//! service while it does.
//!
//! # Cancellation
//!
//! A call that is dropped, waiting or in flight, leaves its group at once. A future that is kept but never
//! polled again holds its group up, as it would hold a mutex.
//!
//! # Errors and panics
//!
//! None of its own; the error type is the inner service's. If the inner service panics, the call leaves its
//! group as if it had been dropped.
//!
//! # Differences from `tower::limit`
//!
//! `ConcurrencyLimit(2)` lets the next call start as soon as one of two has ended, without a pause, and holds its permits
//! in `poll_ready`. `RateLimit` counts calls in a span of time, however long they take. A group is both: so many calls,
//! then a pause, from when the last of them has ended.
//!
//! # Records
//!
//! The time that calls wait for their group is recorded as [`WaitReason::Batch`](crate::WaitReason::Batch).
//! Alone, the layer also counts the calls and how they ended; where it shares its
//! [statistics](MicroBatchLayer::statistics) with an [`AdaptiveCooldown`](crate::AdaptiveCooldown), it leaves
//! that to the cooldown, so that nothing is counted twice; calls that are given up before they come to the
//! cooldown it still counts itself. Share statistics with the cooldown below, and no other; and give both the
//! same [rollout](MicroBatchLayer::rollout), by a key, because it is the cooldown that counts the arms.

pub mod future;
mod layer;
mod line;
mod member;
mod service;

pub use self::{future::ResponseFuture, layer::MicroBatchLayer, service::MicroBatch};

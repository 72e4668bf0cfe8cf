//! What operators see: the books and the gates, as metrics for Prometheus, the `metrics` facade, OpenTelemetry, and as
//! `tracing` events.
//!
//! Exporters read snapshots when they are asked, so calls pay nothing for them. What is exported is a list of
//! [`Source`]s; see there. Metrics, units and labels are a closed list, [`INSTRUMENTS`]:
//!
//! | metric | labels besides `layer` and `provider` |
//! |---|---|
//! | `tower_cooldown.calls` | `outcome`, `error.type` |
//! | `tower_cooldown.call.duration` | |
//! | `tower_cooldown.fallbacks` | `reason`, `result` |
//! | `tower_cooldown.attempts` | `arm`, `outcome` |
//! | `tower_cooldown.attempt.duration`, `.attempt.service.duration` | `arm` |
//! | `tower_cooldown.wait.duration` | `reason` |
//! | `tower_cooldown.slot.slip` | |
//! | `tower_cooldown.cooldowns` | `reason` |
//! | `tower_cooldown.throttled.run` | |
//! | `tower_cooldown.group.duration` | |
//! | `tower_cooldown.batches` | `trigger` |
//! | `tower_cooldown.batch.size`, `.batch.weight`, `.batch.calls`, `.batch.wait.duration` | |
//! | `tower_cooldown.batch.duration` | `outcome` |
//! | `tower_cooldown.gates`, `.gates.closed`, `.keys`, `.keys.evicted`, `.cooldown.remaining` | |
//! | `tower_cooldown.queue.size`, `.queue.capacity`, `.active_requests`, `.rate`, `.rollout` | |
//! | `tower_cooldown.records.overwritten` | |
//! | `gen_ai.client.token.usage`, `.operation.duration` ([if asked for](Source::gen_ai)) | `gen_ai.*` |
//!
//! Prometheus has the same with underscores, the unit (`_seconds`) and `_total`. In the repository there are a dashboard
//! and tested alerts for these names (`grafana/`), and a runbook (`docs/runbook.md`): how to roll out and to go back,
//! symptoms and what to change, and how to find your own thresholds.
//!
//! # Cardinality
//!
//! Labels come from closed lists or are names that you gave; no URL, key, user or error text is among them. The number
//! of series has a bound: 8 stacks (`layer`), in each of them 7 upstreams (`provider`) whose books are apart and 100
//! whose gates are apart. All beyond are added up under the name `_OTHER`. So there are fewer than 4,000 series for
//! each stack (3,937 at worst), and 160 to 400 for one with one upstream. Metrics of layers that a stack does not have are
//! not there.
//!
//! # What is left out
//!
//! Some labels would be of use and have too many series, where a histogram has 14 bounds and so 17 of them:
//!
//! - `outcome` at `call.duration` would add 68 for each book, and 544 to the worst case; at `attempt.duration` 170 and
//!   1,360. Either goes beyond 4,000. Outcomes are counted, by `calls` and `attempts`.
//! - `trigger` at `batch.size` would add 120 for each book, and 960. `batches` has it.
//!
//! And some would say nothing:
//!
//! - A group of a micro-batch is no call, and its members end one by one: how long each took is in `group.duration`.
//! - [`Coalesce`](crate::Coalesce) keeps a key only while requests of it wait or are in flight, so it evicts none. Requests
//!   that find no room for their key are in `batches`, as `alone`.

mod catalog;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod deltas;
mod instrument;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
#[cfg(feature = "opentelemetry")]
#[cfg_attr(docsrs, doc(cfg(feature = "opentelemetry")))]
pub mod opentelemetry;
#[cfg(feature = "prometheus")]
#[cfg_attr(docsrs, doc(cfg(feature = "prometheus")))]
pub mod prometheus;
mod read;
mod reading;
mod source;

pub use self::{
    catalog::INSTRUMENTS,
    instrument::{Buckets, Instrument, Kind, Label, Point, Value},
    source::{Source, Sources},
};

use self::reading::{Emit, Reading};

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
//! | `tower_cooldown.cooldowns` | `reason` |
//! | `tower_cooldown.throttled.run` | |
//! | `tower_cooldown.group.duration` | |
//! | `tower_cooldown.batches` | `trigger` |
//! | `tower_cooldown.batch.size`, `.batch.weight`, `.batch.calls`, `.batch.wait.duration` | |
//! | `tower_cooldown.gates`, `.gates.closed`, `.cooldown.remaining` | |
//! | `tower_cooldown.queue.size`, `.queue.capacity`, `.active_requests`, `.rate`, `.rollout` | |
//! | `gen_ai.client.token.usage`, `.operation.duration` ([if asked for](Source::gen_ai)) | `gen_ai.*` |
//!
//! Prometheus has the same with underscores, the unit (`_seconds`) and `_total`. In the repository there are a dashboard
//! and tested alerts for these names (`grafana/`), and a runbook (`docs/runbook.md`): how to roll out and to go back,
//! symptoms and what to change, and how to find your own thresholds.
//!
//! # Cardinality
//!
//! Labels come from closed lists or are names that you gave; no URL, key, user or error text is among them. The number
//! of series has a bound: 8 stacks (`layer`), in each of them 8 upstreams (`provider`) whose books are apart and 100
//! whose gates are apart. All beyond are added up under the name `_OTHER`. So there are fewer than 4,000 series for
//! each stack, and 150 to 350 for one with one upstream. Metrics of layers that a stack does not have are not there.

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

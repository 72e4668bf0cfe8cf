//! The facade of the crate [`metrics`](https://docs.rs/metrics).
//!
//! ```
//! use tower_cooldown::export::{Source, Sources, metrics::Exporter};
//! # let statistics = tower_cooldown::record::Statistics::new();
//!
//! let sources = Sources::new();
//! sources.add(Source::new("tagging", "gemini").statistics(&statistics));
//! let mut exporter = Exporter::new(&sources);
//! // Every few seconds, or before a scrape is answered:
//! exporter.publish();
//! ```
//!
//! Names are [Prometheus'](super::Instrument::prometheus_name), as most recorders write them out as they are. Counters
//! are set, not added to, so it does not matter how often this runs.
//!
//! The facade takes single values. A distribution is handed on as values that lie in the right buckets, as often as
//! values came since the last time, and with the right sum. Quantiles that a recorder makes of them are as coarse as
//! the buckets; let it make histograms with the bounds of [`INSTRUMENTS`].

use super::{INSTRUMENTS, Instrument, Kind, Point, Sources, Value, deltas::Deltas};
use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder};

/// Hands on what its [`Sources`] say. See the [module docs](self).
#[derive(Debug)]
pub struct Exporter {
    sources: Sources,
    deltas: Deltas,
}

impl Exporter {
    /// Of these sources, and of those that are added to them later. Make one for each list, when the program starts:
    /// distributions would be counted twice by two, and count from when it is made.
    pub fn new(sources: &Sources) -> Self {
        Self { sources: sources.clone(), deltas: Deltas::since(sources) }
    }

    /// Hands everything on to the recorder that is installed.
    pub fn publish(&mut self) {
        let Self { sources, deltas } = self;
        with_recorder(|recorder| {
            INSTRUMENTS.iter().for_each(|instrument| describe(instrument, recorder));
            deltas.next_round();
            sources.visit(|point| publish(point, deltas, recorder));
        });
    }
}

const METADATA: Metadata<'static> =
    Metadata::new("tower_cooldown", Level::INFO, Some("tower_cooldown::export::metrics"));

fn publish(point: &Point<'_>, deltas: &mut Deltas, recorder: &dyn Recorder) {
    let labels: Vec<Label> = point
        .labels
        .iter()
        .map(|(name, value)| Label::new(name.replace('.', "_"), (*value).to_owned()))
        .collect();
    let key = Key::from_parts(point.instrument.prometheus_name(), labels);
    match (point.value, point.instrument.kind) {
        (Value::Count(count), Kind::Counter) => recorder.register_counter(&key, &METADATA).absolute(count),
        (Value::Count(count), _) => recorder.register_gauge(&key, &METADATA).set(count as f64),
        (Value::Level(level), _) => recorder.register_gauge(&key, &METADATA).set(level),
        (Value::Buckets(_), _) => {
            let histogram = recorder.register_histogram(&key, &METADATA);
            deltas.take(point, |value, count| {
                histogram.record_many(value, usize::try_from(count).unwrap_or(usize::MAX));
            });
        }
    }
}

fn describe(instrument: &Instrument, recorder: &dyn Recorder) {
    let name = KeyName::from(instrument.prometheus_name());
    let unit = Some(if instrument.unit == "s" { Unit::Seconds } else { Unit::Count });
    let help = SharedString::const_str(instrument.help);
    match instrument.kind {
        Kind::Counter => recorder.describe_counter(name, unit, help),
        Kind::UpDownCounter | Kind::Gauge => recorder.describe_gauge(name, unit, help),
        Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
    }
}

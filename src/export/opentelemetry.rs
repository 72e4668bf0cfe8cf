//! OpenTelemetry metrics, through any SDK that implements its API.
//!
//! ```
//! use opentelemetry::global;
//! use tower_cooldown::export::{Source, Sources, opentelemetry as otel};
//! # let statistics = tower_cooldown::record::Statistics::new();
//!
//! let sources = Sources::new();
//! sources.add(Source::new("tagging", "gemini").statistics(&statistics));
//! otel::register(&sources, &global::meter("tower_cooldown")); // once
//! ```
//!
//! Counters and gauges are observed: the SDK asks for them when it collects, and calls pay nothing. Histograms cannot be
//! observed in OpenTelemetry. At each collection those values are recorded that came since the last one, moved inside
//! their bucket, with the right count in each bucket and the right sum; minimum and maximum are as coarse as the buckets.

use super::{INSTRUMENTS, Instrument, Kind, Sources, Value, deltas::Deltas, reading::Readings};
use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lets `meter` ask these sources, and those that are added to them later.
///
/// Once for each list, when the program starts: twice would count twice, and histograms count from then on. There is no way back; take sources off the list instead.
pub fn register(sources: &Sources, meter: &Meter) {
    let histograms = INSTRUMENTS.iter().map(|instrument| histogram(instrument, meter)).collect();
    let collector = Arc::new(Collector {
        sources: sources.clone(),
        histograms,
        round: Mutex::new(Round {
            readings: Readings::default(),
            asked: u64::MAX,
            deltas: Deltas::since(sources),
        }),
    });
    for (index, instrument) in INSTRUMENTS.iter().enumerate() {
        observe(index, instrument, meter, &collector);
    }
}

struct Collector {
    sources: Sources,
    /// Of the instruments that are one.
    histograms: Vec<Option<Histogram<f64>>>,
    round: Mutex<Round>,
}

/// The SDK asks instrument by instrument. All of one collection are told from one reading.
struct Round {
    readings: Readings,
    /// A bit for each instrument that was told from it.
    asked: u64,
    deltas: Deltas,
}

const _: () = assert!(INSTRUMENTS.len() < u64::BITS as usize);

impl Collector {
    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, index: usize, mut tell: impl FnMut(Value<'_>, &[KeyValue])) {
        let mut round = self.round();
        // Who is asked again is in another collection.
        if round.asked & (1 << index) != 0 {
            round.readings = self.sources.read();
            round.asked = 0;
            self.record(&mut round);
        }
        round.asked |= 1 << index;
        round.readings.visit(&INSTRUMENTS[index], |point| tell(point.value, &attributes(point.labels)));
    }

    fn record(&self, round: &mut Round) {
        let Round { readings, deltas, .. } = round;
        deltas.next_round();
        for (instrument, histogram) in INSTRUMENTS.iter().zip(&self.histograms) {
            let Some(histogram) = histogram else { continue };
            readings.visit(instrument, |point| {
                let attributes = attributes(point.labels);
                deltas.take(point, |value, count| {
                    for _ in 0..count {
                        histogram.record(value, &attributes);
                    }
                });
            });
        }
    }
}

fn attributes(labels: &[(&'static str, &str)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| KeyValue::new(*name, (*value).to_owned())).collect()
}

fn histogram(instrument: &Instrument, meter: &Meter) -> Option<Histogram<f64>> {
    let Kind::Histogram(bounds) = instrument.kind else { return None };
    let builder = meter.f64_histogram(instrument.name).with_description(instrument.help);
    Some(builder.with_unit(instrument.unit).with_boundaries(bounds.to_vec()).build())
}

fn observe(index: usize, instrument: &Instrument, meter: &Meter, collector: &Arc<Collector>) {
    let collector = Arc::clone(collector);
    let Instrument { name, help, unit, .. } = *instrument;
    match instrument.kind {
        Kind::Counter => {
            let builder = meter.u64_observable_counter(name).with_description(help).with_unit(unit);
            let build = builder.with_callback(move |observer| {
                collector.read(index, |value, attributes| {
                    if let Value::Count(count) = value {
                        observer.observe(count, attributes);
                    }
                });
            });
            build.build();
        }
        Kind::UpDownCounter => {
            let builder = meter.i64_observable_up_down_counter(name).with_description(help).with_unit(unit);
            let build = builder.with_callback(move |observer| {
                collector.read(index, |value, attributes| {
                    if let Value::Count(count) = value {
                        observer.observe(count.try_into().unwrap_or(i64::MAX), attributes);
                    }
                });
            });
            build.build();
        }
        Kind::Gauge => {
            let builder = meter.f64_observable_gauge(name).with_description(help).with_unit(unit);
            let build = builder.with_callback(move |observer| {
                collector.read(index, |value, attributes| {
                    if let Value::Level(level) = value {
                        observer.observe(level, attributes);
                    }
                });
            });
            build.build();
        }
        Kind::Histogram(_) => {}
    }
}

//! What all sources say at one moment, with no more names than the budget allows.

use super::{
    Instrument, Point, Sources, Value,
    instrument::Buckets,
    source::{Gate, GenAi, Source},
};
use crate::{
    cooldown::{GateSnapshot, Handle},
    record::{Distribution, Snapshot},
};
use std::{sync::Arc, time::Duration};

/// The most names of stacks.
pub(super) const MAX_LAYERS: usize = 8;
/// The most upstreams of one stack whose books are apart: each has up to 385 series.
pub(super) const MAX_BOOKS: usize = 7;
/// The most upstreams of one stack whose gates are apart.
pub(super) const MAX_GATES: usize = 100;
/// The name of all that are beyond.
pub(super) const OTHER: &str = "_OTHER";

/// One upstream of one stack.
pub(super) struct Reading {
    pub(super) layer: Arc<str>,
    pub(super) provider: Arc<str>,
    pub(super) book: Option<Snapshot>,
    pub(super) gate: Option<GateReading>,
    pub(super) rollout: Option<u8>,
    pub(super) gen_ai: Option<Arc<GenAi>>,
}

/// One gate, or several added up.
#[derive(Clone, Copy, Default)]
pub(super) struct GateReading {
    pub(super) gates: u64,
    pub(super) closed: u64,
    /// Where there is a gate for each.
    pub(super) keys: Option<u64>,
    pub(super) remaining: Duration,
    pub(super) waiting: u64,
    pub(super) capacity: Option<u64>,
    pub(super) in_flight: u64,
    pub(super) rate: Option<f64>,
}

impl GateReading {
    fn of(gate: &GateSnapshot) -> Self {
        Self {
            gates: 1,
            keys: None,
            closed: gate.closed_for.is_some().into(),
            remaining: gate.closed_for.unwrap_or_default(),
            waiting: gate.waiting as u64,
            capacity: gate.max_waiting.map(|max| max as u64),
            in_flight: gate.in_flight as u64,
            rate: gate.rate,
        }
    }

    fn add(&mut self, other: &Self) {
        self.gates += other.gates;
        self.keys = sum(self.keys, other.keys, |a, b| a + b);
        self.closed += other.closed;
        self.remaining = self.remaining.max(other.remaining);
        self.waiting += other.waiting;
        self.capacity = sum(self.capacity, other.capacity, |a, b| a + b);
        self.in_flight += other.in_flight;
        self.rate = sum(self.rate, other.rate, |a, b| a + b);
    }
}

fn sum<T>(a: Option<T>, b: Option<T>, add: fn(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(add(a, b)),
        (a, b) => a.or(b),
    }
}

impl Gate {
    pub(super) fn read(&self) -> GateReading {
        match self {
            Self::One(handle) => GateReading::of(&Handle::snapshot(handle)),
            #[cfg(feature = "keyed")]
            Self::Keyed(handle) => {
                let mut all = GateReading::default();
                handle.for_each(|gate| all.add(&GateReading::of(gate)));
                // All but the one for keys without room.
                all.keys = Some(all.gates - 1);
                all
            }
        }
    }
}

/// How much of the budget of one stack is used.
struct Used {
    layer: Arc<str>,
    books: usize,
    gates: usize,
    other: Option<Reading>,
}

impl Used {
    fn other(&mut self) -> &mut Reading {
        let layer = &self.layer;
        self.other.get_or_insert_with(|| Reading::new(Arc::clone(layer), Arc::from(OTHER)))
    }
}

impl Reading {
    const fn new(layer: Arc<str>, provider: Arc<str>) -> Self {
        Self { layer, provider, book: None, gate: None, rollout: None, gen_ai: None }
    }
}

impl Sources {
    pub(super) fn read(&self) -> Readings {
        let mut layers: Vec<Used> = Vec::new();
        let mut readings = Vec::new();
        for source in self.list() {
            let known = layers.iter().position(|used| used.layer == source.layer);
            let used = match known {
                Some(known) => &mut layers[known],
                None => {
                    // The last one is for all stacks that are too many.
                    let layer =
                        if layers.len() < MAX_LAYERS { source.layer.clone() } else { Arc::from(OTHER) };
                    if layers.len() <= MAX_LAYERS {
                        layers.push(Used { layer, books: 0, gates: 0, other: None });
                    }
                    layers.last_mut().expect("there is one")
                }
            };
            read_source(source, used, &mut readings);
        }
        readings.extend(layers.into_iter().filter_map(|used| used.other));
        Readings(readings)
    }

    /// Shows every number of every source to `show`, instrument by instrument, in the order of
    /// [`INSTRUMENTS`](super::INSTRUMENTS): for formats of your own.
    pub fn visit(&self, mut show: impl FnMut(&Point<'_>)) {
        let readings = self.read();
        for instrument in super::INSTRUMENTS {
            readings.visit(instrument, &mut show);
        }
    }
}

/// What all sources said.
#[derive(Default)]
pub(super) struct Readings(Vec<Reading>);

impl Readings {
    pub(super) fn visit(&self, instrument: &'static Instrument, mut show: impl FnMut(&Point<'_>)) {
        for reading in &self.0 {
            (instrument.read)(reading, &mut Emit { instrument, reading, show: &mut show });
        }
    }
}

fn read_source(source: Source, used: &mut Used, readings: &mut Vec<Reading>) {
    let is_other = *used.layer == *OTHER;
    let mut reading = Reading::new(source.layer, source.provider);
    if let Some(book) = source.statistics.map(|statistics| statistics.snapshot()) {
        if is_other || used.books == MAX_BOOKS {
            let other = used.other();
            other.book = Some(other.book.as_ref().map_or_else(|| book.clone(), |sum| sum.plus(&book)));
        } else {
            used.books += 1;
            (reading.book, reading.gen_ai) = (Some(book), source.gen_ai);
        }
    }
    if let Some(gate) = source.gate.map(|gate| gate.read()) {
        if is_other || used.gates == MAX_GATES {
            used.other().gate.get_or_insert_default().add(&gate);
        } else {
            used.gates += 1;
            reading.gate = Some(gate);
        }
    }
    reading.rollout = source.rollout.map(|rollout| rollout.get());
    if reading.book.is_some() || reading.gate.is_some() {
        readings.push(reading);
    }
}

/// Where an instrument puts what it reads.
pub(super) struct Emit<'a> {
    instrument: &'static Instrument,
    reading: &'a Reading,
    show: &'a mut dyn FnMut(&Point<'_>),
}

/// As many labels as an instrument may have, and as many bounds.
const MAX_LABELS: usize = 8;
const MAX_BUCKETS: usize = 20;

impl Emit<'_> {
    pub(super) fn count(&mut self, labels: &[(&'static str, &str)], count: u64) {
        self.emit(labels, Value::Count(count));
    }

    pub(super) fn level(&mut self, labels: &[(&'static str, &str)], level: f64) {
        self.emit(labels, Value::Level(level));
    }

    pub(super) fn times(&mut self, labels: &[(&'static str, &str)], times: &Distribution) {
        let super::Kind::Histogram(bounds) = self.instrument.kind else { return };
        let mut counts = [0; MAX_BUCKETS];
        let counts = &mut counts[..=bounds.len()];
        times.count_into(bounds, counts);
        self.buckets(labels, counts, times.sum().as_secs_f64());
    }

    pub(super) fn buckets(&mut self, labels: &[(&'static str, &str)], counts: &[u64], sum: f64) {
        self.emit(labels, Value::Buckets(Buckets { counts, sum }));
    }

    fn emit(&mut self, labels: &[(&'static str, &str)], value: Value<'_>) {
        let mut all = [("", ""); MAX_LABELS];
        all[0] = ("layer", &self.reading.layer);
        all[1] = ("provider", &self.reading.provider);
        let named = labels.iter().filter(|(_, value)| !value.is_empty());
        let mut count = 2;
        for (place, label) in all[2..].iter_mut().zip(named) {
            *place = *label;
            count += 1;
        }
        (self.show)(&Point { instrument: self.instrument, labels: &all[..count], value });
    }
}

use super::{Emit, Reading};

/// One metric: what it is called, and what it may say.
///
/// [`INSTRUMENTS`](super::INSTRUMENTS) is the closed list of them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Instrument {
    /// The name by OpenTelemetry's conventions: `tower_cooldown.wait.duration`.
    pub name: &'static str,
    /// What its numbers mean.
    pub kind: Kind,
    /// The unit in the [UCUM](https://ucum.org) notation that OpenTelemetry uses: `s`, `{call}`.
    pub unit: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// The labels besides `layer` and `provider`, which all have.
    pub labels: &'static [Label],
    pub(super) read: fn(&Reading, &mut Emit<'_>),
}

/// What the numbers of an instrument mean.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// Grows, from zero at the start of the program.
    Counter,
    /// How many there are now. The values of several add up.
    UpDownCounter,
    /// A value now.
    Gauge,
    /// A distribution, in buckets up to these bounds and one more.
    Histogram(&'static [f64]),
}

/// A label and all the values that it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label {
    /// The name by OpenTelemetry's conventions: `error.type`.
    pub name: &'static str,
    /// The values. Empty for those that are told by the user: names.
    pub values: &'static [&'static str],
}

impl Instrument {
    /// The name by Prometheus' conventions: `tower_cooldown_wait_duration_seconds`.
    pub fn prometheus_name(&self) -> String {
        let mut name = self.name.replace('.', "_");
        // As OpenTelemetry's specification maps them; units in braces are not part of a name.
        let suffix = match (self.unit, self.kind) {
            ("s", _) => "_seconds",
            ("1", Kind::Gauge) => "_ratio",
            ("{request}/s", _) => "_per_second",
            _ => "",
        };
        name.push_str(suffix);
        if self.kind == Kind::Counter {
            name.push_str("_total");
        }
        name
    }
}

impl Label {
    pub(super) const fn closed(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, values }
    }

    pub(super) const fn named(name: &'static str) -> Self {
        Self { name, values: &[] }
    }
}

/// One number, or one distribution, of an [`Instrument`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Point<'a> {
    /// What it is of.
    pub instrument: &'static Instrument,
    /// Names and values, in the order of the instrument's labels. A label that has no value is left out.
    pub labels: &'a [(&'static str, &'a str)],
    /// What it says.
    pub value: Value<'a>,
}

/// What a [`Point`] says.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Of a counter or of something that is counted now.
    Count(u64),
    /// Of a gauge.
    Level(f64),
    /// Of a histogram.
    Buckets(Buckets<'a>),
}

/// A distribution, as a histogram with fixed bounds.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Buckets<'a> {
    /// How many are in each bucket, not added up; one more than there are bounds.
    pub counts: &'a [u64],
    /// All values together, in the instrument's unit.
    pub sum: f64,
}

impl Buckets<'_> {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

//! Prometheus' text format.
//!
//! ```
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer,
//!     export::{Source, Sources, prometheus},
//!     record::Statistics,
//! };
//!
//! let statistics = Statistics::new();
//! let layer = AdaptiveCooldownLayer::new().statistics(&statistics);
//! let sources = Sources::new();
//! sources.add(Source::new("tagging", "gemini").statistics(&statistics).gate(&layer.handle()));
//!
//! // In the handler of `GET /metrics`:
//! let exporter = prometheus::Exporter::new(&sources);
//! let (content_type, body) = (prometheus::CONTENT_TYPE, exporter.text());
//! assert!(body.contains(r#"tower_cooldown_queue_size{layer="tagging",provider="gemini"} 0"#));
//! # let _ = content_type;
//! ```

use super::{Kind, Point, Sources, Value};
use std::fmt::{self, Write};

/// The `Content-Type` of [`Exporter::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes what its [`Sources`] say. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Exporter {
    sources: Sources,
}

impl Exporter {
    /// Of these sources, and of those that are added to them later.
    pub fn new(sources: &Sources) -> Self {
        Self { sources: sources.clone() }
    }

    /// All metrics now, in version 0.0.4 of the text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a String takes everything");
        text
    }

    /// Writes the same to `out`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> fmt::Result {
        let mut writer = Writer { out, labels: String::new(), last: "", name: String::new() };
        let mut result = Ok(());
        self.sources.visit(|point| {
            if result.is_ok() {
                result = writer.point(point);
            }
        });
        result
    }
}

struct Writer<'a, W> {
    out: &'a mut W,
    /// Of the present point, as `layer="…",provider="…"`.
    labels: String,
    /// Name and Prometheus' name of the present instrument.
    last: &'static str,
    name: String,
}

impl<W: Write> Writer<'_, W> {
    fn point(&mut self, point: &Point<'_>) -> fmt::Result {
        let instrument = point.instrument;
        if self.last != instrument.name {
            self.last = instrument.name;
            self.name = instrument.prometheus_name();
            let kind = match instrument.kind {
                Kind::Counter => "counter",
                Kind::UpDownCounter | Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let name = &self.name;
            writeln!(self.out, "# HELP {name} {}\n# TYPE {name} {kind}", instrument.help)?;
        }
        self.labels.clear();
        for (index, (name, value)) in point.labels.iter().enumerate() {
            if index > 0 {
                self.labels.push(',');
            }
            self.labels.extend(name.chars().map(|c| if c == '.' { '_' } else { c }));
            self.labels.push_str("=\"");
            escape(value, &mut self.labels);
            self.labels.push('"');
        }
        let Self { out, labels, name, .. } = self;
        match (point.value, instrument.kind) {
            (Value::Count(count), _) => writeln!(out, "{name}{{{labels}}} {count}"),
            (Value::Level(level), _) => writeln!(out, "{name}{{{labels}}} {level}"),
            (Value::Buckets(buckets), Kind::Histogram(bounds)) => {
                let mut count = 0;
                let bounds = bounds.iter().copied().chain([f64::INFINITY]);
                for (bucket, bound) in buckets.counts.iter().zip(bounds) {
                    count += bucket;
                    if bound.is_finite() {
                        writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
                    } else {
                        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
                    }
                }
                writeln!(out, "{name}_sum{{{labels}}} {}", buckets.sum)?;
                writeln!(out, "{name}_count{{{labels}}} {count}")
            }
            (Value::Buckets(_), _) => Ok(()),
        }
    }
}

fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

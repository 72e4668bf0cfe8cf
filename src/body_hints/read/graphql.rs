//! GraphQL, and Shopify's costs in it. The codes themselves are among the [`words`](super::words).

use super::{Found, Object, amount, objects, text};
use crate::signal::{Reading, Unit, Verdict};
use serde_json::Value;
use std::time::Duration;

pub(super) fn read(object: &Object, found: &mut Found) {
    let cost = object.get("extensions").and_then(|extensions| extensions.get("cost"));
    let Some(cost) = cost.and_then(Value::as_object) else { return };
    let Some(bucket) = cost.get("throttleStatus").and_then(Bucket::read) else { return };
    found.reading(bucket.reading());

    // Older answers have the message only.
    let throttled =
        objects(object, "errors").any(|error| text(error, "message").is_some_and(|m| m == "Throttled"));
    if throttled {
        found.verdict(Verdict::Throttled);
    }
    if found.verdict == Some(Verdict::Throttled) {
        match cost.get("requestedQueryCost").and_then(amount_of_points) {
            // The bucket never holds that much.
            Some(cost) if cost > bucket.size => found.verdict(Verdict::Refused),
            Some(cost) => found.wait(bucket.time_for(cost - bucket.left)),
            None => {}
        }
    }
}

/// A leaky bucket of points.
struct Bucket {
    size: f64,
    left: f64,
    /// Points per second.
    rate: f64,
}

impl Bucket {
    fn read(status: &Value) -> Option<Self> {
        let points = |key: &str| amount_of_points(status.get(key)?);
        let (size, rate) = (points("maximumAvailable")?, points("restoreRate")?);
        // What is left may be below zero, after a call that cost more than was thought.
        let left = status.get("currentlyAvailable")?.as_f64().filter(|left| *left <= size)?;
        (size >= 1.0 && rate > 0.0).then_some(Self { size, left: left.max(0.0), rate })
    }

    fn reading(&self) -> Reading {
        let mut reading = Reading::new(Unit::Other);
        reading.limit = Some(self.size as u64);
        reading.remaining = Some(self.left as u64);
        reading.reset = self.time_for(self.size - self.left);
        reading.window = self.time_for(self.size);
        reading
    }

    /// How long it takes until so many more are there.
    fn time_for(&self, points: f64) -> Option<Duration> {
        amount::number(&Value::from(points.max(0.0) / self.rate), amount::SECOND)
    }
}

fn amount_of_points(value: &Value) -> Option<f64> {
    value.as_f64().filter(|points| (0.0..1e12).contains(points))
}

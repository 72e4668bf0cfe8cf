//! What responses say about limits: every row of what standards and vendors send, with its exact text, and the rules by
//! which one goes before another.

#[path = "signals/fields.rs"]
mod fields;
#[path = "signals/junk.rs"]
mod junk;
#[path = "signals/rules.rs"]
mod rules;

use http::Response;
use std::{convert::Infallible, time::Duration};
use tower_cooldown::signal::{Classify, HttpClassifier, Reading, Signal};

/// The clock of the answers that have one: Wed, 21 Oct 2015 07:28:00 GMT.
const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
const EPOCH: u64 = 1_445_412_480;

fn read(status: u16, headers: &[(&str, &str)]) -> Signal {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    HttpClassifier::new().classify(Ok::<_, &Infallible>(&response.body(()).unwrap()))
}

/// The same with a `Date`.
fn read_dated(status: u16, headers: &[(&str, &str)]) -> Signal {
    let mut all = vec![("date", DATE)];
    all.extend(headers);
    read(status, &all)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Limit, remaining, reset and window of a reading.
type Numbers = (Option<u64>, Option<u64>, Option<Duration>, Option<Duration>);

fn numbers(reading: &Reading) -> Numbers {
    (reading.limit, reading.remaining, reading.reset, reading.window)
}

/// The only reading.
fn one(signal: &Signal) -> Numbers {
    let [reading] = signal.hints.readings.as_slice() else { panic!("one reading: {signal:?}") };
    numbers(reading)
}

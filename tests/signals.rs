//! What responses say about limits: every row of what standards and vendors send, with its exact text, and the rules by
//! which one goes before another.

#[path = "signals/differential.rs"]
mod differential;
#[path = "signals/fields.rs"]
mod fields;
#[path = "signals/ietf.rs"]
mod ietf;
#[path = "signals/junk.rs"]
mod junk;
#[path = "signals/other_vendors.rs"]
mod other_vendors;
#[path = "signals/own_rules.rs"]
mod own_rules;
#[path = "signals/rules.rs"]
mod rules;
#[cfg(feature = "testing")]
mod support;
#[cfg(feature = "testing")]
#[path = "signals/told.rs"]
mod told;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use std::{convert::Infallible, time::Duration};
use tower_cooldown::signal::{Classify, HttpClassifier, Reading, Signal, Unit};

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

fn one_reading(signal: &Signal) -> Reading {
    let [reading] = signal.hints.readings.as_slice() else { panic!("one reading: {signal:?}") };
    *reading
}

/// All readings, without their keys.
fn told(signal: &Signal) -> Vec<(Unit, Numbers)> {
    signal.hints.readings.into_iter().map(|reading| (reading.unit, numbers(reading))).collect()
}

/// What is made of an answer with these fields.
fn answer(status: u16, fields: &str) -> Signal {
    HttpClassifier::new().classify(Ok::<_, &Infallible>(&response(status, fields)))
}

/// An answer with these fields, given as they stand on the wire: `name: value`, a line each.
fn response(status: u16, fields: &str) -> Response<()> {
    let mut response = Response::builder().status(status).body(()).unwrap();
    let lines = fields.lines().map(str::trim).filter(|line| !line.is_empty());
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a colon");
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.trim()).unwrap())
    });
    *response.headers_mut() = fields.collect::<HeaderMap>();
    response
}

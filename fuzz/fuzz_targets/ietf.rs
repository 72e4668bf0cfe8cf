//! Any lines of `RateLimit` and `RateLimit-Policy`: what is told is what one of the items says, the first item is always
//! told, and of a malformed field nothing is.
//!
//! The input is a line for each field; those that begin with `p` are `RateLimit-Policy`, the others `RateLimit`, without
//! that first letter.

#![no_main]

use http::{HeaderValue, Response};
use libfuzzer_sys::fuzz_target;
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parser};
use std::{convert::Infallible, time::Duration};
use tower_cooldown::signal::{Classify, HttpClassifier, Reading, Readings};

const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// More lines of one field are not read, and more items of one field either.
const LINES: usize = 4;
const ITEMS: usize = 8;

fn items(line: &str) -> Option<Vec<Item>> {
    let list: List = Parser::new(line).parse().ok()?;
    list.into_iter().map(|entry| if let ListEntry::Item(item) = entry { Some(item) } else { None }).collect()
}

fn count(value: Option<&BareItem>) -> Option<u64> {
    if let BareItem::Integer(value) = value? { u64::try_from(i64::from(*value)).ok() } else { None }
}

/// What is left, and until when.
fn limit(item: &Item) -> Option<(u64, Option<Duration>)> {
    matches!(item.bare_item, BareItem::String(_) | BareItem::Token(_)).then_some(())?;
    let reset = count(item.params.get("t")).map(|reset| Duration::from_secs(reset).min(LONGEST));
    Some((count(item.params.get("r"))?, reset))
}

fn says(reading: &Reading, told: (u64, Option<Duration>)) -> bool {
    (reading.remaining, reading.reset) == (Some(told.0), told.1)
}

fuzz_target!(|text: &str| {
    let mut response = Response::new(());
    let (mut limits, mut policies) = (Vec::new(), Vec::new());
    for line in text.split('\n').take(2 * LINES) {
        let (name, line) = match line.strip_prefix('p') {
            Some(line) => ("ratelimit-policy", line),
            None => ("ratelimit", line.get(1..).unwrap_or_default()),
        };
        // What cannot be sent, and what is nothing once it is trimmed, is not told.
        let Ok(value) = HeaderValue::from_str(line) else { continue };
        let Some(line) = value.to_str().ok().map(|line| line.trim_matches([' ', '\t'])) else { continue };
        if line.is_empty() {
            continue;
        }
        let lines = if name == "ratelimit" { &mut limits } else { &mut policies };
        lines.push(line.to_owned());
        response.headers_mut().append(name, value);
    }
    limits.truncate(LINES);
    policies.truncate(LINES);

    let signal = HttpClassifier::new().classify(Ok::<_, &Infallible>(&response));
    let readings = signal.hints.readings;
    assert!(readings.as_slice().len() <= Readings::MAX);

    let policies: Vec<Item> =
        policies.iter().map(|line| items(line)).collect::<Option<Vec<_>>>().unwrap_or_default().concat();
    let quotas: Vec<u64> = policies
        .iter()
        .filter_map(|policy| match policy.params.get("q") {
            Some(q) => count(Some(q)),
            None => count(Some(&policy.bare_item)),
        })
        .collect();
    let listed = limits.iter().map(|line| items(line)).collect::<Option<Vec<_>>>();
    let Some(listed) = listed.map(|listed| listed.concat()) else {
        // Draft 07: a dictionary of one counter. Or nothing.
        let read: Option<Dictionary> = Parser::new(&limits[0]).parse().ok();
        let field = |name: &str| match read.as_ref()?.get(name)? {
            ListEntry::Item(item) => count(Some(&item.bare_item)),
            ListEntry::InnerList(_) => None,
        };
        for reading in &readings {
            assert_eq!(reading.remaining, field("remaining"), "{limits:?}");
            assert_eq!(reading.limit, field("limit"), "{limits:?}");
            let reset = field("reset").map(|reset| Duration::from_secs(reset).min(LONGEST));
            assert_eq!(reading.reset, reset, "{limits:?}");
        }
        assert!(readings.as_slice().len() <= usize::from(field("remaining").is_some()), "{limits:?}");
        return;
    };
    let told: Vec<_> = listed.iter().filter_map(limit).take(ITEMS).collect();
    for reading in &readings {
        assert!(told.iter().any(|told| says(reading, *told)), "{reading:?} of {limits:?}");
        assert!(reading.limit.is_none_or(|limit| quotas.contains(&limit) && limit > 0), "{reading:?}");
        assert!(reading.limit.is_none_or(|limit| limit > 0));
        assert!(reading.window.is_none_or(|window| !window.is_zero() && window <= LONGEST));
    }
    if let Some(first) = told.first().filter(|_| !quotas.contains(&0)) {
        // One with more left takes the last place away from nobody.
        let first = readings.into_iter().any(|reading| says(reading, *first)) || told.len() > Readings::MAX;
        assert!(first, "{limits:?} says {told:?}, and not {readings:?}");
    }
});

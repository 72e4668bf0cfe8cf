//! OpenAI's sentence about a limit, and that of others who answer like it: "Rate limit reached for gpt-4 … on tokens
//! per min (TPM): Limit 10000, Used 8554, Requested 3082. Please try again in 9.816s."

use super::Found;
use crate::signal::{Reading, Unit, Verdict};
use std::time::Duration;

pub(super) fn read(message: &str, found: &mut Found) {
    let Some((unit, window, numbers)) = limit(message) else { return };
    let number = |name: &str| leading_number(numbers.split_once(name)?.1);
    let Some(limit) = number("Limit ").filter(|limit| *limit > 0) else { return };
    if number("Requested ").is_some_and(|requested| requested > limit) {
        // One request for more than the whole quota: it will not pass, however long it waits.
        found.verdict(Verdict::Refused);
    }
    let mut reading = Reading::new(unit);
    (reading.limit, reading.window) = (Some(limit), Some(window));
    reading.remaining = number("Used ").map(|used| limit.saturating_sub(used));
    found.reading(reading);
    if window == DAY && !message.contains("again in ") {
        found.verdict(Verdict::Exhausted);
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn limit(message: &str) -> Option<(Unit, Duration, &str)> {
    [
        ("(RPM): ", Unit::Requests, MINUTE),
        ("(TPM): ", Unit::Tokens, MINUTE),
        ("(RPD): ", Unit::Requests, DAY),
        ("(TPD): ", Unit::Tokens, DAY),
    ]
    .into_iter()
    .find_map(|(name, unit, window)| Some((unit, window, message.split_once(name)?.1)))
}

fn leading_number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

//! What the services tell only in words for people.

use super::{Found, Object, amount, error, objects, openai, text};
use crate::signal::Verdict;
use std::time::Duration;

/// As much of a message as is looked at.
const LONGEST: usize = 4096;

/// GitHub asks for a minute where it says nothing else.
const SECONDARY: Duration = Duration::from_secs(60);

pub(super) fn read(object: &Object, found: &mut Found) {
    let first = objects(object, "errors").next();
    let messages = [
        error(object).and_then(|error| text(error, "message")),
        text(object, "error"),
        text(object, "message"),
        text(object, "detail"),
        first.and_then(|error| text(error, "message")),
    ];
    for message in messages.into_iter().flatten() {
        let end = (0..=message.len().min(LONGEST)).rev().find(|at| message.is_char_boundary(*at));
        let message = &message[..end.unwrap_or(0)];
        openai::read(message, found);
        let message = message.to_ascii_lowercase();
        found.wait(wait(&message));
        if message.contains("secondary rate limit") {
            found.verdict(Verdict::Throttled);
            found.wait(Some(SECONDARY));
        } else if message.contains("api rate limit exceeded") {
            found.verdict(Verdict::Throttled);
        } else if message.contains("credit balance is too low") {
            found.verdict(Verdict::Exhausted);
        }
    }
}

/// "Please try again in 6m0s.", "Please retry in 26.66s.", "Please retry after 86400 seconds."
fn wait(message: &str) -> Option<Duration> {
    ["again in ", "retry in ", "retry after "].iter().find_map(|phrase| {
        let (_, rest) = message.split_once(phrase)?;
        Some(amount::leading_time(rest)?.0)
    })
}

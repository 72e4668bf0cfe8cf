//! What a body says: a pure function of the answer and the time.

mod amount;
mod google;
mod graphql;
mod message;
mod openai;
mod pacific;
mod problem;
mod told;
mod words;

pub(super) use crate::signal::policy_id as policy;
use crate::signal::{BodyHints, Hints, Reading, Readings, Verdict};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime};

type Object = Map<String, Value>;

/// The longest time that is believed, of a quota that nobody waits for: a leap year.
const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads what an answer's body says about limits. `None` where it says nothing that is understood: what is not JSON
/// or XML, is cut off, nested too deep, or not UTF-8.
///
/// `headers` are asked for the `Date`, from which the time to the end of a day is counted (without it, from `now`), and
/// for AWS's `x-amzn-errortype`. A wait that is longer than `max_retry_after` means a quota that is
/// [exhausted](Verdict::Exhausted): the hints then have `max_retry_after` to wait, and all of it in
/// [`exhausted_for`](Hints::exhausted_for). Zero ignores waits.
///
/// In an answer that is no refusal by its status, a wait counts only if the body says that the call was refused.
///
/// It does not panic. Of a body of n bytes it makes a tree of less than 128 n bytes, which is gone when it returns.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use std::time::{Duration, SystemTime};
/// use tower_cooldown::{body_hints::read_body, signal::DEFAULT_MAX_RETRY_AFTER};
///
/// let body = br#"{"error": {"code": 429, "details": [
///     {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.837906927s"}
/// ]}}"#;
/// let (status, headers) = (StatusCode::TOO_MANY_REQUESTS, HeaderMap::new());
/// let told = read_body(status, &headers, body, SystemTime::now(), DEFAULT_MAX_RETRY_AFTER).unwrap();
/// assert_eq!(told.hints.retry_after, Some(Duration::new(45, 837_906_927)));
/// ```
pub fn read_body(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
    max_retry_after: Duration,
) -> Option<BodyHints> {
    let mut found = Found::default();
    words::in_headers(headers, &mut found);
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    match body.first() {
        Some(b'<') => words::in_xml(body, &mut found),
        Some(b'{' | b'[') => {
            let value: Option<Value> = serde_json::from_slice(body).ok();
            if let Some(object) = value.as_ref().and_then(object) {
                let date = headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
                let now = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
                found.read(status, object, now);
            }
        }
        _ => {}
    }
    found.finish(status, max_retry_after)
}

/// The object itself, or the first of a list: Gemini's streams are lists of answers.
fn object(value: &Value) -> Option<&Object> {
    value.as_object().or_else(|| value.as_array()?.first()?.as_object())
}

/// What was found so far. What comes first stands; of verdicts, the gravest.
#[derive(Debug, Default)]
struct Found {
    verdict: Option<Verdict>,
    /// The time to wait.
    wait: Option<Duration>,
    /// The time until an exhausted quota is there again, where no wait says it.
    exhausted_for: Option<Duration>,
    /// No wait cures it, whatever the body says.
    never: bool,
    concurrency: bool,
    readings: Readings,
}

impl Found {
    fn read(&mut self, status: StatusCode, object: &Object, now: SystemTime) {
        words::in_object(status, object, self);
        google::read(object, now, self);
        graphql::read(object, self);
        problem::read(object, self);
        told::read(object, self);
        message::read(object, self);
    }

    fn verdict(&mut self, verdict: Verdict) {
        if self.verdict.is_none_or(|known| gravity(known) < gravity(verdict)) {
            self.verdict = Some(verdict);
        }
    }

    fn wait(&mut self, wait: Option<Duration>) {
        self.wait = self.wait.or(wait);
    }

    fn reading(&mut self, reading: Reading) {
        self.readings.push(reading);
    }

    fn finish(self, status: StatusCode, max: Duration) -> Option<BodyHints> {
        let mut hints = Hints { concurrency: self.concurrency, readings: self.readings, ..Hints::default() };
        let mut verdict = self.verdict;
        let refused = matches!(status.as_u16(), 429 | 503 | 529);
        if verdict.map_or(refused, Verdict::is_pushback) {
            let wait = self.wait.filter(|wait| !wait.is_zero() && !max.is_zero() && !self.never);
            let long = wait.filter(|wait| *wait > max);
            if long.is_some() {
                verdict = Some(Verdict::Exhausted);
            }
            hints.retry_after = wait;
            if verdict == Some(Verdict::Exhausted) {
                // Of a short wait nothing is cured: Google says 22 s where the day's quota is spent.
                hints.exhausted_for = long.or(self.exhausted_for).map(|time| time.min(MAX_TIME));
                hints.retry_after = hints.exhausted_for.map(|time| time.min(max)).filter(|t| !t.is_zero());
            }
        }
        let says_something = verdict.is_some() || hints != Hints::default();
        says_something.then_some(BodyHints { verdict, hints })
    }
}

fn gravity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Exhausted => 4,
        Verdict::Refused => 3,
        Verdict::Overloaded => 2,
        Verdict::Throttled => 1,
        _ => 0,
    }
}

/// Whether a policy of that name is for a day or longer.
fn is_daily(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["perday", "per_day", "per-day", "daily", "permonth", "monthly"].iter().any(|word| name.contains(word))
        || name == "day"
        || name == "month"
}

fn objects<'a>(object: &'a Object, key: &str) -> impl Iterator<Item = &'a Object> + use<'a> {
    object.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

fn text<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

/// The error inside: `error`, or AWS's `Error`.
fn error(object: &Object) -> Option<&Object> {
    object.get("error").or_else(|| object.get("Error"))?.as_object()
}

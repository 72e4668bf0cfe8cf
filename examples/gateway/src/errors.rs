//! Answers that are the gateway's own.

use axum::body::Body as AnyBody;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::json;
use std::{error::Error, fmt, fmt::Write};
use tower::{BoxError, timeout::error::Elapsed};
use tower_cooldown::fallback::FallbackError;

/// An error as JSON, in the shape that most APIs use.
pub(crate) fn answer(status: StatusCode, kind: &str, message: &str) -> Response<AnyBody> {
    let body = json!({ "error": { "type": kind, "message": message } }).to_string();
    let mut response = Response::new(AnyBody::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer where no upstream answered.
pub(crate) fn of_upstream(error: &BoxError) -> Response<AnyBody> {
    if is_timeout(error.as_ref()) {
        return answer(
            StatusCode::GATEWAY_TIMEOUT,
            "gateway_timeout",
            "the upstream took too long; see --timeout",
        );
    }
    // That of the client's body: the upstream has not said anything yet.
    if has_cause(error.as_ref(), |error| error.is::<axum::Error>()) {
        let message = format!("the body cannot be read: {}", chain(error.as_ref()));
        return answer(StatusCode::BAD_REQUEST, "gateway_bad_request", &message);
    }
    let message = format!("the upstream cannot be reached: {}", chain(error.as_ref()));
    answer(StatusCode::BAD_GATEWAY, "gateway_unreachable", &message)
}

/// Why neither of two upstreams answered.
#[derive(Debug)]
struct Neither {
    text: String,
    timeout: bool,
}

pub(crate) fn both(error: FallbackError<BoxError, BoxError>) -> BoxError {
    match error {
        FallbackError::Primary(primary) => primary,
        error => {
            let of = |error: Option<&BoxError>| {
                error.map_or("it could not serve the call".to_owned(), |e| chain(e.as_ref()))
            };
            let text = format!("{}; the fallback: {}", of(error.primary()), of(error.fallback()));
            let timeout = error.fallback().is_some_and(|error| is_timeout(error.as_ref()));
            Box::new(Neither { text, timeout })
        }
    }
}

impl fmt::Display for Neither {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Neither {}

fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    has_cause(error, |error| {
        error.is::<Elapsed>() || error.downcast_ref::<Neither>().is_some_and(|neither| neither.timeout)
    })
}

/// Whether one of the error's causes, itself among them, is such a one.
fn has_cause(error: &(dyn Error + 'static), is_such: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if is_such(error) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The error with its causes: hyper's own text says only that it could not connect.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let this = error.to_string();
        // Some errors print their cause, too.
        if !text.ends_with(&this) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {this}");
        }
        cause = error.source();
    }
    text
}

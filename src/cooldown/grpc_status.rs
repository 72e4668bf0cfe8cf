use super::Reject;
use crate::signal::Rejected;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};

/// Answers as a gRPC server does that refuses a call, in trailers alone: DEADLINE_EXCEEDED where the call's own
/// [deadline](crate::AdaptiveCooldownLayer::deadline) is too soon, else RESOURCE_EXHAUSTED with
/// `grpc-retry-pushback-ms`.
///
/// tonic's clients make a `Status` of it. The [`Rejected`] itself is in the response's extensions, where other layers
/// recognise it.
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcStatus;

const RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");
const DEADLINE_EXCEEDED: HeaderValue = HeaderValue::from_static("4");

impl<B: Default, Err> Reject<Response<B>, Err> for GrpcStatus {
    fn reject(&self, rejected: Rejected) -> Result<Response<B>, Err> {
        let mut response = Response::new(B::default());
        *response.headers_mut() = head(rejected);
        response.extensions_mut().insert(rejected);
        Ok(response)
    }
}

fn head(rejected: Rejected) -> HeaderMap {
    // Rounded up, as a caller that comes a moment too early comes in vain.
    let millis = rejected.retry_after.as_nanos().div_ceil(1_000_000);
    let (status, message) = if rejected.past_deadline {
        (DEADLINE_EXCEEDED, format!("not sent: it would have to wait for {millis} ms"))
    } else {
        (RESOURCE_EXHAUSTED, format!("not sent: a call could leave in {millis} ms"))
    };
    let mut head = HeaderMap::with_capacity(4);
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.insert("grpc-status", status);
    if let Ok(message) = message.try_into() {
        head.insert("grpc-message", message);
    }
    if !rejected.past_deadline {
        // gRPC reads 32 bits with a sign; more than that would be "never".
        head.insert("grpc-retry-pushback-ms", HeaderValue::from(i32::try_from(millis).unwrap_or(i32::MAX)));
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Classify, HttpClassifier, Verdict};
    use std::{convert::Infallible, time::Duration};

    #[test]
    fn the_status_says_which_bound_it_was() {
        for (past_deadline, status, pushback) in [(true, "4", None), (false, "8", Some("1501"))] {
            let mut rejected = Rejected::new(Duration::from_micros(1_500_001));
            rejected.past_deadline = past_deadline;
            let response: Result<Response<()>, Infallible> = GrpcStatus.reject(rejected);
            let field = |name: &str| {
                response.as_ref().unwrap().headers().get(name).map(|value| value.to_str().unwrap())
            };
            assert_eq!((field("grpc-status"), field("grpc-retry-pushback-ms")), (Some(status), pushback));
            assert!(field("grpc-message").is_some_and(|message| message.contains("1501 ms")));
            let signal = HttpClassifier::new().classify(response.as_ref());
            assert_eq!(signal.verdict, Verdict::Rejected);
        }
    }

    #[test]
    fn a_wait_of_months_is_not_read_as_never() {
        let head = head(Rejected::new(Duration::MAX));
        assert_eq!(head["grpc-retry-pushback-ms"], "2147483647");
    }
}

use http::Request;
use std::time::Duration;

/// Says how much time a call has left, so that one which would wait for longer is rejected at once. See
/// [`deadline`](crate::AdaptiveCooldownLayer::deadline).
///
/// Implemented by [`GrpcTimeout`], and by every closure `Fn(&Request) -> Option<Duration>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot read the time that a `{Req}` has left",
    note = "`GrpcTimeout` reads it from an `http::Request<B>`",
    note = "for others, give the layer a closure: `.deadline(|request: &Req| -> Option<Duration> {{ .. }})`"
)]
pub trait TimeLeft<Req> {
    /// From now on; `None` for a call without a deadline. Asked when the call has to wait, outside of every lock.
    fn time_left(&self, request: &Req) -> Option<Duration>;
}

impl<F, Req> TimeLeft<Req> for F
where
    F: Fn(&Req) -> Option<Duration>,
{
    fn time_left(&self, request: &Req) -> Option<Duration> {
        self(request)
    }
}

/// No call has a deadline: what a layer assumes that was told nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDeadline;

impl<Req> TimeLeft<Req> for NoDeadline {
    #[inline]
    fn time_left(&self, _: &Req) -> Option<Duration> {
        None
    }
}

/// Reads gRPC's `grpc-timeout` field, as tonic's `Request::set_timeout` writes it. A field that is not as gRPC
/// describes it says nothing.
///
/// ```
/// use http::Request;
/// use std::time::Duration;
/// use tower_cooldown::cooldown::{GrpcTimeout, TimeLeft};
///
/// # fn main() -> Result<(), http::Error> {
/// let request = Request::builder().header("grpc-timeout", "250m").body(())?;
/// assert_eq!(GrpcTimeout.time_left(&request), Some(Duration::from_millis(250)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcTimeout;

impl<B> TimeLeft<Request<B>> for GrpcTimeout {
    fn time_left(&self, request: &Request<B>) -> Option<Duration> {
        parse(request.headers().get("grpc-timeout")?.to_str().ok()?)
    }
}

/// At most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grpc_writes() {
        for (text, time) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789m", None),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("1é", None),
        ] {
            assert_eq!(parse(text), time, "{text}");
        }
    }
}

use super::{
    BodyHints, DEFAULT_MAX_RETRY_AFTER, Hints, HttpResponse, Rejected, Signal, Verdict, read::Answer,
};
use std::{
    any::{Any, type_name},
    error::Error,
    fmt,
    time::Duration,
};

/// Reads a [`Signal`] from the result of one call.
///
/// Implemented by [`HttpClassifier`], by [`HttpClassifier::with`] a rule of your own, and by every closure
/// `Fn(Result<&Response, &Error>) -> Signal`, for responses that are not HTTP. A closure does not
/// [`attach`](Self::attach) anything, so with one there is no [`Usage`](crate::record::Usage), and a call outside
/// a rollout is retried like others.
///
/// It is called once per attempt, when the response's head has arrived, outside of every lock.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot read a `Result<{Res}, {Err}>`",
    note = "`HttpClassifier` reads responses that implement `HttpResponse`, such as `http::Response<B>`",
    note = "for others, give the layer a closure: `.classify(|result: Result<&Res, &Err>| Signal::new(..))`"
)]
pub trait Classify<Res, Err> {
    /// What this result says.
    fn classify(&self, result: Result<&Res, &Err>) -> Signal;

    /// What this result says where it is known what happened: [`WithRule`] asks this of the classifier below, so
    /// that a rule need not read the server's hints itself. By default the hints of [`classify`](Self::classify).
    fn classify_as(&self, result: Result<&Res, &Err>, verdict: Verdict) -> Signal {
        let mut signal = self.classify(result);
        signal.verdict = verdict;
        signal
    }

    /// Puts something into the response's extensions, if it has any: a [`Usage`](crate::record::Usage) where
    /// the layer was told to [`track_usage`](crate::AdaptiveCooldownLayer::track_usage), or [`Bypassed`].
    /// Does nothing by default.
    fn attach<T: Clone + Send + Sync + 'static>(&self, response: &mut Res, extension: T) {
        let _ = (response, extension);
    }
}

impl<F, Res, Err> Classify<Res, Err> for F
where
    F: Fn(Result<&Res, &Err>) -> Signal,
{
    fn classify(&self, result: Result<&Res, &Err>) -> Signal {
        self(result)
    }
}

/// Marks, in a response's extensions, an answer to a call outside the [`Rollout`](crate::Rollout).
///
/// There was no gate before that call and there will be none before the next, so
/// [`RetryPolicy`](crate::retry::RetryPolicy), which leaves the waiting to the gate, does not retry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bypassed;

/// The default classifier: by HTTP status, by the fields in which services tell of their limits, and by what a layer
/// further in has read from the body ([`BodyHints`]). See the [module docs](super) for the rules, and
/// [`services`](super::services) for what is read.
///
/// Errors are [`Verdict::Failed`], except a [`Rejected`], which stays [`Verdict::Rejected`]: as it stands, or
/// anywhere in the source chain of a `BoxError`. Into an error type of your own it cannot look; tell it how with
/// a [rule](HttpClassifier::with).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpClassifier {
    max_retry_after: Duration,
}

impl HttpClassifier {
    /// A classifier with the default cap on waits (ten minutes).
    pub const fn new() -> Self {
        Self { max_retry_after: DEFAULT_MAX_RETRY_AFTER }
    }

    /// The longest wait that is worth waiting for. A server that asks for more means a quota that is
    /// [exhausted](Verdict::Exhausted): the gate closes for this long, and the call is not retried. Default:
    /// [`DEFAULT_MAX_RETRY_AFTER`]. Zero ignores all waits that servers ask for.
    #[must_use]
    pub const fn max_retry_after(mut self, max: Duration) -> Self {
        self.max_retry_after = max;
        self
    }

    /// This classifier, with a rule of your own that comes first; more than one, and the last comes first of all.
    /// Where the rule says `None`, it goes on as usual.
    ///
    /// The rule says what happened. Hints that it does not give are read from the response as usual: with this
    /// rule, `Retry-After` counts in an answer with the status 430, too.
    ///
    /// ```
    /// use http::Response;
    /// use tower_cooldown::signal::{HttpClassifier, Signal, Verdict};
    ///
    /// let classifier = HttpClassifier::new().with(|result: Result<&Response<String>, &std::io::Error>| {
    ///     (result.ok()?.status().as_u16() == 430).then(|| Signal::new(Verdict::Throttled))
    /// });
    /// # let _ = classifier;
    /// ```
    ///
    /// A header field is no more:
    ///
    /// ```
    /// use http::Response;
    /// use std::time::Duration;
    /// use tower_cooldown::signal::{HttpClassifier, Signal, Verdict};
    ///
    /// let classifier = HttpClassifier::new().with(|result: Result<&Response<String>, &std::io::Error>| {
    ///     let seconds = result.ok()?.headers().get("x-slow-down")?.to_str().ok()?.parse::<u8>().ok()?;
    ///     Some(Signal::new(Verdict::Throttled).retry_after(Duration::from_secs(seconds.into())))
    /// });
    /// # let _ = classifier;
    /// ```
    ///
    /// The rule is not asked where the classifier itself has found a [`Rejected`]. For one inside an error type of
    /// your own it is the place to say so:
    ///
    /// ```
    /// use http::Response;
    /// use tower_cooldown::{
    ///     Rejected,
    ///     signal::{HttpClassifier, Signal, Verdict},
    /// };
    ///
    /// enum MyError {
    ///     Rejected(Rejected),
    ///     Http(std::io::Error),
    /// }
    ///
    /// let classifier = HttpClassifier::new().with(|result: Result<&Response<String>, &MyError>| match result {
    ///     Err(MyError::Rejected(rejected)) => {
    ///         Some(Signal::new(Verdict::Rejected).retry_after(rejected.retry_after))
    ///     }
    ///     _ => None,
    /// });
    /// # let _ = (classifier, MyError::Http);
    /// ```
    pub const fn with<F>(self, rule: F) -> WithRule<F> {
        WithRule { base: self, rule }
    }

    #[inline]
    fn read<Res: HttpResponse>(&self, response: &Res, ruled: Option<Verdict>) -> Signal {
        let (status, extensions) = (response.status(), response.extensions());
        let is_refusal = || status.as_u16() >= 400 || response.headers().contains_key("grpc-status");
        if let Some(rejected) = extensions.get::<Rejected>().filter(|_| is_refusal()) {
            return Signal::new(Verdict::Rejected).status(status).retry_after(rejected.retry_after);
        }
        let answer = Answer {
            status,
            headers: response.headers(),
            body: extensions.get::<BodyHints>(),
            ruled,
            cap: self.max_retry_after,
            bypassed: extensions.get::<Bypassed>().is_some(),
        };
        answer.read()
    }

    #[inline]
    fn judge<Res: HttpResponse, Err: 'static>(
        &self,
        result: Result<&Res, &Err>,
        ruled: Option<Verdict>,
    ) -> Signal {
        match result {
            Ok(response) => self.read(response, ruled),
            Err(error) => match find_rejected(error) {
                Some(rejected) => Signal::new(Verdict::Rejected).retry_after(rejected.retry_after),
                None => Signal::new(ruled.unwrap_or(Verdict::Failed)),
            },
        }
    }
}

impl Default for HttpClassifier {
    fn default() -> Self {
        Self::new()
    }
}

impl<Res: HttpResponse, Err: 'static> Classify<Res, Err> for HttpClassifier {
    #[inline]
    fn classify(&self, result: Result<&Res, &Err>) -> Signal {
        self.judge(result, None)
    }

    fn classify_as(&self, result: Result<&Res, &Err>, verdict: Verdict) -> Signal {
        self.judge(result, Some(verdict))
    }

    fn attach<T: Clone + Send + Sync + 'static>(&self, response: &mut Res, extension: T) {
        response.extensions_mut().insert(extension);
    }
}

/// A rule on top of a classifier. Made by [`HttpClassifier::with`].
#[derive(Clone, Copy)]
pub struct WithRule<F, B = HttpClassifier> {
    base: B,
    rule: F,
}

impl<F, B> WithRule<F, B> {
    /// The same with one more rule, which comes before those that are there already.
    pub const fn with<G>(self, rule: G) -> WithRule<G, Self> {
        WithRule { base: self, rule }
    }
}

impl<F, B, Res, Err> Classify<Res, Err> for WithRule<F, B>
where
    B: Classify<Res, Err>,
    F: Fn(Result<&Res, &Err>) -> Option<Signal>,
{
    fn classify(&self, result: Result<&Res, &Err>) -> Signal {
        let signal = self.base.classify(result);
        if signal.verdict == Verdict::Rejected {
            return signal;
        }
        let Some(ruled) = (self.rule)(result) else { return signal };
        self.fill(ruled, result)
    }

    fn classify_as(&self, result: Result<&Res, &Err>, verdict: Verdict) -> Signal {
        self.base.classify_as(result, verdict)
    }

    fn attach<T: Clone + Send + Sync + 'static>(&self, response: &mut Res, extension: T) {
        self.base.attach(response, extension);
    }
}

impl<F, B> WithRule<F, B> {
    /// Adds to what the rule says what it leaves open.
    fn fill<Res, Err>(&self, ruled: Signal, result: Result<&Res, &Err>) -> Signal
    where
        B: Classify<Res, Err>,
    {
        let read = self.base.classify_as(result, ruled.verdict);
        let wait = ruled.hints.retry_after;
        let readings = ruled.hints.readings;
        Signal {
            // A wait that the rule has found itself is believed. One that the classifier has found can be too long.
            verdict: if wait.is_some() { ruled.verdict } else { read.verdict },
            hints: Hints {
                retry_after: wait.or(read.hints.retry_after),
                should_retry: ruled.hints.should_retry.or(read.hints.should_retry),
                exhausted_for: ruled
                    .hints
                    .exhausted_for
                    .or(read.hints.exhausted_for.filter(|_| wait.is_none())),
                concurrency: ruled.hints.concurrency || read.hints.concurrency,
                readings: if readings.is_empty() { read.hints.readings } else { readings },
            },
            status: ruled.status.or(read.status),
            used: ruled.used.or(read.used),
            bypassed: read.bypassed,
        }
    }
}

impl<F, B: fmt::Debug> fmt::Debug for WithRule<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithRule").field("base", &self.base).field("rule", &type_name::<F>()).finish()
    }
}

/// Finds a [`Rejected`] in an error of unknown type. A boxed error has no `Error` impl of its own, so it is
/// taken out of its box first.
fn find_rejected<E: 'static>(error: &E) -> Option<Rejected> {
    let error = error as &dyn Any;
    if let Some(rejected) = error.downcast_ref::<Rejected>() {
        return Some(*rejected);
    }
    let boxed = error.downcast_ref::<tower::BoxError>()?;
    let mut source: Option<&(dyn Error + 'static)> = Some(boxed.as_ref());
    while let Some(error) = source {
        if let Some(rejected) = error.downcast_ref::<Rejected>() {
            return Some(*rejected);
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Response, StatusCode};
    use std::convert::Infallible;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Signal {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        HttpClassifier::new().classify(Ok::<_, &Infallible>(&response.body(()).unwrap()))
    }

    #[test]
    fn every_class_of_status_has_its_verdict() {
        for (status, verdict) in [
            (200, Verdict::Accepted),
            (204, Verdict::Accepted),
            (304, Verdict::Accepted),
            (400, Verdict::Refused),
            (404, Verdict::Refused),
            (428, Verdict::Refused),
            (429, Verdict::Throttled),
            (430, Verdict::Refused),
            (500, Verdict::Failed),
            (502, Verdict::Failed),
            (503, Verdict::Overloaded),
            (504, Verdict::Failed),
            (529, Verdict::Overloaded),
            (599, Verdict::Failed),
            (999, Verdict::Failed),
        ] {
            let signal = answer(status, &[]);
            assert_eq!(signal.verdict, verdict, "{status}");
            assert_eq!(signal.status.map(|s| s.as_u16()), Some(status));
        }
    }

    #[test]
    fn retry_after_is_read_from_pushback_only() {
        let wait = Some(Duration::from_secs(9));
        assert_eq!(answer(429, &[("retry-after", "9")]).hints.retry_after, wait);
        assert_eq!(answer(503, &[("retry-after", "9")]).hints.retry_after, wait);
        assert_eq!(answer(200, &[("retry-after", "9")]).hints.retry_after, None);
        assert_eq!(answer(301, &[("retry-after", "9")]).hints.retry_after, None);
        assert_eq!(answer(429, &[]).hints.retry_after, None);
    }

    #[test]
    fn a_rejection_is_recognised_however_it_travels() {
        #[derive(Debug)]
        struct Wrapped(Rejected);
        impl std::fmt::Display for Wrapped {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("wrapped")
            }
        }
        impl Error for Wrapped {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }

        let rejected = Rejected::new(Duration::from_secs(3));
        let classifier = HttpClassifier::new();
        let by_error = |error: tower::BoxError| classifier.classify(Err::<&Response<()>, _>(&error));

        assert_eq!(classifier.classify(Err::<&Response<()>, _>(&rejected)).verdict, Verdict::Rejected);
        assert_eq!(by_error(rejected.into()).verdict, Verdict::Rejected);
        assert_eq!(by_error(Wrapped(rejected).into()).hints.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(by_error("no route to host".into()).verdict, Verdict::Failed);

        let response = Response::builder().status(429).extension(rejected).body(()).unwrap();
        assert_eq!(classifier.classify(Ok::<_, &Infallible>(&response)).verdict, Verdict::Rejected);
    }

    #[test]
    fn a_rule_comes_first_and_the_rest_is_as_usual() {
        #[derive(Debug)]
        enum Own {
            Rejected(Rejected),
            Other,
        }

        let classifier = HttpClassifier::new().with(|result: Result<&Response<()>, &Own>| match result {
            Ok(response) if response.status() == 403 => Some(Signal::new(Verdict::Throttled)),
            Err(Own::Rejected(rejected)) => {
                Some(Signal::new(Verdict::Rejected).retry_after(rejected.retry_after))
            }
            _ => None,
        });
        let response = |status: u16| Response::builder().status(status).body(()).unwrap();
        let judge = |status| classifier.classify(Ok(&response(status)));
        assert_eq!(
            (judge(403).verdict, judge(403).status),
            (Verdict::Throttled, Some(StatusCode::FORBIDDEN))
        );
        assert_eq!((judge(200).verdict, judge(404).verdict), (Verdict::Accepted, Verdict::Refused));
        assert_eq!(classifier.classify(Err(&Own::Other)).verdict, Verdict::Failed);
        let rejected = Own::Rejected(Rejected::new(Duration::from_secs(3)));
        assert_eq!(classifier.classify(Err(&rejected)).verdict, Verdict::Rejected);

        // The rule has no say in what this crate did itself.
        let mut response = response(429);
        response.extensions_mut().insert(Rejected::new(Duration::from_secs(3)));
        let all_fine = HttpClassifier::new()
            .with(|_: Result<&Response<()>, &Infallible>| Some(Signal::new(Verdict::Accepted)));
        assert_eq!(all_fine.classify(Ok(&response)).verdict, Verdict::Rejected);
    }

    #[test]
    fn the_cap_is_a_setting() {
        let response = Response::builder().status(429).header("retry-after", "90").body(()).unwrap();
        let read = |classifier: HttpClassifier| {
            classifier.classify(Ok::<_, &Infallible>(&response)).hints.retry_after
        };
        assert_eq!(
            read(HttpClassifier::new().max_retry_after(Duration::from_secs(60))),
            Some(Duration::from_secs(60))
        );
        assert_eq!(read(HttpClassifier::new().max_retry_after(Duration::ZERO)), None);
    }
}

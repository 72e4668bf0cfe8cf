use super::{BodyHintsService, eligible};
use crate::{InvalidSetting, signal::DEFAULT_MAX_RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Body;
use std::{sync::Arc, time::Duration};
use tower_layer::Layer;

/// Reads what refused answers say in their bodies, and gives the bodies back. See the [module docs](super).
///
/// It holds settings only; clones and services share nothing else.
#[must_use]
#[derive(Clone, Debug)]
pub struct BodyHintsLayer {
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) max_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) max_retry_after: Duration,
    also: Vec<StatusCode>,
}

impl BodyHintsLayer {
    /// The most that [`max_bytes`](Self::max_bytes) can be, and its default: 64 KiB.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// The most that [`timeout`](Self::timeout) can be: 30 s.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(30);

    /// Reads 429 and 503 answers: 64 KiB of each at most, for a second at most.
    pub fn new() -> Self {
        let settings = Settings {
            max_bytes: Self::MAX_BYTES,
            timeout: Duration::from_secs(1),
            max_retry_after: DEFAULT_MAX_RETRY_AFTER,
            also: Vec::new(),
        };
        Self { settings: Arc::new(settings) }
    }

    /// Reads answers with this status too: 400 for AWS and Linear, 403 for GitHub and Google's older services, 200
    /// for GraphQL. Default: 429 and 503 only.
    ///
    /// Of successful ones (2xx) only those whose content type is JSON. With 200, the head of every such answer waits
    /// for its body, for up to [`timeout`](Self::timeout); and only bodies up to [`max_bytes`](Self::max_bytes) are
    /// understood.
    pub fn also_status(mut self, status: StatusCode) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        if !settings.also.contains(&status) {
            settings.also.push(status);
        }
        self
    }

    /// How much of a body is read, in bytes. Default and maximum: [`MAX_BYTES`](Self::MAX_BYTES). A body that is
    /// known to be longer is not read at all.
    ///
    /// # Errors
    /// If it is zero, or above the maximum.
    pub fn max_bytes(mut self, max: usize) -> Result<Self, InvalidSetting> {
        let max = InvalidSetting::positive("max_bytes", max)?.get();
        if max > Self::MAX_BYTES {
            let problem = format!("must be at most {}, is {max}", Self::MAX_BYTES);
            return Err(InvalidSetting::new("max_bytes", problem));
        }
        Arc::make_mut(&mut self.settings).max_bytes = max;
        Ok(self)
    }

    /// How long the response is held up for its body, from when the head came. Default: 1 s. Zero reads what has
    /// come together with the head, and waits for nothing.
    ///
    /// # Errors
    /// If it is above [`MAX_TIMEOUT`](Self::MAX_TIMEOUT).
    pub fn timeout(mut self, timeout: Duration) -> Result<Self, InvalidSetting> {
        if timeout > Self::MAX_TIMEOUT {
            let problem = format!("must be at most {:?}, is {timeout:?}", Self::MAX_TIMEOUT);
            return Err(InvalidSetting::new("timeout", problem));
        }
        Arc::make_mut(&mut self.settings).timeout = timeout;
        Ok(self)
    }

    /// The longest wait that is worth waiting for. A body that asks for more means a quota that is
    /// [exhausted](crate::signal::Verdict::Exhausted). Default: [`DEFAULT_MAX_RETRY_AFTER`]. Zero ignores the waits
    /// that bodies ask for. Set it like the classifier's
    /// [`max_retry_after`](crate::signal::HttpClassifier::max_retry_after).
    pub fn max_retry_after(mut self, max: Duration) -> Self {
        Arc::make_mut(&mut self.settings).max_retry_after = max;
        self
    }
}

impl Default for BodyHintsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for BodyHintsLayer {
    type Service = BodyHintsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BodyHintsService::new(inner, Arc::clone(&self.settings))
    }
}

impl Settings {
    /// Whether to read this answer's body.
    pub(super) fn wants<B: Body>(&self, response: &Response<B>) -> bool {
        let (status, body) = (response.status(), response.body());
        let refused = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        (refused || self.also.contains(&status))
            && !body.is_end_stream()
            && body.size_hint().lower() <= self.max_bytes as u64
            && eligible::may_tell(status, response.headers())
    }
}

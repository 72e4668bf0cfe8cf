use super::Statistics;
use std::{fmt, sync::Arc};

/// The handle with which a caller reports how many tokens a call used.
///
/// It travels in the response's extensions where the layer was told to
/// [`track_usage`](crate::AdaptiveCooldownLayer::track_usage), because the number stands in the body, which
/// only the caller reads:
///
/// ```
/// use http::Response;
/// use tower_cooldown::record::{Statistics, Usage};
///
/// # let statistics = Statistics::new();
/// # let mut response = Response::new(());
/// # response.extensions_mut().insert(Usage::new(&statistics));
/// // `response` came from the stack
/// if let Some(usage) = response.extensions().get::<Usage>() {
///     usage.report(1200, 85); // tokens in, tokens out, as the body says
/// }
/// assert_eq!(statistics.snapshot().tokens.total(), 1285);
/// ```
#[derive(Clone)]
pub struct Usage {
    statistics: Statistics,
    booking: Option<Arc<dyn Settle>>,
}

/// Where a call was booked with an estimate of its tokens.
pub(crate) trait Settle: Send + Sync {
    /// It used that many in truth.
    fn settle(&self, input: u64, output: u64);
}

impl Usage {
    /// A handle that reports to these statistics.
    pub fn new(statistics: &Statistics) -> Self {
        Self { statistics: statistics.clone(), booking: None }
    }

    /// Also settles a booking that was made with an estimate.
    pub(crate) fn settles(mut self, booking: impl Settle + 'static) -> Self {
        self.booking = Some(Arc::new(booking));
        self
    }

    /// Adds the tokens of one call, and settles the difference to the [estimate](crate::Cost) that it was booked
    /// with. Call it once per response.
    pub fn report(&self, input: u64, output: u64) {
        self.statistics.add_tokens(input, output);
        if let Some(booking) = &self.booking {
            booking.settle(input, output);
        }
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Usage").field("statistics", &self.statistics).finish_non_exhaustive()
    }
}

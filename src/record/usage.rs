use super::Statistics;

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
#[derive(Clone, Debug)]
pub struct Usage {
    statistics: Statistics,
}

impl Usage {
    /// A handle that reports to these statistics.
    pub fn new(statistics: &Statistics) -> Self {
        Self { statistics: statistics.clone() }
    }

    /// Adds the tokens of one call. Call it once per response.
    pub fn report(&self, input: u64, output: u64) {
        self.statistics.add_tokens(input, output);
    }
}

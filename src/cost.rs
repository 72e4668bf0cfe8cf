//! What a call takes from the upstream's quotas.

/// What one call takes from the upstream's quotas: requests and tokens are counted apart.
///
/// The default is one request and no tokens. Before the call it is an estimate, made by the closure that the layer
/// was [given](crate::AdaptiveCooldownLayer::cost); afterwards the caller can
/// [report](crate::record::Usage::report) what it was in truth, and the difference is settled.
///
/// ```
/// use tower_cooldown::Cost;
///
/// // A prompt of about 1200 tokens that may be answered by up to 500.
/// let cost = Cost::one().input(1200).output(500);
/// assert_eq!((cost.requests, cost.tokens()), (1, 1700));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Cost {
    /// Requests: 1, or more where the upstream counts a call several times; 0 for a call that it does not count.
    pub requests: u32,
    /// Tokens (or points, bytes, whatever the upstream weighs calls by) that go in.
    pub input_tokens: u32,
    /// Tokens that come out.
    pub output_tokens: u32,
}

impl Cost {
    /// One request, no tokens.
    pub const fn one() -> Self {
        Self { requests: 1, input_tokens: 0, output_tokens: 0 }
    }

    /// That many requests in place of one.
    #[must_use]
    pub const fn requests(mut self, requests: u32) -> Self {
        self.requests = requests;
        self
    }

    /// Tokens that go in. Where the upstream does not tell input from output, the sum counts.
    #[must_use]
    pub const fn input(mut self, tokens: u32) -> Self {
        self.input_tokens = tokens;
        self
    }

    /// Tokens that come out, or may.
    #[must_use]
    pub const fn output(mut self, tokens: u32) -> Self {
        self.output_tokens = tokens;
        self
    }

    /// All tokens, in and out.
    pub const fn tokens(self) -> u64 {
        self.input_tokens as u64 + self.output_tokens as u64
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self::one()
    }
}

/// Says what a request will cost. Implemented by [`OneRequest`] and by every closure `Fn(&Request) -> Cost`.
pub trait CostOf<Req> {
    /// An estimate of what this request will take from the quotas. Asked once per attempt, outside of every lock.
    fn cost_of(&self, request: &Req) -> Cost;
}

/// One request and no tokens, whatever the request: what a layer assumes that was told nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneRequest;

impl<Req> CostOf<Req> for OneRequest {
    fn cost_of(&self, _: &Req) -> Cost {
        Cost::one()
    }
}

impl<F, Req> CostOf<Req> for F
where
    F: Fn(&Req) -> Cost,
{
    fn cost_of(&self, request: &Req) -> Cost {
        self(request)
    }
}

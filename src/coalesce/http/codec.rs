use bytes::Bytes;
use http::{request, response};
use std::{error::Error, fmt};

/// Joins the bodies of several requests into one, and splits the answer.
///
/// It knows what the bodies mean, and nothing else: credentials, tenants and other headers are the business of
/// [`HttpCoalesce`](super::HttpCoalesce), which only joins requests whose method, URI and headers are the same.
pub trait Codec: Send + Sync + 'static {
    /// Whether a request with this head may be one to join. Where not, it passes through, and its body is not read.
    fn recognizes(&self, head: &request::Parts) -> bool;

    /// What the request is, or `None` if it cannot share a call: it passes through as it came.
    fn read(&self, head: &request::Parts, body: &Bytes) -> Option<Share>;

    /// One body for several, two at least; all of them have been [read](Self::read), and have the same head, key and
    /// so on. `head` is that of the first; its URI may be changed. `content-length` is set afterwards.
    ///
    /// # Errors
    /// If they cannot be joined. All of the requests fail then.
    fn join(&self, head: &mut request::Parts, bodies: &[Bytes]) -> Result<Bytes, CodecError>;

    /// One body per request, in their order, out of the answer (2xx) to the joined ones.
    ///
    /// # Errors
    /// If it is not certain what belongs to whom. All of the requests fail then.
    fn split(&self, head: &response::Parts, body: &Bytes, shares: &[Share]) -> Result<Vec<Part>, CodecError>;

    /// Inputs per call, at most, as the API has it. Default: no bound.
    fn max_inputs(&self) -> usize {
        usize::MAX
    }

    /// Weight per call, at most. Default: no bound.
    fn max_weight(&self) -> u64 {
        u64::MAX
    }
}

/// What a [`Codec`] has read of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Requests share a call only where this is the same: model, dimensions, format.
    pub key: Vec<u8>,
    /// How many inputs it has, for which as many outputs come back.
    pub inputs: usize,
    /// Its weight, by which what the whole call used is shared out: for instance tokens, estimated.
    pub weight: u64,
}

/// One request's part of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The body.
    pub body: Bytes,
    /// Its share of the tokens that the answer says were used; `None` where the answer does not say.
    pub input_tokens: Option<u64>,
}

/// In the extensions of a response that was split from a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SplitFrom {
    /// How many requests were in the call.
    pub requests: usize,
    /// Which of them this was, from 0 on.
    pub position: usize,
    /// Tokens that this request used. An estimate: the service has told those of the whole call, which are shared out
    /// by weight. The shares of a call add up to what it told. Also in the body's `usage`, with `"estimated": true`.
    pub estimated_tokens: Option<u64>,
}

/// Requests could not be joined, or an answer could not be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecError {
    problem: String,
}

impl CodecError {
    /// An error that says this.
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into() }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl Error for CodecError {}

/// Shares `total` out by weight, in whole numbers that add up to it (largest remainder method).
pub fn share_out(total: u64, shares: &[Share]) -> Vec<u64> {
    let whole: u128 = shares.iter().map(|share| u128::from(share.weight)).sum();
    // Where nothing has a weight, all weigh the same.
    let weigh = |share: &Share| if whole == 0 { 1 } else { u128::from(share.weight) };
    let whole = if whole == 0 { shares.len().max(1) as u128 } else { whole };
    let product = |share: &Share| u128::from(total).saturating_mul(weigh(share));
    let mut parts: Vec<u64> = shares.iter().map(|share| (product(share) / whole) as u64).collect();
    let mut left = total.saturating_sub(parts.iter().sum());
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(product(&shares[n]) % whole));
    for n in order {
        if left == 0 {
            break;
        }
        parts[n] += 1;
        left -= 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u64]) -> Vec<Share> {
        weights.iter().map(|&weight| Share { weight, ..Share::default() }).collect()
    }

    #[test]
    fn shares_add_up() {
        assert_eq!(share_out(10, &shares(&[1, 1, 1])), [4, 3, 3]);
        assert_eq!(share_out(10, &shares(&[8, 1, 1])), [8, 1, 1]);
        assert_eq!(share_out(3, &shares(&[0, 0])), [2, 1], "no weights: evenly");
        assert_eq!(share_out(0, &shares(&[5, 0])), [0, 0]);
        assert!(share_out(5, &[]).is_empty());
        let huge = share_out(u64::MAX, &shares(&[u64::MAX, u64::MAX, 1]));
        assert_eq!(huge.iter().map(|&n| u128::from(n)).sum::<u128>(), u128::from(u64::MAX));
    }
}

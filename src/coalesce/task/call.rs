//! One call of the inner service.

use crate::coalesce::{BatchError, batch::Answer, shared::Shared, split::Split};
use futures::FutureExt;
use std::{
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    sync::Arc,
};
use tower::Service;

/// How one call ended.
pub(super) enum Ended<Req, T, E> {
    Answers(Vec<Answer<T, E>>),
    /// It failed and is to be made again with these, in halves.
    Again(Vec<Req>),
    Failed(BatchError<E>),
}

/// Calls a service that is ready, or else a new one. A panic in it stays in here, but for one when it is dropped.
pub(super) fn call<S, Req, T, K, P>(
    shared: Arc<Shared<S, Req, T, S::Error, K, P>>,
    readied: Option<S>,
    requests: Vec<Req>,
) -> impl Future<Output = Ended<Req, T, S::Error>>
where
    S: Service<Vec<Req>> + Clone,
    S::Response: IntoIterator<Item = Result<T, S::Error>>,
    P: Split<Req, S::Response, S::Error>,
{
    let size = requests.len();
    let call = AssertUnwindSafe(async move {
        let mut service = match readied {
            Some(service) => service,
            None => {
                let mut service = shared.service();
                if let Err(error) = poll_fn(|cx| service.poll_ready(cx)).await {
                    return Ended::Failed(BatchError::Batch(Arc::new(error)));
                }
                service
            }
        };
        let split = &shared.settings.split;
        let copies = if size > 1 { split.copy(&requests) } else { None };
        shared.settings.statistics.record_batch_call();
        let result = service.call(requests).await;
        match copies {
            Some(copies) if split.splits(result.as_ref()) => Ended::Again(copies),
            _ => results(result, size),
        }
    });
    call.catch_unwind().map(|ended| ended.unwrap_or(Ended::Failed(BatchError::Panicked)))
}

impl<Req, T, E> Ended<Req, T, E> {
    /// Whether a request was answered well; `None` where nobody waits for that any more.
    pub(super) fn succeeded(&self) -> Option<bool> {
        match self {
            Self::Answers(answers) => Some(answers.iter().any(Result::is_ok)),
            Self::Failed(BatchError::Closed) => None,
            Self::Again(_) | Self::Failed(_) => Some(false),
        }
    }
}

/// One answer per request, or an error for all.
fn results<R, T, Req, E>(result: Result<R, E>, expected: usize) -> Ended<Req, T, E>
where
    R: IntoIterator<Item = Result<T, E>>,
{
    match result {
        // It failed with that request, whoever else might have been in the batch.
        Err(error) if expected == 1 => Ended::Answers(vec![Err(BatchError::Item(error))]),
        Err(error) => Ended::Failed(BatchError::Batch(Arc::new(error))),
        Ok(response) => {
            let mut response = response.into_iter();
            let answers: Vec<_> =
                response.by_ref().take(expected).map(|result| result.map_err(BatchError::Item)).collect();
            // At most one more is asked for: there may be no end of them.
            let more = response.next().map_or(0, |_| response.size_hint().0.saturating_add(1));
            if answers.len() == expected && more == 0 {
                Ended::Answers(answers)
            } else {
                Ended::Failed(BatchError::LengthMismatch {
                    expected,
                    got: answers.len().saturating_add(more),
                })
            }
        }
    }
}

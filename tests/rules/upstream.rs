//! An upstream whose calls end when they are told to.

use crate::model::Said;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use tokio::sync::oneshot;
use tower::{BoxError, Service};

#[derive(Default)]
struct Shared {
    /// Calls that came since they were last taken.
    came: Vec<u64>,
    in_flight: BTreeMap<u64, oneshot::Sender<Said>>,
}

#[derive(Default)]
pub(crate) struct Upstream {
    shared: Arc<Mutex<Shared>>,
    ready: bool,
}

impl Upstream {
    pub(crate) fn take_came(&self) -> Vec<u64> {
        mem::take(&mut self.shared.lock().unwrap().came)
    }

    /// Whether the call was in flight, and was not given up.
    pub(crate) fn answer(&self, id: u64, said: Said) -> bool {
        let answer = self.shared.lock().unwrap().in_flight.remove(&id);
        answer.is_some_and(|answer| answer.send(said).is_ok())
    }
}

impl Clone for Upstream {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: false }
    }
}

impl Service<Request<()>> for Upstream {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(mem::take(&mut self.ready), "called an instance that was not ready");
        let id = request.uri().path()[1..].parse().unwrap();
        let (sender, answer) = oneshot::channel();
        let mut shared = self.shared.lock().unwrap();
        shared.came.push(id);
        assert!(shared.in_flight.insert(id, sender).is_none(), "call {id} was sent twice");
        Box::pin(async move {
            let said = answer.await.expect("all calls are answered");
            if said.status == 0 {
                return Err("connection reset".into());
            }
            let mut response = Response::builder().status(said.status);
            if let Some(seconds) = said.retry_after {
                response = response.header("retry-after", seconds);
            }
            if let Some((limit, remaining)) = said.counters {
                response = response
                    .header("x-ratelimit-limit", limit)
                    .header("x-ratelimit-remaining", remaining)
                    .header("x-ratelimit-reset", 10);
            }
            Ok(response.body(()).unwrap())
        })
    }
}

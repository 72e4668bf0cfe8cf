//! A server on loopback with one quota for all who call, which counts by process.

use http_body_util::Empty;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, time::Instant};
use tower_cooldown::{
    Cost, InvalidSetting,
    testing::{Limit, Limiter},
};

/// The field in which a process says its number.
pub const PROCESS: &str = "x-process";
/// What a call takes.
const WORK: Duration = Duration::from_millis(50);

/// What the server has granted, by process, and refused.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Calls granted to each process.
    pub granted: BTreeMap<usize, u64>,
    /// Calls refused.
    pub refused: u64,
}

/// The server.
#[derive(Clone, Debug)]
pub struct Server {
    state: Arc<Mutex<(Limiter, Seen)>>,
    start: Instant,
}

impl Server {
    /// One with a quota of so many calls a second: a bucket that holds a fifth of a second's worth.
    ///
    /// # Errors
    /// None: the numbers are in range.
    pub fn new(quota: u32) -> Result<Self, InvalidSetting> {
        let limit = Limit::token_bucket(quota.into(), Duration::from_secs(1), (quota / 5).max(1).into())?;
        let state = Arc::new(Mutex::new((Limiter::new([limit]), Seen::default())));
        Ok(Self { state, start: Instant::now() })
    }

    /// Starts it. It runs until the runtime ends.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn serve(&self) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Without it an answer may wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                let server = server.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(&request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(address)
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.lock().1.clone()
    }

    fn lock(&self) -> MutexGuard<'_, (Limiter, Seen)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Empty<Bytes>> {
        let mut response = Response::new(Empty::new());
        let process = request.headers().get(PROCESS).and_then(|value| value.to_str().ok()?.parse().ok());
        let decision = {
            let (limiter, seen) = &mut *self.lock();
            let decision = limiter.offer(self.start.elapsed(), Cost::one());
            if decision.granted {
                *seen.granted.entry(process.unwrap_or(usize::MAX)).or_default() += 1;
            } else {
                seen.refused += 1;
            }
            decision
        };
        if !decision.granted {
            *response.status_mut() = hyper::StatusCode::TOO_MANY_REQUESTS;
            // In whole seconds, rounded up, as the standard has it: far more than a bucket needs.
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
        tokio::time::sleep(WORK).await;
        response
    }
}

impl Seen {
    /// What came after an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |process| earlier.granted.get(process).copied().unwrap_or_default();
        let granted = self.granted.iter().map(|(process, granted)| (*process, granted - before(process)));
        Self { granted: granted.collect(), refused: self.refused - earlier.refused }
    }

    /// Calls granted to all.
    pub fn total(&self) -> u64 {
        self.granted.values().sum()
    }

    /// Refused calls as a share of all.
    pub fn refused_share(&self) -> f64 {
        self.refused as f64 / ((self.total() + self.refused) as f64).max(1.0)
    }

    /// Jain's index of fairness over so many processes: 1 if all have the same, 1/n if one has everything.
    pub fn fairness(&self, processes: usize) -> f64 {
        let squares: f64 = self.granted.values().map(|granted| (*granted as f64).powi(2)).sum();
        (self.total() as f64).powi(2) / (processes as f64 * squares).max(1.0)
    }
}

//! A server on loopback that speaks `/v1/embeddings` and has a quota of requests per minute.

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::RETRY_AFTER,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{net::TcpListener, time::Instant};

/// Requests per minute.
pub const QUOTA: u32 = 15_000;
/// What a call takes, and what each input adds.
const CALL: Duration = Duration::from_millis(50);
const INPUT: Duration = Duration::from_micros(200);

/// What the server has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Calls, refused ones too.
    pub calls: AtomicU64,
    /// 429s among them.
    pub refused: AtomicU64,
}

/// The quota as a bucket: it holds a second's worth, and fills evenly.
#[derive(Debug)]
struct Bucket {
    calls: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self) -> bool {
        let per_second = f64::from(QUOTA) / 60.0;
        let now = Instant::now();
        self.calls = ((now - self.at).as_secs_f64().mul_add(per_second, self.calls)).min(per_second);
        self.at = now;
        let served = self.calls >= 1.0;
        if served {
            self.calls -= 1.0;
        }
        served
    }
}

/// Starts one. It runs until the runtime ends.
pub async fn start() -> std::io::Result<(SocketAddr, Arc<Seen>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let seen = Arc::new(Seen::default());
    let bucket = Arc::new(Mutex::new(Bucket { calls: f64::from(QUOTA) / 60.0, at: Instant::now() }));
    let counters = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (seen, bucket) = (Arc::clone(&counters), Arc::clone(&bucket));
            let service = service_fn(move |request| answer(request, Arc::clone(&seen), Arc::clone(&bucket)));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok((address, seen))
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    bucket: Arc<Mutex<Bucket>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    seen.calls.fetch_add(1, Relaxed);
    if !bucket.lock().unwrap_or_else(PoisonError::into_inner).take() {
        seen.refused.fetch_add(1, Relaxed);
        let mut response = Response::new(Full::from("{\"error\":{\"code\":\"rate_limit_exceeded\"}}"));
        *response.status_mut() = hyper::StatusCode::TOO_MANY_REQUESTS;
        response.headers_mut().insert(RETRY_AFTER, 1.into());
        return Ok(response);
    }
    let Ok(body) = request.into_body().collect().await else { return Ok(bad_request()) };
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let texts: Option<Vec<&str>> = match &body["input"] {
        Value::String(text) => Some(vec![text]),
        Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let Some(texts) = texts else { return Ok(bad_request()) };
    tokio::time::sleep(CALL + INPUT * u32::try_from(texts.len()).unwrap_or(u32::MAX)).await;
    let data = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({ "object": "embedding", "index": index, "embedding": embedding(text) }));
    let tokens: usize = texts.iter().map(|text| text.len().div_ceil(4)).sum();
    let answer = json!({
        "object": "list",
        "data": data.collect::<Vec<_>>(),
        "model": body["model"],
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    });
    Ok(Response::new(Full::from(answer.to_string())))
}

fn bad_request() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
    response
}

/// Not much of a meaning, but each text has another.
pub fn embedding(text: &str) -> [f64; 8] {
    let mut vector = [0.0; 8];
    for (n, byte) in text.bytes().enumerate() {
        vector[n % 8] += f64::from(byte) / 256.0 * (n as f64 + 1.0);
    }
    vector
}

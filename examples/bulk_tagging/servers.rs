//! The two servers: Gemini's `generateContent` with a quota, and chat completions as the fallback.

use crate::{
    pages::{self, CHAT_MODEL, CHAT_PATH, GEMINI_MODEL, GEMINI_PATH},
    scale::{Random, Scale},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};

/// A server on a free port of the loopback interface. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    base: String,
    upstream: Arc<Upstream>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Upstream {
    dialect: Dialect,
    scale: Scale,
    random: Random,
    requests: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
enum Dialect {
    Gemini(Mutex<FixedWindow>),
    Chat,
}

impl Server {
    /// A free tier: `limit` requests per `window`, about 800 ms each.
    pub(crate) async fn gemini(limit: u32, window: Duration, scale: Scale) -> io::Result<Self> {
        let quota = FixedWindow { limit, window: scale.down(window), opened: None, used: 0 };
        Self::start(Dialect::Gemini(Mutex::new(quota)), scale).await
    }

    /// No quota, about 1200 ms a request.
    pub(crate) async fn chat(scale: Scale) -> io::Result<Self> {
        Self::start(Dialect::Chat, scale).await
    }

    async fn start(dialect: Dialect, scale: Scale) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let base = format!("http://{}", listener.local_addr()?);
        let upstream = Arc::new(Upstream {
            dialect,
            scale,
            random: Random::new(2024),
            requests: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&upstream)));
        Ok(Self { base, upstream, _tasks: tasks })
    }

    /// `http://host:port`
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn requests(&self) -> u64 {
        self.upstream.requests.load(Relaxed)
    }

    /// The requests that got a 429.
    pub(crate) fn refused(&self) -> u64 {
        self.upstream.refused.load(Relaxed)
    }
}

async fn accept(listener: TcpListener, upstream: Arc<Upstream>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, perhaps; others may be closed meanwhile.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let upstream = Arc::clone(&upstream);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let upstream = Arc::clone(&upstream);
                async move { upstream.serve(request).await }
            });
            // A client that hangs up is no concern of the server's.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Upstream {
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        self.requests.fetch_add(1, Relaxed);
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let (status, answer) = if head.method == Method::POST && head.uri.path() == self.path() {
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let prompt = match self.dialect {
                Dialect::Gemini(_) => pages::gemini_prompt(&body),
                Dialect::Chat => pages::chat_prompt(&body),
            };
            match prompt {
                Some(prompt) => self.answer(prompt).await,
                None => {
                    error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "The body has no text to work on.")
                }
            }
        } else {
            error(StatusCode::NOT_FOUND, "NOT_FOUND", "There is no such method here.")
        };
        let mut response = Response::new(Full::from(answer.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    const fn path(&self) -> &'static str {
        match self.dialect {
            Dialect::Gemini(_) => GEMINI_PATH,
            Dialect::Chat => CHAT_PATH,
        }
    }

    async fn answer(&self, prompt: &str) -> (StatusCode, Value) {
        let (tags, input) = (pages::tag(prompt), pages::tokens(prompt));
        let output = pages::tokens(&tags);
        match &self.dialect {
            Dialect::Gemini(quota) => {
                // Nothing panics under the lock, so it cannot be poisoned with a half-made change.
                let admitted = quota.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
                if let Err((limit, retry_in)) = admitted {
                    self.refused.fetch_add(1, Relaxed);
                    self.work(30, 10).await;
                    return (StatusCode::TOO_MANY_REQUESTS, resource_exhausted(limit, retry_in));
                }
                self.work(800, 100).await;
                let content = json!({ "role": "model", "parts": [{ "text": tags }] });
                let answer = json!({
                    "candidates": [{ "content": content, "finishReason": "STOP", "index": 0 }],
                    "usageMetadata": {
                        "promptTokenCount": input,
                        "candidatesTokenCount": output,
                        "totalTokenCount": input + output,
                    },
                    "modelVersion": GEMINI_MODEL,
                });
                (StatusCode::OK, answer)
            }
            Dialect::Chat => {
                self.work(1200, 100).await;
                let message = json!({ "role": "assistant", "content": tags });
                let answer = json!({
                    "object": "chat.completion",
                    "model": CHAT_MODEL,
                    "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
                    "usage": {
                        "prompt_tokens": input,
                        "completion_tokens": output,
                        "total_tokens": input + output,
                    },
                });
                (StatusCode::OK, answer)
            }
        }
    }

    /// Takes `ms` milliseconds at the real pace, give or take `jitter`.
    async fn work(&self, ms: u64, jitter: u64) {
        let [low, high] = [ms - jitter, ms + jitter].map(|ms| self.scale.down(Duration::from_millis(ms)));
        sleep(self.random.between(low, high)).await;
    }
}

/// A window of fixed length, which opens with the first request after the last one ended.
#[derive(Debug)]
struct FixedWindow {
    limit: u32,
    window: Duration,
    opened: Option<Instant>,
    used: u32,
}

impl FixedWindow {
    /// The error: the limit, and when the window ends.
    fn admit(&mut self, now: Instant) -> Result<(), (u32, Duration)> {
        let opened = match self.opened {
            Some(opened) if now < opened + self.window => opened,
            _ => {
                self.used = 0;
                *self.opened.insert(now)
            }
        };
        if self.used == self.limit {
            return Err((self.limit, opened + self.window - now));
        }
        self.used += 1;
        Ok(())
    }
}

fn error(code: StatusCode, status: &str, message: &str) -> (StatusCode, Value) {
    (code, json!({ "error": { "code": code.as_u16(), "message": message, "status": status } }))
}

/// Gemini says how long to wait in the body alone; there is no `Retry-After`.
fn resource_exhausted(limit: u32, retry_in: Duration) -> Value {
    let seconds = retry_in.as_secs_f64();
    let violation = json!({
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
        "quotaDimensions": { "location": "global", "model": GEMINI_MODEL },
        "quotaValue": limit.to_string(),
    });
    json!({
        "error": {
            "code": 429,
            "message": format!(
                "You exceeded your current quota: {limit} requests of the free tier. \
                 Please retry in {seconds:.1}s."
            ),
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation] },
                {
                    "@type": "type.googleapis.com/google.rpc.RetryInfo",
                    "retryDelay": format!("{seconds:.9}s"),
                },
            ],
        }
    })
}

//! The layer that reads bodies: what it gives back, how long it takes, and what it leaves alone.

#![cfg(feature = "body")]

mod support;

use allocation_counter::measure;
use bytes::{Buf, Bytes};
use futures::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{pending, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use support::{is_ready, ms, request, secs, settle, unpaced};
use tokio::time::{Instant, Sleep, sleep};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer},
    retry::RetryLayer,
    service_fn,
};
use tower_cooldown::{
    AdaptiveCooldownLayer, BodyHintsLayer, FallbackLayer,
    body_hints::PeekedBody,
    cooldown::TooManyRequests,
    record::Statistics,
    retry::RetryPolicy,
    signal::{BodyHints, Verdict},
};

const GEMINI: &str = r#"{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED",
  "message": "You exceeded your current quota. Please retry in 45.837906927s.",
  "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.837906927s"}]}}"#;
const DELAY: Duration = Duration::new(45, 837_906_927);

/// A body that does what it is told, and counts how often it is polled.
#[derive(Debug, Default)]
struct Script {
    steps: VecDeque<Step>,
    timer: Option<Pin<Box<Sleep>>>,
    polls: Arc<AtomicUsize>,
    length: Option<u64>,
    ended: bool,
}

#[derive(Debug)]
enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Wait(Duration),
    Fail,
    /// The same, again and again.
    Repeat(Bytes),
}

fn data(text: &str) -> Step {
    Step::Data(Bytes::copy_from_slice(text.as_bytes()))
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        assert!(!self.ended, "polled again after its end");
        self.polls.fetch_add(1, SeqCst);
        loop {
            if let Some(timer) = &mut self.timer {
                std::task::ready!(timer.as_mut().poll(cx));
                self.timer = None;
            }
            return Poll::Ready(match self.steps.pop_front() {
                Some(Step::Wait(time)) => {
                    self.timer = Some(Box::pin(sleep(time)));
                    continue;
                }
                Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
                Some(Step::Repeat(data)) => {
                    self.steps.push_front(Step::Repeat(data.clone()));
                    Some(Ok(Frame::data(data)))
                }
                Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Step::Fail) => Some(Err("cut off")),
                None => {
                    self.ended = true;
                    None
                }
            });
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

use std::future::Future;

type Answer<B> = Result<Response<PeekedBody<B>>, Infallible>;

fn response<B>(status: u16, body: B) -> Response<B> {
    Response::builder().status(status).header(CONTENT_TYPE, "application/json").body(body).unwrap()
}

/// One answer through the layer.
async fn through<B: Body + Unpin>(layer: BodyHintsLayer, answer: Response<B>) -> Response<PeekedBody<B>> {
    let mut answer = Some(answer);
    let mut service = layer.layer(service_fn(move |()| ready(Ok::<_, Infallible>(answer.take().unwrap()))));
    service.ready().await.unwrap().call(()).await.unwrap()
}

async fn refusal<B: Body + Unpin>(body: B) -> Response<PeekedBody<B>> {
    through(BodyHintsLayer::new(), response(429, body)).await
}

fn hints<B>(answer: &Response<B>) -> Option<BodyHints> {
    answer.extensions().get().copied()
}

fn wait<B>(answer: &Response<B>) -> Option<Duration> {
    hints(answer)?.hints.retry_after
}

async fn whole<B: Body + Unpin>(body: B) -> Vec<u8>
where
    B::Error: std::fmt::Debug,
{
    BodyExt::collect(body).await.unwrap().to_bytes().to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_refused_answer_is_read_and_given_back() {
    let answer = refusal(Full::new(Bytes::from(GEMINI))).await;
    assert_eq!(wait(&answer), Some(DELAY));
    assert_eq!(hints(&answer).unwrap().verdict, Some(Verdict::Throttled));
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(answer.body().size_hint().exact(), Some(GEMINI.len() as u64));
    assert!(!answer.body().is_end_stream());
    assert_eq!(whole(answer.into_body()).await, GEMINI.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn frames_trailers_and_the_end_stay_as_they_were() {
    let trailers = HeaderMap::from_iter([("x-checksum".parse().unwrap(), "1".parse().unwrap())]);
    let (first, second) = GEMINI.split_at(70);
    let steps = [data(first), data(""), Step::Wait(ms(300)), data(second), Step::Trailers(trailers.clone())];
    let start = Instant::now();
    let mut body = {
        let answer = refusal(Script::new(steps)).await;
        assert_eq!((wait(&answer), start.elapsed()), (Some(DELAY), ms(300)));
        answer.into_body()
    };
    for text in [first, "", second] {
        assert!(!body.is_end_stream());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text);
    }
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
    assert!(body.is_end_stream());
    // The script panics if it is polled after its end.
    assert!(body.frame().await.is_none() && body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_error_comes_in_its_place() {
    let mut body = refusal(Script::new([data("{\"retry"), Step::Fail, data("x")])).await.into_body();
    assert!(!body.is_end_stream());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "{\"retry");
    assert_eq!(body.frame().await.unwrap().unwrap_err(), "cut off");
    // What the inner body does after an error is its own affair.
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "x");

    // An error behind a text that is whole does not take it away.
    let answer = refusal(Script::new([data(GEMINI), Step::Fail])).await;
    assert_eq!(wait(&answer), Some(DELAY));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_costs_a_second_and_no_more() {
    let start = Instant::now();
    let answer = refusal(Script::new([data(GEMINI), Step::Wait(secs(3600)), data("x")])).await;
    assert_eq!(start.elapsed(), secs(1));
    // What has come is whole, and is used.
    assert_eq!(wait(&answer), Some(DELAY));
    assert_eq!(whole(answer.into_body()).await.len(), GEMINI.len() + 1);
    assert_eq!(start.elapsed(), secs(3600));

    // In drops, each in time: the bound is on the whole.
    let drops = (0..100).flat_map(|_| [Step::Wait(ms(300)), data(" ")]);
    let start = Instant::now();
    let answer = refusal(Script::new(drops)).await;
    assert_eq!((start.elapsed(), hints(&answer)), (secs(1), None));
    assert_eq!(whole(answer.into_body()).await.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn the_time_is_a_setting() {
    let late = || Script::new([Step::Wait(ms(500)), data(GEMINI)]);
    for (timeout, elapsed, read) in
        [(secs(0), ms(0), false), (ms(200), ms(200), false), (secs(2), ms(500), true)]
    {
        let layer = BodyHintsLayer::new().timeout(timeout).unwrap();
        let start = Instant::now();
        let answer = through(layer, response(429, late())).await;
        assert_eq!((start.elapsed(), wait(&answer).is_some()), (elapsed, read));
        assert_eq!(whole(answer.into_body()).await, GEMINI.as_bytes());
    }
    // Without waiting, what came with the head is read.
    let layer = BodyHintsLayer::new().timeout(Duration::ZERO).unwrap();
    assert!(hints(&through(layer, response(429, Script::new([data(GEMINI)]))).await).is_some());

    assert!(BodyHintsLayer::new().timeout(BodyHintsLayer::MAX_TIMEOUT).is_ok());
    let error = BodyHintsLayer::new().timeout(secs(31)).unwrap_err();
    assert_eq!(error.to_string(), "invalid setting `timeout`: must be at most 30s, is 31s");
}

#[tokio::test(start_paused = true)]
async fn of_ten_megabytes_the_beginning_is_read_and_nothing_is_lost() {
    let piece = Bytes::from(vec![b' '; 8192]);
    let steps = (0..1280).map(|_| Step::Data(piece.clone()));
    let body = Script::new(steps);
    let polls = Arc::clone(&body.polls);
    let answer = refusal(body).await;
    assert_eq!((hints(&answer), polls.load(SeqCst)), (None, 8));
    assert_eq!(whole(answer.into_body()).await.len(), 10 << 20);

    // In one piece, whether its length is told or not: looked at, or not even that.
    let big = Bytes::from(vec![b'['; 10 << 20]);
    let answer = refusal(Script::new([Step::Data(big.clone())])).await;
    assert_eq!(whole(answer.into_body()).await.len(), 10 << 20);
    let mut body = Script::new([Step::Data(big)]);
    body.length = Some(10 << 20);
    let polls = Arc::clone(&body.polls);
    let answer = refusal(body).await;
    assert_eq!(polls.load(SeqCst), 0);
    assert_eq!(whole(answer.into_body()).await.len(), 10 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_and_never_ends_is_left_at_once() {
    for piece in [&b"["[..], b"", &[b' '; 1000]] {
        let body = Script::new([Step::Repeat(Bytes::copy_from_slice(piece))]);
        let polls = Arc::clone(&body.polls);
        let start = Instant::now();
        let mut answer = refusal(body).await;
        assert_eq!((start.elapsed(), hints(&answer)), (Duration::ZERO, None));
        assert!(polls.load(SeqCst) <= 1024, "{}", polls.load(SeqCst));
        for _ in 0..2000 {
            let frame = answer.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_bytes_is_a_setting() {
    let body = |length: usize| Script::new([data(&format!("{GEMINI:length$}")), data("x")]);
    let layer = BodyHintsLayer::new().max_bytes(GEMINI.len()).unwrap();
    // The limit comes before the end is seen; the text is whole all the same.
    assert!(hints(&through(layer.clone(), response(429, body(0))).await).is_some());
    let layer = layer.max_bytes(GEMINI.len() - 1).unwrap();
    assert!(hints(&through(layer, response(429, body(0))).await).is_none());

    for (max, message) in [
        (0, "invalid setting `max_bytes`: must be at least 1, is 0"),
        (65_537, "invalid setting `max_bytes`: must be at most 65536, is 65537"),
    ] {
        assert_eq!(BodyHintsLayer::new().max_bytes(max).unwrap_err().to_string(), message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_off_or_no_text_says_nothing_and_stays() {
    let latin = b"{\"message\": \"R\xfcckkehr in 5s\"}";
    for bytes in [&GEMINI.as_bytes()[..90], latin, b"\x00\xff\xfe", b"Too Many Requests"] {
        let answer = refusal(Full::new(Bytes::copy_from_slice(bytes))).await;
        assert_eq!(hints(&answer), None);
        assert_eq!(whole(answer.into_body()).await, bytes);
    }
}

/// Whether the layer polls the body of such an answer.
async fn polls(layer: &BodyHintsLayer, status: u16, headers: &[(&str, &str)]) -> bool {
    let body = Script::new([data(GEMINI)]);
    let polls = Arc::clone(&body.polls);
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    let answer = through(layer.clone(), answer.body(body).unwrap()).await;
    let polled = polls.load(SeqCst) > 0;
    assert_eq!(hints(&answer).is_some(), polled);
    assert_eq!(whole(answer.into_body()).await, GEMINI.as_bytes());
    polled
}

#[tokio::test(start_paused = true)]
async fn only_refused_answers_are_read() {
    let layer = BodyHintsLayer::new();
    let json = [("content-type", "application/json")];
    for status in [429, 503] {
        assert!(polls(&layer, status, &[]).await && polls(&layer, status, &json).await, "{status}");
        for headers in [
            ("content-type", "text/event-stream"),
            ("content-type", "application/grpc"),
            ("content-encoding", "gzip"),
            ("content-encoding", "br"),
        ] {
            assert!(!polls(&layer, status, &[headers]).await, "{status} {headers:?}");
        }
        assert!(polls(&layer, status, &[("content-encoding", "identity")]).await);
    }
    for status in [200, 204, 301, 400, 403, 404, 500, 502, 529] {
        assert!(!polls(&layer, status, &json).await, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_statuses_where_they_are_configured() {
    let layer = BodyHintsLayer::new()
        .also_status(StatusCode::OK)
        .also_status(StatusCode::FORBIDDEN)
        .also_status(StatusCode::FORBIDDEN);
    assert!(polls(&layer, 429, &[]).await && polls(&layer, 403, &[]).await);
    assert!(!polls(&layer, 400, &[]).await);
    assert!(polls(&layer, 200, &[("content-type", "application/json; charset=utf-8")]).await);
    for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "text/event-stream")]] {
        assert!(!polls(&layer, 200, headers).await, "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_passed_on_as_soon_as_its_head_is_there() {
    let layer = BodyHintsLayer::new().also_status(StatusCode::OK);
    let mut answer =
        response(200, Script::new([Step::Wait(secs(5)), data("data: 1\n\n"), Step::Wait(secs(5))]));
    answer.headers_mut().insert(CONTENT_TYPE, "text/event-stream".parse().unwrap());
    let polls = Arc::clone(&answer.body().polls);
    let start = Instant::now();
    let mut answer = through(layer, answer).await;
    assert_eq!((start.elapsed(), polls.load(SeqCst)), (Duration::ZERO, 0));
    let frame = answer.body_mut().frame().await.unwrap().unwrap();
    assert_eq!((frame.into_data().unwrap(), start.elapsed()), (Bytes::from("data: 1\n\n"), secs(5)));
}

/// A body whose frames are in two pieces, as `Buf` allows.
struct InPieces(Option<bytes::buf::Chain<Bytes, Bytes>>);

impl Body for InPieces {
    type Data = bytes::buf::Chain<Bytes, Bytes>;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_in_pieces_is_read_without_taking_it_apart() {
    let (first, second) = GEMINI.split_at(33);
    let body = InPieces(Some(Bytes::from(first).chain(Bytes::from(second))));
    let mut answer = refusal(body).await;
    assert_eq!(wait(&answer), Some(DELAY));
    let data = answer.body_mut().frame().await.unwrap().unwrap().into_data().ok().unwrap();
    assert_eq!((data.chunk(), data.remaining()), (first.as_bytes(), GEMINI.len()));
}

#[tokio::test(start_paused = true)]
async fn dropped_while_it_reads_the_call_leaves_nothing_behind() {
    let body = Script::new([data("{"), Step::Wait(ms(500)), data("}")]);
    let polls = Arc::downgrade(&body.polls);
    let mut call = Box::pin(refusal(body));
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(polls.upgrade().unwrap().load(SeqCst), 2);
    drop(call);
    assert!(polls.upgrade().is_none(), "the body outlived the call");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_of_the_inner_service_while_a_body_is_read() {
    // The permit belongs to the inner future, and that is gone when its answer is there.
    let inner = service_fn(|_: Request<()>| {
        ready(Ok::<_, Infallible>(response(429, Script::new([Step::Wait(ms(500)), data("{}")]))))
    });
    let mut client = ServiceBuilder::new()
        .layer(BodyHintsLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(inner);
    let mut first = Box::pin(client.ready().await.unwrap().call(request(1)));
    assert!((&mut first).now_or_never().is_none());
    assert!(is_ready(&mut client));
    assert!(format!("{first:?}").contains("peeking"));
    first.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn readiness_and_errors_are_those_of_the_inner_service() {
    let never = ServiceBuilder::new().layer(BodyHintsLayer::new()).layer(ConcurrencyLimitLayer::new(0));
    let mut never =
        never.service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    assert!(!is_ready(&mut never));

    let failing = service_fn(|_: Request<()>| ready(Err::<Response<Empty<Bytes>>, _>("no route to host")));
    let error = BodyHintsLayer::new().layer(failing).oneshot(request(1)).await.unwrap_err();
    assert_eq!(error, "no route to host");

    let hanging = service_fn(|_: Request<()>| pending::<Result<Response<Empty<Bytes>>, Infallible>>());
    assert!(BodyHintsLayer::new().layer(hanging).oneshot(request(1)).now_or_never().is_none());
}

#[test]
fn an_answer_that_is_not_read_costs_no_allocation_and_needs_no_runtime() {
    let mut service = BodyHintsLayer::new().layer(service_fn(|()| {
        ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}")))))
    }));
    let info = measure(|| {
        for _ in 0..100 {
            let ready = service.ready().now_or_never().unwrap().unwrap();
            ready.call(()).now_or_never().unwrap().unwrap();
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");

    // Nor does a refusal need one, whose body is there.
    let answer = refusal(Full::new(Bytes::from(GEMINI))).now_or_never().unwrap();
    assert_eq!(wait(&answer), Some(DELAY));
}

#[test]
fn the_worst_of_bodies_takes_a_bounded_memory() {
    // An object is the dearest thing that fits into few bytes.
    for piece in ["{\"\":0},", "[],", "0,", "{},", "[{\"\":\"\"}],"] {
        let mut body = "[".to_owned();
        while body.len() + piece.len() < BodyHintsLayer::MAX_BYTES {
            body.push_str(piece);
        }
        body.replace_range(body.len() - 1.., "]");
        let info = measure(|| {
            assert!(hints(&refusal(Full::new(Bytes::from(body.clone()))).now_or_never().unwrap()).is_none());
        });
        assert!(info.bytes_max < 128 * BodyHintsLayer::MAX_BYTES as u64, "{piece} {info:?}");
        assert_eq!(info.bytes_current, 0, "{piece}");
    }
}

/// Refuses three calls as Gemini does, and serves the rest; 100 ms each.
fn gemini() -> impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ 'static {
    let calls = Arc::new(AtomicUsize::new(0));
    service_fn(move |_: Request<()>| {
        let refused = calls.fetch_add(1, SeqCst) < 3;
        let (status, body) = if refused { (429, GEMINI) } else { (200, "{}") };
        async move {
            sleep(ms(100)).await;
            Ok::<_, BoxError>(response(status, Full::new(Bytes::from_static(body.as_bytes()))))
        }
    })
}

#[tokio::test(start_paused = true)]
async fn the_gate_closes_for_as_long_as_gemini_says() {
    let cooldown = AdaptiveCooldownLayer::with_policy(unpaced());
    let gate = cooldown.handle();
    let client = ServiceBuilder::new().layer(cooldown).layer(BodyHintsLayer::new()).service(gemini());
    let start = Instant::now();
    let burst: Vec<_> = (1..=3).map(|id| tokio::spawn(client.clone().oneshot(request(id)))).collect();
    settle().await;
    for answer in burst {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), 429);
        assert_eq!(whole(answer.into_body()).await, GEMINI.as_bytes());
    }
    assert_eq!(start.elapsed(), ms(100));
    assert_eq!(gate.snapshot().closed_for, Some(DELAY));
    let answer = client.oneshot(request(4)).await.unwrap();
    assert_eq!(answer.status(), 200);
    // Tokio's timers have a grain of a millisecond.
    let waited = start.elapsed() - ms(200);
    assert!(waited >= DELAY && waited <= DELAY + ms(2), "{waited:?}");
    assert_eq!(gate.statistics().snapshot().attempts.throttled, 3);
}

#[tokio::test(start_paused = true)]
async fn a_spent_balance_is_not_retried_and_the_second_service_takes_the_call() {
    const SPENT: &str = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let primary = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&primary);
    let spent = service_fn(move |_: Request<()>| {
        count.fetch_add(1, SeqCst);
        ready(Ok::<_, BoxError>(response(429, Full::new(Bytes::from_static(SPENT.as_bytes())))))
    });
    let second = service_fn(|_: Request<()>| {
        ready(Ok::<_, BoxError>(Response::new(PeekedBody::from(Full::new(Bytes::from("second"))))))
    });
    let statistics = Statistics::new();
    let client = ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(FallbackLayer::new(second).statistics(&statistics))
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(
            AdaptiveCooldownLayer::with_policy(unpaced())
                .statistics(&statistics)
                .max_wait(secs(5))
                .reject_with(TooManyRequests),
        )
        .layer(BodyHintsLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(2))
        .service(spent);
    let start = Instant::now();
    for id in 0..3 {
        let answer = client.clone().oneshot(request(id)).await.unwrap();
        assert_eq!(whole(answer.into_body()).await, b"second");
    }
    assert_eq!((primary.load(SeqCst), start.elapsed()), (1, Duration::ZERO));
    let attempts = statistics.snapshot().attempts;
    assert_eq!((attempts.exhausted, attempts.throttled), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_head_says_goes_before_the_body() {
    let inner = service_fn(|_: Request<()>| {
        let mut answer = response(429, Full::new(Bytes::from(GEMINI)));
        answer.headers_mut().insert("retry-after", "7".parse().unwrap());
        ready(Ok::<_, Infallible>(answer))
    });
    let cooldown = AdaptiveCooldownLayer::with_policy(unpaced());
    let gate = cooldown.handle();
    let client = ServiceBuilder::new().layer(cooldown).layer(BodyHintsLayer::new()).service(inner);
    client.oneshot(request(1)).await.unwrap();
    assert_eq!(gate.snapshot().closed_for, Some(secs(7)));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_success_closes_the_gate() {
    const THROTTLED: &str = r#"{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}],"extensions":{"cost":{"requestedQueryCost":202,"actualQueryCost":null,"throttleStatus":{"maximumAvailable":1000,"currentlyAvailable":2,"restoreRate":50}}}}"#;
    let inner = service_fn(|_: Request<()>| {
        ready(Ok::<_, Infallible>(response(200, Full::new(Bytes::from(THROTTLED)))))
    });
    let cooldown = AdaptiveCooldownLayer::with_policy(unpaced());
    let gate = cooldown.handle();
    let hints = BodyHintsLayer::new().also_status(StatusCode::OK);
    let client = ServiceBuilder::new().layer(cooldown).layer(hints).service(inner);
    let answer: Answer<_> = client.oneshot(request(1)).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(gate.snapshot().closed_for, Some(secs(4)));
    assert_eq!(gate.statistics().snapshot().attempts.throttled, 1);
}

#[test]
fn the_types_are_what_a_client_needs() {
    fn all<T: Send + Sync + Unpin + std::fmt::Debug>() {}
    all::<BodyHintsLayer>();
    all::<PeekedBody<Full<Bytes>>>();
    assert!(PeekedBody::<Full<Bytes>>::default().is_end_stream());
    let debug = format!("{:?}", PeekedBody::from(Empty::<Bytes>::new()));
    assert!(debug.contains("frames_read: 0"), "{debug}");
}

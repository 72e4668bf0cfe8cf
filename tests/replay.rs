//! Bodies that are sent again, up to a size.
#![cfg(feature = "replay")]

mod support;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, channel::mpsc, stream};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use support::{Upstream, unpaced};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer,
    fallback::FallbackError,
    retry::{
        RetryPolicy,
        replay::{ByReplay, ReplayBody, ReplayError, ReplayLayer},
    },
};

type Frames = stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>;
type Stream = StreamBody<Frames>;

fn data(text: &str) -> Frame<Bytes> {
    Frame::data(Bytes::copy_from_slice(text.as_bytes()))
}

fn stream_of(texts: &[&str]) -> Stream {
    let frames: Vec<_> = texts.iter().map(|text| Ok(data(text))).collect();
    StreamBody::new(stream::iter(frames).boxed())
}

/// A body that is written by hand.
fn channel() -> (mpsc::UnboundedSender<Frame<Bytes>>, Stream) {
    let (sender, receiver) = mpsc::unbounded();
    (sender, StreamBody::new(receiver.map(Ok).boxed()))
}

async fn text<B: Body<Data = Bytes>>(body: B) -> Result<String, B::Error> {
    Ok(String::from_utf8(body.collect().await?.to_bytes().into()).unwrap())
}

/// Reads one frame that is there.
fn next<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Result<Bytes, B::Error>> {
    let frame = body.frame().now_or_never().expect("a frame");
    frame.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
}

#[tokio::test]
async fn each_copy_is_the_whole_body_trailers_and_all() {
    let trailers = HeaderMap::from_iter([(http::header::AGE, "1".parse().unwrap())]);
    let frames = vec![Ok(data("one ")), Ok(data("two")), Ok(Frame::trailers(trailers.clone()))];
    let body = ReplayBody::new(StreamBody::new(stream::iter(frames).boxed()) as Stream, 100);
    let (second, third) = (body.clone(), body.clone());
    assert_eq!(text(body).await.unwrap(), "one two");
    let collected = second.collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), "one two");
    assert_eq!(text(third).await.unwrap(), "one two");
}

#[tokio::test]
async fn a_copy_of_half_of_it_reads_on() {
    let (sender, body) = channel();
    let mut first = ReplayBody::new(body, 100);
    let mut second = first.clone();
    sender.unbounded_send(data("one ")).unwrap();
    assert_eq!(next(&mut first), Some(Ok("one ".into())));
    let mut reading = task::spawn(first.frame());
    assert_pending!(reading.poll());
    assert_eq!(next(&mut second), Some(Ok("one ".into())));
    // The older copy learns that it is over, and does not take what comes.
    assert!(reading.is_woken());
    assert_eq!(assert_ready!(reading.poll()).unwrap().unwrap_err(), ReplayError::Superseded);
    drop(reading);
    sender.unbounded_send(data("two")).unwrap();
    drop(sender);
    assert_eq!(text(second).await.unwrap(), "two");
}

#[tokio::test]
async fn nothing_is_kept_beyond_the_cap_and_the_rest_passes_once() {
    let (sender, body) = channel();
    let mut first = ReplayBody::new(body, 10);
    let second = first.clone();
    for (kept, is_kept) in [(4, true), (8, true), (0, false), (0, false)] {
        sender.unbounded_send(data("four")).unwrap();
        assert_eq!(next(&mut first), Some(Ok("four".into())));
        assert_eq!((first.kept_bytes(), first.is_kept()), (kept, is_kept));
    }
    drop(sender);
    assert_eq!(next(&mut first), None);
    assert!(!second.can_start());
    assert_eq!(text(second).await.unwrap_err(), ReplayError::NotKept);
}

#[tokio::test]
async fn exactly_the_cap_is_kept() {
    for (cap, kept) in [(7, true), (6, false), (0, false)] {
        let body = ReplayBody::new(stream_of(&["one ", "two"]), cap);
        let copy = body.clone();
        assert_eq!(text(body).await.unwrap(), "one two");
        assert_eq!(copy.can_start(), kept, "{cap}");
    }
    let empty = ReplayBody::new(stream_of(&[]), 0);
    let copy = empty.clone();
    assert_eq!(text(empty).await.unwrap(), "");
    assert_eq!(text(copy).await.unwrap(), "");
}

#[tokio::test]
async fn many_small_frames_are_not_kept() {
    let body = ReplayBody::new(stream_of(&["x"; 1025]), usize::MAX);
    let copy = body.clone();
    assert_eq!(text(body).await.unwrap().len(), 1025);
    assert!(!copy.can_start());
}

#[tokio::test]
async fn a_body_that_says_that_it_is_too_large_is_not_kept_at_all() {
    let body = ReplayBody::new(Full::new(Bytes::from("eleven bytes")), 11);
    assert!(!body.is_kept());
    let copy = body.clone();
    // Nobody has read it: either can.
    assert!(body.can_start() && copy.can_start());
    assert_eq!(text(copy).await.unwrap(), "eleven bytes");
    assert!(!body.can_start());
}

#[tokio::test]
async fn what_is_kept_goes_with_the_last_copy() {
    let mut alone = ReplayBody::new(stream_of(&["one ", "two"]), 100);
    next(&mut alone);
    assert_eq!(alone.kept_bytes(), 0);

    let mut first = ReplayBody::new(stream_of(&["one ", "two"]), 100);
    let copy = first.clone();
    next(&mut first);
    assert_eq!(first.kept_bytes(), 4);
    drop(copy);
    // At once, not with the next frame.
    assert_eq!(first.kept_bytes(), 0);
    assert_eq!(text(first).await.unwrap(), "two");

    // The reader goes first; its two copies need all of it, and the last of them lets go piece by piece.
    let mut first = ReplayBody::new(stream_of(&["one ", "two ", "three"]), 100);
    let (second, mut third) = (first.clone(), first.clone());
    next(&mut first);
    next(&mut first);
    drop(first);
    drop(second);
    assert_eq!(third.kept_bytes(), 8);
    next(&mut third);
    assert_eq!(next(&mut third), Some(Ok("two ".into())));
    assert_eq!(third.kept_bytes(), 4);
    assert_eq!(text(third).await.unwrap(), "three");
}

#[test]
fn the_length_stays_known() {
    let mut body = ReplayBody::new(Full::new(Bytes::from("seven !")), 100);
    let copy = body.clone();
    assert_eq!(body.size_hint().exact(), Some(7));
    next(&mut body);
    assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
    assert_eq!((copy.size_hint().exact(), copy.is_end_stream()), (Some(7), false));
    assert!(ReplayBody::<Full<Bytes>>::default().is_end_stream());
}

#[tokio::test]
async fn an_error_of_the_body_is_final() {
    let failing = stream::iter([Ok(data("one")), Err("broken pipe".into())]);
    let body = ReplayBody::new(StreamBody::new(failing), 100);
    let copy = body.clone();
    let error: ReplayError<BoxError> = text(body).await.unwrap_err();
    assert_eq!(error.to_string(), "broken pipe");
    assert!(!copy.can_start());
}

/// Refuses so many calls after it has read their bodies, and answers the others with their text.
fn upstream(
    refusals: usize,
) -> (
    Arc<AtomicUsize>,
    impl Service<Request<ReplayBody<Stream>>, Response = Response<String>, Error = BoxError, Future: Send> + Clone,
) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = service_fn(move |request: Request<ReplayBody<Stream>>| {
        let refused = counted.fetch_add(1, SeqCst) < refusals;
        async move {
            let text = text(request.into_body()).await?;
            Ok(Response::builder().status(if refused { 429 } else { 200 }).body(text)?)
        }
    });
    (calls, service)
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_retried_up_to_the_cap_and_sent_once_beyond() {
    for (cap, status, sent) in [(7, 200, 3), (6, 429, 1)] {
        let (calls, upstream) = upstream(2);
        let client = ServiceBuilder::new()
            .layer(ReplayLayer::new(cap))
            .layer(RetryLayer::new(RetryPolicy::new().copy_with(ByReplay)))
            .layer(AdaptiveCooldownLayer::with_policy(unpaced()))
            .service(upstream);
        let response = client.oneshot(Request::new(stream_of(&["one ", "two"]))).await.unwrap();
        assert_eq!((response.status().as_u16(), response.body().as_str()), (status, "one two"));
        assert_eq!(calls.load(SeqCst), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_gets_the_whole_body_or_is_not_asked() {
    for (cap, status) in [(7, 200), (6, 429)] {
        let (_, first) = upstream(1);
        let (calls, second) = upstream(0);
        let client = ServiceBuilder::new()
            .layer(ReplayLayer::new(cap))
            .layer(FallbackLayer::new(second).copy_with(ByReplay))
            .service(first);
        let response: Result<_, FallbackError<_, _>> =
            client.oneshot(Request::new(stream_of(&["one ", "two"]))).await;
        let response = response.unwrap();
        assert_eq!((response.status().as_u16(), response.body().as_str()), (status, "one two"));
        assert_eq!(calls.load(SeqCst), usize::from(status == 200));
    }
}

/// A call that was never sent leaves its body unread, so a copy can be, however large it is.
#[tokio::test]
async fn an_answer_without_reading_does_not_need_the_body_kept() {
    let reads_nothing = Upstream::statuses([429, 200]);
    let client = ServiceBuilder::new()
        .layer(ReplayLayer::new(0))
        .layer(RetryLayer::new(RetryPolicy::new().copy_with(ByReplay)))
        .map_request(|request: Request<ReplayBody<Stream>>| request.map(drop))
        .service(reads_nothing);
    let response = client.oneshot(Request::new(stream_of(&["one ", "two"]))).await.unwrap();
    assert_eq!(response.status(), 200);
}

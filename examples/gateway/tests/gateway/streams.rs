//! Answers and requests that come bit by bit.

use crate::common::{PATIENCE, client, gateway, snapshot, until, upstream};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use futures::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

fn events(events: impl Stream<Item = String> + Send + 'static) -> Response {
    let body = Body::from_stream(events.map(|event| Ok::<_, Infallible>(format!("data: {event}\n\n"))));
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

fn ask(gateway: SocketAddr) -> Request {
    Request::post(format!("http://{gateway}/stream")).body(Body::from("{}")).unwrap()
}

async fn next(
    body: &mut (impl http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Unpin),
) -> Option<Bytes> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("no event came");
    frame.map(|frame| frame.unwrap().into_data().unwrap())
}

/// An upstream whose answers go on until the watch says so. It counts those that it still writes.
async fn endless() -> (SocketAddr, watch::Sender<bool>, Arc<AtomicUsize>) {
    let (end, ended) = watch::channel(false);
    let writing = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&writing);
    let app = Router::new().fallback(move || {
        let (mut ended, writing) = (ended.clone(), Writing::new(&count));
        async move {
            let last = stream::once(async move {
                let _writing = writing;
                ended.wait_for(|ended| *ended).await.unwrap();
                "last".to_owned()
            });
            events(stream::iter(["first".to_owned()]).chain(last))
        }
    });
    (upstream(app).await, end, writing)
}

struct Writing(Arc<AtomicUsize>);

impl Writing {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[tokio::test]
async fn each_event_passes_when_it_comes() {
    let (send, receive) = mpsc::unbounded_channel::<String>();
    let receive = Arc::new(std::sync::Mutex::new(Some(receive)));
    let app = Router::new().fallback(move || {
        let receive = receive.lock().unwrap().take().expect("it is asked once");
        async { events(stream::unfold(receive, |mut from| async { Some((from.recv().await?, from)) })) }
    });
    let gateway = gateway(upstream(app).await, "").await;
    let mut body = client().request(ask(gateway.address())).await.unwrap().into_body();
    for event in ["one", "two", "three"] {
        // Not sent before the last one has arrived, so nothing can be waiting for more to come.
        send.send(event.to_owned()).unwrap();
        assert_eq!(next(&mut body).await.unwrap(), format!("data: {event}\n\n"));
    }
    drop(send);
    assert_eq!(next(&mut body).await, None);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let (upstream, _end, writing) = endless().await;
    let gateway = gateway(upstream, "").await;
    let clients = client();
    let mut body = clients.request(ask(gateway.address())).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap(), "data: first\n\n");
    // The snapshot is not counted; the stream is.
    assert_eq!(snapshot(gateway.address()).await["open"], 1);
    assert_eq!(writing.load(Relaxed), 1);
    drop((body, clients));
    until("the upstream's stream ends, too", async || writing.load(Relaxed) == 0).await;
    until("its place is free", async || snapshot(gateway.address()).await["open"] == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_frees_its_place() {
    let (upstream, _end, writing) = endless().await;
    let gateway = gateway(upstream, "--quota 1/1h --max-wait 2h").await;
    let first = client().request(ask(gateway.address())).await.unwrap();
    let waits =
        async || snapshot(gateway.address()).await["upstreams"][0]["gates"][0]["waiting"].as_u64().unwrap();
    let waiting = tokio::spawn(client().request(ask(gateway.address())));
    until("the second call waits", async || waits().await == 1).await;
    waiting.abort();
    until("the gate has forgotten it", async || waits().await == 0).await;
    until("and so has the gateway", async || snapshot(gateway.address()).await["open"] == 1).await;
    assert_eq!(writing.load(Relaxed), 1, "it was not sent");
    drop(first);
}

#[tokio::test]
async fn more_connections_than_there_may_be_have_to_wait() {
    let (upstream, _end, writing) = endless().await;
    let gateway = gateway(upstream, "--max-connections 1 --quota 1000/s").await;
    let clients = [client(), client()];
    let first = clients[0].request(ask(gateway.address())).await.unwrap();
    let second = tokio::spawn(clients[1].request(ask(gateway.address())));
    tokio::time::sleep(Duration::from_millis(200)).await; // real time: nothing is to happen
    assert!(!second.is_finished() && writing.load(Relaxed) == 1);
    drop((first, clients));
    let second = tokio::time::timeout(PATIENCE, second).await.expect("its turn has come").unwrap().unwrap();
    assert_eq!(second.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once() {
    const STREAMS: usize = 1000;
    rlimit::increase_nofile_limit(8 * STREAMS as u64).unwrap(); // both ends of each connection are in this process
    let (upstream, end, writing) = endless().await;
    let gateway = gateway(upstream, "--quota 1000000/s").await;
    let (address, clients) = (gateway.address(), client());
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let clients = clients.clone();
        streams.spawn(async move {
            let mut body = clients.request(ask(address)).await.unwrap().into_body();
            assert_eq!(next(&mut body).await.unwrap(), "data: first\n\n");
            body
        });
    }
    let bodies = streams.join_all().await;
    assert_eq!(writing.load(Relaxed), STREAMS);
    assert_eq!(snapshot(address).await["open"], STREAMS);
    end.send(true).unwrap();
    for mut body in bodies {
        assert_eq!(next(&mut body).await.unwrap(), "data: last\n\n");
        assert_eq!(next(&mut body).await, None);
    }
    until("all places are free", async || snapshot(address).await["open"] == 0).await;
    let report = snapshot(address).await;
    assert_eq!(report["upstreams"][0]["statistics"]["attempts"]["accepted"], STREAMS);
}

#[tokio::test]
async fn a_body_is_taken_no_faster_than_the_upstream_reads() {
    let (read, reads) = watch::channel(false);
    let app = Router::new().fallback(move |request: Request| {
        let mut reads = reads.clone();
        async move {
            reads.wait_for(|reads| *reads).await.unwrap();
            let mut body = request.into_body().into_data_stream();
            let mut length = 0;
            while let Some(chunk) = body.next().await {
                length += chunk.unwrap().len();
            }
            length.to_string()
        }
    });
    let app = app.layer(axum::extract::DefaultBodyLimit::disable());
    let gateway = gateway(upstream(app).await, "").await;
    const CHUNK: usize = 64 * 1024;
    const CHUNKS: usize = 1600;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let chunks = stream::iter(0..CHUNKS).map(move |_| {
        count.fetch_add(CHUNK, Relaxed);
        Ok::<_, Infallible>(Bytes::from_static(&[7; CHUNK]))
    });
    let request =
        Request::post(format!("http://{}/upload", gateway.address())).body(Body::from_stream(chunks));
    let answer = tokio::spawn(client().request(request.unwrap()));
    // It stops when the buffers of the sockets are full; how large they are is the system's choice.
    let mut taken = 0;
    while taken == 0 || taken != sent.load(Relaxed) {
        taken = sent.load(Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(taken < CHUNK * CHUNKS / 2, "{taken} bytes went into the gateway, and none came out");
    read.send(true).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), (CHUNK * CHUNKS).to_string());
}

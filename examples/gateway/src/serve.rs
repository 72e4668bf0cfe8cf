//! Connections of clients, and their end.

use axum::{Router, extract::Request};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tower::ServiceExt;

/// The longest that a client may take for the head of a request, and be idle between two.
const HEAD: Duration = Duration::from_secs(60);
/// What is on its way when the shutdown begins may still come.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// Where no connection can be taken, for want of file descriptors, others have to end first.
const NO_CONNECTION: Duration = Duration::from_millis(100);

/// The address of the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves `app` until `stopped` turns true and the last call has its answer.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    max: usize,
    mut stopped: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(max));
    let graceful = GracefulShutdown::new();
    let stop = async move {
        // An error is a sender that is gone: that stops, too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let mut stop = pin!(stop);
    loop {
        let accept = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        tokio::select! {
            () = &mut stop => break,
            (place, accepted) = accept => match accepted {
                Ok(connection) => serve_one(connection, place, &app, graceful.watcher()),
                Err(error) => {
                    eprintln!("cannot take a connection: {error}");
                    tokio::time::sleep(NO_CONNECTION).await;
                }
            }
        }
    }
    // Clients whose connection was made already do not know that nobody took it.
    while let Some(connection) = accept_now(&listener) {
        serve_one(connection, None, &app, graceful.watcher());
    }
    drop(listener);
    if graceful.count() > 0 {
        tokio::time::sleep(ON_THE_WAY).await;
    }
    graceful.shutdown().await;
}

fn serve_one(
    (socket, peer): (TcpStream, SocketAddr),
    place: Option<OwnedSemaphorePermit>,
    app: &Router,
    watcher: Watcher,
) {
    // An option that cannot be set costs some latency only.
    let _ = socket.set_nodelay(true);
    let app = app.clone().map_request(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(app));
    let connection = watcher.watch(connection);
    tokio::spawn(async move {
        // Clients may break off at any time; whatever it was, the call is recorded as such.
        let _ = connection.await;
        drop(place);
    });
}

/// A connection that waits already.
fn accept_now(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.poll_accept(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(connection)) => Some(connection),
        _ => None,
    }
}

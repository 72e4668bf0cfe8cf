//! A reverse proxy that keeps any client, in any language, inside its upstream's limit: the stack of `tower-cooldown`
//! between axum and hyper.
//!
//! ```text
//!  client ──▶ serve ──▶ proxy ──▶ Fallback ──▶ Retry ──▶ Cooldown, a gate per credential ──▶ BodyHints ──▶ client
//!              │                     └──▶ Cooldown ──▶ BodyHints ──▶ client                     (of upstream)
//!              └──▶ admin: the live page, /metrics, /healthz, /snapshot
//! ```
//!
//! `gateway.rs` is the program; the library is here so that tests can start it.

mod admin;
mod body;
pub mod demo;
mod errors;
mod gates;
mod guard;
mod headers;
mod history;
mod page;
mod proxy;
mod serve;
pub mod settings;
mod snapshot;
mod state;
mod tls;
mod upstream;

pub use self::settings::Settings;

use self::state::State;
use axum::{Router, extract::Request, response::Response};
use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tower::{BoxError, ServiceExt, service_fn};

/// A gateway that serves, until it is dropped: then it takes no more connections. [`stop`](Self::stop) also waits for the
/// calls that it has.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// Ends only after the others: the admin listener tells how far the shutdown is.
    until_drained: JoinSet<()>,
}

impl Gateway {
    /// Binds the addresses and starts to serve.
    ///
    /// # Errors
    /// If an address cannot be bound, or there is no root certificate for an upstream that needs one. The text names
    /// what is wrong.
    pub async fn start(settings: Settings) -> Result<Self, BoxError> {
        let listener = bind(settings.listen).await?;
        let admin_listener = match settings.admin {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let address = listener.local_addr()?;
        let admin = admin_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let (stop, stopped) = watch::channel(false);
        let state = Arc::new(State::new(settings, stopped.clone())?);

        let (mut tasks, mut until_drained) = (JoinSet::new(), JoinSet::new());
        until_drained.spawn(history::sample(Arc::clone(&state)));
        let max = state.settings.max_connections;
        let admin_pages = admin::router(Arc::clone(&state));
        let shared = admin_listener.is_none().then(|| admin_pages.clone());
        tasks.spawn(serve::serve(listener, app(state, shared), max, stopped));
        if let Some(listener) = admin_listener {
            let (never, stopped) = watch::channel(false);
            until_drained.spawn(async move {
                let _open = never;
                serve::serve(listener, admin_pages, 256, stopped).await;
            });
        }
        Ok(Self { address, admin, stop, tasks, until_drained })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for the admin pages, if that is another address.
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Takes no more connections, and returns when the last call has its answer, to the last byte.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.until_drained.shutdown().await;
    }
}

/// Serves until `signal` completes, then lets all calls end.
///
/// # Errors
/// As [`Gateway::start`].
pub async fn run(
    settings: Settings,
    ready: impl FnOnce(&Gateway),
    signal: impl Future<Output = ()>,
) -> Result<(), BoxError> {
    let gateway = Gateway::start(settings).await?;
    ready(&gateway);
    signal.await;
    gateway.stop().await;
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}").into())
}

/// What one listener serves: the admin pages, if it has them, and for everything else the upstreams.
fn app(state: Arc<State>, admin: Option<Router>) -> Router {
    Router::new().fallback_service(service_fn(move |request: Request| {
        let (state, admin) = (Arc::clone(&state), admin.clone());
        async move {
            let response: Response = match admin {
                Some(admin) if admin::is_for(&request) => admin.oneshot(request).await?,
                _ => proxy::proxy(&state, request).await,
            };
            Ok::<_, Infallible>(response)
        }
    }))
}

//! What all connections share.

use crate::{
    Settings,
    body::Memory,
    history::History,
    settings::Route,
    tls,
    upstream::{HttpClient, Stack, Upstream},
};
use hyper::header::HeaderValue;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Instant, SystemTime},
};
use tokio::sync::watch;
use tower::BoxError;
use tower_cooldown::export::{Sources, prometheus};

pub(crate) struct State {
    pub(crate) settings: Settings,
    /// One per host.
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) fallback: Option<Upstream>,
    /// In the order of the settings' routes.
    routes: Vec<(Route, Stack)>,
    pub(crate) metrics: prometheus::Exporter,
    pub(crate) history: History,
    pub(crate) memory: Memory,
    /// Calls that have not got the last byte of their answer.
    pub(crate) open: Arc<AtomicUsize>,
    /// Names this gateway in `Via`.
    pub(crate) via: HeaderValue,
    pub(crate) started: (Instant, SystemTime),
    stopped: watch::Receiver<bool>,
}

impl State {
    pub(crate) fn new(settings: Settings, stopped: watch::Receiver<bool>) -> Result<Self, BoxError> {
        let client: HttpClient = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1024)
            .build(tls::connector(&settings)?);
        let fallback = settings.fallback.as_ref().map(|to| {
            let upstream = Upstream::new(to, &settings, true);
            let stack = upstream.stack(to, &settings, &client);
            (upstream, stack)
        });
        let mut upstreams: Vec<Upstream> = Vec::new();
        let mut routes = Vec::new();
        for route in &settings.upstreams {
            // Routes to the same host share its limit.
            let made = Upstream::new(&route.to, &settings, false);
            let known = upstreams.iter().position(|upstream| upstream.name == made.name);
            let index = known.unwrap_or_else(|| {
                upstreams.push(made);
                upstreams.len() - 1
            });
            let upstream = &upstreams[index];
            let stack = upstream.stack(&route.to, &settings, &client);
            let stack = match &fallback {
                Some((_, second)) => {
                    upstream.stack_with(stack, second.clone(), settings.fallback_authorization.clone())
                }
                None => stack,
            };
            routes.push((route.clone(), stack));
        }
        let sources = Sources::new();
        for upstream in upstreams.iter().chain(fallback.as_ref().map(|(upstream, _)| upstream)) {
            sources.add(upstream.source(&settings));
        }
        let via = HeaderValue::try_from(format!("1.1 tower-cooldown-{:08x}", fastrand::u32(..)))?;
        Ok(Self {
            settings,
            upstreams,
            fallback: fallback.map(|(upstream, _)| upstream),
            routes,
            metrics: prometheus::Exporter::new(&sources),
            history: History::default(),
            memory: Memory::new(),
            open: Arc::default(),
            via,
            started: (Instant::now(), SystemTime::now()),
            stopped,
        })
    }

    /// Where calls to this path go, and the part of the path that is for the upstream.
    pub(crate) fn route<'a>(&self, path: &'a str) -> Option<(&'a str, Stack)> {
        self.routes.iter().find_map(|(route, stack)| {
            let rest = path.strip_prefix(route.path.as_str())?;
            (rest.is_empty() || rest.starts_with(['/', '?'])).then(|| (rest, stack.clone()))
        })
    }

    /// Whether it is ending.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopped.borrow()
    }

    pub(crate) fn all_upstreams(&self) -> impl Iterator<Item = (&Upstream, bool)> {
        let fallback = self.fallback.iter().map(|upstream| (upstream, true));
        self.upstreams.iter().map(|upstream| (upstream, false)).chain(fallback)
    }
}

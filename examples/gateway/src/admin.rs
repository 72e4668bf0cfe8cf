//! The gateway's own pages.

use crate::{errors, guard, page, serve::Peer, settings::Token, snapshot::Report, state::State};
use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State as Shared},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tower_cooldown::export::prometheus;

const PAGES: [&str; 4] = ["/", "/metrics", "/healthz", "/snapshot"];
const ROLLOUT: &str = "/-/rollout";

/// Whether a request to a listener that serves both is for these pages. A query makes it the upstream's.
pub(crate) fn is_for(request: &Request) -> bool {
    let (method, uri) = (request.method(), request.uri());
    let reads = matches!(*method, Method::GET | Method::HEAD);
    uri.path() == ROLLOUT || reads && uri.query().is_none() && PAGES.contains(&uri.path())
}

pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/snapshot", get(snapshot))
        .route(ROLLOUT, put(set_rollout))
        .layer(DefaultBodyLimit::max(1024))
        .with_state(state)
}

async fn healthz(Shared(state): Shared<Arc<State>>) -> (StatusCode, &'static str) {
    if state.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, prometheus::CONTENT_TYPE)], state.metrics.text())
}

async fn snapshot(
    Shared(state): Shared<Arc<State>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    let movable = may_move(&state, peer, &headers).is_ok();
    json(StatusCode::OK, &Report::of(&state, movable))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Percent {
    percent: u8,
}

async fn set_rollout(
    Shared(state): Shared<Arc<State>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let problem = |status, problem: &str| errors::answer(status, "gateway_rollout", problem);
    if let Err(why) = may_move(&state, peer, &headers) {
        return problem(StatusCode::FORBIDDEN, why);
    }
    let percent = match serde_json::from_slice::<Percent>(&body) {
        Ok(percent) => percent,
        Err(_) => return problem(StatusCode::BAD_REQUEST, r#"the body must be like {"percent": 50}"#),
    };
    match state.settings.rollout.set(percent.percent) {
        Ok(()) => json(StatusCode::OK, &percent),
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn may_move(state: &State, peer: Option<Extension<Peer>>, headers: &HeaderMap) -> Result<(), &'static str> {
    guard::may_move(
        peer.map(|Extension(Peer(peer))| peer),
        headers,
        state.settings.token.as_ref().map(Token::as_str),
    )
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let fields = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
            (status, fields, body).into_response()
        }
        Err(error) => {
            errors::answer(StatusCode::INTERNAL_SERVER_ERROR, "gateway_snapshot", &error.to_string())
        }
    }
}

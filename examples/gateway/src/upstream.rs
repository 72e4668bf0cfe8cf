//! One host that calls go to: its gates, its book, and the stack around the client.

use crate::{
    Settings,
    body::{RequestBody, copy},
    errors,
    gates::{GateKey, Gates},
    headers::remove_credentials,
};
use axum::body::Body as AnyBody;
use hyper::{
    Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use std::sync::Arc;
use tower::{
    BoxError, ServiceBuilder, ServiceExt, retry::RetryLayer, timeout::TimeoutLayer, util::BoxCloneSyncService,
};
use tower_cooldown::{
    AdaptiveCooldownLayer, BodyHintsLayer, FallbackLayer, Rejected,
    body_hints::PeekedBody,
    cooldown::keyed::KeyedCooldownLayer,
    export::Source,
    policy::{Known, Learned},
    record::Statistics,
    retry::RetryPolicy,
};

pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, RequestBody>;
pub(crate) type AnswerBody = PeekedBody<AnyBody>;
pub(crate) type Stack = BoxCloneSyncService<Request<RequestBody>, Response<AnswerBody>, BoxError>;

type Rejecter = fn(Rejected) -> Result<Response<AnswerBody>, BoxError>;
type Keyer = fn(&Request<RequestBody>) -> Option<GateKey>;

/// One host.
pub(crate) struct Upstream {
    /// Host and port.
    pub(crate) name: String,
    /// What went to it, and how calls that it could not serve ended.
    pub(crate) statistics: Statistics,
    pub(crate) gates: Arc<Gates>,
    layer:
        KeyedCooldownLayer<Keyer, tower_cooldown::signal::HttpClassifier, Rejecter, tower_cooldown::Rollout>,
}

impl Upstream {
    pub(crate) fn new(to: &Uri, settings: &Settings, is_fallback: bool) -> Self {
        let name = to.authority().map_or("", |authority| authority.as_str()).to_owned();
        let statistics = Statistics::new();
        let layer = match settings.quota.filter(|_| !is_fallback) {
            Some(quota) => AdaptiveCooldownLayer::with_policy(Known::new(quota)),
            None => AdaptiveCooldownLayer::with_policy(Learned::new()),
        };
        let layer = layer
            .name(name.clone())
            .statistics(&statistics)
            .rollout(settings.rollout.clone())
            .max_wait(settings.max_wait)
            .max_waiting(settings.max_connections)
            .reject_with(reject as Rejecter)
            .keyed((|request| request.extensions().get().copied()) as Keyer);
        let gates = Arc::new(Gates::new(layer.handle()));
        Self { name, statistics, gates, layer }
    }

    /// What `/metrics` tells of it.
    pub(crate) fn source(&self, settings: &Settings) -> Source {
        let source =
            Source::new("gateway", &self.name).statistics(&self.statistics).rollout(&settings.rollout);
        source.keyed(&self.layer.handle())
    }

    /// The way to this URL of the host, through its gates.
    pub(crate) fn stack(&self, to: &Uri, settings: &Settings, client: &HttpClient) -> Stack {
        let (to, gates) = (to.clone(), Arc::clone(&self.gates));
        let service = ServiceBuilder::new()
            .map_request(move |mut request: Request<RequestBody>| {
                let key = gates.key(&request);
                request.extensions_mut().insert(key);
                *request.uri_mut() = below(&to, request.uri());
                request
            })
            .layer(RetryLayer::new(RetryPolicy::new().max_retries(settings.retries).copy_with(copy)))
            .layer(self.layer.clone())
            .layer(BodyHintsLayer::new())
            .layer(TimeoutLayer::new(settings.timeout))
            .map_response(|response: Response<hyper::body::Incoming>| response.map(AnyBody::new))
            .service(client.clone());
        BoxCloneSyncService::new(service)
    }

    /// The same, and for what this host cannot serve the way to the other. The client's credentials are not for that.
    pub(crate) fn stack_with(
        &self,
        first: Stack,
        second: Stack,
        authorization: Option<HeaderValue>,
    ) -> Stack {
        let second = second.map_request(move |request: Request<RequestBody>| {
            let (mut head, body) = request.into_parts();
            remove_credentials(&mut head.headers, &mut head.uri);
            if let Some(authorization) = &authorization {
                head.headers.insert(AUTHORIZATION, authorization.clone());
            }
            Request::from_parts(head, body)
        });
        let layer = FallbackLayer::new(second).copy_with(copy).statistics(&self.statistics);
        BoxCloneSyncService::new(ServiceBuilder::new().layer(layer).service(first).map_err(errors::both))
    }
}

/// The answer to a call that would wait for too long. The fallback and the retry know it by its extension.
fn reject(rejected: Rejected) -> Result<Response<AnswerBody>, BoxError> {
    let text = format!("the gateway did not send the call: {rejected}");
    let mut response = errors::answer(StatusCode::TOO_MANY_REQUESTS, "gateway_rejected", &text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(rejected.retry_after_secs()));
    response.extensions_mut().insert(rejected);
    Ok(response.map(PeekedBody::from))
}

/// `path` of the request, behind that of `to`.
fn below(to: &Uri, request: &Uri) -> Uri {
    let mut parts = to.clone().into_parts();
    let base = to.path().trim_end_matches('/');
    let rest = request.path_and_query().map_or("/", |path| path.as_str());
    // Both were parsed before, so that together they are a path as well.
    parts.path_and_query =
        if base.is_empty() { rest.parse().ok() } else { format!("{base}{rest}").parse().ok() };
    Uri::from_parts(parts).unwrap_or_else(|_| to.clone())
}

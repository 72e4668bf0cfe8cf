//! One call, from the client to the upstream and back.

use crate::{
    body::{Held, Open},
    errors, headers,
    state::State,
};
use axum::{body::Body as AnyBody, extract::Request as ClientRequest, response::Response as ClientResponse};
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{CONNECTION, HeaderValue, VIA},
};
use tower::ServiceExt;

pub(crate) async fn proxy(state: &State, request: ClientRequest) -> ClientResponse {
    let open = Open::new(&state.open);
    let mut response = match forward(state, request, open).await {
        Ok(response) => response,
        Err((status, kind, message)) => errors::answer(status, kind, message),
    };
    if state.is_stopping() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

type Refusal = (StatusCode, &'static str, &'static str);

async fn forward(state: &State, request: ClientRequest, open: Open) -> Result<ClientResponse, Refusal> {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "gateway_no_tunnel", "the gateway makes no tunnels"));
    }
    if headers::has_two_hosts(&parts.headers) {
        return Err((StatusCode::BAD_REQUEST, "gateway_bad_request", "there is more than one Host field"));
    }
    if headers::is_loop(&parts.headers, &state.via) {
        return Err((
            StatusCode::LOOP_DETECTED,
            "gateway_loop",
            "an upstream of the gateway is the gateway itself",
        ));
    }
    // Only the path counts: a client that names another host is not taken there.
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Some((rest, stack)) = state.route(path) else {
        return Err((StatusCode::NOT_FOUND, "gateway_no_upstream", "no --upstream has this path"));
    };
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let uri = rest.parse::<Uri>();
    let uri = uri.map_err(|_| (StatusCode::BAD_REQUEST, "gateway_bad_request", "the path cannot be read"))?;
    headers::for_upstream(&mut parts.headers, &state.via);
    let body = state.memory.keep(body).await;
    let body =
        body.map_err(|status| (status, "gateway_bad_request", "the body did not come, or not in time"))?;

    // Nothing of the client's connection goes along in the extensions.
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers;
    Ok(match stack.oneshot(request).await {
        Ok(response) => {
            let (mut head, body) = response.into_parts();
            headers::for_client(&mut head.headers, &parts.method);
            head.headers.append(VIA, state.via.clone());
            let mut response = ClientResponse::new(AnyBody::new(Held::new(body, open)));
            *response.status_mut() = head.status;
            *response.headers_mut() = head.headers;
            response
        }
        Err(error) => errors::of_upstream(&error),
    })
}

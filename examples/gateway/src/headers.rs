//! Header fields: what may pass, and in which shape.

use hyper::{
    HeaderMap, Method, Uri,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};

/// Fields that concern one connection only (RFC 9110, 7.6.1), and those of proxies.
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what concerns this connection only, and what its `Connection` fields name.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(fields) =
        headers.contains_key(CONNECTION).then(|| headers.get_all(CONNECTION).iter().cloned())
    {
        for field in fields.collect::<Vec<_>>() {
            // A name that is no text names no field.
            for name in
                field.to_str().unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty())
            {
                headers.remove(name);
            }
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Readies a client's fields for the upstream.
///
/// hyper writes `Host` from the URL, and the length or the chunks from the body that it sends, so that there can be
/// no two opinions on where a request ends. It has answered `Expect` already.
pub(crate) fn for_upstream(headers: &mut HeaderMap, via: &HeaderValue) {
    remove_hop_by_hop(headers);
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        headers.remove(name);
    }
    headers.append(VIA, via.clone());
}

/// Readies an upstream's fields for the client. The length is hyper's to write, but for HEAD, where there is no body to
/// measure.
pub(crate) fn for_client(headers: &mut HeaderMap, method: &Method) {
    remove_hop_by_hop(headers);
    if *method != Method::HEAD {
        headers.remove(CONTENT_LENGTH);
    }
}

/// Whether the client names more than one host. (Where fields disagree on the end of the request hyper refuses it, or
/// goes by the chunks, drops the length, and closes the connection after the answer: RFC 9112, 6.3.)
pub(crate) fn has_two_hosts(headers: &HeaderMap) -> bool {
    headers.get_all(HOST).iter().count() > 1
}

/// Whether this gateway has passed the request on before.
pub(crate) fn is_loop(headers: &HeaderMap, via: &HeaderValue) -> bool {
    let is_ours = |entry: &[u8]| entry.trim_ascii() == via.as_bytes();
    headers.get_all(VIA).iter().any(|field| field.as_bytes().split(|byte| *byte == b',').any(is_ours))
}

/// Removes what the client may have meant for its upstream and for nobody else, by name: fields, and parts of the query.
pub(crate) fn remove_credentials(headers: &mut HeaderMap, uri: &mut Uri) {
    let secret: Vec<_> = headers.keys().filter(|name| is_credential(name.as_str())).cloned().collect();
    for name in secret {
        headers.remove(name);
    }
    let Some(query) = uri.query() else { return };
    let kept = |part: &&str| !is_credential(part.split('=').next().unwrap_or_default());
    let kept: Vec<_> = query.split('&').filter(kept).collect();
    let path =
        if kept.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), kept.join("&")) };
    // Parts of what could be parsed can be parsed.
    *uri = path.parse().unwrap_or_default();
}

/// `Authorization`, `Cookie`, `x-goog-api-key`, `ocp-apim-subscription-key`, `X-Amz-Signature`, `?key=`, `?access_token=`,
/// but not `max_tokens`.
fn is_credential(name: &str) -> bool {
    const ENDS: [&str; 9] =
        ["auth", "authorization", "cookie", "credential", "key", "password", "secret", "signature", "token"];
    let name = name.to_ascii_lowercase();
    ENDS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn connection_names_what_goes() {
        let mut fields = headers(&[
            ("connection", "close, X-One"),
            ("connection", " x-two ,, bad name"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic secret"),
            ("keep-alive", "timeout=5"),
            ("host", "gateway"),
            ("content-length", "5"),
        ]);
        for_upstream(&mut fields, &HeaderValue::from_static("1.1 us"));
        assert_eq!(fields, headers(&[("x-three", "3"), ("via", "1.1 us")]));
    }

    #[test]
    fn a_loop_is_seen_among_other_proxies() {
        let us = HeaderValue::from_static("1.1 us");
        for (via, seen) in [("1.1 us", true), ("1.0 a, 1.1 us,1.1 b", true), ("1.1 us2", false), ("", false)]
        {
            assert_eq!(is_loop(&headers(&[("via", via)]), &us), seen, "{via}");
        }
    }

    #[test]
    fn the_length_stays_where_there_is_no_body() {
        for (method, stays) in [(Method::HEAD, true), (Method::GET, false)] {
            let mut fields = headers(&[("content-length", "5"), ("connection", "close")]);
            for_client(&mut fields, &method);
            assert_eq!(fields.contains_key(CONTENT_LENGTH), stays, "{method}");
            assert!(!fields.contains_key(CONNECTION));
        }
    }

    #[test]
    fn credentials_are_known_by_their_names() {
        let mut fields = headers(&[
            ("authorization", "Bearer x"),
            ("cookie", "x"),
            ("x-api-key", "x"),
            ("xi-api-key", "x"),
            ("x-amz-security-token", "x"),
            ("content-type", "text/plain"),
            ("anthropic-version", "1"),
        ]);
        let mut uri = "/v1/a?key=x&max_tokens=5&X-Amz-Signature=x&b".parse().unwrap();
        remove_credentials(&mut fields, &mut uri);
        assert_eq!(fields, headers(&[("content-type", "text/plain"), ("anthropic-version", "1")]));
        assert_eq!(uri, "/v1/a?max_tokens=5&b");
        uri = "/v1/a?access_token=x".parse().unwrap();
        remove_credentials(&mut fields, &mut uri);
        assert_eq!(uri, "/v1/a");
    }
}

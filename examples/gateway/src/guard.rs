//! Who may move the rollout.

use hyper::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, HOST, HeaderName, ORIGIN, VIA},
    http::uri::Authority,
};
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// Whether the request that came from `peer` with these fields may move the rollout, or why not.
///
/// Allowed are programs on this machine, pages that this gateway served to a browser on this machine, and whoever has
/// the token. A page of another site may not ([CSRF]): its `Origin` is another than the host that it asks. Nor may one
/// whose name was made to point to this machine (DNS rebinding): that name is not one of this machine's own.
///
/// [CSRF]: https://owasp.org/www-community/attacks/csrf
pub(crate) fn may_move(
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    token: Option<&str>,
) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err("there must be one Host field") };
    let Some(host) = host.to_str().ok().and_then(|host| Authority::from_str(host).ok()) else {
        return Err("the Host field cannot be read");
    };
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| Uri::from_str(origin).ok());
        // `Origin: null`, for one, has no authority.
        if origin.as_ref().and_then(Uri::authority) != Some(&host) {
            return Err("a page of another site asks");
        }
    }
    if let Some(field) = headers.get(AUTHORIZATION) {
        let sent = field.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default();
        let right = token.is_some_and(|token| same(token.as_bytes(), sent));
        return right.then_some(()).ok_or("the token is not the right one");
    }
    if !peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
        return Err("only from this machine, or with the token");
    }
    let forwarded = [HeaderName::from_static("forwarded"), HeaderName::from_static("x-forwarded-for"), VIA];
    if forwarded.iter().any(|name| headers.contains_key(name)) {
        return Err("through a proxy only with the token");
    }
    if !is_loopback_name(host.host()) {
        return Err("only under a name of this machine, such as localhost, or with the token");
    }
    Ok(())
}

fn is_loopback_name(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Takes the same time wherever the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn ask(peer: &str, fields: &[(&'static str, &'static str)], token: Option<&str>) -> bool {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        may_move(Some(SocketAddr::new(peer.parse().unwrap(), 4000)), &headers, token).is_ok()
    }

    #[test]
    fn this_machine_may() {
        for (peer, host) in [
            ("127.0.0.1", "127.0.0.1:8080"),
            ("127.0.0.1", "localhost:8080"),
            ("127.0.0.1", "LOCALHOST"),
            ("::1", "[::1]:8080"),
            ("::ffff:127.0.0.1", "localhost"),
        ] {
            assert!(ask(peer, &[("host", host)], None), "{peer} {host}");
        }
        let page = [("host", "localhost:8080"), ("origin", "http://localhost:8080")];
        assert!(ask("127.0.0.1", &page, None));
    }

    #[test]
    fn strangers_may_not() {
        let local = ("host", "localhost:8080");
        let cases: [(&str, &[(&str, &str)]); 12] = [
            ("another machine", &[local]),
            ("no host", &[]),
            ("two hosts", &[local, ("host", "localhost")]),
            ("a page elsewhere", &[local, ("origin", "https://evil.example")]),
            ("a page on another port", &[local, ("origin", "http://localhost:3000")]),
            ("a sandboxed page", &[local, ("origin", "null")]),
            ("a rebound name", &[("host", "evil.example:8080"), ("origin", "http://evil.example:8080")]),
            ("a name like ours", &[("host", "localhost.evil.example")]),
            ("a number like ours", &[("host", "127.0.0.1.evil.example")]),
            ("a proxy", &[local, ("x-forwarded-for", "10.0.0.1")]),
            ("a gateway", &[local, ("via", "1.1 other")]),
            ("a wrong token", &[local, ("authorization", "Bearer no")]),
        ];
        for (index, (who, fields)) in cases.into_iter().enumerate() {
            let peer = if index == 0 { "192.0.2.1" } else { "127.0.0.1" };
            let fields: Vec<(&'static str, &'static str)> = fields.to_vec();
            assert!(!ask(peer, &fields, Some("secret")), "{who}");
        }
        assert!(!ask("127.0.0.1", &[local, ("authorization", "Bearer ")], None), "there is no token");
    }

    #[test]
    fn the_token_opens_from_afar_but_not_for_other_sites() {
        let fields = [("host", "gateway.lan"), ("authorization", "Bearer secret")];
        assert!(ask("192.0.2.1", &fields, Some("secret")));
        let [host, token] = fields;
        assert!(!ask("192.0.2.1", &[host, token, ("origin", "http://evil.example")], Some("secret")));
    }
}

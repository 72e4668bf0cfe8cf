//! Keys that are ready-made: [`authority`], [`header`], [`credential`], [`path_prefix`], [`grpc_method`].
//!
//! Each of them hashes a `str`, so `for_key("api.example.com")` names the key that [`authority`] finds. A part that is
//! missing counts as an empty one.

use http::{
    HeaderMap, HeaderName, Request,
    header::{AUTHORIZATION, HOST},
};
use std::{
    borrow::Cow,
    hash::{Hash, Hasher},
};

/// Finds the key of a request. Implemented by every closure `Fn(&Request) -> K` with `K: Hash`, by what the functions
/// of this module return, and by tuples of two or three of them.
pub trait KeyOf<Req> {
    /// Feeds the request's key to the hasher.
    fn hash_key<H: Hasher>(&self, request: &Req, hasher: &mut H);
}

impl<F, Req, K> KeyOf<Req> for F
where
    F: Fn(&Req) -> K,
    K: Hash,
{
    fn hash_key<H: Hasher>(&self, request: &Req, hasher: &mut H) {
        self(request).hash(hasher);
    }
}

impl<Req, A: KeyOf<Req>, B: KeyOf<Req>> KeyOf<Req> for (A, B) {
    fn hash_key<H: Hasher>(&self, request: &Req, hasher: &mut H) {
        self.0.hash_key(request, hasher);
        self.1.hash_key(request, hasher);
    }
}

impl<Req, A: KeyOf<Req>, B: KeyOf<Req>, C: KeyOf<Req>> KeyOf<Req> for (A, B, C) {
    fn hash_key<H: Hasher>(&self, request: &Req, hasher: &mut H) {
        self.0.hash_key(request, hasher);
        self.1.hash_key(request, hasher);
        self.2.hash_key(request, hasher);
    }
}

/// See [`authority`].
#[derive(Clone, Copy, Debug)]
pub struct Authority;

/// By host and port, as in the request's URI, or else its `Host` field; in lower case.
pub const fn authority() -> Authority {
    Authority
}

impl<B> KeyOf<Request<B>> for Authority {
    fn hash_key<H: Hasher>(&self, request: &Request<B>, hasher: &mut H) {
        let host = || text(request.headers(), &HOST);
        let authority = request.uri().authority().map_or_else(host, |authority| authority.as_str().into());
        if authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
            authority.to_ascii_lowercase().hash(hasher);
        } else {
            authority.hash(hasher);
        }
    }
}

/// See [`header`].
#[derive(Clone, Debug)]
pub struct Header(HeaderName);

/// By the value of this header field: a tenant, for one.
pub const fn header(name: HeaderName) -> Header {
    Header(name)
}

impl<B> KeyOf<Request<B>> for Header {
    fn hash_key<H: Hasher>(&self, request: &Request<B>, hasher: &mut H) {
        text(request.headers(), &self.0).hash(hasher);
    }
}

/// See [`credential`].
#[derive(Clone, Copy, Debug)]
pub struct Credential;

/// By the credential that the request carries: the first of `Authorization`, `X-Api-Key`, `Api-Key` and
/// `X-Goog-Api-Key` that is there. For others use [`header`] or a closure.
pub const fn credential() -> Credential {
    Credential
}

impl<B> KeyOf<Request<B>> for Credential {
    fn hash_key<H: Hasher>(&self, request: &Request<B>, hasher: &mut H) {
        static KEYS: [HeaderName; 4] = [
            AUTHORIZATION,
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("api-key"),
            HeaderName::from_static("x-goog-api-key"),
        ];
        let name = KEYS.iter().find(|name| request.headers().contains_key(*name));
        name.map_or("".into(), |name| text(request.headers(), name)).hash(hasher);
    }
}

/// See [`path_prefix`].
#[derive(Clone, Copy, Debug)]
pub struct PathPrefix(usize);

/// By the first `segments` of the path: with 2, `/v1/models/a` and `/v1/models/b` have the key `/v1/models`.
pub const fn path_prefix(segments: usize) -> PathPrefix {
    PathPrefix(segments)
}

impl<B> KeyOf<Request<B>> for PathPrefix {
    fn hash_key<H: Hasher>(&self, request: &Request<B>, hasher: &mut H) {
        let path = request.uri().path();
        let end = path.match_indices('/').nth(self.0).map_or(path.len(), |(end, _)| end);
        path[..end].hash(hasher);
    }
}

/// See [`grpc_method`].
#[derive(Clone, Copy, Debug)]
pub struct GrpcMethod;

/// By gRPC method, which is the whole path: `/package.Service/Method`.
pub const fn grpc_method() -> GrpcMethod {
    GrpcMethod
}

impl<B> KeyOf<Request<B>> for GrpcMethod {
    fn hash_key<H: Hasher>(&self, request: &Request<B>, hasher: &mut H) {
        request.uri().path().hash(hasher);
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Cow<'a, str> {
    headers.get(name).map_or("".into(), |value| String::from_utf8_lossy(value.as_bytes()))
}

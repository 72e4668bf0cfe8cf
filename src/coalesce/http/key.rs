//! Which requests may share a call: those that differ in their bodies only.

use super::Share;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, request::Parts};

/// Headers that may differ: they say nothing about who asks, or what for, or are set anew.
const MAY_DIFFER: [&str; 6] =
    ["content-length", "accept-encoding", "traceparent", "tracestate", "x-request-id", "x-client-request-id"];

/// Method, URI, headers, what the user wants apart, and the codec's key, one after another, each with its length, so
/// that no two requests that differ in one of them have the same.
///
/// It is compared as a whole, not by a hash: two credentials must never fall together.
pub(super) fn key_of(head: &Parts, apart: Option<&[u8]>, share: &Share) -> Bytes {
    let mut key = BytesMut::with_capacity(256 + share.key.len());
    put(&mut key, head.method.as_str().as_bytes());
    let uri = &head.uri;
    put(&mut key, uri.scheme_str().unwrap_or_default().as_bytes());
    put(&mut key, uri.authority().map_or("", |authority| authority.as_str()).as_bytes());
    put(&mut key, uri.path_and_query().map_or("", |path| path.as_str()).as_bytes());
    let mut names: Vec<&HeaderName> =
        head.headers.keys().filter(|name| !MAY_DIFFER.contains(&name.as_str())).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    key.put_u64(names.len() as u64);
    for name in names {
        put(&mut key, name.as_str().as_bytes());
        let values = head.headers.get_all(name);
        key.put_u64(values.iter().count() as u64);
        values.iter().for_each(|value| put(&mut key, value.as_bytes()));
    }
    key.put_u8(apart.is_some().into());
    put(&mut key, apart.unwrap_or_default());
    put(&mut key, &share.key);
    key.freeze()
}

fn put(key: &mut BytesMut, part: &[u8]) {
    key.put_u64(part.len() as u64);
    key.put_slice(part);
}

/// Whether a body like this can be read: JSON, not encoded.
#[cfg(feature = "embeddings")]
pub(super) fn is_plain_json(head: &Parts) -> bool {
    use http::header;

    let json = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let json = json.and_then(|value| value.split(';').next());
    json.is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
        && !head.headers.contains_key(header::CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Parts {
        build(http::Request::post("https://api.example/v1/embeddings").header("authorization", "Bearer a"))
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    fn key(head: &Parts) -> Bytes {
        key_of(head, None, &Share::default())
    }

    #[test]
    fn whatever_tells_who_asks_makes_another_key() {
        let one = key(&head(|head| head));
        let others = [
            head(|head| head.header("authorization", "Bearer b")),
            head(|head| head.header("cookie", "session=1")),
            head(|head| head.header("openai-organization", "org")),
            head(|head| head.header("x-api-key", "1")),
            head(|head| head.uri("https://other.example/v1/embeddings")),
            head(|head| head.uri("https://api.example/v1/embeddings?key=1")),
            head(|head| head.method("PUT")),
        ];
        for other in others {
            assert_ne!(key(&other), one, "{other:?}");
        }
        assert_ne!(key_of(&head(|head| head), Some(b""), &Share::default()), one);
        let model = Share { key: b"model".to_vec(), ..Share::default() };
        assert_ne!(key_of(&head(|head| head), None, &model), one);
    }

    #[test]
    fn what_says_nothing_makes_no_other_key() {
        let same = head(|head| head.header("content-length", "5").header("traceparent", "00-1-2-00"));
        assert_eq!(key(&same), key(&head(|head| head)));
    }

    #[test]
    fn the_order_of_headers_does_not_matter_and_that_of_values_does() {
        let ab = head(|head| head.header("a", "1").header("b", "2"));
        let ba = head(|head| head.header("b", "2").header("a", "1"));
        assert_eq!(key(&ab), key(&ba));
        let values = head(|head| head.header("a", "1").header("a", "2"));
        let swapped = head(|head| head.header("a", "2").header("a", "1"));
        assert_ne!(key(&values), key(&swapped));
    }

    #[test]
    fn parts_do_not_run_together() {
        let one = head(|head| head.header("a", "bc"));
        let other = head(|head| head.header("ab", "c"));
        assert_ne!(key(&one), key(&other));
    }
}

//! Which bodies are worth reading, by their header fields.

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

/// Whether such a body may say something that this crate understands. Streams never do; a successful answer only as
/// JSON.
pub(super) fn may_tell(status: StatusCode, headers: &HeaderMap) -> bool {
    let plain = headers.get_all(CONTENT_ENCODING).iter().all(|coding| {
        coding.to_str().is_ok_and(|coding| coding.trim().is_empty() || is(coding.trim(), "identity"))
    });
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return plain && !status.is_success() };
    let essence = content_type.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
    plain && !is_stream(essence) && (!status.is_success() || is_json(essence))
}

fn is_json(essence: &str) -> bool {
    is(essence, "application/json") || is(essence, "text/json") || ends_with(essence, "+json")
}

fn is_stream(essence: &str) -> bool {
    starts_with(essence, "application/grpc")
        || starts_with(essence, "multipart/")
        || ["text/event-stream", "application/stream+json", "application/x-ndjson", "application/json-seq"]
            .iter()
            .any(|stream| is(essence, stream))
}

fn is(text: &str, name: &str) -> bool {
    text.eq_ignore_ascii_case(name)
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| is(start, prefix))
}

fn ends_with(text: &str, suffix: &str) -> bool {
    text.len().checked_sub(suffix.len()).and_then(|at| text.get(at..)).is_some_and(|end| is(end, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tells(status: u16, content_type: &str) -> bool {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        may_tell(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn a_refusal_of_any_type_and_a_success_of_json() {
        for json in
            ["application/json", "Application/JSON; charset=utf-8", "application/graphql-response+json"]
        {
            assert!(tells(200, json) && tells(429, json), "{json}");
        }
        for other in ["text/html", "application/octet-stream", "", "é", "json", "+jso"] {
            assert!(!tells(200, other) && tells(429, other), "{other}");
        }
        for stream in [
            "text/event-stream",
            "text/event-stream; charset=utf-8",
            "application/grpc",
            "application/grpc-web+proto",
            "application/stream+json",
            "application/x-ndjson",
            "multipart/mixed; boundary=x",
        ] {
            assert!(!tells(200, stream) && !tells(429, stream), "{stream}");
        }
        assert!(may_tell(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new()));
        assert!(!may_tell(StatusCode::OK, &HeaderMap::new()));
    }

    #[test]
    fn nothing_that_is_compressed() {
        for (coding, read) in
            [("gzip", false), ("br", false), ("identity", true), ("Identity", true), ("", true)]
        {
            let headers = HeaderMap::from_iter([(CONTENT_ENCODING, coding.parse().unwrap())]);
            assert_eq!(may_tell(StatusCode::TOO_MANY_REQUESTS, &headers), read, "{coding}");
        }
    }
}

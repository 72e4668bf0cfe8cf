//! URLs of upstreams.

use super::Route;
use hyper::Uri;

/// `URL` or `/PATH=URL`.
pub(super) fn route(text: &str) -> Result<Route, String> {
    if !text.starts_with('/') {
        return Ok(Route { path: String::new(), to: base_url(text)? });
    }
    let (path, url) = text.split_once('=').ok_or("after a path there must be `=` and a URL")?;
    let path = path.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    if path.is_empty()
        || !path.chars().all(plain)
        || path.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."))
    {
        return Err(format!("the path must be like /openai or /team/a, is {path:?}"));
    }
    if path == "/-" || path.starts_with("/-/") {
        return Err("paths below /-/ are the gateway's own".to_owned());
    }
    Ok(Route { path: path.to_owned(), to: base_url(url)? })
}

/// A URL that paths can be put behind.
pub(super) fn base_url(text: &str) -> Result<Uri, String> {
    let wrong = |problem: &str| format!("{problem}, is {text:?}");
    let uri: Uri = text.parse().map_err(|error| wrong(&format!("must be a URL ({error})")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("must begin with http:// or https://"));
    }
    // Not the URL itself: what stands before the @ is a secret.
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err("must not hold a user name or password; clients send their own".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong("must name a host"));
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(wrong("must not have a query or a fragment"));
    }
    let mut parts = uri.into_parts();
    let path = parts.path_and_query.take();
    let path = path.as_ref().map_or("", |path| path.path().trim_end_matches('/'));
    let path = if path.is_empty() { "/" } else { path };
    parts.path_and_query = Some(path.parse().map_err(|error| wrong(&format!("must be a URL ({error})")))?);
    Uri::from_parts(parts).map_err(|error| wrong(&format!("must be a URL ({error})")))
}

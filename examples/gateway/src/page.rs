//! The live page: one document, which asks for nothing but `/snapshot`.

use axum::response::{IntoResponse, Response};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

const HTML: &str = include_str!("../page/page.html");
const STYLE: &str = include_str!("../page/style.css");
const CHART: &str = include_str!("../page/chart.js");
const SCRIPT: &str = include_str!("../page/script.js");

/// The page. Nothing runs in it but its own script, nobody may frame it, and it may connect to nobody but us.
pub(crate) async fn page() -> Response {
    let nonce = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let html = HTML
        .replace("{nonce}", &nonce)
        .replace("/* style */", STYLE)
        .replace("/* script */", &format!("{CHART}\n{SCRIPT}"));
    let policy = format!(
        "default-src 'none'; connect-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let fields = [
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CONTENT_SECURITY_POLICY, policy),
        (REFERRER_POLICY, "no-referrer".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    (fields, html).into_response()
}

//! The way to the upstreams: TCP, and TLS by rustls.

use crate::{Settings, settings::Route};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{path::Path, sync::Arc, time::Duration};
use tower::BoxError;

/// The longest that a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

pub(crate) fn connector(settings: &Settings) -> Result<HttpsConnector<HttpConnector>, BoxError> {
    let upstreams = settings.upstreams.iter().map(|Route { to, .. }| to);
    let needed = upstreams.chain(&settings.fallback).any(|url| url.scheme_str() == Some("https"));
    let roots = if needed { roots(settings.ca.as_deref())? } else { RootCertStore::empty() };
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp))
}

/// The system's root certificates, and those of the file.
fn roots(file: Option<&Path>) -> Result<RootCertStore, BoxError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(file) = file {
        let wrong = |problem: String| format!("--ca: {}: {problem}", file.display());
        let found = CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
        let mut none = true;
        for certificate in found {
            roots
                .add(certificate.map_err(|error| wrong(error.to_string()))?)
                .map_err(|error| wrong(error.to_string()))?;
            none = false;
        }
        if none {
            return Err(wrong("holds no certificate".to_owned()).into());
        }
    }
    if roots.is_empty() {
        let problems: Vec<_> = system.errors.iter().map(ToString::to_string).collect();
        let problems =
            if problems.is_empty() { String::new() } else { format!(" ({})", problems.join("; ")) };
        return Err(format!(
            "the system has no root certificates for an https:// upstream{problems}; see --ca"
        )
        .into());
    }
    Ok(roots)
}

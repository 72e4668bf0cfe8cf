//! Upstreams with TLS: those that can be trusted, and those that cannot.

use crate::common::{nobody, post, settings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedKey, DnType, IsCa, KeyPair, KeyUsagePurpose};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls};
use tower_cooldown_gateway_example::Gateway;

/// A server for this name with a certificate of a new authority, and the file of that authority's own.
async fn server(name: &str) -> (SocketAddr, PathBuf) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Two authorities of one name would be taken for each other.
    authority.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
    let authority_key = KeyPair::generate().unwrap();
    let authority = authority.self_signed(&authority_key).unwrap();
    let key_pair = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let cert = cert.signed_by(&key_pair, &authority, &authority_key).unwrap();
    let CertifiedKey { cert, key_pair } = CertifiedKey { cert, key_pair };

    let key = rustls::pki_types::PrivateKeyDer::try_from(key_pair.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Clients that do not trust the certificate break off here.
                let Ok(mut socket) = acceptor.accept(socket).await else { return };
                let length = socket.read(&mut [0; 4096]).await.unwrap();
                assert!(length > 0);
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsafe").await.unwrap();
                socket.flush().await.unwrap();
                // Until the gateway closes.
                let _ = socket.read(&mut [0; 1]).await;
            });
        }
    });
    let file = std::env::temp_dir().join(format!("gateway-{}-{}.pem", std::process::id(), address.port()));
    std::fs::write(&file, authority.pem()).unwrap();
    (address, file)
}

#[tokio::test]
async fn a_certificate_is_checked() {
    let (right, ca) = server("localhost").await;
    let (other, other_ca) = server("other.example").await;
    let cases = [
        ("trusted", right, Some(&ca), None),
        ("nobody trusts it", right, Some(&other_ca), Some("UnknownIssuer")),
        ("another name", other, Some(&other_ca), Some("not valid for")),
    ];
    for (what, address, ca, problem) in cases {
        let ca = ca.map(|ca| format!("--ca {}", ca.display())).unwrap_or_default();
        let flags = format!("--upstream https://localhost:{} {ca}", address.port());
        let gateway = Gateway::start(settings(&flags)).await.unwrap();
        let answer = post(format!("http://{}/", gateway.address()), "", "").await;
        match problem {
            None => assert_eq!((answer.status().as_u16(), answer.text()), (200, "safe"), "{what}"),
            Some(problem) => {
                assert_eq!(answer.status(), 502, "{what}");
                assert!(answer.text().contains(problem), "{what}: {}", answer.text());
            }
        }
    }
    for file in [ca, other_ca] {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test]
async fn a_file_without_certificates_is_named() {
    let https = format!("--upstream https://{}", nobody().await);
    for file in ["/nowhere/ca.pem", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        let error = Gateway::start(settings(&format!("{https} --ca {file}"))).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("--ca: {file}: ")), "{error}");
    }
}

#[tokio::test]
async fn an_upstream_without_tls_behind_an_https_url() {
    let plain = crate::common::upstream(axum::Router::new()).await;
    let (_, ca) = server("localhost").await;
    let flags = format!("--upstream https://localhost:{} --ca {}", plain.port(), ca.display());
    let gateway = Gateway::start(settings(&flags)).await.unwrap();
    let answer = post(format!("http://{}/", gateway.address()), "", "").await;
    assert_eq!(answer.status(), 502);
    std::fs::remove_file(ca).unwrap();
}

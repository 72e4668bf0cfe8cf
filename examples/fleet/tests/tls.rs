//! A fleet through TLS, as a user with a password: what the URL says is done.

use http::Request;
use std::{
    env, fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, ServiceExt};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    fleet::{Fleet, FleetError, Mode},
    testing::{Limit, Upstream},
};

struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
    certificate: String,
}

impl Server {
    /// One that speaks TLS alone, with a certificate that was made for it, and knows one user.
    fn start() -> Self {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = env::temp_dir().join(format!("tower-cooldown-fleet-tls-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        fs::write(&certificate, own.cert.pem()).unwrap();
        fs::write(&key, own.key_pair.serialize_pem()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--tls-auth-clients", "no"])
            .arg("--tls-cert-file")
            .arg(&certificate)
            .arg("--tls-key-file")
            .arg(&key)
            .arg("--tls-ca-cert-file")
            .arg(&certificate)
            .args(["--user", "default", "off"])
            .args(["--user", "ours", "on", ">secret", "~tower-cooldown:*", "&tower-cooldown:*", "+@all"])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("a redis-server: see scripts/test");
        Self { child, port, folder, certificate: own.cert.pem() }
    }

    fn client(&self, scheme: &str, user: &str, trusted: bool) -> redis::Client {
        let url = format!("{scheme}://{user}@localhost:{}/", self.port);
        if !trusted {
            return redis::Client::open(url).unwrap();
        }
        let root_cert = Some(self.certificate.clone().into_bytes());
        redis::Client::build_with_tls(url, redis::TlsCertificates { client_tls: None, root_cert }).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        let removed = fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            killed.unwrap();
            removed.unwrap();
        }
    }
}

#[tokio::test]
async fn a_fleet_through_tls_as_a_user() {
    // Whichever other crates of the workspace bring along.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let server = Server::start();
    let fleet = |client| Fleet::redis(client, "upstream").unwrap();
    // A real process takes its time to come up.
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = fleet(server.client("rediss", "ours:secret", true)).check().await {
        assert!(Instant::now() < end, "{error}");
        sleep(Duration::from_millis(20)).await;
    }

    let upstream = Upstream::new([Limit::token_bucket(100, Duration::from_secs(1), 100).unwrap()]);
    let layer = AdaptiveCooldownLayer::shared(fleet(server.client("rediss", "ours:secret", true)));
    let handle = layer.handle();
    let client = ServiceBuilder::new().layer(layer).service(upstream);
    for _ in 0..5 {
        assert_eq!(client.clone().oneshot(Request::new(())).await.unwrap().status(), 200);
    }
    let snapshot = handle.fleet().unwrap();
    assert_eq!((snapshot.mode, snapshot.subscribed), (Mode::Shared, true), "{snapshot:?}");

    // A wrong password, a certificate that nobody vouches for, and no TLS at all are errors, and no secret is told.
    for (scheme, user, trusted) in
        [("rediss", "ours:wrong", true), ("rediss", "ours:secret", false), ("redis", "ours:secret", false)]
    {
        let error: FleetError = fleet(server.client(scheme, user, trusted)).check().await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
    }
}

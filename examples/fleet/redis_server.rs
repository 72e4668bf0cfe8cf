//! A `redis-server` of its own, on a free port, without persistence.

use std::{env, io, net::TcpListener, process::Stdio, time::Duration};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use tower::BoxError;

pub(crate) struct RedisServer {
    port: u16,
    child: Option<Child>,
}

impl RedisServer {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut server = Self { port, child: None };
        server.restart().await?;
        Ok(server)
    }

    pub(crate) async fn restart(&mut self) -> Result<(), BoxError> {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .current_dir(env::temp_dir())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => "there is no redis-server: install it, or give --redis URL".into(),
                _ => BoxError::from(error),
            })?;
        self.child = Some(child);
        let client = redis::Client::open(self.url())?;
        let start = Instant::now();
        while let Err(error) = client.get_multiplexed_async_connection().await {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(error.into());
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// By SIGKILL.
    pub(crate) async fn kill(&mut self) -> Result<(), BoxError> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

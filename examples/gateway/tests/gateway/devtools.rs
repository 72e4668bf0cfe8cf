//! Just enough of a browser's DevTools protocol to open a page, ask it, press keys, and take a picture.

use crate::common::PATIENCE;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// A headless browser with one page.
pub(crate) struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    last_id: u64,
    /// Errors and warnings that the page wrote.
    pub(crate) complaints: Vec<String>,
    process: Child,
    profile: PathBuf,
}

impl Browser {
    /// Starts the system's Chromium (or what `CHROMIUM` names).
    ///
    /// `None` where there is none, and nothing says that there must be.
    pub(crate) async fn open(url: &str) -> Option<Self> {
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let profile = std::env::temp_dir().join(format!(
            "gateway-browser-{}-{}",
            std::process::id(),
            fastrand::u32(..)
        ));
        let process = Command::new(&program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--no-proxy-server", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut process = match process {
            Ok(process) => process,
            Err(error) if std::env::var_os("REQUIRE_TOOLS").is_none() => {
                eprintln!("not tested, there is no {program}: {error}");
                return None;
            }
            Err(error) => panic!("{program}: {error}; scripts/test installs it, CHROMIUM names another"),
        };
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = async {
            let mut seen = String::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(address) = line.strip_prefix("DevTools listening on ") {
                    return address.to_owned();
                }
                seen.push_str(&line);
                seen.push('\n');
            }
            panic!("{program} ended: {seen}");
        };
        let address = tokio::time::timeout(PATIENCE, address).await.expect("the browser does not start");
        // It must not wait for somebody to read what it has to say.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        let complaints = Vec::new();
        let mut browser = Self { socket, session: String::new(), last_id: 0, complaints, process, profile };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" })).await;
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", target).await;
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({})).await;
        }
        browser.ask("Page.navigate", json!({ "url": url })).await;
        Some(browser)
    }

    /// Sends a command and returns its result.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": params });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(command.to_string())).await.unwrap();
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let message = message.unwrap_or_else(|_| panic!("no answer to {method}")).unwrap().unwrap();
            let Ok(text) = message.to_text() else { continue };
            let Ok(message) = serde_json::from_str::<Value>(text) else { continue };
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            let params = &message["params"];
            let level = params["entry"]["level"].as_str();
            if message["method"] == "Runtime.exceptionThrown" || matches!(level, Some("error" | "warning")) {
                self.complaints.push(params.to_string());
            }
        }
    }

    /// The value of an expression in the page; a promise is waited for.
    pub(crate) async fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Looks again until the expression is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        let start = tokio::time::Instant::now();
        while self.eval(expression).await != true {
            if start.elapsed() > PATIENCE {
                let text = self.eval("document.body.innerText").await;
                panic!("not within {PATIENCE:?}: {expression}\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses and releases a key.
    pub(crate) async fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.ask("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Sets the size of the window, in CSS pixels.
    pub(crate) async fn resize(&mut self, width: u32, height: u32, mobile: bool) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.ask("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// Light or dark.
    pub(crate) async fn scheme(&mut self, scheme: &str) {
        let params = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", params).await;
    }

    /// A picture of the whole page, as PNG.
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        let params = json!({ "format": "png", "captureBeyondViewport": true, "optimizeForSpeed": false });
        let answer = self.ask("Page.captureScreenshot", params).await;
        base64(answer["data"].as_str().unwrap())
    }

    /// Ends the browser.
    pub(crate) async fn close(mut self) {
        self.session.clear();
        self.ask("Browser.close", json!({})).await;
        self.process.wait().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // After a failed test it may still be there and write; the rest stays among the temporary files.
        let _ = self.process.start_kill();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// Decodes it (RFC 4648).
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let digit = DIGITS.iter().position(|each| *each == digit).expect("a digit of base 64");
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

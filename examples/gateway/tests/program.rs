//! The program itself: what it says, and how it ends. `cargo test` builds it, unless it is told to build one test only.

#![cfg(unix)]

use axum::{Router, body::Body};
use http_body_util::BodyExt;
use hyper::Request;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use std::{path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::mpsc,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Beside the directory of the tests.
fn program() -> Option<Command> {
    let tests = std::env::current_exe().unwrap();
    let file: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples/gateway");
    if !file.exists() {
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "there is no {}", file.display());
        eprintln!("not tested, there is no {}", file.display());
        return None;
    }
    let mut command = Command::new(file);
    command.env_clear().kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

async fn run(command: &mut Command) -> (i32, String, String) {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it does not end").unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn it_says_what_it_can_and_what_is_wrong() {
    let Some(mut command) = program() else { return };
    let (code, out, err) = run(command.arg("--help")).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("A reverse proxy") && out.lines().all(|line| line.len() <= 120), "{out}");

    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (words, exit, problem) in [
        (vec!["--upstream", "nonsense"], 2, "--upstream: must begin with http:// or https://".to_owned()),
        (vec!["--upstream", "http://a", "--listen", &address], 1, format!("cannot listen on {address}: ")),
    ] {
        let (code, out, err) = run(program().unwrap().args(words)).await;
        assert_eq!((code, out.as_str()), (exit, ""));
        assert!(err.starts_with(&problem) && err.lines().count() == 1, "{err}");
    }
}

#[tokio::test]
async fn without_a_flag_it_shows_what_it_does() {
    let Some(mut command) = program() else { return };
    // Port 8080 may be somebody else's; then it says so.
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    let whole = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let last = line.starts_with("a demonstration");
            said.push(line);
            if last {
                return true;
            }
        }
        false
    };
    if !tokio::time::timeout(PATIENCE, whole).await.expect("it says nothing") {
        let (mut error, mut stderr) = (String::new(), child.stderr.take().unwrap());
        stderr.read_to_string(&mut error).await.unwrap();
        assert!(error.starts_with("cannot listen on 127.0.0.1:8080: "), "{error}");
        return;
    }
    assert!(said[1].starts_with("live page on http://127.0.0.1:8080/"), "{said:?}");
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    // Real sockets: its callers have their first answers within a second, as a rule.
    for _ in 0..200 {
        let page = client.get("http://127.0.0.1:8080/metrics".parse().unwrap()).await.unwrap();
        let text = page.into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&text).unwrap();
        let accepted = |line: &str| line.contains("outcome=\"accepted\"") && !line.ends_with(" 0");
        if text.lines().any(|line| line.starts_with("tower_cooldown_attempts_total") && accepted(line)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no call was answered");
}

#[tokio::test]
async fn a_signal_ends_it_after_the_last_call_and_a_second_one_at_once() {
    for impatient in [false, true] {
        let (came, mut comes) = mpsc::unbounded_channel();
        let (go, goes) = tokio::sync::watch::channel(false);
        let app = Router::new().fallback(move || {
            let (came, mut goes) = (came.clone(), goes.clone());
            async move {
                came.send(()).unwrap();
                goes.wait_for(|goes| *goes).await.unwrap();
                "answer"
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

        let Some(mut command) = program() else { return };
        let mut gateway = command.args(["--upstream", &upstream, "--listen", "127.0.0.1:0"]).spawn().unwrap();
        let mut lines = BufReader::new(gateway.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        let url = first.strip_prefix("listening on ").unwrap().to_owned();
        let call = tokio::spawn(async move {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let answer = client.request(Request::post(url).body(Body::from("hello")).unwrap()).await?;
            Ok::<_, hyper_util::client::legacy::Error>(answer.into_body().collect().await.unwrap().to_bytes())
        });
        tokio::time::timeout(PATIENCE, comes.recv()).await.expect("the call does not come");
        terminate(&gateway).await;
        let mut stderr = BufReader::new(gateway.stderr.take().unwrap());
        let mut said = String::new();
        tokio::time::timeout(PATIENCE, stderr.read_line(&mut said)).await.unwrap().unwrap();
        assert!(said.starts_with("stopping: "), "{said}");
        if impatient {
            terminate(&gateway).await;
        } else {
            go.send(true).unwrap();
        }
        let exit = tokio::time::timeout(PATIENCE, gateway.wait()).await.expect("it does not end").unwrap();
        assert_eq!(exit.code(), Some(impatient.into()));
        match call.await.unwrap() {
            Ok(answer) => assert!(!impatient && answer == "answer"),
            Err(error) => assert!(impatient, "the call is lost: {error}"),
        }
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "");
    }
}

async fn terminate(process: &Child) {
    let kill =
        Command::new("sh").arg("-c").arg(format!("kill -TERM {}", process.id().unwrap())).status().await;
    assert!(kill.unwrap().success());
}

//! What the gateway adds to a call: one directly, one through it, in turns, on loopback.
//!
//! ```text
//! cargo bench --bench gateway
//! ```
//!
//! Upstream, gateway and clients share this process and its processors. Each client keeps one connection, as HTTP
//! clients do. Then it scrapes a gateway with 100 upstreams. It fails if the gateway adds more than 0.3 ms at the median,
//! or if a scrape takes 5 ms at the median or has 4,000 series.

use axum::{Router, body::Body, routing::post};
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream};
use tower::BoxError;
use tower_cooldown_gateway_example::{
    Gateway,
    settings::{Command, Settings},
};

const CALLS: usize = 20_000;
const WARM_UP: usize = 2_000;
const MOST: Duration = Duration::from_micros(300);
const UPSTREAMS: usize = 100;
const SCRAPES: usize = 200;
const SCRAPE: Duration = Duration::from_millis(5);
const SERIES: usize = 4000;

/// A prompt and an answer of a usual size.
const REQUEST: &[u8] = &[b'q'; 2048];
const ANSWER: &[u8] = &[b'a'; 1024];

type Client = SendRequest<Full<&'static [u8]>>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<ExitCode, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let upstream = listener.local_addr()?;
    tokio::spawn(async {
        axum::serve(listener, Router::new().route("/call", post(async || Body::from(ANSWER)))).await
    });
    // There is room for all, so that what is measured is the way and not the waiting.
    let gateway =
        Gateway::start(settings(&format!("--upstream http://{upstream} --quota 4000000000/s"))?).await?;

    let (mut direct, mut through) = (connect(upstream).await?, connect(gateway.address()).await?);
    for _ in 0..WARM_UP {
        call(&mut direct).await?;
        call(&mut through).await?;
    }
    let (mut without, mut with) = (Vec::with_capacity(CALLS), Vec::with_capacity(CALLS));
    for turn in 0..CALLS {
        // Neither is always the one that comes after the other.
        if turn % 2 == 0 {
            without.push(call(&mut direct).await?);
            with.push(call(&mut through).await?);
        } else {
            with.push(call(&mut through).await?);
            without.push(call(&mut direct).await?);
        }
    }
    gateway.stop().await;
    println!("{:<28} {:>10} {:>10} {:>10}", format!("{CALLS} calls each, in turns"), "p50", "p95", "p99");
    let (without, with) = (quantiles(&mut without), quantiles(&mut with));
    row("direct", &without);
    row("through the gateway", &with);
    let added = with[0].saturating_sub(without[0]);
    row("added at the median", &[added]);
    let (scrape, series) = scrape(upstream).await?;
    row(&format!("scrape of {series} series"), &scrape);

    let mut code = ExitCode::SUCCESS;
    for (missed, what) in [
        (added > MOST, "the gateway adds more than 0.3 ms at the median"),
        (scrape[0] >= SCRAPE, "a scrape takes 5 ms or more"),
        (series >= SERIES, "a scrape has 4,000 series or more"),
    ] {
        if missed {
            eprintln!("{what}");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// How long it takes to read `/metrics` of a gateway with 100 upstreams, and how many series there are.
async fn scrape(upstream: SocketAddr) -> Result<(Vec<Duration>, usize), BoxError> {
    let upstreams =
        (0..UPSTREAMS).map(|n| format!("--upstream /{n}=http://127.0.0.{}:{}", n + 1, upstream.port()));
    let gateway = Gateway::start(settings(&upstreams.collect::<Vec<_>>().join(" "))?).await?;
    let mut client = connect(gateway.address()).await?;
    for n in 0..UPSTREAMS {
        // The answer does not matter: a call makes a gate, and a book with something in it.
        let request =
            Request::post(format!("/{n}/call")).header("host", "gateway").body(Full::new(REQUEST))?;
        client.ready().await?;
        client.send_request(request).await?.into_body().collect().await?;
    }
    let (mut times, mut text) = (Vec::new(), String::new());
    for _ in 0..SCRAPES {
        client.ready().await?;
        let request = Request::get("/metrics").header("host", "gateway").body(Full::new(&[][..]))?;
        let start = Instant::now();
        let body = client.send_request(request).await?.into_body().collect().await?.to_bytes();
        times.push(start.elapsed());
        text = String::from_utf8(body.into())?;
    }
    drop(client);
    gateway.stop().await;
    Ok((quantiles(&mut times), text.lines().filter(|line| !line.starts_with('#')).count()))
}

fn settings(words: &str) -> Result<Settings, BoxError> {
    let words = format!("--listen 127.0.0.1:0 {words}");
    match Command::parse(words.split(' ').map(str::to_owned), |_| None)? {
        Command::Serve(settings) => Ok(settings),
        Command::Help | Command::Demo(_) => Err("there is no --help among the flags".into()),
    }
}

async fn connect(to: SocketAddr) -> Result<Client, BoxError> {
    let socket = TcpStream::connect(to).await?;
    socket.set_nodelay(true)?;
    let (client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// How long one call takes, to the last byte of its answer.
async fn call(client: &mut Client) -> Result<Duration, BoxError> {
    client.ready().await?;
    let request = Request::post("/call").header("host", "upstream").body(Full::new(REQUEST))?;
    let start = Instant::now();
    let answer = client.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let took = start.elapsed();
    if !status.is_success() || body != ANSWER {
        return Err(format!("answered {status}").into());
    }
    Ok(took)
}

fn quantiles(times: &mut [Duration]) -> Vec<Duration> {
    times.sort_unstable();
    [0.50, 0.95, 0.99].map(|quantile| times[(times.len() as f64 * quantile) as usize]).to_vec()
}

fn row(name: &str, times: &[Duration]) {
    print!("{name:<28}");
    times.iter().for_each(|time| print!(" {:>7.0} µs", time.as_secs_f64() * 1e6));
    println!();
}

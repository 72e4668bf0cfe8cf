//! Many processes, one quota: N worker processes call one server, shared through Redis and not.
//!
//! `cargo run --release --features redis --example fleet -- --outage --json`

mod args;
mod redis_server;
mod worker;
mod workers;

use self::{args::Args, redis_server::RedisServer, workers::Workers};
use serde_json::{Value, json};
use std::{env, process::ExitCode, time::Duration};
use tokio::time::sleep;
use tower::BoxError;
use tower_cooldown_fleet_example::{Seen, Server};

const OUTAGE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::parse(env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if args.help {
        print!("{}", args::HELP);
        return ExitCode::SUCCESS;
    }
    let done = match &args.worker {
        Some((number, server)) => worker::run(&args, *number, server).await,
        None => run(&args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What came of one way to run.
struct Figures {
    seen: Seen,
    goodput: f64,
    failed: u64,
    fairness: f64,
    commands_per_call: f64,
}

/// What came of the outage.
struct Outage {
    seen: Seen,
    recovered: Duration,
}

async fn run(args: &Args) -> Result<(), BoxError> {
    let ((shared, outage), unshared) = if args.at_once() {
        tokio::try_join!(shared(args), unshared(args))?
    } else {
        (shared(args).await?, unshared(args).await?)
    };
    if args.json {
        let mut report = json!({ "shared": shared.json(), "unshared": unshared.json() });
        if let Some(outage) = &outage {
            report["outage"] = json!({
                "failed_calls": shared.failed,
                "refused": round(outage.seen.refused_share()),
                "recovered_s": round(outage.recovered.as_secs_f64()),
            });
        }
        println!("{report}");
        return Ok(());
    }
    let Args { processes, callers, quota, seconds, .. } = args;
    println!("{processes} processes, {callers} callers each, {quota} calls a second for all, {seconds} s\n");
    println!("             goodput  refused  failed  fairness  commands per call");
    for (name, figures) in [("shared", &shared), ("unshared", &unshared)] {
        println!(
            "{name:<10} {:>7.1} % {:>6.2} % {:>7} {:>9.3} {:>18.2}",
            100.0 * figures.goodput,
            100.0 * figures.seen.refused_share(),
            figures.failed,
            figures.fairness,
            figures.commands_per_call
        );
    }
    if let Some(Outage { seen, recovered }) = &outage {
        println!(
            "\nRedis killed for {OUTAGE:?}: {:.1} % goodput, {:.2} % refused meanwhile; recovered in {recovered:.2?}",
            100.0 * seen.total() as f64 / (f64::from(*quota) * OUTAGE.as_secs_f64()),
            100.0 * seen.refused_share()
        );
    }
    Ok(())
}

async fn shared(args: &Args) -> Result<(Figures, Option<Outage>), BoxError> {
    let mut own = match &args.redis {
        Some(_) => None,
        None => Some(RedisServer::start().await?),
    };
    let url = own.as_ref().map(RedisServer::url).or(args.redis.clone()).unwrap_or_default();
    let server = Server::new(args.quota)?;
    let workers = Workers::start(args, &server.serve().await?.to_string(), Some(&url))?;
    workers.all("shared", Duration::from_secs(20)).await?;
    let span = Duration::from_secs(args.seconds.into());
    sleep(span).await;
    let measured = measure(&server, span).await;
    let mut outage = None;
    if let Some(redis) = own.as_mut().filter(|_| args.outage) {
        redis.kill().await?;
        let seen = measure(&server, OUTAGE).await;
        redis.restart().await?;
        let recovered = workers.all("shared", Duration::from_secs(20)).await?;
        outage = Some(Outage { seen, recovered });
        sleep(Duration::from_secs(2)).await;
    }
    let calls = server.seen().total() as f64;
    let said = workers.end().await?;
    Ok((Figures::new(args, measured, said.failed, said.commands as f64 / calls.max(1.0)), outage))
}

async fn unshared(args: &Args) -> Result<Figures, BoxError> {
    let server = Server::new(args.quota)?;
    let workers = Workers::start(args, &server.serve().await?.to_string(), None)?;
    let span = Duration::from_secs(args.seconds.into());
    sleep(span).await;
    let measured = measure(&server, span).await;
    let said = workers.end().await?;
    Ok(Figures::new(args, measured, said.failed, 0.0))
}

async fn measure(server: &Server, span: Duration) -> Seen {
    let before = server.seen();
    sleep(span).await;
    server.seen().since(&before)
}

impl Figures {
    fn new(args: &Args, seen: Seen, failed: u64, commands_per_call: f64) -> Self {
        let most = f64::from(args.quota) * f64::from(args.seconds);
        let (goodput, fairness) = (seen.total() as f64 / most, seen.fairness(args.processes));
        Self { seen, goodput, failed, fairness, commands_per_call }
    }

    fn json(&self) -> Value {
        json!({
            "goodput": round(self.goodput),
            "refused": round(self.seen.refused_share()),
            "failed_calls": self.failed,
            "fairness": round(self.fairness),
        })
    }
}

/// To four places.
fn round(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

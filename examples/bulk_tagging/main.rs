//! Tags a batch of pages with an LLM whose free tier allows 15 requests per 30 seconds, and with a second
//! provider for what the first cannot serve.
//!
//! ```sh
//! cargo run --release --example bulk_tagging
//! cargo run --release --example bulk_tagging -- --help
//! ```
//!
//! The job runs three times: with a bare client that backs off exponentially, with the rules of this crate's
//! first version, and with the stack of this crate, which is the function [`stack`] below. The two providers are
//! real HTTP servers on the loopback interface; nothing leaves the machine. Unless told otherwise, everything
//! runs ten times faster than in reality, and the times in the tables are converted back.
//!
//! - `main.rs`: the stack, and the three runs
//! - `job.rs`: one run
//! - `rivals.rs`: the other two ways
//! - `client.rs`, `pages.rs`: HTTP clients; what is asked and what is answered
//! - `servers.rs`: the providers
//! - `args.rs`, `scale.rs`, `report.rs`: flags, pace, tables

mod args;
mod client;
mod job;
mod pages;
mod report;
mod rivals;
mod scale;
mod servers;

use args::Args;
use client::{BoxError, Client};
use pages::Page;
use scale::Scale;
use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};
use tower::{ServiceBuilder, retry::RetryLayer};
use tower_cooldown::{
    AdaptiveCooldownLayer, FallbackLayer, InvalidSetting, MicroBatchLayer,
    policy::{Known, Quota},
    record::Statistics,
    retry::RetryPolicy,
};

/// The stack: what this example is about. A call passes the layers from top to bottom.
fn stack(
    primary: impl Client,
    fallback: impl Client,
    quota: Quota,
    scale: Scale,
    statistics: &Statistics,
) -> Result<impl Client, InvalidSetting> {
    // The defaults, on the example's fast clock.
    let [pause, short, long, longest] =
        [500, 1500, 3000, 7000].map(|ms| scale.down(Duration::from_millis(ms)));
    let policy = Known::new(quota).steps([pause, short, long, longest]);
    Ok(ServiceBuilder::new()
        .map_err(BoxError::from)
        // Two pages at a time, and a pause between.
        .layer(MicroBatchLayer::new(2)?.pause(pause).statistics(statistics))
        // What the primary cannot serve after all retries goes to the second provider.
        .layer(FallbackLayer::new(fallback).statistics(statistics))
        // A refused call goes again, up to three times; when, that is up to the next layer.
        .layer(RetryLayer::new(RetryPolicy::new().max_retries(3)))
        // Keeps to the quota: calls wait here, so that hardly any is refused.
        .layer(AdaptiveCooldownLayer::with_policy(policy).name("gemini").track_usage().statistics(statistics))
        .service(primary))
}

async fn run(args: &Args) -> Result<ExitCode, BoxError> {
    let pages: Vec<Page> = (1..=args.pages).map(Page::generate).collect();
    if args.dry_run {
        print(&report::plan(args, &pages))?;
        return Ok(ExitCode::SUCCESS);
    }

    let setup = job::set_up(args).await?;
    let client = rivals::bare(setup.primary.clone(), setup.fallback.clone(), args.scale);
    let bare = setup.run("bare", args, &pages, client).await?;

    let setup = job::set_up(args).await?;
    let client = rivals::first_version(setup.primary.clone(), setup.fallback.clone(), args.scale);
    let first_version = setup.run("first-version", args, &pages, client).await?;

    let setup = job::set_up(args).await?;
    let statistics = Statistics::new();
    let quota = Quota::new(args.quota, args.scale.down(args.window))?;
    let client = stack(setup.primary.clone(), setup.fallback.clone(), quota, args.scale, &statistics)?;
    let cooldown = setup.run("tower-cooldown", args, &pages, client).await?;

    let (tags, complete) = (report::tags(&cooldown), cooldown.is_complete());
    let runs = [bare, first_version, cooldown];
    if args.json {
        print(&report::json(&runs))?;
    } else {
        let snapshot = args.scale.up_snapshot(statistics.snapshot());
        let table = report::table(&runs);
        print(&format!(
            "\nAll times at the real pace. This ran {}.\n\n{table}\n\
             Pages by their first tag: {tags}\n\n\
             The snapshot of the tower-cooldown run, its times converted to the real pace too:\n\n{snapshot}",
            args.scale,
        ))?;
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let words = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let result = match Args::parse(words) {
        Ok(args) if args.help => print(args::HELP).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Ok(args) => run(&args).await,
        Err(problem) => {
            eprintln!("bulk_tagging: {problem}");
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("bulk_tagging: {error}");
        ExitCode::FAILURE
    })
}

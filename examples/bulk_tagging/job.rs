//! One run: fresh servers, a way to ask, and all the pages through it.

use crate::{
    args::Args,
    client::{BoxError, Client, ServiceTime, fallback_client, http_client},
    pages::{Answer, Page, Provider},
    report::Run,
    servers::Server,
};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;
use tokio::time::Instant;
use tower::ServiceExt;

/// The servers of one run, and a client for each.
pub(crate) struct Setup<P, F> {
    primary_server: Server,
    fallback_server: Server,
    pub(crate) primary: P,
    pub(crate) fallback: F,
    service_time: ServiceTime,
}

/// Starts fresh servers, whose quota nobody has used yet.
pub(crate) async fn set_up(args: &Args) -> Result<Setup<impl Client, impl Client>, BoxError> {
    let primary_server = Server::gemini(args.quota, args.window, args.scale).await?;
    let fallback_server = Server::chat(args.scale).await?;
    let service_time = ServiceTime::default();
    let time_limit = args.scale.down(Duration::from_secs(30));
    let primary = http_client(time_limit, service_time.clone());
    let fallback = http_client(time_limit, ServiceTime::default());
    let fallback = fallback_client(fallback_server.base().to_owned(), fallback);
    Ok(Setup { primary_server, fallback_server, primary, fallback, service_time })
}

impl<P, F> Setup<P, F> {
    /// Tags all pages through `client`, `args.concurrency` at once.
    pub(crate) async fn run(
        self,
        name: &'static str,
        args: &Args,
        pages: &[Page],
        client: impl Client,
    ) -> Result<Run, BoxError> {
        let progress = Progress::start(name, pages.len());
        let started = Instant::now();
        let requests: Vec<_> =
            pages.iter().map(|page| page.request(self.primary_server.base())).collect::<Result<_, _>>()?;
        let answers = futures::stream::iter(requests).map(|request| {
            let client = client.clone();
            let (progress, server) = (&progress, &self.primary_server);
            async move {
                let asked = Instant::now();
                let (answer, problem) = match client.oneshot(request).await {
                    Ok(response) => (Answer::read(&response), format!("no tags, {}", response.status())),
                    Err(error) => (None, error.to_string()),
                };
                if answer.is_none() {
                    progress.say(&format!("{name}: a page was lost: {problem}"));
                }
                let time = args.scale.up(asked.elapsed());
                progress.page(answer.as_ref(), server.refused());
                (answer, time)
            }
        });
        let pages: Vec<_> = answers.buffer_unordered(args.concurrency).collect().await;
        let run = Run {
            name,
            pages,
            refused_429: self.primary_server.refused(),
            calls_sent: self.primary_server.requests() + self.fallback_server.requests(),
            mean_service: args.scale.up(self.service_time.mean()),
            elapsed: args.scale.up(started.elapsed()),
        };
        progress.end(&run);
        Ok(run)
    }
}

/// A bar on a terminal; otherwise a line at the start and one at the end, because indicatif hides its bars.
struct Progress {
    name: &'static str,
    bar: ProgressBar,
}

impl Progress {
    fn start(name: &'static str, pages: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(pages as u64), ProgressDrawTarget::stderr());
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:<14} {spinner} [{bar:28}] {pos:>3}/{len} {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name);
        bar.tick();
        // A sign of life while all calls wait for the quota.
        bar.enable_steady_tick(Duration::from_millis(100));
        if bar.is_hidden() {
            eprintln!("{name}: {pages} pages ...");
        }
        Self { name, bar }
    }

    fn page(&self, answer: Option<&Answer>, refused: u64) {
        let by = match answer.map(|answer| answer.by) {
            Some(Provider::Primary) => "primary",
            Some(Provider::Fallback) => "fallback",
            None => "lost",
        };
        self.bar.set_message(format!("{refused} 429s, last by: {by}"));
        self.bar.inc(1);
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    fn end(&self, run: &Run) {
        let line = format!(
            "{} answered, {} 429s, {:.1} s",
            run.answered(),
            run.refused_429,
            run.elapsed.as_secs_f64()
        );
        if self.bar.is_hidden() {
            eprintln!("{}: {line}", self.name);
        }
        self.bar.finish_with_message(line);
    }
}

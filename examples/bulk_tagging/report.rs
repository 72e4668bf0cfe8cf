//! What comes out: the table, the JSON, and the plan of a dry run.

use crate::{
    args::Args,
    pages::{Answer, Page, Provider},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// How the job went in one way of asking. Times are at the real pace.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: &'static str,
    /// Per page: its answer, `None` if it was lost, and how long that took, waiting and retries included.
    pub(crate) pages: Vec<(Option<Answer>, Duration)>,
    /// As the primary's server counted them.
    pub(crate) refused_429: u64,
    /// As both servers counted them.
    pub(crate) calls_sent: u64,
    /// See [`ServiceTime`](crate::client::ServiceTime).
    pub(crate) mean_service: Duration,
    pub(crate) elapsed: Duration,
}

impl Run {
    fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.pages.iter().filter_map(|(answer, _)| answer.as_ref())
    }

    pub(crate) fn answered(&self) -> usize {
        self.answers().count()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.answered() == self.pages.len()
    }

    /// Pages answered by this provider, as a share of all pages.
    fn share(&self, by: Provider) -> f64 {
        self.answers().filter(|answer| answer.by == by).count() as f64 / self.pages.len() as f64
    }

    fn mean_response(&self) -> Duration {
        self.pages.iter().map(|(_, time)| *time).sum::<Duration>() / self.pages.len() as u32
    }

    fn p95_response(&self) -> Duration {
        let mut times: Vec<Duration> = self.pages.iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        times[(times.len() * 95).div_ceil(100) - 1]
    }

    /// Refusals are free; answers are not.
    fn cost(&self) -> f64 {
        self.answers().map(|answer| answer.tokens as f64 * answer.by.price()).sum()
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "operations": self.pages.len(),
            "answered": self.answered(),
            "primary_success_rate": self.share(Provider::Primary),
            "fallback_rate": self.share(Provider::Fallback),
            "refused_429": self.refused_429,
            "calls_sent": self.calls_sent,
            "mean_response_ms": rounded(millis(self.mean_response()), 1),
            "mean_service_ms": rounded(millis(self.mean_service), 1),
            "elapsed_s": rounded(self.elapsed.as_secs_f64(), 3),
            "cost": rounded(self.cost(), 7),
        })
    }
}

pub(crate) fn json(runs: &[Run]) -> String {
    format!("{:#}\n", json!({ "runs": runs.iter().map(Run::json).collect::<Vec<_>>() }))
}

pub(crate) fn table(runs: &[Run]) -> String {
    type Cell = fn(&Run) -> String;
    const ROWS: [(&str, Cell); 10] = [
        ("answered", |run| format!("{} of {}", run.answered(), run.pages.len())),
        ("primary success", |run| percent(run.share(Provider::Primary))),
        ("fallback", |run| percent(run.share(Provider::Fallback))),
        ("429s", |run| run.refused_429.to_string()),
        ("calls sent", |run| run.calls_sent.to_string()),
        ("response, mean", |run| format!("{:.0} ms", millis(run.mean_response()))),
        ("response, p95", |run| format!("{:.0} ms", millis(run.p95_response()))),
        ("service, mean", |run| format!("{:.0} ms", millis(run.mean_service))),
        ("elapsed", |run| format!("{:.1} s", run.elapsed.as_secs_f64())),
        ("cost", |run| format!("$ {:.5}", run.cost())),
    ];
    let mut table = format!("{:<16}", "");
    for run in runs {
        let _ = write!(table, " {:>15}", run.name);
    }
    for (name, cell) in ROWS {
        let _ = write!(table, "\n{name:<16}");
        for run in runs {
            let _ = write!(table, " {:>15}", cell(run));
        }
    }
    table.push('\n');
    table
}

/// What the job was for: how many pages have which first tag.
pub(crate) fn tags(run: &Run) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in run.answers() {
        *counts.entry(answer.tags[0].as_str()).or_default() += 1;
    }
    counts.iter().map(|(tag, count)| format!("{tag} {count}")).collect::<Vec<_>>().join(", ")
}

pub(crate) fn plan(args: &Args, pages: &[Page]) -> String {
    // Answers are short: about ten tokens for the tags.
    let tokens: u64 = pages.iter().map(|page| page.tokens() + 10).sum();
    let cost = |provider: Provider| tokens as f64 * provider.price();
    // What bounds the stack's run: the quota, or the groups of two with their pauses.
    let full_windows = (args.pages - 1) / args.quota as usize;
    let by_quota = full_windows as f64 * args.window.as_secs_f64() + 0.8;
    let by_groups = args.pages.div_ceil(2) as f64 * (0.8 + 0.5) - 0.5;
    let seconds = by_quota.max(by_groups);
    if args.json {
        let plan = json!({
            "dry_run": true,
            "pages": args.pages,
            "concurrency": args.concurrency,
            "quota": args.quota,
            "window_s": args.window.as_secs(),
            "times_faster": args.scale.factor(),
            "estimated_tokens": tokens,
            "estimated_cost": rounded(cost(Provider::Primary), 7),
            "estimated_s": rounded(seconds, 1),
            "runs": [],
        });
        return format!("{plan:#}\n");
    }
    format!(
        "Dry run: nothing is called.\n\
         pages        {} in each of three runs, {} at once\n\
         quota        {} requests per {} s at the primary\n\
         stack        MicroBatch, Fallback, Retry, AdaptiveCooldown, client\n\
         tokens       about {tokens} a run\n\
         cost         about $ {:.5} by the primary alone, $ {:.5} by the fallback alone\n\
         time         at least {seconds:.1} s at the real pace, if the primary is to answer all\n\
         pace         {}\n",
        args.pages,
        args.concurrency,
        args.quota,
        args.window.as_secs(),
        cost(Provider::Primary),
        cost(Provider::Fallback),
        args.scale,
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn rounded(number: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (number * unit).round() / unit
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

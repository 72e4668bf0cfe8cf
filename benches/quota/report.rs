//! Rows, tables, and what is in the chart.

use crate::{
    chart::Dot,
    clients::Client,
    race::{HINTS, Hints, Oracle, Result},
    scenario::{Demand, Scenario},
};
use serde::Serialize;

#[derive(Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) hints: &'static str,
    pub(crate) client: &'static str,
    pub(crate) callers: usize,
    pub(crate) goodput: f64,
    pub(crate) refused: f64,
    pub(crate) goodput_warm: f64,
    pub(crate) refused_warm: f64,
    /// All that the upstream would have granted.
    oracle: f64,
    /// What an even pacer that knows the quota gets of it, warm, at its best rate with at most 1 % refused.
    jitter_oracle: f64,
    wait_p50_s: f64,
    wait_p99_s: f64,
    max_released_per_ms: u32,
    penalties_per_h: f64,
    /// The longest time of all seeds until the new quota is used, where it changes. `None` where it does not, or if
    /// that never happened.
    recovery_s: Option<f64>,
    /// What the oracle gets in the whole run.
    #[serde(skip)]
    oracle_whole: f64,
    #[serde(skip)]
    changes: bool,
    /// There are always callers that wait.
    #[serde(skip)]
    backlog: bool,
}

impl Row {
    pub(crate) fn new(
        scenario: &Scenario,
        hints: Hints,
        client: Client,
        callers: usize,
        results: &[Result],
        oracle: &Oracle,
    ) -> Self {
        let share = oracle.result.goodput_warm;
        let recoveries: Option<Vec<f64>> =
            results.iter().map(|result| result.recovery(scenario, &oracle.result)).collect();
        let mean = |field: fn(&Result) -> f64| results.iter().map(field).sum::<f64>() / results.len() as f64;
        Self {
            scenario: scenario.name,
            hints: hints.name(),
            client: client.name(),
            callers,
            goodput: mean(|result| result.goodput),
            refused: mean(|result| result.refused),
            goodput_warm: mean(|result| result.goodput_warm),
            refused_warm: mean(|result| result.refused_warm),
            oracle: 1.0,
            jitter_oracle: share,
            wait_p50_s: mean(|result| result.wait_p50),
            wait_p99_s: mean(|result| result.wait_p99),
            max_released_per_ms: results.iter().map(|result| result.max_released_per_ms).max().unwrap_or(0),
            penalties_per_h: mean(|result| result.penalties_per_h),
            recovery_s: recoveries.and_then(|all| all.into_iter().reduce(f64::max)),
            oracle_whole: oracle.result.goodput,
            changes: scenario.change().is_some(),
            backlog: scenario.demand == Demand::Always,
        }
    }

    /// Warm, relative to what can be had.
    fn relative(&self) -> f64 {
        self.goodput_warm / self.jitter_oracle.max(1e-9)
    }

    /// In the means an oracle that is passed counts as one that is reached, so that no row makes up for another.
    fn reached(&self) -> f64 {
        self.relative().min(1.0)
    }

    fn reached_whole(&self) -> f64 {
        (self.goodput / self.oracle_whole.max(1e-9)).min(1.0)
    }

    fn is_penalty(&self) -> bool {
        self.scenario.starts_with("penalty")
    }
}

pub(crate) fn print(rows: &[Row]) {
    let mut field = None;
    for row in rows {
        if field != Some((row.scenario, row.hints, row.callers)) {
            field = Some((row.scenario, row.hints, row.callers));
            println!("\n{}, hints: {}, {} callers", row.scenario, row.hints, row.callers);
            println!(
                "  {:<20} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>6}",
                "", "goodput", "refused", "warm", "refused", "of oracle", "wait p50", "wait p99", "per ms"
            );
        }
        println!(
            "  {:<20} {:>7.1}% {:>7.2}% {:>7.1}% {:>7.2}% {:>8.1}% {:>8.1}s {:>8.1}s {:>6}",
            row.client,
            100.0 * row.goodput,
            100.0 * row.refused,
            100.0 * row.goodput_warm,
            100.0 * row.refused_warm,
            100.0 * row.relative(),
            row.wait_p50_s,
            row.wait_p99_s,
            row.max_released_per_ms,
        );
    }
    summary(rows);
}

/// Means over all rows but those of the penalty, which counts apart.
fn summary(rows: &[Row]) {
    println!(
        "\nmeans over all rows but the penalty's; relative to the oracle of the row, of which no row counts more than all"
    );
    println!(
        "  {:<20} {:<12} {:>8} {:>8} {:>11} {:>13} {:>8} {:>7}   lowest row, before that cut",
        "", "hints", "goodput", "refused", "of oracle", "of it, whole", "refused", "most"
    );
    for client in Client::ALL {
        for hints in HINTS {
            let of = rows_of(rows, client, hints, |row| !row.is_penalty());
            let Some(lowest) = of.iter().min_by(|a, b| a.relative().total_cmp(&b.relative())) else {
                continue;
            };
            let most = of.iter().map(|row| row.refused_warm).fold(0.0, f64::max);
            println!(
                "  {:<20} {:<12} {:>7.1}% {:>7.2}% {:>10.1}% {:>12.1}% {:>7.2}% {:>6.2}%   {:.1}% ({}, {} callers)",
                client.name(),
                hints.name(),
                100.0 * mean(&of, |row| row.goodput),
                100.0 * mean(&of, |row| row.refused),
                100.0 * mean(&of, Row::reached),
                100.0 * mean(&of, Row::reached_whole),
                100.0 * mean(&of, |row| row.refused_warm),
                100.0 * most,
                100.0 * lowest.relative(),
                lowest.scenario,
                lowest.callers,
            );
        }
    }
    apart(rows);
    beaten(rows);
}

fn rows_of(rows: &[Row], client: Client, hints: Hints, which: impl Fn(&Row) -> bool) -> Vec<&Row> {
    rows.iter().filter(|row| row.client == client.name() && row.hints == hints.name() && which(row)).collect()
}

/// What only some rows show.
fn apart(rows: &[Row]) {
    println!(
        "\nafter the quota changed: seconds until the new one is used, to 95 % of what the oracle gets; penalties"
    );
    for hints in HINTS {
        for row in rows_of(rows, Client::Learned, hints, |row| row.changes || row.is_penalty()) {
            let what = match row.recovery_s {
                _ if row.is_penalty() => format!("{:.1} an hour", row.penalties_per_h),
                Some(secs) => format!("{secs} s"),
                None => "never".to_owned(),
            };
            println!("  {:<18} {:<12} {:>4} callers  {what}", row.scenario, row.hints, row.callers);
        }
    }
}

/// Rows in which callers always wait, and someone who was not told the quota got as much for fewer refusals.
fn beaten(rows: &[Row]) {
    let told = [Client::Learned, Client::Known08, Client::Known10, Client::Known12, Client::Oracle];
    println!("\nas much as learned for fewer refusals, by one who was not told the quota:");
    for row in rows.iter().filter(|row| row.client == Client::Learned.name() && row.backlog) {
        let better = rows.iter().filter(|peer| {
            (peer.scenario, peer.hints, peer.callers) == (row.scenario, row.hints, row.callers)
                && !told.iter().any(|client| client.name() == peer.client)
                && peer.goodput_warm >= row.goodput_warm
                && peer.refused_warm < row.refused_warm
        });
        for peer in better {
            println!(
                "  {:<20} {:<12} {:>4} callers  {}: {:.1} % at {:.2} %, learned {:.1} % at {:.2} %",
                row.scenario,
                row.hints,
                row.callers,
                peer.client,
                100.0 * peer.goodput_warm,
                100.0 * peer.refused_warm,
                100.0 * row.goodput_warm,
                100.0 * row.refused_warm,
            );
        }
    }
}

fn mean(rows: &[&Row], field: impl Fn(&Row) -> f64) -> f64 {
    rows.iter().map(|row| field(row)).sum::<f64>() / rows.len().max(1) as f64
}

pub(crate) fn dots(rows: &[Row]) -> Vec<Dot> {
    let dot = |client: Client| {
        let of: Vec<&Row> =
            rows.iter().filter(|row| row.client == client.name() && !row.is_penalty()).collect();
        Dot {
            client: client.name().to_owned(),
            refused: mean(&of, |row| row.refused_warm),
            goodput: mean(&of, Row::reached),
        }
    };
    Client::ALL.map(dot).into()
}

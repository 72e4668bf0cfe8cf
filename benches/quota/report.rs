//! Rows, tables, and what is in the chart.

use crate::{
    chart::Dot,
    clients::Client,
    race::{Hints, Oracle, Result},
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
}

impl Row {
    pub(crate) fn new(
        scenario: &'static str,
        hints: Hints,
        client: Client,
        callers: usize,
        results: &[Result],
        oracle: &Oracle,
    ) -> Self {
        let mean = |field: fn(&Result) -> f64| results.iter().map(field).sum::<f64>() / results.len() as f64;
        Self {
            scenario,
            hints: hints.name(),
            client: client.name(),
            callers,
            goodput: mean(|result| result.goodput),
            refused: mean(|result| result.refused),
            goodput_warm: mean(|result| result.goodput_warm),
            refused_warm: mean(|result| result.refused_warm),
            oracle: 1.0,
            jitter_oracle: oracle.result.goodput_warm,
            wait_p50_s: mean(|result| result.wait_p50),
            wait_p99_s: mean(|result| result.wait_p99),
            max_released_per_ms: results.iter().map(|result| result.max_released_per_ms).max().unwrap_or(0),
        }
    }

    /// Warm, relative to what can be had.
    fn relative(&self) -> f64 {
        self.goodput_warm / self.jitter_oracle.max(1e-9)
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
    println!("\nmeans over all rows but the penalty's, relative to the oracle of the row where it says so");
    println!(
        "  {:<20} {:<12} {:>10} {:>9} {:>10} {:>12} {:>12} {:>9}",
        "", "hints", "goodput", "refused", "of oracle", "lowest row", "refused warm", "most"
    );
    for client in Client::ALL {
        for hints in crate::race::HINTS {
            let of: Vec<&Row> = rows
                .iter()
                .filter(|row| row.client == client.name() && row.hints == hints.name() && !row.is_penalty())
                .collect();
            let Some(lowest) = of.iter().min_by(|a, b| a.relative().total_cmp(&b.relative())) else {
                continue;
            };
            let most = of.iter().map(|row| row.refused_warm).fold(0.0, f64::max);
            println!(
                "  {:<20} {:<12} {:>9.1}% {:>8.2}% {:>9.1}% {:>11.1}% {:>11.2}% {:>8.2}%   lowest: {}, {} callers",
                client.name(),
                hints.name(),
                100.0 * mean(&of, |row| row.goodput),
                100.0 * mean(&of, |row| row.refused),
                100.0 * mean(&of, Row::relative),
                100.0 * lowest.relative(),
                100.0 * mean(&of, |row| row.refused_warm),
                100.0 * most,
                lowest.scenario,
                lowest.callers,
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
            goodput: mean(&of, |row| row.goodput_warm),
        }
    };
    Client::ALL.map(dot).into()
}

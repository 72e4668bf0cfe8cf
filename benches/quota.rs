//! The race: how much of an unknown quota each client uses, and how many of its calls are refused for it.
//!
//! ```sh
//! cargo bench --bench quota                    # tables, and the chart benches/quota.svg
//! cargo bench --bench quota -- --json          # {"rows":[..]}, and nothing else on stdout
//! cargo bench --bench quota -- --quick         # one seed, 32 callers
//! cargo bench --bench quota -- gemini          # only the scenarios with this in their names
//! ```
//!
//! Every row is a number of callers that call as often as they are answered, on a virtual clock. It is the same in each
//! run. `learned` is the mean of the seeds 1 to 5; the others run with seed 1.

#[path = "quota/chart.rs"]
mod chart;
#[path = "quota/clients.rs"]
mod clients;
#[path = "quota/peers/mod.rs"]
mod peers;
#[path = "quota/race.rs"]
mod race;
#[path = "quota/report.rs"]
mod report;
#[path = "quota/scenario.rs"]
mod scenario;

use clients::Client;
use race::{Lane, Oracle, Result};
use report::Row;
use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};
use tower_cooldown_benches::{print_json, wants_json};

const CALLERS: [usize; 3] = [8, 32, 128];
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return; // built as a test; there is nothing to check in that time
    }
    let quick = args.iter().any(|arg| arg == "--quick");
    let filter = args.iter().find(|arg| !arg.starts_with("--"));
    let start = Instant::now();
    let mut scenarios = scenario::all().expect("settings in range");
    scenarios.retain(|scenario| filter.is_none_or(|filter| scenario.name.contains(filter.as_str())));
    let callers = if quick { &CALLERS[1..2] } else { &CALLERS[..] };
    let fields: Vec<(&scenario::Scenario, usize)> = scenarios
        .iter()
        .flat_map(|scenario| callers.iter().map(move |callers| (scenario, *callers)))
        .collect();
    let rows = in_parallel(&fields, |(scenario, callers)| field(scenario, *callers, quick));
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    if wants_json() {
        print_json(&rows);
    } else {
        report::print(&rows);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/quota.svg");
        if filter.is_none() && !quick {
            match std::fs::write(path, chart::svg(&report::dots(&rows))) {
                Ok(()) => println!("\nthe chart is in benches/quota.svg"),
                Err(error) => eprintln!("the chart could not be written: {error}"),
            }
        }
    }
    eprintln!("{:.0?}", start.elapsed());
}

/// All rows of one scenario with that many callers.
fn field(scenario: &scenario::Scenario, callers: usize, quick: bool) -> Vec<Row> {
    let oracle = Oracle::find(scenario, callers);
    let mut rows = Vec::new();
    for hints in race::HINTS {
        for client in Client::ALL {
            let seeds = if client == Client::Learned && !quick { SEEDS } else { 1..=1 };
            let results: Vec<Result> = seeds
                .map(|seed| match client {
                    // It knows all that there is to know, so hints tell it nothing.
                    Client::Oracle => oracle.result.clone(),
                    _ => race::run(&Lane { scenario, hints, callers, seed }, client),
                })
                .collect();
            rows.push(Row::new(scenario, hints, client, callers, &results, &oracle));
        }
    }
    rows
}

/// Works on all items with as many threads as there are cores, and keeps their order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(item);
                    done.lock().expect("no panics").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panics");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

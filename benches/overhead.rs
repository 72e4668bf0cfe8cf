//! The price of a call: what each stack adds to a service that answers at once, in time, allocations and
//! instructions, with the peers in the same run.
//!
//! ```sh
//! cargo bench --bench overhead             # a table
//! cargo bench --bench overhead -- --json   # {"rows":[..]}, and nothing else on stdout
//! cargo bench --bench overhead -- tower    # only the stacks with `tower` in their names
//! ```
//!
//! Every gate is open and never makes a call wait: this is what a call pays that needs nothing. With two threads
//! the figures are still per call of one thread, while the other does the same through the same gate; for `bare`,
//! and for what a layer adds to it, perfect sharing means the same figures as for one thread.
//!
//! The yardsticks are the least that any layer of this kind consists of, written by hand.
//!
//! A layer with no state to share, or that cannot be cloned, has no row for two threads. This crate keeps its
//! records at all times, so it has no variant without them.

#[path = "overhead/instructions.rs"]
mod instructions;
#[path = "overhead/stacks.rs"]
mod stacks;
#[path = "overhead/timing.rs"]
mod timing;
#[path = "overhead/yardstick.rs"]
mod yardstick;

use serde::Serialize;
use stacks::Stack;
use std::env;
use tower_cooldown_benches::{print_json, wants_json};

#[derive(Serialize)]
struct Row {
    stack: &'static str,
    threads: usize,
    ns_per_call: f64,
    /// The median of the differences to the bare service in slices run next to one another.
    ns_over_bare: f64,
    allocs_per_call: f64,
    /// In user space, the bare service and the loop included. Null for two threads, and without valgrind.
    instructions_per_call: Option<u64>,
}

/// A thread's stack begins at the edge of a page. The first thread's begins anywhere, and the copying of requests and
/// answers costs more or less with it.
fn main() {
    std::thread::spawn(bench).join().expect("no panic");
}

fn bench() {
    let args: Vec<String> = env::args().skip(1).collect();
    if let Some((name, calls)) = instructions::asked_for(&args) {
        let stack = stacks::all().into_iter().find(|stack| stack.name == name).expect("a stack of that name");
        stack.pair(1).stack.make(calls);
        return;
    }
    if !args.iter().any(|arg| arg == "--bench") {
        // `cargo test --all-targets` runs benches too, to see whether they run.
        stacks::all().iter().for_each(|stack| stack.pair(1).stack.make(10));
        return;
    }
    let filter = args.iter().find(|arg| !arg.starts_with("--"));
    let can_count = instructions::available();
    if !can_count {
        eprintln!("valgrind is not there: no instructions are counted");
    }
    let mut rows = Vec::new();
    for stack in stacks::all() {
        if filter.is_none_or(|filter| stack.name.contains(filter.as_str())) {
            eprintln!("{}", stack.name);
            rows.push(measure(&stack, 1, can_count));
        }
    }
    for stack in stacks::all() {
        if stack.shared && filter.is_none_or(|filter| stack.name.contains(filter.as_str())) {
            eprintln!("{}, two threads", stack.name);
            rows.push(measure(&stack, 2, false));
        }
    }
    if wants_json() {
        print_json(&rows);
    } else {
        print_table(&rows);
    }
}

fn measure(stack: &Stack, threads: usize, count: bool) -> Row {
    let mut pair = stack.pair(threads);
    let times = timing::paired(&mut pair);
    Row {
        stack: stack.name,
        threads,
        ns_per_call: times.per_call,
        ns_over_bare: times.over_bare,
        allocs_per_call: pair.stack.allocations_per_call(),
        instructions_per_call: count.then(|| instructions::per_call(stack.name)).flatten(),
    }
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<32} {:>7} {:>9} {:>13} {:>16} {:>12} {:>13}",
        "stack", "threads", "ns/call", "ns over bare", "x tower's limit", "allocations", "instructions"
    );
    // Two threads are compared with tower's limit on one: it cannot be shared.
    let limit = rows.iter().find(|row| row.stack == "tower-rate-limit").map(|row| row.ns_over_bare);
    for row in rows {
        let ratio = limit.map_or("-".to_owned(), |limit| format!("{:.1}", row.ns_over_bare / limit));
        let instructions = row.instructions_per_call.map_or("-".to_owned(), |count| count.to_string());
        println!(
            "{:<32} {:>7} {:>9.1} {:>13.1} {ratio:>16} {:>12.2} {instructions:>13}",
            row.stack, row.threads, row.ns_per_call, row.ns_over_bare, row.allocs_per_call
        );
    }
}

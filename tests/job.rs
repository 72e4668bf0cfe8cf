//! The job of `examples/bulk_tagging`, on real sockets, and the figures that it has to reach.
//!
//! It runs ten times faster than in reality and takes about twenty seconds of the wall's clock.

use serde_json::Value;
use std::{
    env,
    process::{Command, Output},
};

fn bulk_tagging(flags: &[&str]) -> Output {
    // Of what cargo tells this test, some build scripts look at the package: with it they would run again, what stands on
    // them would be built anew, and by the next `cargo test` once more.
    let package = env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    });
    let mut cargo = Command::new(env!("CARGO"));
    package.for_each(|name| {
        cargo.env_remove(name);
    });
    cargo
        .args(["run", "--quiet", "--example", "bulk_tagging", "--"])
        .args(flags)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo, which built this test, can be run")
}

fn json(flags: &[&str]) -> Vec<Value> {
    let output = bulk_tagging(flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document and nothing else");
    document["runs"].as_array().expect("runs").clone()
}

fn number(run: &Value, field: &str) -> f64 {
    run[field].as_f64().unwrap_or_else(|| panic!("{field} in {run}"))
}

#[test]
fn fifty_pages_reach_the_figures() {
    let runs = json(&["--json"]);
    let names: Vec<_> = runs.iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bare", "first-version", "tower-cooldown"]);
    for run in &runs {
        assert_eq!(number(run, "operations"), 50.0);
        assert_eq!(number(run, "answered"), 50.0, "lost in {run}");
    }
    let (bare, ours) = (&runs[0], &runs[2]);
    assert!(number(ours, "primary_success_rate") >= 0.95, "{ours}");
    assert!(number(ours, "fallback_rate") < 0.05, "{ours}");
    assert!(number(ours, "mean_service_ms") < 1000.0, "{ours}");
    assert!(number(ours, "refused_429") <= number(bare, "refused_429") / 5.0, "{ours} against {bare}");
    assert!(number(ours, "cost") <= number(bare, "cost") * 0.8, "{ours} against {bare}");
}

#[test]
fn twenty_pages_are_done_in_thirty_seconds_where_the_quota_allows() {
    // 15 in 30 s allow the sixteenth page after 30 s only; 20 allow it.
    let runs = json(&["--json", "--pages", "20", "--quota", "20"]);
    let ours = &runs[2];
    assert_eq!(number(ours, "answered"), 20.0);
    assert!(number(ours, "primary_success_rate") > 0.9, "{ours}");
    assert!(number(ours, "elapsed_s") < 30.0, "{ours}");
}

#[test]
fn flags_that_make_no_sense_are_named() {
    for (flags, name) in [
        (&["--pages", "0"][..], "--pages"),
        (&["--pages", "abc"], "--pages"),
        (&["--concurrency"], "--concurrency"),
        (&["--colour"], "--colour"),
    ] {
        let output = bulk_tagging(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(name), "{flags:?}");
        assert!(output.stdout.is_empty(), "{flags:?}");
    }
}

#[test]
fn a_dry_run_calls_nothing() {
    let output = bulk_tagging(&["--dry-run"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing is called"));
    assert!(json(&["--dry-run", "--json"]).is_empty());
}

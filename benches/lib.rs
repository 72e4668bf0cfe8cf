//! What the benches have in common.

use serde::Serialize;

/// Whether `--json` was given: one document on stdout, and nothing else there.
pub fn wants_json() -> bool {
    std::env::args().any(|arg| arg == "--json")
}

/// Prints `{"rows": [..]}`.
pub fn print_json<R: Serialize>(rows: &[R]) {
    println!("{}", serde_json::json!({ "rows": rows }));
}

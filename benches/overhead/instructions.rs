//! Instructions per call: this executable, run again under callgrind with one stack and two numbers of calls. What
//! both runs have in common falls out in the difference. Only the calls are counted, not the making of a stack: a
//! calibration of clocks, for one, takes as long as it takes.
//!
//! Valgrind has no vDSO, so reading the clock is a system call there, and costs fewer instructions than it does.

use std::{
    env,
    process::{Command, Stdio},
};

const CALLS: [u32; 2] = [2_000, 12_000];

/// The stack and the number of calls, where this is such a run.
pub(crate) fn asked_for(args: &[String]) -> Option<(&str, u32)> {
    match args {
        [count, name, calls] if count == "--count" => Some((name, calls.parse().expect("a number of calls"))),
        _ => None,
    }
}

pub(crate) fn available() -> bool {
    let version =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

pub(crate) fn per_call(stack: &str) -> Option<u64> {
    let [few, many] = CALLS.map(|calls| collected(stack, calls));
    let difference = many?.checked_sub(few?)? as f64;
    Some((difference / f64::from(CALLS[1] - CALLS[0])).round() as u64)
}

fn collected(stack: &str, calls: u32) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*timing::sample*"])
        .arg(env::current_exe().ok()?)
        .args(["--count", stack, &calls.to_string()])
        .output()
        .ok()?;
    let log = String::from_utf8_lossy(&output.stderr);
    let count = log.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    if count.is_none() || !output.status.success() {
        eprintln!("callgrind failed on {stack}:\n{log}");
        return None;
    }
    count
}

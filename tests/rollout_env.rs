//! `TOWER_COOLDOWN_ROLLOUT`, read by a process of its own for each value.

use std::process::Command;
use tower_cooldown::{Rollout, rollout::ROLLOUT_VARIABLE};

/// Not a test of its own: what the processes run. It prints what the variable says.
#[test]
#[ignore = "run by the test below"]
fn reader() {
    match Rollout::from_env() {
        Ok(rollout) => println!("rollout={}", rollout.get()),
        Err(error) => println!("error={error}"),
    }
}

fn read(value: Option<&str>) -> String {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", "reader", "--ignored", "--nocapture"]).env_remove(ROLLOUT_VARIABLE);
    if let Some(value) = value {
        process.env(ROLLOUT_VARIABLE, value);
    }
    String::from_utf8(process.output().unwrap().stdout).unwrap()
}

#[test]
fn the_environment_decides() {
    for (value, percent) in [
        (None, 100),
        (Some("on"), 100),
        (Some("true"), 100),
        (Some("off"), 0),
        (Some("false"), 0),
        (Some("0"), 0),
        (Some("37"), 37),
        (Some("100"), 100),
    ] {
        assert!(read(value).contains(&format!("rollout={percent}\n")), "{value:?}: {}", read(value));
    }
    for value in ["101", "-1", "maybe", "", "1e2"] {
        let output = read(Some(value));
        assert!(output.contains("error=invalid setting `rollout`: must be off, on, true, false"), "{output}");
    }
}

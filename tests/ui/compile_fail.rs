//! What the compiler says where a bound is missing.

use std::{env, process::Command};

/// The toolchain that the cases' output is from. Others lay it out in other ways.
const PINNED: &str = "rustc 1.95.";

#[test]
fn the_compiler_says_what_to_do() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("a compiler").stdout;
    let version = String::from_utf8(version).expect("text");
    let cases = trybuild::TestCases::new();
    if version.starts_with(PINNED) {
        cases.compile_fail("cases/*.rs");
    } else {
        println!("not compared, for {version} is not {PINNED}x");
    }
}

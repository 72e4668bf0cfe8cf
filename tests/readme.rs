//! The lines that the README shows compile and run as they stand there.

use std::{env, fs, path::Path, process::Command};

use http::{Request, Response};
use tower::{BoxError, ServiceExt, service_fn};

#[tokio::test(start_paused = true)]
async fn the_lines_in_the_readme_run() -> Result<(), BoxError> {
    let http_client =
        service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new("tagged".to_owned())) });
    let second_provider = http_client;
    // begin
    use std::time::Duration;
    use tower::{ServiceBuilder, retry::RetryLayer};
    use tower_cooldown::{
        AdaptiveCooldownLayer, FallbackLayer, MicroBatchLayer,
        policy::{Known, Quota},
        record::Statistics,
        retry::RetryPolicy,
    };

    let statistics = Statistics::new();
    let quota = Quota::new(15, Duration::from_secs(60))?; // 15 calls a minute
    let client = ServiceBuilder::new()
        .layer(MicroBatchLayer::new(2)?.statistics(&statistics))
        .layer(FallbackLayer::new(second_provider).statistics(&statistics))
        .layer(RetryLayer::new(RetryPolicy::new().max_retries(3)))
        .layer(AdaptiveCooldownLayer::with_policy(Known::new(quota)).statistics(&statistics))
        .service(http_client);
    // end
    let response = client.oneshot(Request::new("tag this page".to_owned())).await?;
    assert_eq!(response.body(), "tagged");
    assert_eq!(statistics.snapshot().success_rate(), Some(1.0));
    Ok(())
}

const README: &str = include_str!("../README.md");

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    text.split_once(begin).expect("a beginning").1.split_once(end).expect("an end").0
}

#[test]
fn the_readme_shows_these_lines() {
    let here = between(include_str!("readme.rs"), "    // begin\n", "    // end\n");
    let here: String =
        here.lines().map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n").collect();
    assert_eq!(between(between(README, "## The whole stack", "##"), "```rust\n", "```"), here);
}

fn cargo(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(directory)
        // The flags and the directory of the build that runs this test are not those of a user.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_DIR", directory.join("target"))
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .expect("cargo starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "cargo {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// From an empty directory: what the README says to add, with this crate by its path, and its first lines.
#[test]
fn the_start_runs_in_an_empty_directory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let start = between(README, "## Start", "\n## ");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("start");
    // What an earlier run has built is kept, and what it has written is not.
    for old in ["Cargo.toml", "Cargo.lock", "src"] {
        let old = directory.join(old);
        if old.is_dir() {
            fs::remove_dir_all(&old).unwrap();
        } else if old.exists() {
            fs::remove_file(&old).unwrap();
        }
    }
    fs::create_dir_all(directory.join("src")).unwrap();
    let manifest = "[package]\nname = \"start\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n";
    fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    // The versions that this workspace has fetched, for there may be no network.
    fs::copy(root.join("Cargo.lock"), directory.join("Cargo.lock")).unwrap();
    fs::write(directory.join("src/main.rs"), between(start, "```rust\n", "```")).unwrap();

    let path = root.to_str().unwrap();
    for line in between(start, "```sh\n", "```").lines() {
        let line: Vec<_> = line.strip_prefix("cargo ").expect("a call of cargo").split(' ').collect();
        match line.split_first() {
            Some((&"add", [this, others @ ..])) if *this == env!("CARGO_PKG_NAME") => {
                cargo(&directory, &["add", this, "--path", path]);
                cargo(&directory, &[&["add"], others].concat());
            }
            _ => drop(cargo(&directory, &line)),
        }
    }
    let printed = cargo(&directory, &["run", "--quiet"]);
    assert!(printed.starts_with("hello\n") && printed.contains("1 accepted"), "{printed}");
}

/// What a user builds: everything that the crate with its default features depends on.
#[test]
fn there_are_few_dependencies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let arguments =
        ["tree", "--package", env!("CARGO_PKG_NAME"), "--edges", "normal,build", "--prefix", "none"];
    let tree = cargo(
        root,
        &[
            &arguments[..],
            &["--format", "{p}", "--no-dedupe", "--locked", "--target", "x86_64-unknown-linux-gnu"],
        ]
        .concat(),
    );
    let mut crates: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    crates.sort_unstable();
    crates.dedup();
    let dependencies = crates.len() - 1;
    println!("{dependencies}: {crates:?}");
    assert!(dependencies <= 40, "{dependencies}: {crates:?}");
    let told = format!("{dependencies} crates with the default features");
    assert!(README.contains(&told), "the README says another number than {dependencies}");
}

//! The dashboard, the alerts and the runbook speak of metrics that exist, and the alerts fire when they should.

use serde_json::Value;
use std::{collections::BTreeSet, env, fs, path::Path, process::Command};
use tower_cooldown::export::{INSTRUMENTS, Kind};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every word of `text` that begins like a metric.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let is_metric = |word: &&str| {
        word.starts_with("tower_cooldown_")
            || word.starts_with("tower_cooldown:")
            || word.starts_with("gen_ai_client_")
    };
    words.filter(is_metric).map(|word| word.trim_end_matches([':', '_'])).collect()
}

/// The names under which Prometheus knows the closed list, and those of the recording rules.
fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for instrument in INSTRUMENTS {
        let name = instrument.prometheus_name();
        if let Kind::Histogram(_) = instrument.kind {
            known.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
        known.insert(name);
    }
    let alerts = file("grafana/alerts.yml");
    known.extend(alerts.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).map(str::to_owned));
    // The groups of rules, and this crate.
    known.extend(["tower_cooldown_rates", "tower_cooldown_alerts"].map(str::to_owned));
    known
}

#[test]
fn every_metric_that_is_named_exists() {
    let known = known();
    for path in ["grafana/dashboard.json", "grafana/alerts.yml", "grafana/alerts_test.yml", "docs/runbook.md"]
    {
        let text = file(path);
        let named = metrics(&text);
        assert!(named.len() >= 5, "{path}: {named:?}");
        // A pattern of names, in the variables and the count of series.
        let strange: Vec<_> =
            named.into_iter().filter(|name| !known.contains(*name) && *name != "tower_cooldown").collect();
        assert_eq!(strange, Vec::<&str>::new(), "{path}");
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let dashboard = file("grafana/dashboard.json") + &file("grafana/alerts.yml");
    for instrument in INSTRUMENTS {
        let name = instrument.prometheus_name();
        assert!(metrics(&dashboard).iter().any(|used| used.starts_with(&name)), "{name} is shown nowhere");
    }
}

#[test]
fn the_dashboard_is_one() {
    let dashboard: Value = serde_json::from_str(&file("grafana/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "twice: {}", panel["id"]);
        let at = &panel["gridPos"];
        assert!(at["x"].as_u64().unwrap() + at["w"].as_u64().unwrap() <= 24, "{panel}");
        let is_row = panel["type"] == "row";
        let targets = panel["targets"].as_array();
        assert!(is_row || targets.is_some_and(|targets| !targets.is_empty()), "{}", panel["title"]);
        for expr in targets.into_iter().flatten().map(|target| target["expr"].as_str().unwrap()) {
            let balanced = |open, close| expr.matches(open).count() == expr.matches(close).count();
            assert!(balanced('(', ')') && balanced('{', '}') && balanced('[', ']'), "{expr}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "layer", "provider"]);
}

/// Each alert says where to read on, and the runbook has that heading.
#[test]
fn every_alert_leads_into_the_runbook() {
    let (alerts, runbook) = (file("grafana/alerts.yml"), file("docs/runbook.md"));
    let heading = |line: &str| {
        let line = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        line.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect::<String>()
    };
    let headings: BTreeSet<_> = runbook.lines().filter(|line| line.starts_with('#')).map(heading).collect();
    let links: Vec<_> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook: docs/runbook.md#")).collect();
    assert_eq!(links.len(), alerts.matches("- alert:").count());
    for link in links {
        assert!(headings.contains(link), "no heading for {link} among {headings:?}");
    }
}

/// Runs promtool, unless it is missing and need not be there.
fn promtool(arguments: &[&str]) {
    let promtool = env::var("PROMTOOL").unwrap_or_else(|_| "promtool".into());
    let grafana = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    match Command::new(promtool).args(arguments).current_dir(grafana).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
        }
        Err(error) if env::var_os("REQUIRE_TOOLS").is_none() => {
            eprintln!("not checked, there is no promtool: {error}");
        }
        Err(error) => panic!("no promtool: {error}"),
    }
}

#[test]
fn the_rules_are_rules() {
    promtool(&["check", "rules", "alerts.yml"]);
}

#[test]
fn alerts_fire_and_do_not_fire() {
    promtool(&["test", "rules", "alerts_test.yml"]);
}

/// Every expression of the dashboard is one that Prometheus understands: made a rule each, with Grafana's variables
/// filled in.
#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let dashboard: Value = serde_json::from_str(&file("grafana/dashboard.json")).unwrap();
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    let panels = dashboard["panels"].as_array().unwrap().iter();
    for target in panels.filter_map(|panel| panel["targets"].as_array()).flatten() {
        let expr = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
        let expr = serde_json::to_string(&expr).unwrap();
        rules.push_str(&format!("      - record: panel:{}\n        expr: {expr}\n", rules.len()));
    }
    let path = env::temp_dir().join(format!("tower-cooldown-dashboard-{}.yml", std::process::id()));
    fs::write(&path, rules).unwrap();
    promtool(&["check", "rules", path.to_str().unwrap()]);
    fs::remove_file(path).unwrap();
}

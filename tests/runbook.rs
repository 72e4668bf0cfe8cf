//! What the runbook says to do can be done: its lines compile and run, and a rollout goes there and back.

mod support;

use std::time::Duration;
use support::{Reply, Upstream, send, settle};
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_cooldown::{
    AdaptiveCooldownLayer, InvalidSetting, Rollout, WaitReason,
    cooldown::TooManyRequests,
    export::{Source, Sources},
    policy::{Known, Learned, Quota},
    record::Statistics,
};

/// The lines of this file between two marks, without their indent.
fn lines_here(begin: &str, end: &str) -> String {
    let here = include_str!("runbook.rs").split_once(begin).expect("a beginning").1;
    let here = here.split_once(end).expect("an end").0.trim_start_matches('\n');
    here.lines().map(|line| line.trim_start().to_owned() + "\n").collect()
}

fn lines_in_the_runbook() -> Vec<String> {
    let blocks = include_str!("../docs/runbook.md").split("```rust\n").skip(1);
    let blocks = blocks.map(|block| block.split_once("```").expect("an end").0);
    blocks.map(|block| block.lines().map(|line| line.trim_start().to_owned() + "\n").collect()).collect()
}

#[test]
fn the_runbook_shows_these_lines() {
    let without_last = |text: String| text.trim_end().to_owned();
    let shown: Vec<_> = lines_in_the_runbook().into_iter().map(without_last).collect();
    // With the line's end, so that these marks are not found themselves.
    let here = [["// begin layer\n", "// end layer\n"], ["// begin hour\n", "// end hour\n"]];
    assert_eq!(shown, here.map(|[begin, end]| without_last(lines_here(begin, end))));
}

/// Calls go on all the time, of which a third is refused where nothing holds it back.
#[tokio::test(start_paused = true)]
async fn a_rollout_goes_there_and_back() -> Result<(), InvalidSetting> {
    let (statistics, sources) = (Statistics::new(), Sources::new());
    // begin layer
    let rollout = Rollout::from_env()?; // TOWER_COOLDOWN_ROLLOUT=0
    let cooldown = AdaptiveCooldownLayer::new()
        .name("gemini")
        .max_wait(Duration::MAX) // bounded later, if need be; see "Calls wait for long"
        .reject_with(TooManyRequests)
        .statistics(&statistics)
        .rollout(rollout.clone());
    let source = Source::new("tagging", "gemini").statistics(&statistics);
    sources.add(source.gate(&cooldown.handle()).rollout(&rollout));
    // end layer
    rollout.set(0)?; // no variable is set here
    let handle = cooldown.handle();
    let service =
        cooldown.layer(Upstream::new(|call| Reply::status(if call.nth % 3 == 2 { 429 } else { 200 })));
    let mut arms = Vec::new();
    for percent in [0, 10, 50, 100] {
        rollout.set(percent)?;
        let before = statistics.snapshot();
        let calls: Vec<_> = (0..100).map(|id| send(&service, id)).collect();
        for call in calls {
            assert!(call.await.unwrap().0.is_ok(), "every call is answered");
        }
        let step = statistics.snapshot().delta(&before).arms();
        arms.push((step.treated.attempts, step.control.attempts));
        let mut shown = None;
        sources.visit(|point| {
            if let ("tower_cooldown.rollout", tower_cooldown::export::Value::Level(share)) =
                (point.instrument.name, point.value)
            {
                shown = Some(share);
            }
        });
        assert_eq!(shown, Some(f64::from(percent) / 100.0));
    }
    let near = |(treated, control): &(u64, u64), percent: u64| {
        treated + control == 100 && treated.abs_diff(percent) <= 3
    };
    assert!(arms.iter().zip([0, 10, 50, 100]).all(|(step, percent)| near(step, percent)), "{arms:?}");

    // Back: those who wait are let go, and later calls go straight through.
    handle.cool_for(Duration::from_secs(3600));
    let waiting = send(&service, 1);
    settle().await;
    assert!(!waiting.is_finished());
    rollout.set(0)?;
    handle.reset();
    assert!(
        waiting.await.unwrap().1 < Duration::from_secs(600),
        "it had its turn, as the policy spaces calls"
    );
    handle.cool_for(Duration::from_secs(3600));
    let (_, took) = send(&service, 2).await.unwrap();
    assert_eq!(took, Duration::ZERO);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_can_be_changed_while_it_runs() -> Result<(), InvalidSetting> {
    let quota = Quota::new(30, Duration::from_secs(60))?;
    let layer = AdaptiveCooldownLayer::with_policy(Known::new(Quota::new(15, Duration::from_secs(60))?))
        .max_wait(Duration::MAX)
        .reject_with(TooManyRequests);
    let handle = layer.handle();
    let service = layer.layer(Upstream::ok());
    handle.change_policy(|known: Known| Ok(known.requests(quota)))?;
    handle.set_max_waiting(Some(100))?;
    handle.set_policy(Learned::new());
    handle.change_policy(|learned: Learned| learned.budget(0.002))?;
    // The quota is spent: the fallback shall serve at once.
    handle.cool_for(Duration::from_secs(3600));
    handle.set_max_wait(Some(Duration::ZERO))?;
    assert_eq!(service.clone().oneshot(support::request(1)).await.unwrap().status(), 429);
    handle.set_max_wait(None)?;
    handle.reset();
    assert_eq!(service.oneshot(support::request(2)).await.unwrap().status(), 200);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn thresholds_come_from_an_hour() {
    let layer = AdaptiveCooldownLayer::with_policy(support::every(Duration::from_secs(1)));
    let (statistics, service) = (layer.handle().statistics(), layer.layer(Upstream::ok()));
    let calls: Vec<_> = (0..40).map(|id| send(&service, id)).collect();
    advance(Duration::from_secs(10)).await;
    // begin hour
    let before = statistics.snapshot();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let hour = statistics.snapshot().delta(&before);
    println!("{hour}");
    // end hour
    for call in calls {
        assert!(call.await.unwrap().0.is_ok());
    }
    let waits = hour.wait(WaitReason::Preflight);
    assert!(waits.count >= 28 && waits.p99 >= Duration::from_secs(35), "{waits:?}");
    assert_eq!(hour.attempts.throttled, 0);
    assert_eq!(layer.handle().snapshot().rate, Some(1.0));
}

//! The example `balance`, and what it promises.

#[path = "../examples/balance.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not needed here")]
mod balance;

#[tokio::test(start_paused = true)]
async fn the_throughput_is_the_sum_of_the_quotas_of_those_that_serve() {
    let report = balance::run().await.unwrap();
    let sum = |seconds: std::ops::Range<usize>| -> u64 {
        (0..3).map(|region| report.answered(region, seconds.clone())).sum()
    };
    // After the first second, in which the first answers are on their way.
    assert!(sum(5..20) >= 15 * 40 * 97 / 100, "{}", sum(5..20));
    let east = 2;
    assert!(report.answered(east, 21..40) == 0, "it is in maintenance");
    assert!(sum(21..40) >= 19 * 30 * 97 / 100, "{}", sum(21..40));
    assert!(sum(42..60) >= 18 * 40 * 97 / 100, "it came back: {}", sum(42..60));
    // The calls that were on their way when it closed.
    assert!(report.refused(east) <= 6, "{}", report.refused(east));
    assert_eq!(report.refused(0) + report.refused(1), 0);
}

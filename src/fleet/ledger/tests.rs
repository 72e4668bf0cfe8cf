use super::*;

const RULES: Rules = Rules { budget: 0.01, first_pace: 100.0, seeded: true, most: 0.0 };

fn ask(id: u64, want: f64, epoch: f64) -> Turn {
    Turn { id, want, known: Known { epoch, ..Known::default() }, ..Turn::default() }
}

#[test]
fn leases_follow_one_another() {
    let mut ledger = Ledger::default();
    let now = 5.0 * SECOND;
    let grants: Vec<Grant> = (1..=4).map(|id| ledger.turn(&ask(id, 9.0, 0.0), 4.0, &RULES, now)).collect();
    // A tenth of a second of a hundred a second, for four.
    let times: Vec<_> = grants.iter().map(|grant| (grant.first, grant.count, grant.gap, grant.seq)).collect();
    assert_eq!(
        times,
        [(0.0, 2.0, 1e4, 0.0), (2e4, 2.0, 1e4, 2.0), (4e4, 2.0, 1e4, 4.0), (6e4, 2.0, 1e4, 6.0)]
    );
    // However many there are, each gets one.
    assert_eq!(ledger.turn(&ask(5, 9.0, 0.0), 500.0, &RULES, now).count, 1.0);
    // What is given back is given out again.
    let back = Turn { back: 3.0, ..ask(5, 1.0, 0.0) };
    assert_eq!(ledger.turn(&back, 4.0, &RULES, now).first, 6e4);
    // What nobody asked for is gone.
    assert_eq!(ledger.turn(&ask(1, 1.0, 0.0), 4.0, &RULES, now + SECOND).first, 0.0);
}

#[test]
fn a_burst_of_refusals_is_one_event() {
    let mut ledger = Ledger::default();
    let now = 5.0 * SECOND;
    ledger.turn(&ask(1, 1.0, 0.0), 8.0, &RULES, now);
    for id in 1..=8 {
        let refused = Turn { refused: 1.0, ..ask(id, 1.0, 0.0) };
        let grant = ledger.turn(&refused, 8.0, &RULES, now + 1000.0);
        assert_eq!((grant.known.epoch, grant.news), (1.0, id == 1));
    }
    assert_eq!(ledger.failures, 1.0);
    assert_eq!(ledger.refused, 8.0);
    assert!(ledger.pace < 100.0 && ledger.pace >= 80.0, "{ledger:?}");
    // One that knows better for how long makes it longer.
    let told = Turn { told: 3.0 * SECOND, also_refused: 1.0, ..ask(1, 1.0, 1.0) };
    let grant = ledger.turn(&told, 8.0, &RULES, now + 1000.0);
    assert!(grant.news && grant.known.closed == 3.0 * SECOND && grant.first >= 3.0 * SECOND, "{grant:?}");
}

#[test]
fn one_process_finds_out_and_another_one_does_if_it_is_silent() {
    let mut ledger = Ledger::default();
    let rules = Rules { seeded: false, ..RULES };
    let mut now = 5.0 * SECOND;
    ledger.turn(&ask(1, 1.0, 0.0), 2.0, &rules, now);
    ledger.turn(&Turn { refused: 1.0, ..ask(1, 0.0, 0.0) }, 2.0, &rules, now);
    now += SECOND;
    let probe = ledger.turn(&ask(1, 5.0, 1.0), 2.0, &rules, now);
    assert_eq!((probe.count, probe.first), (1.0, 0.0));
    let other = ledger.turn(&ask(2, 5.0, 1.0), 2.0, &rules, now);
    assert_eq!((other.count, other.hold), (0.0, SECOND));
    let again = ledger.turn(&ask(1, 5.0, 1.0), 2.0, &rules, now);
    assert_eq!((again.count, again.hold), (0.0, SECOND), "one call");
    let unused = Turn { back: 1.0, ..ask(1, 5.0, 1.0) };
    assert_eq!(ledger.turn(&unused, 2.0, &rules, now).count, 1.0, "which was not sent");
    // It died.
    now += SECOND;
    let other = ledger.turn(&ask(2, 5.0, 1.0), 2.0, &rules, now);
    assert_eq!(other.count, 1.0);
    // It was accepted: all may go on.
    let grant = ledger.turn(&Turn { accepted: 1.0, ..ask(2, 1.0, 1.0) }, 2.0, &rules, now + 1000.0);
    assert!(grant.news && grant.measured && grant.count == 1.0, "{grant:?}");
    assert!(ledger.turn(&ask(1, 1.0, 1.0), 2.0, &rules, now + 2000.0).count > 0.0);
}

#[test]
fn an_empty_ledger_takes_over_what_a_process_knows() {
    let mut ledger = Ledger::default();
    let knows = |epoch, closed, pace| Turn { known: Known { epoch, closed, pace }, ..ask(1, 1.0, epoch) };
    let grant = ledger.turn(&knows(7.0, SECOND, 40.0), 1.0, &RULES, 5.0 * SECOND);
    assert_eq!(grant.known, Known { epoch: 7.0, closed: SECOND, pace: 40.0 });
    assert!(grant.measured && grant.first == SECOND, "{grant:?}");
    // The next one knows less: it hears.
    let grant = ledger.turn(&knows(3.0, 0.0, 90.0), 2.0, &RULES, 5.0 * SECOND);
    assert_eq!(grant.known, Known { epoch: 7.0, closed: SECOND, pace: 40.0 });
    // And one that knows a later epoch is right.
    let grant = ledger.turn(&knows(9.0, 2.0 * SECOND, 90.0), 3.0, &RULES, 5.0 * SECOND);
    assert_eq!(grant.known, Known { epoch: 9.0, closed: 2.0 * SECOND, pace: 40.0 });
}

#[test]
fn without_a_budget_the_pace_never_grows() {
    for (budget, grows) in [(0.0, false), (0.01, true)] {
        let rules = Rules { budget, ..RULES };
        let mut ledger = Ledger::default();
        for step in 0..1000 {
            let turn = Turn { accepted: 5.0, round_trip: 1e4, ..ask(1, 5.0, 0.0) };
            ledger.turn(&turn, 1.0, &rules, 5.0 * SECOND + f64::from(step) * 4e4);
        }
        assert_eq!(ledger.pace > 100.0, grows, "{ledger:?}");
    }
}

//! What each instrument reads.

use super::{Emit, reading::Reading};
use crate::{
    WaitReason,
    coalesce::Trigger,
    record::{Arm, Attempts, Calls, FallbackReason, Outcome, Snapshot},
};

/// The book of a stack in which calls go through a fallback.
fn with_calls(reading: &Reading) -> Option<&Snapshot> {
    reading.book.as_ref().filter(|book| book.calls.total() > 0)
}

fn name(reason: FallbackReason) -> &'static str {
    // The conventions' name for what is none of the others.
    if reason == FallbackReason::Unknown { super::reading::OTHER } else { reason.as_str() }
}

pub(super) fn calls(reading: &Reading, emit: &mut Emit<'_>) {
    let Some(Snapshot { calls, .. }) = with_calls(reading) else { return };
    let Calls { primary, refused, cancelled, fallbacks, .. } = calls;
    let rejected = fallbacks[FallbackReason::Rejected as usize].not_tried;
    let served = fallbacks.iter().map(|counts| counts.served).sum();
    for (outcome, count) in [
        ("success", *primary),
        ("fallback", served),
        ("refused", *refused),
        ("rejected", rejected),
        ("cancelled", *cancelled),
    ] {
        emit.count(&[("outcome", outcome)], count);
    }
    for counts in fallbacks {
        let not_tried = if counts.reason == FallbackReason::Rejected { 0 } else { counts.not_tried };
        let labels = [("outcome", "failure"), ("error.type", name(counts.reason))];
        emit.count(&labels, counts.fallback_failed + not_tried);
    }
}

pub(super) fn call_duration(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(book) = with_calls(reading) {
        emit.times(&[], &book.detail.calls);
    }
}

pub(super) fn fallbacks(reading: &Reading, emit: &mut Emit<'_>) {
    let Some(book) = with_calls(reading) else { return };
    for counts in &book.calls.fallbacks {
        let reason = ("reason", name(counts.reason));
        emit.count(&[reason, ("result", "ok")], counts.served);
        emit.count(&[reason, ("result", "failed")], counts.fallback_failed);
    }
}

/// The arms that calls go through.
fn arms(reading: &Reading) -> impl Iterator<Item = (Arm, &Snapshot, &Attempts)> {
    let both = |book| Arm::ALL.map(|arm| (arm, book, Snapshot::arm(book, arm)));
    let arms = reading.book.iter().flat_map(both);
    arms.filter(|(arm, _, attempts)| *arm == Arm::Treated || attempts.total() > 0)
}

pub(super) fn attempts(reading: &Reading, emit: &mut Emit<'_>) {
    for (arm, _, attempts) in arms(reading) {
        for outcome in Outcome::ALL {
            let labels = [("arm", arm.as_str()), ("outcome", outcome.as_str())];
            emit.count(&labels, attempts.count(outcome));
        }
    }
}

pub(super) fn attempt_duration(reading: &Reading, emit: &mut Emit<'_>) {
    for (arm, book, _) in arms(reading) {
        emit.times(&[("arm", arm.as_str())], &book.detail.response[arm as usize]);
    }
}

pub(super) fn service_duration(reading: &Reading, emit: &mut Emit<'_>) {
    for (arm, book, _) in arms(reading) {
        emit.times(&[("arm", arm.as_str())], &book.detail.service[arm as usize]);
    }
}

pub(super) fn wait_duration(reading: &Reading, emit: &mut Emit<'_>) {
    let Some(book) = &reading.book else { return };
    for reason in WaitReason::ALL {
        emit.times(&[("reason", reason.as_str())], &book.detail.waits[reason as usize]);
    }
}

pub(super) fn slot_slip(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(book) = &reading.book {
        emit.times(&[], &book.detail.slips);
    }
}

pub(super) fn cooldowns(reading: &Reading, emit: &mut Emit<'_>) {
    let Some(book) = &reading.book else { return };
    emit.count(&[("reason", "rate_limit")], book.cooldowns.rate_limit);
    emit.count(&[("reason", "adaptive")], book.cooldowns.adaptive);
}

pub(super) fn throttled_run(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(book) = &reading.book {
        emit.level(&[], book.consecutive_429s as f64);
    }
}

pub(super) fn group_duration(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(book) = reading.book.as_ref().filter(|book| book.batched.count > 0) {
        emit.times(&[], &book.detail.batched);
    }
}

/// The book of a stack that coalesces.
fn with_batches(reading: &Reading) -> Option<&Snapshot> {
    reading.book.as_ref().filter(|book| book.coalesced.batches > 0)
}

pub(super) fn batches(reading: &Reading, emit: &mut Emit<'_>) {
    let Some(book) = with_batches(reading) else { return };
    for trigger in Trigger::ALL {
        emit.count(&[("trigger", trigger.as_str())], book.coalesced.closed_by(trigger));
    }
}

pub(super) fn batch_size(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(book) = with_batches(reading) {
        emit.buckets(&[], &book.coalesced.sizes, book.coalesced.requests as f64);
    }
}

pub(super) fn batch_weight(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(book) = with_batches(reading) {
        emit.count(&[], book.coalesced.weight);
    }
}

pub(super) fn batch_calls(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(book) = with_batches(reading) {
        emit.count(&[], book.coalesced.calls);
    }
}

pub(super) fn batch_wait(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(book) = with_batches(reading) {
        emit.times(&[], &book.detail.coalesced);
    }
}

pub(super) fn batch_duration(reading: &Reading, emit: &mut Emit<'_>) {
    let Some(book) = with_batches(reading) else { return };
    let [failed, succeeded] = &book.detail.batch_calls;
    emit.times(&[("outcome", "success")], succeeded);
    emit.times(&[("outcome", "failure")], failed);
}

pub(super) fn gates(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(gate) = &reading.gate {
        emit.count(&[], gate.gates);
    }
}

pub(super) fn gates_closed(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(gate) = &reading.gate {
        emit.count(&[], gate.closed);
    }
}

pub(super) fn keys(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(keys) = reading.gate.and_then(|gate| gate.keys) {
        emit.count(&[], keys);
    }
}

pub(super) fn keys_evicted(reading: &Reading, emit: &mut Emit<'_>) {
    let is_by_key = reading.gate.is_some_and(|gate| gate.keys.is_some());
    if let Some(book) = reading.book.as_ref().filter(|book| is_by_key || book.keys_evicted > 0) {
        emit.count(&[], book.keys_evicted);
    }
}

pub(super) fn cooldown_remaining(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(gate) = &reading.gate {
        emit.level(&[], gate.remaining.as_secs_f64());
    }
}

pub(super) fn queue_size(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(gate) = &reading.gate {
        emit.count(&[], gate.waiting);
    }
}

pub(super) fn queue_capacity(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(capacity) = reading.gate.and_then(|gate| gate.capacity) {
        emit.level(&[], capacity as f64);
    }
}

pub(super) fn active_requests(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(gate) = &reading.gate {
        emit.count(&[], gate.in_flight);
    }
}

pub(super) fn rate(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(rate) = reading.gate.and_then(|gate| gate.rate) {
        emit.level(&[], rate);
    }
}

pub(super) fn rollout(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(percent) = reading.rollout {
        emit.level(&[], f64::from(percent) / 100.0);
    }
}

pub(super) fn records_overwritten(reading: &Reading, emit: &mut Emit<'_>) {
    if let Some(overwritten) = reading.book.as_ref().and_then(|book| book.records_overwritten) {
        emit.count(&[], overwritten);
    }
}

/// A book whose source was told what the conventions want to know.
fn gen_ai(reading: &Reading) -> Option<(&Snapshot, [(&'static str, &str); 3])> {
    let (book, gen_ai) = (reading.book.as_ref()?, reading.gen_ai.as_ref()?);
    Some((
        book,
        [
            ("gen_ai.operation.name", &gen_ai.operation),
            ("gen_ai.provider.name", &gen_ai.provider),
            ("gen_ai.request.model", gen_ai.model.as_deref().unwrap_or_default()),
        ],
    ))
}

pub(super) fn token_usage(reading: &Reading, emit: &mut Emit<'_>) {
    let Some((book, [operation, provider, model])) = gen_ai(reading) else { return };
    let tokens = &book.tokens;
    for (kind, counts, sum) in
        [("input", &book.detail.tokens[0], tokens.input), ("output", &book.detail.tokens[1], tokens.output)]
    {
        let kind = ("gen_ai.token.type", kind);
        emit.buckets(&[kind, operation, provider, model], counts, sum as f64);
    }
}

pub(super) fn operation_duration(reading: &Reading, emit: &mut Emit<'_>) {
    let Some((book, labels)) = gen_ai(reading) else { return };
    let detail = &book.detail;
    let calls = if book.calls.total() > 0 { &detail.calls } else { &detail.response[Arm::Treated as usize] };
    emit.times(&labels, calls);
}

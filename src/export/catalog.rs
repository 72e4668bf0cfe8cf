//! The closed list of metrics.

use super::{
    Instrument, Kind, Label,
    instrument::Kind::{Counter, Gauge, Histogram, UpDownCounter},
    read,
};

/// Up to so many seconds. Powers of two times 10 ms, as the conventions have them, and each the next bound of the
/// recorded buckets, so that nothing is counted in the wrong one.
const CALLS: Kind = Histogram(&[
    0.01024, 0.02048, 0.04096, 0.08192, 0.16384, 0.32768, 0.65536, 1.31072, 2.62144, 5.24288, 10.48576,
    20.97152, 41.94304, 83.88608,
]);
/// 1, 5, 10, 50, 100, 250, 500 ms, 1, 2, 5, 10, 30, 60, 120, 300 s, each up to the next such bound: a wait of a second
/// that ended a little late is in the bucket of a second.
const WAITS: Kind = Histogram(&[
    0.001024, 0.00512, 0.01024, 0.053248, 0.106496, 0.262144, 0.524288, 1.048576, 2.097152, 5.24288,
    10.48576, 31.45728, 62.91456, 125.82912, 301.989888,
]);
/// 1, 2, 5, 10, 25, 50, 100, 250, 500 ms, 1, 5 s, as above. Timers have steps of 1 ms.
const SLIPS: Kind = Histogram(&[
    0.001024, 0.002048, 0.00512, 0.01024, 0.026624, 0.053248, 0.106496, 0.262144, 0.524288, 1.048576, 5.24288,
]);
const SIZES: Kind = Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0]);
/// As the conventions for generative AI have them.
const TOKENS: Kind = Histogram(&[
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
]);

const OUTCOME: Label =
    Label::closed("outcome", &["success", "fallback", "failure", "refused", "rejected", "cancelled"]);
const ERROR: Label = Label::closed(
    "error.type",
    &["429", "500", "503", "5xx_other", "client_error", "transport", "rejected", "_OTHER"],
);
const WHY: Label = Label::closed("reason", ERROR.values);
const RESULT: Label = Label::closed("result", &["ok", "failed"]);
const ARM: Label = Label::closed("arm", &["treated", "control"]);
const ATTEMPT: Label = Label::closed(
    "outcome",
    &["accepted", "throttled", "overloaded", "failed", "refused", "exhausted", "rejected", "cancelled"],
);
const WAIT: Label = Label::closed("reason", &["normal", "preflight", "rate_limit", "adaptive", "batch"]);
const CLOSING: Label = Label::closed("reason", &["rate_limit", "adaptive"]);
const TRIGGER: Label = Label::closed(
    "trigger",
    &["items", "weight", "tick", "linger", "idle", "exhausted", "flush", "drain", "alone"],
);
const ANSWERED: Label = Label::closed("outcome", &["success", "failure"]);
const TOKEN: Label = Label::closed("gen_ai.token.type", &["input", "output"]);
const OPERATION: Label = Label::named("gen_ai.operation.name");
const PROVIDER: Label = Label::named("gen_ai.provider.name");
const MODEL: Label = Label::named("gen_ai.request.model");

macro_rules! instruments {
    ($($name:literal $kind:ident $unit:literal [$($label:ident),*] $read:ident $help:literal)*) => {
        /// All metrics that there are, in the order in which they are exported.
        pub const INSTRUMENTS: &[Instrument] = &[$(Instrument {
            name: $name,
            kind: $kind,
            unit: $unit,
            help: $help,
            labels: &[$($label),*],
            read: read::$read,
        }),*];
    };
}

instruments! {
    "tower_cooldown.calls" Counter "{call}" [OUTCOME, ERROR] calls
        "Calls through the fallback, by how they ended. None in a stack without one."
    "tower_cooldown.call.duration" CALLS "s" [] call_duration
        "How long calls through the fallback took, with retries and waiting. None in a stack without one."
    "tower_cooldown.fallbacks" Counter "{fallback}" [WHY, RESULT] fallbacks
        "Calls that were sent to the fallback, by why and by what came of it."
    "tower_cooldown.attempts" Counter "{attempt}" [ARM, ATTEMPT] attempts
        "Attempts through the cooldown, by how they ended. Arm control is outside the rollout."
    "tower_cooldown.attempt.duration" CALLS "s" [ARM] attempt_duration
        "How long answered attempts took, from when they came to the cooldown, with waiting."
    "tower_cooldown.attempt.service.duration" CALLS "s" [ARM] service_duration
        "How long answered attempts took from sending to the head of the response, without waiting."
    "tower_cooldown.wait.duration" WAITS "s" [WAIT] wait_duration
        "How long attempts waited before they were sent, by why. Those that did not are normal."
    "tower_cooldown.slot.slip" SLIPS "s" [] slot_slip
        "How late attempts left that had waited, after the time that the policy gave them."
    "tower_cooldown.cooldowns" Counter "{cooldown}" [CLOSING] cooldowns
        "How often a gate closed: because the server said for how long, or by the choice of the policy."
    "tower_cooldown.throttled.run" Gauge "{attempt}" [] throttled_run
        "Answers 429 since the last success."
    "tower_cooldown.group.duration" CALLS "s" [] group_duration
        "How long calls through the micro-batch took, with the wait for their group."
    "tower_cooldown.batches" Counter "{batch}" [TRIGGER] batches
        "Coalesced batches, by what made them close."
    "tower_cooldown.batch.size" SIZES "{request}" [] batch_size
        "Requests in coalesced batches."
    "tower_cooldown.batch.weight" Counter "" [] batch_weight
        "What the requests in coalesced batches weighed."
    "tower_cooldown.batch.calls" Counter "{call}" [] batch_calls
        "Calls that were made for coalesced batches."
    "tower_cooldown.batch.wait.duration" WAITS "s" [] batch_wait
        "How long the first request of a coalesced batch waited until it closed."
    "tower_cooldown.batch.duration" CALLS "s" [ANSWERED] batch_duration
        "How long calls for coalesced batches took. One is a success if it answered a request of its batch well."
    "tower_cooldown.gates" UpDownCounter "{gate}" [] gates
        "Gates: one, or one for each key and one for keys without room."
    "tower_cooldown.gates.closed" UpDownCounter "{gate}" [] gates_closed
        "Gates that are closed."
    "tower_cooldown.keys" UpDownCounter "{key}" [] keys
        "Keys that have a gate of their own. Not there where gates are not by key."
    "tower_cooldown.keys.evicted" Counter "{key}" [] keys_evicted
        "Keys that were forgotten to make room for others. Not there where gates are not by key."
    "tower_cooldown.cooldown.remaining" Gauge "s" [] cooldown_remaining
        "How long the gate is still closed; of several gates the longest. 0 while all are open."
    "tower_cooldown.queue.size" UpDownCounter "{request}" [] queue_size
        "Calls that wait for their departure."
    "tower_cooldown.queue.capacity" Gauge "{request}" [] queue_capacity
        "The most calls that may wait. Not there without a bound."
    "tower_cooldown.active_requests" UpDownCounter "{request}" [] active_requests
        "Calls that have left and are not answered."
    "tower_cooldown.rate" Gauge "{request}/s" [] rate
        "The rate at which calls may leave, learned or declared. Not there while it is not known."
    "tower_cooldown.rollout" Gauge "1" [] rollout
        "The share of the calls that the cooldown works on."
    "tower_cooldown.records.overwritten" Counter "{record}" [] records_overwritten
        "Records that readers of the ring came too late for. Not there without a ring."
    "gen_ai.client.token.usage" TOKENS "{token}" [TOKEN, OPERATION, PROVIDER, MODEL] token_usage
        "Tokens of calls, as callers or answers report them."
    "gen_ai.client.operation.duration" CALLS "s" [OPERATION, PROVIDER, MODEL] operation_duration
        "How long calls took, from the side of the caller."
}

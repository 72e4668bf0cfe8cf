//! Whatever answers come, in whichever order: a gate that is closed does not open earlier than it said, and is never
//! closed for longer than the cap.
//!
//! The input is a list of calls, six bytes each: when it is made, how long its answer takes, the status, and a field.

#![no_main]

use futures::{StreamExt, stream::FuturesUnordered};
use http::Response;
use libfuzzer_sys::fuzz_target;
use std::{convert::Infallible, time::Duration};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    policy::{Known, Quota},
    signal::DEFAULT_MAX_RETRY_AFTER,
};

const STATUSES: [u16; 6] = [200, 200, 429, 429, 503, 403];
const NAMES: [&str; 4] = ["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-request-id"];

#[derive(Clone, Copy)]
struct Call {
    made: Duration,
    takes: Duration,
    status: u16,
    field: &'static str,
    value: u32,
}

impl Call {
    fn of(bytes: &[u8]) -> Self {
        Self {
            made: Duration::from_millis(u64::from(bytes[0]) * 50),
            takes: Duration::from_millis(u64::from(bytes[1]) * 20),
            status: STATUSES[usize::from(bytes[2]) % STATUSES.len()],
            field: NAMES[usize::from(bytes[3]) % NAMES.len()],
            value: u32::from(bytes[4]) * u32::from(bytes[5]),
        }
    }

    fn answer(self) -> Response<()> {
        let response = Response::builder().status(self.status).header("x-ratelimit-remaining", 0);
        response.header(self.field, self.value).body(()).unwrap()
    }
}

fuzz_target!(|data: &[u8]| {
    let calls: Vec<Call> = data.chunks_exact(6).take(40).map(Call::of).collect();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let quota = Quota::new(1_000_000, Duration::from_millis(1)).unwrap();
        let layer = AdaptiveCooldownLayer::with_policy(Known::new(quota));
        let handle = layer.handle();
        let service = layer.layer(service_fn(|call: Call| async move {
            sleep(call.takes).await;
            Ok::<_, Infallible>(call.answer())
        }));
        let mut answers: FuturesUnordered<_> = calls
            .into_iter()
            .map(|call| {
                let service = service.clone();
                async move {
                    sleep(call.made).await;
                    service.oneshot(call).await
                }
            })
            .collect();

        let mut said: Option<Instant> = None;
        while answers.next().await.is_some() {
            let now = Instant::now();
            let closed_for = handle.snapshot().closed_for.unwrap_or_default();
            assert!(closed_for <= DEFAULT_MAX_RETRY_AFTER);
            if let Some(said) = said.filter(|said| *said > now) {
                assert!(now + closed_for >= said, "said {:?}, is {closed_for:?}", said - now);
            }
            said = Some(now + closed_for);
        }
    });
});

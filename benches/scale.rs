//! Many keys, and many callers at one gate: what each of them costs.
//!
//! ```sh
//! cargo bench --bench scale             # a table
//! cargo bench --bench scale -- --json   # {"rows":[..]}, and nothing else on stdout
//! ```
//!
//! The clock of the gates is paused and moved by hand, so nothing really waits; what is measured is the time that the
//! work takes. Memory is what was asked of the allocator and not given back.

use allocation_counter::{measure, opt_out};
use http::{Request, Response};
use serde::Serialize;
use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    sync::{Arc, RwLock},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, service_fn};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    cooldown::keyed::KeyedCooldownLayer,
    policy::{Known, Quota},
};
use tower_cooldown_benches::{print_json, wants_json};

#[derive(Serialize)]
struct Row {
    what: &'static str,
    /// Keys, or callers that wait.
    count: usize,
    value: f64,
    unit: &'static str,
}

fn main() {
    let smoke = !std::env::args().any(|arg| arg == "--bench");
    let divisor = if smoke { 1000 } else { 1 };
    let mut rows = Vec::new();
    for keys in [1_000, 100_000, 1_000_000] {
        keys_at_rest(keys / divisor, &mut rows);
    }
    an_attack(10_000_000 / divisor, 100_000 / divisor, &mut rows);
    for callers in [1_000, 10_000, 100_000] {
        callers_at_one_gate(callers / divisor.min(100), &mut rows);
    }
    if wants_json() {
        print_json(&rows);
    } else {
        println!("{:<46} {:>11} {:>12}", "what", "count", "value");
        for Row { what, count, value, unit } in &rows {
            println!("{what:<46} {count:>11} {value:>12.1} {unit}");
        }
    }
}

type Keyed<F> = KeyedCooldownLayer<F>;

fn keyed(keys: usize) -> Keyed<impl Fn(&Request<u64>) -> u64 + Clone> {
    let quota = Quota::new(500, Duration::from_secs(60)).and_then(|quota| quota.burst(1_000_000_000));
    AdaptiveCooldownLayer::with_policy(Known::new(quota.expect("a quota")))
        .keyed(|request: &Request<u64>| *request.body())
        .max_keys(keys)
        .expect("a bound")
}

fn bare<Req>()
-> impl Service<Req, Response = Response<()>, Error = Infallible, Future = Ready<Result<Response<()>, Infallible>>>
+ Clone {
    service_fn(|_: Req| ready(Ok(Response::new(()))))
}

/// [SplitMix64](https://prng.di.unimi.it/splitmix64.c): keys in no order that a cache would guess.
fn scattered(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn keys_at_rest(keys: usize, rows: &mut Vec<Row>) {
    // The cache is bounded in parts, by hash: with some room, none of the keys is thrown out.
    let layer = keyed(keys + keys / 5);
    let memory = measure(|| {
        for key in 0..keys as u64 {
            let _ = layer.for_key(&key);
        }
    });
    let handle = layer.handle();
    assert!(handle.len() >= keys * 99 / 100, "{} of {keys}", handle.len());
    let bytes = memory.bytes_current as f64 / handle.len() as f64;
    rows.push(Row { what: "keyed: memory per key", count: keys, value: bytes, unit: "bytes" });

    let order: Vec<u64> = (0..1_000_000).map(|n| scattered(n) % keys as u64).collect();
    let hot: Vec<u64> = order.iter().map(|key| key % 1000).collect();
    for (what, order) in [("keyed: lookup of any key", &order), ("keyed: lookup of a thousand of them", &hot)]
    {
        let ns = per_item(order.len(), || order.iter().for_each(|key| drop(black_box(handle.get(key)))));
        rows.push(Row { what, count: keys, value: ns, unit: "ns" });
    }
    // As many bytes behind each key, in the plainest map that could be shared.
    let plain: RwLock<HashMap<u64, Arc<[u64; 40]>>> = RwLock::default();
    for key in 0..keys as u64 {
        plain.write().expect("no panic").insert(key, Arc::new([key; 40]));
    }
    let get = |key| plain.read().expect("no panic").get(key).map(Arc::clone);
    let ns = per_item(order.len(), || order.iter().for_each(|key| drop(black_box(get(key)))));
    rows.push(Row { what: "a HashMap behind a lock: lookup of any", count: keys, value: ns, unit: "ns" });
    // All of it but the memory of what is found, which a call needs, too.
    let find = |key| plain.read().expect("no panic").get(key).map(Arc::as_ptr);
    let ns = per_item(order.len(), || order.iter().for_each(|key| _ = black_box(find(key))));
    let what = "a HashMap behind a lock: the same, not touched";
    rows.push(Row { what, count: keys, value: ns, unit: "ns" });

    let (mut service, mut plain) = (layer.layer(bare()), bare());
    let calls = per_item(order.len(), || order.iter().for_each(|key| call(&mut service, *key)));
    let bare = per_item(order.len(), || order.iter().for_each(|key| call(&mut plain, *key)));
    rows.push(Row { what: "keyed: call over bare, any key", count: keys, value: calls - bare, unit: "ns" });
}

/// A key per request.
fn an_attack(keys: usize, cap: usize, rows: &mut Vec<Row>) {
    let layer = keyed(cap);
    let throw = |keys: std::ops::Range<usize>| keys.for_each(|key| drop(layer.for_key(&key)));
    let at_cap = measure(|| throw(0..cap * 2)).bytes_current;
    let start = Instant::now();
    let after = measure(|| throw(cap * 2..cap * 2 + keys)).bytes_current;
    let ns = start.elapsed().as_nanos() as f64 / keys as f64;
    assert!(layer.handle().len() <= cap, "{}", layer.handle().len());
    rows.push(Row { what: "keyed: memory at the cap", count: cap, value: at_cap as f64, unit: "bytes" });
    let what = "keyed: memory beyond, after so many keys";
    rows.push(Row { what, count: keys, value: after as f64, unit: "bytes" });
    rows.push(Row { what: "keyed: a new key at the cap", count: cap, value: ns, unit: "ns" });
}

fn call<S: Service<Request<u64>, Error = Infallible>>(service: &mut S, key: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let answer = std::pin::pin!(service.call(Request::new(key))).poll(&mut cx);
    assert!(answer.is_ready());
}

/// The best of three.
fn per_item(items: usize, mut work: impl FnMut()) -> f64 {
    let mut once = || {
        let start = Instant::now();
        opt_out(&mut work);
        start.elapsed().as_nanos() as f64 / items as f64
    };
    once().min(once()).min(once())
}

/// One leaves each millisecond.
fn callers_at_one_gate(callers: usize, rows: &mut Vec<Row>) {
    let quota = Quota::new(1, Duration::from_millis(1)).and_then(|quota| quota.burst(1));
    let layer = AdaptiveCooldownLayer::with_policy(Known::new(quota.expect("a quota")));
    let mut service = layer.layer(bare::<()>());
    let runtime = paused();
    let _context = runtime.enter();
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiting = Vec::with_capacity(callers);
    let mut booking = Duration::ZERO;
    let few = callers / 10;
    let mut own = 0;
    let memory = measure(|| {
        for caller in 0..callers + few {
            assert!(service.poll_ready(&mut cx).is_ready());
            let start = Instant::now();
            let mut future = Box::pin(service.call(()));
            let leaves = future.as_mut().poll(&mut cx).is_ready();
            if caller >= callers {
                drop(future);
                booking += start.elapsed();
            } else if !leaves {
                own = size_of_val(&*future);
                waiting.push(future);
            }
        }
    });
    let bytes = memory.bytes_current as f64 / callers as f64 - own as f64;
    rows.push(Row { what: "waiting: memory beyond the future", count: callers, value: bytes, unit: "bytes" });
    let ns = booking.as_nanos() as f64 / few as f64;
    rows.push(Row {
        what: "waiting: to book, behind all, and go away",
        count: callers,
        value: ns,
        unit: "ns",
    });

    let mut release = Duration::ZERO;
    for mut future in waiting.drain(..=few) {
        runtime.block_on(tokio::time::advance(Duration::from_millis(1)));
        let start = Instant::now();
        let answer = future.as_mut().poll(&mut cx);
        release += start.elapsed();
        assert!(answer.is_ready());
    }
    let ns = release.as_nanos() as f64 / (few + 1) as f64;
    rows.push(Row { what: "waiting: to leave, before all others", count: callers, value: ns, unit: "ns" });
    // From the front: the last one to go has nobody behind it to tell.
    let start = Instant::now();
    let left = waiting.len();
    drop(waiting);
    let ns = start.elapsed().as_nanos() as f64 / left as f64;
    rows.push(Row { what: "waiting: to go away, from the front", count: callers, value: ns, unit: "ns" });
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

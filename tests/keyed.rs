//! A gate per key: which key, what is kept of it, how much memory, and what bad keys do.
#![cfg(feature = "keyed")]

mod support;

use http::{Request, header::HOST};
use std::hash::{Hash, Hasher};
use support::{Reply, Upstream, UpstreamOf, every, is_ready, ms, request, secs, send, settle, unpaced};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_cooldown::{
    AdaptiveCooldownLayer,
    cooldown::{
        TooManyRequests,
        keyed::{KeyOf, by},
    },
    policy::{Known, Quota},
};

/// By what stands in the path, up to the dot.
fn by_path(request: &Request<()>) -> String {
    request.uri().path().to_owned()
}

fn at(uri: &str) -> Request<()> {
    Request::builder().uri(uri).body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_gate_of_its_own() {
    let upstream = Upstream::new(|call| if call.id == 1 { Reply::throttled(30) } else { Reply::status(200) });
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).keyed(by_path);
    let service = layer.layer(upstream.clone());
    send(&service, 1).await.unwrap().0.unwrap();
    let second = send(&service, 1);
    let (result, waited) = send(&service, 2).await.unwrap();
    result.unwrap();
    assert_eq!(waited, ms(0), "another key does not wait");
    let (result, waited) = second.await.unwrap();
    result.unwrap();
    assert_eq!(waited, secs(30), "the same one does");
    assert_eq!(layer.handle().len(), 2);
    assert_eq!(layer.handle().statistics().snapshot().attempts.throttled, 2);
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_share_the_gates() {
    let upstream = Upstream::ok();
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(1))).keyed(by_path);
    for service in [layer.layer(upstream.clone()), layer.clone().layer(upstream.clone())] {
        send(&service, 7).await.unwrap().0.unwrap();
        send(&service.clone(), 7).await.unwrap().0.unwrap();
    }
    assert_eq!(upstream.times(), [0, 1000, 2000, 3000]);
    assert_eq!(layer.handle().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_has_a_layer_of_its_own_with_real_readiness() {
    let upstream = Upstream::new(|_| Reply::throttled(30));
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).keyed(by_path);
    let mut by_key = layer.for_key("/1").layer(upstream.clone());
    let mut other = layer.for_key("/2").layer(upstream.clone());
    assert!(is_ready(&mut by_key));
    let mut service = layer.layer(upstream.clone());
    service.ready().await.unwrap().call(request(1)).await.unwrap();
    assert!(is_ready(&mut service), "it does not know which key comes next");
    assert!(!is_ready(&mut by_key));
    assert!(is_ready(&mut other));
    assert_eq!(layer.handle().get("/1").unwrap().snapshot().closed_for, Some(secs(30)));
    assert!(layer.handle().get("/3").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_gets_ready_whatever_the_key() {
    let keyed = AdaptiveCooldownLayer::with_policy(unpaced()).keyed(by_path);
    let service = ServiceBuilder::new().layer(keyed).concurrency_limit(1).service(Upstream::ok());
    let (mut first, mut second) = (service.clone(), service);
    assert!(is_ready(&mut first));
    assert!(!is_ready(&mut second), "there is one permit");
    first.call(request(1)).await.unwrap();
    assert!(is_ready(&mut second));
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_at_a_key_than_may() {
    let upstream = UpstreamOf::<(), BoxError>::ok();
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(1)))
        .max_waiting(2)
        .reject_with(TooManyRequests)
        .keyed(by_path);
    let service = layer.layer(upstream.clone());
    let calls: Vec<_> = (0..5).map(|_| send(&service, 1)).collect();
    let other = send(&service, 2);
    assert_eq!(other.await.unwrap().0.unwrap().status(), 200, "another key has room");
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap().0.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[tokio::test(start_paused = true)]
async fn a_bound_on_the_waiting_holds_without_keys_too() {
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(1))).max_wait(secs(60)).max_waiting(1);
    let service = layer.layer(Upstream::ok());
    let calls: Vec<_> = (0..3).map(|_| send(&service, 1)).collect();
    let mut served = Vec::new();
    for call in calls {
        served.push(call.await.unwrap().0.is_ok());
    }
    assert_eq!(served, [true, true, false]);
}

/// What `by` finds is the key of that name.
async fn finds(by: impl KeyOf<Request<()>> + Clone + Send + 'static, request: Request<()>, key: impl Hash) {
    let layer = AdaptiveCooldownLayer::new().keyed(by);
    layer.layer(Upstream::ok()).oneshot(request).await.unwrap();
    assert_eq!(layer.handle().len(), 1);
    assert!(layer.handle().get(&key).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_ready_made_keys() {
    let uri = "https://API.example.com:8443/v1/models/a?key=1";
    finds(by::authority(), at(uri), "api.example.com:8443").await;
    let mut origin_form = at("/v1");
    finds(by::authority(), origin_form.clone(), "").await;
    origin_form.headers_mut().insert(HOST, "Example.com".parse().unwrap());
    finds(by::authority(), origin_form, "example.com").await;

    finds(by::path_prefix(2), at(uri), "/v1/models").await;
    finds(by::path_prefix(9), at(uri), "/v1/models/a").await;
    finds(by::path_prefix(0), at(uri), "").await;
    finds(by::grpc_method(), at("http://h/pkg.Service/Method"), "/pkg.Service/Method").await;

    let mut with_key = at(uri);
    finds(by::credential(), with_key.clone(), "").await;
    with_key.headers_mut().insert("x-api-key", "secret".parse().unwrap());
    finds(by::credential(), with_key.clone(), "secret").await;
    finds(by::header("x-api-key".parse().unwrap()), with_key.clone(), "secret").await;
    finds((by::authority(), by::credential()), with_key, ("api.example.com:8443", "secret")).await;
    finds(|_: &Request<()>| 7_u8, at(uri), 7_u8).await;
}

#[test]
fn credentials_are_not_to_be_seen() {
    let layer = AdaptiveCooldownLayer::new().keyed(by::credential());
    let _layer = layer.for_key("sk-secret");
    let seen = format!("{layer:?} {:?} {:?}", layer.handle(), layer.handle().get("sk-secret"));
    assert!(!seen.contains("sk-secret"), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn keys_that_come_once_do_not_drive_out_those_in_use() {
    let upstream = Upstream::new(|call| match call.id {
        1 => Reply::throttled(300),
        _ => Reply::status(200),
    });
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).keyed(by_path).max_keys(100).unwrap();
    let service = layer.layer(upstream.clone());
    send(&service, 1).await.unwrap().0.unwrap(); // closed
    let waiting = send(&service, 1);
    settle().await;
    for id in 1000..6000 {
        send(&service, id).await.unwrap().0.unwrap();
    }
    let handle = layer.handle();
    assert!(handle.len() <= 100, "{}", handle.len());
    assert_eq!(handle.statistics().snapshot().keys_evicted, 5001 - handle.len() as u64);
    assert_eq!(handle.get("/1").unwrap().snapshot().waiting, 1);
    waiting.abort();
    settle().await;
    for id in 6000..7000 {
        send(&service, id).await.unwrap().0.unwrap();
    }
    assert!(handle.get("/1").unwrap().snapshot().closed_for.is_some(), "closed, and nobody holds it");
}

#[tokio::test(start_paused = true)]
async fn where_no_gate_can_be_forgotten_new_keys_share_one() {
    let upstream = Upstream::new(|call| match call.id {
        0..1000 => Reply::throttled(300),
        _ => Reply::status(200),
    });
    let layer = AdaptiveCooldownLayer::with_policy(every(secs(1))).keyed(by_path).max_keys(10).unwrap();
    let (service, handle) = (layer.layer(upstream.clone()), layer.handle());
    for id in 0..10 {
        send(&service, id).await.unwrap().0.unwrap();
    }
    assert_eq!(handle.len(), 10);
    let calls = [send(&service, 1000), send(&service, 1001)];
    for (call, expected) in calls.into_iter().zip([0, 1]) {
        let (result, waited) = call.await.unwrap();
        result.unwrap();
        assert_eq!(waited, secs(expected), "they share the overflow gate");
    }
    assert!((0..10).all(|id| handle.get(&format!("/{id}")).is_some()));
    assert!(handle.get("/1000").is_none());

    // When the gates are open again, there is room.
    tokio::time::advance(secs(301)).await;
    send(&service, 1002).await.unwrap().0.unwrap();
    assert!(handle.get("/1002").is_some());
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_forgotten_when_a_new_one_comes() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).keyed(by_path).forget_after(secs(60));
    let (service, handle) = (layer.layer(Upstream::ok()), layer.handle());
    for id in 0..100 {
        send(&service, id).await.unwrap().0.unwrap();
    }
    tokio::time::advance(secs(30)).await;
    send(&service, 5).await.unwrap().0.unwrap();
    tokio::time::advance(secs(31)).await;
    assert_eq!(handle.len(), 100);
    send(&service, 1000).await.unwrap().0.unwrap();
    assert_eq!(handle.len(), 2);
    assert!(handle.get("/5").is_some() && handle.get("/1000").is_some());
    handle.forget_idle(secs(0));
    assert!(handle.is_empty());
    assert_eq!(handle.statistics().snapshot().keys_evicted, 0, "there was room");
}

#[test]
fn memory_per_key_is_bounded() {
    const KEYS: u64 = 1_000_000;
    let gates = |policy: Known| AdaptiveCooldownLayer::with_policy(policy).keyed(|_: &()| 0);
    let bucket = || Known::new(Quota::new(500, secs(60)).unwrap().burst(10).unwrap());
    let layer = gates(bucket()).max_keys(KEYS as usize).unwrap();
    let memory = allocation_counter::measure(|| {
        for key in 0..KEYS {
            let _ = layer.for_key(&key);
        }
    });
    let kept = layer.handle().len() as u64;
    assert!(kept > KEYS * 9 / 10, "{kept}");
    let per_key = memory.bytes_current.unsigned_abs() / kept;
    println!("{per_key} bytes a key");
    assert!(per_key <= 400, "{per_key} bytes a key");

    // A key per request, which is an attack.
    let layer = gates(bucket()).max_keys(10_000).unwrap();
    for key in 0..20_000 {
        let _ = layer.for_key(&key);
    }
    let memory = allocation_counter::measure(|| {
        for key in 0..300_000 {
            let _ = layer.for_key(&key);
        }
    });
    assert!(layer.handle().len() <= 10_000);
    assert!(memory.bytes_current.abs() < 200_000, "{} bytes more", memory.bytes_current);
}

#[tokio::test(start_paused = true)]
async fn a_key_function_that_panics_costs_the_caller_nothing() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).keyed(|request: &Request<()>| -> u8 {
        assert!(request.uri().path() != "/1", "told to panic");
        0
    });
    let service = layer.layer(Upstream::ok());
    for id in [1, 2, 1] {
        assert_eq!(send(&service, id).await.unwrap().0.unwrap().status(), 200);
    }
    assert_eq!(layer.handle().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn huge_keys_are_not_kept() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).keyed(|_: &Request<()>| "k".repeat(1 << 20));
    let service = layer.layer(Upstream::ok());
    send(&service, 1).await.unwrap().0.unwrap();
    let memory = allocation_counter::measure(|| {
        let _ = layer.for_key(&"l".repeat(1 << 20));
    });
    assert!(memory.bytes_current < 10_000, "{}", memory.bytes_current);
    assert_eq!(layer.handle().len(), 2);
}

#[test]
fn keys_that_all_hash_alike_share_a_gate() {
    struct Same;
    impl Hash for Same {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }
    let layer = AdaptiveCooldownLayer::new().keyed(|_: &()| 0);
    for _ in 0..1000 {
        let _ = layer.for_key(&Same);
    }
    assert_eq!(layer.handle().len(), 1);
}

#[test]
fn no_keys_at_all_is_an_error() {
    let error = AdaptiveCooldownLayer::new().keyed(|_: &()| 0).max_keys(0).unwrap_err();
    assert_eq!(error.field(), "max_keys");
}

#[test]
fn many_threads_agree_on_the_gate_of_a_key() {
    let layer = AdaptiveCooldownLayer::with_policy(unpaced()).keyed(|_: &()| 0);
    let handles = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| (0..2000_u32).map(|key| layer.for_key(&key).handle()).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(layer.handle().len(), 2000);
    for key in 0..2000 {
        handles[0][key].cool_for(secs(1));
        assert!(handles.iter().all(|thread| thread[key].snapshot().closed_for.is_some()), "key {key}");
    }
}

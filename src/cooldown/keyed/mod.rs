//! A gate per key: per host, credential, tenant, model, method, or whatever a request tells.
//!
//! Behind one client there may be many upstreams, or one that counts each credential apart. A
//! [`KeyedCooldownLayer`] keeps a gate for each key that a request has, all with the settings of the layer that it
//! was made [from](crate::AdaptiveCooldownLayer::keyed):
//!
//! ```
//! use http::{Request, Response};
//! use std::time::Duration;
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
//! use tower_cooldown::{
//!     AdaptiveCooldownLayer, InvalidSetting,
//!     cooldown::{TooManyRequests, keyed::by},
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # let client = tower::service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(String::new())) });
//! let cooldown = AdaptiveCooldownLayer::new()
//!     .max_wait(Duration::from_secs(20))
//!     .max_waiting(100) // per key
//!     .reject_with(TooManyRequests)
//!     .keyed((by::authority(), by::credential()))
//!     .max_keys(10_000)?;
//! let handle = cooldown.handle();
//! let mut client = ServiceBuilder::new().layer(cooldown).service(client);
//!
//! let request = Request::builder().uri("https://api.example.com/tags").header("x-api-key", "one");
//! client.ready().await?.call(request.body(String::new())?).await?;
//! assert_eq!(handle.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Keys
//!
//! A key is found by a closure `Fn(&Request) -> K` with `K: Hash`, by one of the ready-made ones in [`by`], or by a
//! tuple of them. It is hashed at once, with a random seed, to 64 bits; the key itself is never kept or logged. So
//! its size does not matter, and credentials are safe. (Keys whose `Hash` writes the same share a gate.)
//!
//! # Memory
//!
//! Bounded by [`max_keys`](KeyedCooldownLayer::max_keys). When they are reached, a gate that has been
//! idle for long makes room for the next: the one that has been so for the longest time of five that are looked at, as
//! [Redis](https://redis.io/docs/latest/develop/reference/eviction/) does it. (There are up to 64 parts, each with its
//! share of the keys, so that threads seldom meet; one may be full a little before the others.) A gate that is closed, has calls waiting or in flight, or is held by a
//! [`Handle`](crate::Handle) or a [layer of its own](KeyedCooldownLayer::for_key), is never forgotten. If none
//! can be, new keys share one more gate, the *overflow*, which has the same settings. Gates that were idle for long
//! ([`forget_after`](KeyedCooldownLayer::forget_after)) are forgotten when some new key comes; there is no
//! background task.
//!
//! The statistics are one book for all keys; it is too large to have one for each.
//!
//! # Readiness
//!
//! `poll_ready` knows no request yet, so it only asks the inner service, and `call` waits. Where readiness matters,
//! as below `Balance`, give each endpoint its own layer by [`for_key`](KeyedCooldownLayer::for_key): it has the gate of
//! that key, and the readiness of an [`AdaptiveCooldown`](crate::AdaptiveCooldown).
//!
//! # Errors and cancellation
//!
//! As without keys: see [`cooldown`](super#errors). A call that is dropped gives its place at its own gate back.
//!
//! # Panics
//!
//! A key function that panics costs the caller nothing: its request goes through the overflow gate, and an error
//! event tells of it.
//!
//! # Differences from `tower::limit` and from keyed limiters for servers
//!
//! tower has no limit by key. `tower_governor` and the like count the requests of each of a *server's* clients against a
//! rate that is configured; here each key is an upstream, or one's own credential there, whose quota is found or declared,
//! and whose refusals close that gate alone.

pub mod by;
mod gates;
mod handle;
mod layer;
mod service;
mod shard;

pub use self::{by::KeyOf, handle::KeyedHandle, layer::KeyedCooldownLayer, service::KeyedCooldown};

//! Fleets on a real server, in real time: what goes wrong with it is bounded in time, and no call fails for it.

use super::server::{Address, Server, binaries};
use http::Request;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};
use tower::{ServiceBuilder, ServiceExt};
use tower_cooldown::{
    AdaptiveCooldownLayer, Handle,
    fleet::{Fleet, FleetError, Mode},
    policy::Quota,
    testing::{Limit, Upstream},
};

const SECOND: Duration = Duration::from_secs(1);
const KEY: &str = "tower-cooldown:{upstream}";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Some processes in one: each has a layer, a gate, a task and a connection of its own.
struct Job {
    handles: Vec<Handle>,
    callers: JoinSet<()>,
    upstream: Upstream,
    stop: Arc<AtomicBool>,
    /// The longest that a call took, in microseconds, since it was looked at last.
    longest: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
}

const PROCESSES: usize = 4;
const QUOTA: u32 = 400;

fn fleet(client: redis::Client) -> Fleet {
    // What is tested is not how it learns, and a budget of nothing keeps the pace where it is.
    let quota = Quota::new(QUOTA / 2, SECOND).unwrap();
    Fleet::redis(client, "upstream").unwrap().seed(quota).budget(0.0).unwrap()
}

impl Job {
    /// Two callers in each process, which call again ten milliseconds after the answer: about 600 calls a second, if
    /// they could.
    fn start(fleet: &Fleet) -> Self {
        let upstream = Upstream::new([Limit::token_bucket(QUOTA.into(), SECOND, 100).unwrap()]);
        let mut job = Self {
            handles: Vec::new(),
            callers: JoinSet::new(),
            upstream,
            stop: Arc::default(),
            longest: Arc::default(),
            accepted: Arc::default(),
        };
        for _ in 0..PROCESSES {
            let layer = AdaptiveCooldownLayer::shared(fleet.clone());
            job.handles.push(layer.handle());
            let client = ServiceBuilder::new().layer(layer).service(job.upstream.clone());
            for _ in 0..2 {
                let (client, stop) = (client.clone(), Arc::clone(&job.stop));
                let (longest, accepted) = (Arc::clone(&job.longest), Arc::clone(&job.accepted));
                job.callers.spawn(async move {
                    while !stop.load(SeqCst) {
                        let start = Instant::now();
                        let response = client.clone().oneshot(Request::new(())).await.expect("no call fails");
                        longest.fetch_max(start.elapsed().as_micros() as u64, SeqCst);
                        accepted.fetch_add(u64::from(response.status() == 200), SeqCst);
                        sleep(ms(10)).await;
                    }
                });
            }
        }
        job
    }

    fn modes(&self, mode: Mode) -> usize {
        self.handles.iter().filter(|handle| handle.fleet().unwrap().mode == mode).count()
    }

    /// Waits until all processes are in this mode. How long it took.
    async fn all(&self, mode: Mode, most: Duration) -> Duration {
        let start = Instant::now();
        while self.modes(mode) < PROCESSES {
            assert!(start.elapsed() < most, "{mode} in {most:?}: {:?}", self.snapshots());
            sleep(ms(5)).await;
        }
        start.elapsed()
    }

    fn snapshots(&self) -> Vec<tower_cooldown::fleet::FleetSnapshot> {
        self.handles.iter().filter_map(Handle::fleet).collect()
    }

    fn take_longest(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, SeqCst))
    }

    /// Calls that are accepted in so much time, a second.
    async fn rate(&self, time: Duration) -> f64 {
        let before = self.accepted.load(SeqCst);
        sleep(time).await;
        (self.accepted.load(SeqCst) - before) as f64 / time.as_secs_f64()
    }

    async fn end(mut self) {
        self.stop.store(true, SeqCst);
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("no call fails");
        }
        assert_eq!(self.upstream.counts().refused, 0);
    }
}

/// The same on each server that is installed.
macro_rules! on_each {
    ($($(#[$doc:meta])* async fn $name:ident($server:ident: Server) $body:block)*) => {$(
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for binary in binaries() {
                #[allow(unused_mut, reason = "some restart it")]
                let mut $server = Server::start(binary);
                $body
            }
        }
    )*};
}

on_each! {
    /// The pace is that of all together, and one turn serves several calls.
    async fn processes_share_a_pace(server: Server) {
        let fleet = fleet(server.client());
        fleet.check().await.unwrap();
        let job = Job::start(&fleet);
        job.all(Mode::Shared, SECOND).await;
        sleep(ms(300)).await;
        let rate = job.rate(2 * SECOND).await;
        assert!((150.0..=205.0).contains(&rate), "{rate}: {:?}", job.snapshots());
        let snapshot = job.handles[0].fleet().unwrap();
        assert_eq!(snapshot.members, PROCESSES as u64);
        assert!(snapshot.subscribed && snapshot.outages == 0, "{snapshot:?}");
        let expiry: i64 = server.run(&format!("PTTL {KEY}"));
        assert!(expiry > 0);
        job.end().await;
    }

    /// By SIGKILL, and back again, empty.
    async fn it_is_killed_and_comes_back(server: Server) {
        let job = Job::start(&fleet(server.client()));
        job.all(Mode::Shared, SECOND).await;
        sleep(ms(500)).await;
        job.take_longest();
        server.kill();
        job.all(Mode::Alone, SECOND).await;
        let rate = job.rate(SECOND).await;
        // At its share, less 5 %.
        assert!((120.0..=205.0).contains(&rate), "{rate}");
        // Its turn at its share, and 50 ms.
        assert!(job.take_longest() < ms(200));
        server.restart();
        job.all(Mode::Shared, SECOND).await;
        let pace = job.handles[0].fleet().unwrap().pace.unwrap();
        assert!((150.0..=205.0).contains(&pace), "{pace}");
        assert!(job.handles.iter().all(|handle| handle.fleet().unwrap().outages == 1), "{:?}", job.snapshots());
        job.end().await;
    }

    /// The primary is killed, and its replica takes its place and its address.
    async fn a_replica_is_promoted(server: Server) {
        let replica = Server::start(server.binary());
        replica.follow(&server);
        let address = Address::of(&server);
        let job = Job::start(&fleet(address.client()));
        job.all(Mode::Shared, SECOND).await;
        // One epoch before the change; the fleet opens again by itself.
        let layer = AdaptiveCooldownLayer::shared(fleet(address.client()));
        let refuses = Upstream::new([Limit::token_bucket(0, SECOND, 0).unwrap()]);
        assert_eq!(layer_call(&layer, refuses).await, 429);
        let copied = Instant::now();
        while replica.run::<Option<u64>>(&format!("HGET {KEY} epoch")) != Some(1) {
            assert!(copied.elapsed() < SECOND, "it does not come to the replica");
            sleep(ms(5)).await;
        }
        // As a replica it refuses, which is an outage like any other.
        let error = fleet(replica.client()).check().await.unwrap_err();
        assert!(matches!(error, FleetError::Refused(_)), "{error:?}");
        sleep(ms(500)).await;
        server.kill();
        job.all(Mode::Alone, SECOND).await;
        let rate = job.rate(ms(500)).await;
        assert!(rate > 80.0, "{rate}");
        let turns = replica.turns();
        let () = replica.run("REPLICAOF NO ONE");
        address.move_to(&replica);
        let took = job.all(Mode::Shared, SECOND).await;
        println!("all share again after {took:?}");
        sleep(ms(300)).await;
        assert!(replica.turns() > turns);
        let epochs: Vec<u64> = job.snapshots().iter().map(|fleet| fleet.epoch).collect();
        assert_eq!(epochs, [1; PROCESSES]);
        assert_eq!(replica.run::<u64>(&format!("HGET {KEY} epoch")), 1);
        assert_eq!(job.modes(Mode::Shared), PROCESSES);
        job.end().await;
    }

    /// Ten calls a second of eight processes, by the server's own count: a turn for each call, and little else.
    async fn a_call_costs_one_command(server: Server) {
        let upstream = Upstream::new([Limit::token_bucket(20, SECOND, 20).unwrap()]).latency(ms(60), ms(20)).unwrap();
        let quota = Quota::new(10, SECOND).unwrap().margin(Duration::ZERO);
        let mut callers = JoinSet::new();
        for _ in 0..8 {
            let fleet = Fleet::redis(server.client(), "upstream").unwrap().seed(quota).budget(0.0).unwrap();
            let layer = AdaptiveCooldownLayer::shared(fleet);
            for _ in 0..2 {
                let client = ServiceBuilder::new().layer(layer.clone()).service(upstream.clone());
                callers.spawn(async move {
                    loop {
                        client.clone().oneshot(Request::new(())).await.expect("no call fails");
                    }
                });
            }
        }
        sleep(2 * SECOND).await;
        let before = (server.turns(), upstream.counts());
        sleep(8 * SECOND).await;
        let (turns, counts) = (server.turns() - before.0, upstream.counts().since(before.1));
        callers.shutdown().await;
        let (calls, per_call) = (counts.granted, turns as f64 / counts.granted as f64);
        println!("{turns} turns for {calls} calls: {per_call:.3}");
        assert!((70..=84).contains(&calls) && counts.refused == 0, "{counts:?}");
        assert!(per_call <= 1.2, "{turns} turns for {calls} calls");
    }

    async fn it_forgets_everything(server: Server) {
        let job = Job::start(&fleet(server.client()));
        job.all(Mode::Shared, SECOND).await;
        sleep(ms(300)).await;
        let () = server.run("FLUSHALL");
        let rate = job.rate(SECOND).await;
        assert!((150.0..=215.0).contains(&rate), "{rate}");
        assert_eq!(job.modes(Mode::Shared), PROCESSES);
        job.end().await;
    }

    /// A second without an answer.
    async fn it_is_slow(server: Server) {
        let job = Job::start(&fleet(server.client()));
        job.all(Mode::Shared, SECOND).await;
        sleep(ms(300)).await;
        job.take_longest();
        let () = server.run("CLIENT PAUSE 1000 ALL");
        job.all(Mode::Alone, ms(500)).await;
        sleep(ms(400)).await;
        let longest = job.take_longest();
        assert!(longest < ms(200), "{longest:?}");
        job.all(Mode::Shared, 2 * SECOND).await;
        job.end().await;
    }

    async fn its_memory_is_used_up(server: Server) {
        let job = Job::start(&fleet(server.client()));
        job.all(Mode::Shared, SECOND).await;
        let () = server.run("CONFIG SET maxmemory 1");
        job.all(Mode::Alone, SECOND).await;
        let error = fleet(server.client()).check().await.unwrap_err();
        assert!(matches!(&error, FleetError::Refused(text) if text.contains("maxmemory")), "{error}");
        let () = server.run("CONFIG SET maxmemory 0");
        job.all(Mode::Shared, SECOND).await;
        job.end().await;
    }

    /// Somebody's script holds it up, until it is killed.
    async fn a_script_is_killed(server: Server) {
        let () = server.run("CONFIG SET lua-time-limit 50");
        let job = Job::start(&fleet(server.client()));
        job.all(Mode::Shared, SECOND).await;
        let client = server.client();
        let endless = tokio::task::spawn_blocking(move || {
            let mut connection = client.get_connection().unwrap();
            redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut connection)
        });
        job.all(Mode::Alone, SECOND).await;
        let () = server.run("SCRIPT KILL");
        endless.await.unwrap().unwrap_err();
        job.all(Mode::Shared, SECOND).await;
        // And one whose script is unknown loads it again.
        let () = server.run("SCRIPT FLUSH");
        sleep(ms(200)).await;
        assert_eq!(job.modes(Mode::Shared), PROCESSES);
        job.end().await;
    }

    async fn a_key_that_is_not_ours_is_left_alone(server: Server) {
        for command in ["SET {} mine", "HSET {} field mine", "RPUSH {} mine"] {
            let () = server.run("FLUSHALL");
            let (): () = server.run(&command.replace("{}", KEY));
            let before: Vec<u8> = server.run(&format!("DUMP {KEY}"));
            let fleet = fleet(server.client());
            let error = fleet.check().await.unwrap_err();
            assert!(matches!(&error, FleetError::ForeignKey(key) if key == KEY), "{error:?}");
            let job = Job::start(&fleet);
            job.all(Mode::Alone, SECOND).await;
            let after: Vec<u8> = server.run(&format!("DUMP {KEY}"));
            assert_eq!(before, after);
            let () = server.run(&format!("DEL {KEY}"));
            job.all(Mode::Shared, SECOND).await;
            job.end().await;
        }
        let () = server.run("FLUSHALL");
        let () = server.run(&format!("SET {KEY}:members mine"));
        let error = fleet(server.client()).check().await.unwrap_err();
        assert!(matches!(&error, FleetError::ForeignKey(_)), "{error:?}");
    }

    async fn a_newer_layout_is_left_alone(server: Server) {
        let (): () = server.run(&format!("HSET {KEY} layout 3 pace fast"));
        let fleet = fleet(server.client());
        let error = fleet.check().await.unwrap_err();
        assert!(matches!(&error, FleetError::Layout(found) if found == "3"), "{error:?}");
        assert!(error.to_string().contains("layout 3"), "{error}");
        let job = Job::start(&fleet);
        job.all(Mode::Alone, SECOND).await;
        let pace: String = server.run(&format!("HGET {KEY} pace"));
        assert_eq!(pace, "fast");
        job.end().await;
    }

    async fn users_have_the_permissions_that_they_have(server: Server) {
        let keys = "~tower-cooldown:* &tower-cooldown:*";
        let scripts = "+evalsha +eval +script|load +hgetall +hset +hdel +time +zadd +zrem +zrangebyscore +zremrangebyscore +zcard \
                       +pexpire +publish +subscribe +hello +client";
        let () = server.run(&format!("ACL SETUSER ours on >secret {keys} {scripts}"));
        let () = server.run("ACL SETUSER nothing on >secret ~* &* +hello +client");
        let () = server.run(&format!("ACL SETUSER elsewhere on >secret ~other:* &other:* {scripts}"));
        let () = server.run(&format!("ACL SETUSER deaf on >secret ~tower-cooldown:* {scripts} resetchannels"));
        fleet(server.client_of("ours", "secret")).check().await.unwrap();
        fleet(server.client_of("ours", "secret")).max_in_flight(9).unwrap().check().await.unwrap();
        for (user, password) in [("nothing", "secret"), ("elsewhere", "secret"), ("ours", "wrong")] {
            let fleet = fleet(server.client_of(user, password));
            let error = fleet.check().await.unwrap_err();
            assert!(matches!(error, FleetError::Refused(_)), "{user}: {error:?}");
            assert!(!format!("{error:?} {error} {fleet:?}").contains("secret"));
            let job = Job::start(&fleet);
            job.all(Mode::Alone, SECOND).await;
            job.end().await;
        }
        let () = server.run("FLUSHALL");
        // One that may not hear the news is told so, and goes on all the same: departures far ahead are confirmed.
        let fleet = fleet(server.client_of("deaf", "secret"));
        let error = fleet.check().await.unwrap_err();
        assert!(matches!(error, FleetError::Refused(_)), "{error:?}");
        let job = Job::start(&fleet);
        job.all(Mode::Shared, SECOND).await;
        let rate = job.rate(SECOND).await;
        assert!((150.0..=215.0).contains(&rate), "{rate}");
        assert!(job.snapshots().iter().all(|fleet| !fleet.subscribed && fleet.mode == Mode::Shared));
        job.end().await;
    }

    /// Eight calls are in flight at a time, of all processes together, though callers want more.
    async fn processes_share_a_bound_on_calls_in_flight(server: Server) {
        let upstream = Upstream::new([Limit::concurrency(8)]).work(ms(40), ms(10)).unwrap();
        let mut callers = JoinSet::new();
        for _ in 0..PROCESSES {
            let quota = Quota::new(4000, SECOND).unwrap();
            let fleet = Fleet::redis(server.client(), "upstream").unwrap().seed(quota).max_in_flight(8).unwrap();
            // On a machine that has other things to do a turn may take 50 ms, and who is alone keeps to a share instead.
            let layer = AdaptiveCooldownLayer::shared(fleet.patience(SECOND).unwrap());
            for _ in 0..6 {
                let client = ServiceBuilder::new().layer(layer.clone()).service(upstream.clone());
                callers.spawn(async move {
                    loop {
                        client.clone().oneshot(Request::new(())).await.expect("no call fails");
                    }
                });
            }
        }
        sleep(2 * SECOND).await;
        callers.shutdown().await;
        let counts = upstream.counts();
        assert_eq!(counts.refused, 0, "{counts:?}");
        // At most 400; a machine that has other things to do answers fewer.
        assert!(counts.granted > 200, "{counts:?}");
    }

    /// A process that died keeps its place for as long as it may be alive, and no longer.
    async fn the_place_of_a_dead_process_is_free(server: Server) {
        let fleet = || fleet(server.client()).max_in_flight(1).unwrap();
        fleet().check().await.unwrap();
        let (seconds, _): (u64, u64) = server.run("TIME");
        let () = server.run(&format!("HSET {KEY}:places 99 1"));
        for (heard, free) in [(seconds - 10, false), (seconds - 21, true)] {
            let () = server.run(&format!("ZADD {KEY}:members {} 99", heard * 1_000_000));
            let layer = AdaptiveCooldownLayer::shared(fleet());
            let grants = Upstream::new([Limit::token_bucket(1000, SECOND, 1000).unwrap()]);
            let call = tokio::time::timeout(ms(500), layer_call(&layer, grants)).await;
            assert_eq!(call.is_ok(), free);
        }
    }

    /// What one process heard of a refusal the others hear at once.
    async fn a_refusal_reaches_all(server: Server) {
        let job = Job::start(&fleet(server.client()));
        job.all(Mode::Shared, SECOND).await;
        sleep(ms(200)).await;
        // One more process, which is refused.
        let layer = AdaptiveCooldownLayer::shared(fleet(server.client()));
        let refuses = Upstream::new([Limit::token_bucket(0, SECOND, 0).unwrap()]);
        let response = layer_call(&layer, refuses).await;
        assert_eq!(response, 429);
        let told = Instant::now();
        while job.handles.iter().any(|handle| handle.fleet().unwrap().epoch == 0) {
            assert!(told.elapsed() < ms(100), "{:?}", job.snapshots());
            sleep(ms(1)).await;
        }
        assert!(job.handles.iter().all(|handle| handle.fleet().unwrap().epoch == 1), "{:?}", job.snapshots());
        job.end().await;
    }
}

async fn layer_call(layer: &AdaptiveCooldownLayer, upstream: Upstream) -> u16 {
    let client = ServiceBuilder::new().layer(layer.clone()).service(upstream);
    client.oneshot(Request::new(())).await.unwrap().status().as_u16()
}

/// Two processes of which one thinks that it is an hour later: their calls leave at the pace of one.
#[test]
fn clocks_that_differ_do_no_harm() {
    for binary in binaries() {
        let server = Server::start(binary);
        let slow = Quota::new(20, SECOND).unwrap().margin(Duration::ZERO);
        let departures = Arc::new(std::sync::Mutex::new(Vec::new()));
        let threads: Vec<_> = [false, true]
            .into_iter()
            .map(|skewed| {
                let client = server.client();
                let departures = Arc::clone(&departures);
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        if skewed {
                            tokio::time::pause();
                            tokio::time::advance(3600 * SECOND).await;
                            tokio::time::resume();
                        }
                        let fleet = Fleet::redis(client, "upstream").unwrap().seed(slow).budget(0.0).unwrap();
                        let upstream = tower::service_fn(move |_: Request<()>| {
                            departures.lock().unwrap().push(Instant::now());
                            std::future::ready(Ok::<_, tower::BoxError>(http::Response::new(())))
                        });
                        let layer = AdaptiveCooldownLayer::shared(fleet);
                        let client = ServiceBuilder::new().layer(layer).service(upstream);
                        for _ in 0..20 {
                            client.clone().oneshot(Request::new(())).await.unwrap();
                        }
                    });
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut departures = departures.lock().unwrap().clone();
        departures.sort();
        let took = *departures.last().unwrap() - departures[0];
        // Forty calls at twenty a second.
        assert!((ms(1850)..ms(2600)).contains(&took), "{took:?}");
        let close = departures.windows(2).filter(|pair| pair[1] - pair[0] < ms(25)).count();
        assert!(close <= 4, "{close} of 39 were too close");
    }
}

/// The process that finds out whether the upstream is open dies with the call in flight: another one finds out.
#[test]
fn a_process_dies_while_it_holds_the_probe() {
    for binary in binaries() {
        let server = Server::start(binary);
        let fleet = || Fleet::redis(server.client(), "upstream").unwrap();
        let first =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        first.block_on(async {
            // Nothing is known, and it is refused: from now on one call at a time finds out.
            let layer = AdaptiveCooldownLayer::shared(fleet());
            let refuses = Upstream::new([Limit::token_bucket(0, SECOND, 0).unwrap()]);
            assert_eq!(layer_call(&layer, refuses).await, 429);
            let silent = tower::service_fn(|_: Request<()>| {
                std::future::pending::<Result<http::Response<()>, tower::BoxError>>()
            });
            let client = ServiceBuilder::new().layer(layer.clone()).service(silent);
            tokio::spawn(client.oneshot(Request::new(())));
            let probe = || server.run::<Option<String>>(&format!("HGET {KEY} probe"));
            let start = Instant::now();
            while probe().is_none_or(|owner| owner == "0") || layer.handle().snapshot().in_flight == 0 {
                let seen = (probe(), layer.handle().snapshot(), layer.handle().fleet());
                assert!(start.elapsed() < 2 * SECOND, "{seen:?}");
                sleep(ms(5)).await;
            }
        });
        first.shutdown_background();
        let second = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        second.block_on(async {
            let layer = AdaptiveCooldownLayer::shared(fleet());
            let grants = Upstream::new([Limit::token_bucket(1000, SECOND, 1000).unwrap()]);
            let start = Instant::now();
            assert_eq!(layer_call(&layer, grants.clone()).await, 200);
            assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
            assert_eq!(layer.handle().fleet().unwrap().mode, Mode::Shared);
            assert_eq!(layer_call(&layer, grants).await, 200);
        });
    }
}

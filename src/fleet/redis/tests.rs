//! The script and the rules in Rust are the same: both play the same games, on a real server.

use super::*;
use crate::fleet::{
    counters::Told,
    ledger::{Ledger, SECOND},
    places::Places,
    turn::Known,
};
use std::{
    collections::HashMap,
    env,
    net::TcpListener,
    process::{Child, Command, Stdio},
};
use tokio::time::Instant;

struct Server(Child, Client);

impl Server {
    fn start() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut files = env::split_paths(&path)
            .flat_map(|dir| ["redis-server", "valkey-server"].map(|name| dir.join(name)));
        let file = files.find(|file| file.is_file()).expect("a redis-server is installed: see scripts/test");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(file)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self(child, Client::open(format!("redis://127.0.0.1:{port}/")).unwrap());
        // A real process takes its time to come up.
        let start = Instant::now();
        while server.1.get_connection().is_err() {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// One in so many.
fn now_and_then(random: &mut fastrand::Rng, one_in: u32, value: impl Fn(&mut fastrand::Rng) -> f64) -> f64 {
    if random.u32(..one_in) == 0 { value(random) } else { 0.0 }
}

fn any_turn(random: &mut fastrand::Rng, epoch: f64) -> Turn {
    let epoch = (epoch + [0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0][random.usize(..7)]).max(0.0);
    let closed = now_and_then(random, 9, |random| 1e6 * random.f64());
    let pace = now_and_then(random, 2, |random| 50.0 * random.f64());
    Turn {
        id: random.u64(1..5),
        want: f64::from(random.u32(..9)),
        back: now_and_then(random, 5, |random| f64::from(random.u32(..4)) - 1.0),
        known: Known { epoch, closed, pace },
        accepted: f64::from(random.u32(..20)),
        late: now_and_then(random, 4, |_| 3.0),
        also_refused: now_and_then(random, 9, |_| 2.0),
        refused: now_and_then(random, 9, |_| 1.0),
        told: now_and_then(random, 12, |random| 3e6 * random.f64()),
        round_trip: now_and_then(random, 2, |random| 1e5 * random.f64()),
        counters: [(); 4].map(|()| Told {
            key: now_and_then(random, 3, |random| f64::from(random.u32(1..20))),
            bound: f64::from(random.u32(1..3000)),
            at: f64::from(random.u32(..3000)),
            reset: 2e7 * random.f64(),
            slack: f64::from(random.u32(..300)),
        }),
        input: now_and_then(random, 2, |random| f64::from(random.u32(..100))),
        output: now_and_then(random, 2, |random| f64::from(random.u32(..100))),
        more_input: now_and_then(random, 4, |random| f64::from(random.i32(-99..99))),
        more_output: now_and_then(random, 4, |random| f64::from(random.i32(-99..99))),
        flying: f64::from(random.u32(..4)),
        need: f64::from(random.u32(..9)),
        drops: now_and_then(random, 4, |_| 1.0),
        anew: random.u32(..20) == 0,
        opens: random.u32(..30) == 0,
        leaves: random.u32(..20) == 0,
    }
}

#[tokio::test]
async fn the_script_plays_by_the_rules() {
    let server = Server::start();
    for game in 0..40 {
        let mut random = fastrand::Rng::with_seed(game);
        let rules = Rules {
            budget: [0.01, 0.1, 0.0][random.usize(..3)],
            first_pace: [4.0, 1000.0, 0.01][random.usize(..3)],
            seeded: random.bool(),
            most: [0.0, 1.0, 6.0, 40.0][random.usize(..4)],
        };
        let store = RedisStore::new(server.1.clone(), &format!("game-{game}")).unwrap();
        let mut link = store.link(mpsc::channel(1).0);
        let (mut ledger, mut members) = (Ledger::default(), HashMap::new());
        let mut places = Places::default();
        let mut now = 1.7e15;
        for step in 0..150 {
            now += (SECOND * 3.0 * random.f64().powi(6)).ceil();
            // Some are not heard of for too long.
            now += now_and_then(&mut random, 15, |random| (SECOND * 15.0 * random.f64()).ceil());
            let turn = any_turn(&mut random, ledger.epoch);
            if turn.leaves {
                members.remove(&turn.id);
            } else {
                members.insert(turn.id, now);
            }
            members.retain(|_, seen| *seen > now - micros(ALIVE));
            let before = ledger;
            places.retain(|id| members.contains_key(&id));
            let ours = ledger.turn_with(&turn, &mut places, (members.len() as f64, &rules), now);
            let theirs = link.turn_at(&turn, &rules, now).await.unwrap();
            assert_eq!(ours, theirs, "game {game}, step {step}, at {now}: {turn:#?}\n{before:#?}");
        }
    }
}

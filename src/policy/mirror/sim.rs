//! The mirror against simulated upstreams, as a discrete-event simulation without a runtime.

use super::Mirrored;
use crate::{
    Cost,
    policy::{Answer, BoxedClone, Closing, Departure, Learned, Policy, later},
    signal::{Reading, Signal, Unit, Verdict},
    testing::{self, Limit, Limiter, Neighbour},
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// Lets everything go, and closes as long as the server says.
#[derive(Clone, Debug)]
struct Free {
    trusts: bool,
}

impl Policy for Free {
    fn departure(&self, arrived: Instant, _: Cost) -> Departure {
        Departure::now(arrived)
    }
    fn depart(&mut self, _: Instant, _: Cost) {}
    fn answered(&mut self, answer: &Answer<'_>) -> Option<Closing> {
        if answer.signal.verdict != Verdict::Throttled {
            return None;
        }
        let told = answer.signal.hints.retry_after.map(Closing::told);
        if answer.current { told.or(Some(Closing::adaptive(Duration::from_millis(1500)))) } else { told }
    }
    fn trusts_readings(&self) -> bool {
        self.trusts
    }
    fn reset(&mut self) {}
}

/// How an upstream tells of its counters.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    OpenAi,
    Anthropic,
    GitHub,
    RateLimit,
    Headers,
    Discord,
    Shopify,
}

impl Style {
    fn reading(self, told: &testing::Reading, since_1970: Duration) -> Reading {
        let unit = if told.unit == testing::Unit::Tokens { Unit::Tokens } else { Unit::Requests };
        let mut reading = Reading::new(unit);
        reading.limit = Some(told.limit);
        reading.remaining = Some(told.remaining);
        let up = |time: Duration| Duration::from_secs(time.as_nanos().div_ceil(1_000_000_000) as u64);
        let date = Duration::from_secs(since_1970.as_secs());
        let full = told.full_in;
        match self {
            Self::OpenAi | Self::Discord => {
                reading.reset = full.map(|full| Duration::from_millis(full.as_millis() as u64))
            }
            Self::Anthropic | Self::GitHub => reading.reset = full.map(|full| up(since_1970 + full) - date),
            Self::RateLimit => {
                reading.window = told.window.map(up);
                reading.reset = told.more_in.map(up);
            }
            Self::Headers => reading.reset = full.map(up),
            Self::Shopify => {}
        }
        reading
    }
}

#[derive(Clone)]
struct World {
    name: &'static str,
    limiter: Limiter,
    style: Style,
    minutes: u64,
    cost: fn(u64) -> Cost,
    processes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    refused: f64,
    goodput_warm: f64,
    refused_warm: f64,
    burst: u32,
    stall: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Look { process: usize },
    Arrive { call: usize },
    Back { call: usize },
}

struct Call {
    process: usize,
    departed: Instant,
    cost: Cost,
    epoch: u64,
    signal: Signal,
}

struct Process {
    policy: Mirrored,
    closed: Instant,
    epoch: u64,
    queue: VecDeque<(Instant, Cost)>,
    in_flight: usize,
    look: Option<Instant>,
}

fn run(
    world: &World,
    policy: &dyn Fn() -> Box<dyn Policy>,
    callers: usize,
    latency: (f64, f64),
    seed: u64,
) -> Outcome {
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut limiter = world.limiter.clone();
    let end = Duration::from_secs(world.minutes * 60);
    let mut serial = 0u64;
    let mut next_cost = move || {
        serial += 1;
        (world.cost)(serial)
    };
    let mut processes: Vec<Process> = (0..world.processes)
        .map(|_| Process {
            policy: Mirrored::new(policy()),
            closed: start,
            epoch: 0,
            queue: (0..callers).map(|_| (start, next_cost())).collect(),
            in_flight: 0,
            look: None,
        })
        .collect();
    let mut calls: Vec<Call> = Vec::new();
    let mut events: BinaryHeap<Reverse<(Duration, u64, Event)>> = BinaryHeap::new();
    let mut number = 0u64;
    let mut push = |events: &mut BinaryHeap<_>, at: Duration, event| {
        number += 1;
        events.push(Reverse((at, number, event)));
    };
    let one_way = |random: &mut fastrand::Rng| {
        let (mean, spread) = latency;
        Duration::from_secs_f64((mean + spread * (2.0 * random.f64() - 1.0)) / 2.0)
    };
    for process in 0..world.processes {
        push(&mut events, Duration::ZERO, Event::Look { process });
    }
    let quarter = end / 4;
    let mut first = None;
    let (mut ms, mut in_ms, mut burst) = (0, 0, 0);
    let (mut last_sent, mut stall) = (Duration::ZERO, Duration::ZERO);
    while let Some(Reverse((at, _, event))) = events.pop() {
        if at >= end {
            break;
        }
        if at >= quarter && first.is_none() {
            first = Some(limiter.counts());
        }
        let now = start + at;
        let process = match event {
            Event::Look { process } => process,
            Event::Arrive { call } => {
                let cost = calls[call].cost;
                let decision = limiter.offer(at, cost);
                if std::env::var_os("TRACE").is_some() {
                    let told = limiter.readings();
                    let mirror = &processes[calls[call].process].policy.mirror;
                    eprintln!(
                        "{at:?} {} left {:?} more {:?} full {:?} {:?}",
                        if decision.granted { "ok" } else { "REFUSED" },
                        told[0].remaining,
                        told[0].more_in,
                        told[0].full_in,
                        mirror.told.as_ref().map(|t| &t.counters[0])
                    );
                }
                let verdict = if decision.granted { Verdict::Accepted } else { Verdict::Throttled };
                let mut signal = Signal::new(verdict);
                let since_1970 = Duration::from_secs(1_767_225_600) + at;
                for told in limiter.readings() {
                    signal = signal.reading(world.style.reading(&told, since_1970));
                }
                if let Some(wait) = decision.retry_after {
                    signal = signal
                        .retry_after(Duration::from_secs(wait.as_nanos().div_ceil(1_000_000_000) as u64));
                }
                calls[call].signal = signal;
                push(&mut events, at + one_way(&mut random), Event::Back { call });
                continue;
            }
            Event::Back { call } => {
                let Call { process, departed, cost, epoch, ref signal } = calls[call];
                let own = &mut processes[process];
                own.in_flight -= 1;
                let mut answer = Answer::new(signal, departed, now).cost(cost);
                answer.current = epoch == own.epoch;
                if let Some(closing) = own.policy.answered(&answer) {
                    own.closed = own.closed.max(later(now, closing.wait));
                    own.epoch += u64::from(answer.current);
                }
                let cost = if signal.verdict == Verdict::Throttled { cost } else { next_cost() };
                own.queue.push_back((now, cost));
                process
            }
        };
        let own = &mut processes[process];
        if own.look.is_some_and(|look| look <= now) {
            own.look = None;
        }
        while let Some((arrived, cost)) = own.queue.front().copied() {
            if own.policy.max_in_flight().is_some_and(|most| own.in_flight >= most.max(1)) {
                break;
            }
            let free = own.policy.departure(arrived, cost).at.max(own.closed);
            if free > now {
                if own.look.is_none_or(|look| free < look) {
                    own.look = Some(free);
                    push(&mut events, free - start, Event::Look { process });
                }
                break;
            }
            own.queue.pop_front();
            own.policy.depart(now, cost);
            own.in_flight += 1;
            stall = stall.max(at - last_sent);
            last_sent = at;
            if at > quarter {
                in_ms = if at.as_millis() == ms { in_ms + 1 } else { 1 };
                ms = at.as_millis();
                burst = burst.max(in_ms);
            }
            let call = calls.len();
            calls.push(Call {
                process,
                departed: now,
                cost,
                epoch: own.epoch,
                signal: Signal::new(Verdict::Failed),
            });
            push(&mut events, at + one_way(&mut random), Event::Arrive { call });
        }
    }
    let counts = limiter.counts();
    let warm = counts.since(first.unwrap_or_default());
    let seconds = |from: Duration| (from.as_secs()..end.as_secs()).map(Duration::from_secs);
    let mean = {
        let costs: Vec<Cost> = (1..=1000).map(world.cost).collect();
        let sum = |of: fn(&Cost) -> u32| costs.iter().map(|cost| of(cost) as f64).sum::<f64>() / 1000.0;
        Cost::one().input(sum(|cost| cost.input_tokens) as u32).output(sum(|cost| cost.output_tokens) as u32)
    };
    let capacity = |from| seconds(from).map(|at| world.limiter.sustained_rate(at, mean)).sum::<f64>();
    Outcome {
        refused: counts.refused_share(),
        goodput_warm: warm.granted as f64 / capacity(quarter),
        refused_warm: warm.refused_share(),
        burst,
        stall: stall.as_secs_f64(),
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const PHASE: Duration = Duration::from_millis(17_300);

fn worlds() -> Vec<World> {
    let world = |name, limit: Limit, style, minutes| World {
        name,
        limiter: Limiter::new([limit]),
        style,
        minutes,
        cost: |_| Cost::one(),
        processes: 1,
    };
    let fixed = |limit, window| Limit::fixed_window(limit, window).unwrap().phase(PHASE);
    let bucket = |limit, per, depth| Limit::token_bucket(limit, per, depth).unwrap();
    let log = |limit, window| Limit::sliding_log(limit, window).unwrap();
    use Style::*;
    let steady = Neighbour::new(2, SECOND).unwrap();
    let on_off = Neighbour::new(3, SECOND).unwrap().on_off(MINUTE * 2, MINUTE * 3);
    let mut worlds = vec![
        world("openai 500/60 d60", bucket(500, MINUTE, 60), OpenAi, 30),
        world("openai 500/60 d500", bucket(500, MINUTE, 500), OpenAi, 30),
        world("openai-tokens", bucket(500, MINUTE, 500), OpenAi, 30),
        world("anthropic 50/60", bucket(50, MINUTE, 50), Anthropic, 60),
        world("gemini 15/60 ietf", fixed(15, MINUTE), RateLimit, 60),
        world("15/60 epoch", fixed(15, MINUTE), GitHub, 60),
        world("13/30 ietf", fixed(13, MINUTE / 2), RateLimit, 60),
        world("300/60 ietf", fixed(300, MINUTE), RateLimit, 40),
        world("300/60 delta", fixed(300, MINUTE), Headers, 40),
        world("300/60 epoch", fixed(300, MINUTE), GitHub, 40),
        world("github 5000/h", fixed(5000, MINUTE * 60), GitHub, 360),
        world("discord 50/s", fixed(50, SECOND), Discord, 10),
        world("ietf 50/s", fixed(50, SECOND), RateLimit, 10),
        world("aws 20/s d100", bucket(20, SECOND, 100), OpenAi, 20),
        world("aws 20/s ietf", bucket(20, SECOND, 100), RateLimit, 20),
        world("shopify 2/s d40", bucket(2, SECOND, 40), Shopify, 40),
        world("20/s d5 openai", bucket(20, SECOND, 5), OpenAi, 20),
        world("20/s d1 openai", bucket(20, SECOND, 1), OpenAi, 20),
        world("log 15/60 ietf", log(15, MINUTE), RateLimit, 60),
        world("log 13/30 ietf", log(13, MINUTE / 2), RateLimit, 60),
        world("log 300/60 ietf", log(300, MINUTE), RateLimit, 40),
        world("log 300/60 delta", log(300, MINUTE), Headers, 40),
        world("swc 300/60 ietf", Limit::sliding_counter(300, MINUTE).unwrap().phase(PHASE), RateLimit, 40),
        world("swc 300/60 delta", Limit::sliding_counter(300, MINUTE).unwrap().phase(PHASE), Headers, 40),
        world("drop 300->120", fixed(300, MINUTE).then(MINUTE * 20, fixed(120, MINUTE)), RateLimit, 40),
        world("drop 10->4 d20", bucket(10, SECOND, 20).then(MINUTE * 10, bucket(4, SECOND, 20)), OpenAi, 20),
        world(
            "drop 10->4 ietf",
            bucket(10, SECOND, 20).then(MINUTE * 10, bucket(4, SECOND, 20)),
            RateLimit,
            20,
        ),
        world("rise 5->15 d20", bucket(5, SECOND, 20).then(MINUTE * 10, bucket(15, SECOND, 20)), OpenAi, 20),
        world(
            "rise 5->15 ietf",
            bucket(5, SECOND, 20).then(MINUTE * 10, bucket(15, SECOND, 20)),
            RateLimit,
            20,
        ),
    ];
    let tokens = worlds.iter_mut().find(|world| world.name == "openai-tokens").unwrap();
    tokens.limiter = Limiter::new([bucket(500, MINUTE, 500), bucket(100_000, MINUTE, 100_000).tokens()]);
    tokens.cost = |n| Cost::one().input(200 + (n * 7919 % 300) as u32).output((n * 104_729 % 200) as u32);
    for (name, neighbour) in [("fixed 300 nb steady", &steady), ("fixed 300 nb on-off", &on_off)] {
        let mut world = world(name, fixed(300, MINUTE), RateLimit, 40);
        world.limiter = world.limiter.neighbour(neighbour);
        worlds.push(world);
    }
    for (name, neighbour) in [("bucket 300 nb steady", &steady), ("bucket 300 nb on-off", &on_off)] {
        let mut world = world(name, bucket(300, MINUTE, 60), OpenAi, 40);
        world.limiter = world.limiter.neighbour(neighbour);
        worlds.push(world);
    }
    for (name, limit, style) in [
        ("4x openai 500 d60", bucket(500, MINUTE, 60), OpenAi),
        ("4x anthropic 50", bucket(50, MINUTE, 50), Anthropic),
        ("4x fixed 300 ietf", fixed(300, MINUTE), RateLimit),
        ("4x fixed 15 ietf", fixed(15, MINUTE), RateLimit),
        ("4x 20/s d100", bucket(20, SECOND, 100), OpenAi),
        ("4x log 300 ietf", log(300, MINUTE), RateLimit),
    ] {
        let mut world = world(name, limit, style, 40);
        world.processes = 4;
        worlds.push(world);
    }
    worlds
}

#[test]
#[ignore = "prints a table"]
fn table() {
    let filter = std::env::var("WORLD").unwrap_or_default();
    let learned = std::env::var_os("LEARNED").is_some();
    let policy = move || -> Box<dyn Policy> {
        if learned { Learned::new().boxed_clone() } else { Free { trusts: false }.boxed_clone() }
    };
    let latencies: &[(f64, f64)] = if std::env::var_os("SHORT").is_some() {
        &[(0.1, 0.03)]
    } else if std::env::var_os("MID").is_some() {
        &[(0.8, 0.2)]
    } else if std::env::var_os("LONG").is_some() {
        &[(10.0, 5.0)]
    } else {
        &[(0.8, 0.2), (0.1, 0.03)]
    };
    println!("{:22} {:>24}", "", "goodput/refused (warm) burst, stall");
    for world in worlds().iter().filter(|world| world.name.contains(&filter)) {
        print!("{:22}", world.name);
        for latency in latencies {
            for callers in [8, 32, 128]
                .into_iter()
                .filter(|n| std::env::var("CALLERS").map_or(true, |c| c == n.to_string()))
            {
                let seeds = if filter.is_empty() {
                    1..3
                } else {
                    let s: u64 = std::env::var("SEED").map_or(1, |s| s.parse().unwrap());
                    s..s + 1
                };
                let n = seeds.clone().count() as f64;
                let mut sum = Outcome::default();
                for seed in seeds {
                    let o = run(world, &policy, callers / world.processes.min(callers), *latency, seed);
                    sum.goodput_warm += o.goodput_warm / n;
                    sum.refused_warm += o.refused_warm / n;
                    sum.refused += o.refused / n;
                    sum.burst = sum.burst.max(o.burst);
                    sum.stall = sum.stall.max(o.stall);
                }
                print!(
                    " | {:5.1}/{:5.2} ({:5.2}) {:3} {:2.0}",
                    sum.goodput_warm * 100.0,
                    sum.refused_warm * 100.0,
                    sum.refused * 100.0,
                    sum.burst,
                    sum.stall
                );
            }
        }
        println!();
    }
}

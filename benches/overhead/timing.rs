//! Runs of calls, alone and in pairs.

use allocation_counter::{measure, opt_out};
use http::{Request, Response};
use std::{
    fmt::Debug,
    hint::{black_box, spin_loop},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::unconstrained,
};
use tower::{Service, ServiceExt};

/// Makes calls, on one thread or on two at once.
pub(crate) struct Run(Box<dyn FnMut(Job) -> Sample>);

pub(crate) struct Pair {
    pub(crate) stack: Run,
    pub(crate) bare: Run,
}

#[derive(Clone, Copy)]
struct Job {
    /// On each thread.
    calls: u32,
    /// Counting costs those that allocate 10 ns and more, so it is not done where time is measured. What is left of
    /// it then costs them 1 to 2 ns for each allocation.
    count_allocations: bool,
}

/// What a thread saw.
#[derive(Clone, Copy)]
struct Sample {
    start: Instant,
    end: Instant,
    allocations: u64,
}

impl Run {
    /// That many calls on each thread, for their own sake.
    pub(crate) fn make(&mut self, calls: u32) {
        (self.0)(Job { calls, count_allocations: false });
    }

    /// On the threads that call; a stack's own tasks are among them only where they run on one thread.
    pub(crate) fn allocations_per_call(&mut self) -> f64 {
        const CALLS: u32 = 10_000;
        let sample = (self.0)(Job { calls: CALLS, count_allocations: true });
        // What does not grow with the number of calls is not per call.
        (sample.allocations as f64 / f64::from(CALLS) * 100.0).round() / 100.0
    }

    fn ns_per_call(&mut self, calls: u32) -> f64 {
        let sample = (self.0)(Job { calls, count_allocations: false });
        (sample.end - sample.start).as_nanos() as f64 / f64::from(calls)
    }

    /// One thread, with a runtime of its own. Whatever the stack spawns runs there too.
    pub(crate) fn on_one_thread<S, B>(make: impl Fn() -> S) -> Self
    where
        S: Service<Request<()>, Response = Response<B>, Error: Debug> + 'static,
    {
        let runtime = current_thread();
        let mut service = within(&runtime, make);
        Self(Box::new(move |job| sample(&runtime, &mut service, job)))
    }

    /// Two threads with a clone each. Whatever the stack spawns runs on a third.
    pub(crate) fn on_two_threads<S, B>(make: impl Fn() -> S) -> Self
    where
        S: Service<Request<()>, Response = Response<B>, Error: Debug> + Clone + Send + 'static,
    {
        let background =
            Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
        let service = within(&background, make);
        let at_start = Arc::new(AtomicU32::new(0));
        let threads = [(); 2].map(|()| {
            let (orders, jobs) = mpsc::channel();
            let (results, samples) = mpsc::channel();
            let (mut service, at_start) = (service.clone(), Arc::clone(&at_start));
            thread::spawn(move || {
                let runtime = current_thread();
                for (round, job) in (1..).zip(jobs) {
                    at_start.fetch_add(1, SeqCst);
                    while at_start.load(SeqCst) < round * 2 {
                        spin_loop();
                    }
                    results.send(sample(&runtime, &mut service, job)).expect("the bench waits for it");
                }
            });
            (orders, samples)
        });
        Self(Box::new(move |job| {
            let _alive = &background;
            let mut attempts = 0;
            loop {
                threads.iter().for_each(|(orders, _)| orders.send(job).expect("the thread is there"));
                let [a, b] =
                    [0, 1].map(|thread: usize| threads[thread].1.recv().expect("the thread is there"));
                attempts += 1;
                if at_once(&a, &b) || attempts == ATTEMPTS {
                    break both(&a, &b);
                }
            }
        }))
    }
}

/// After so many, two threads that do not run at once are taken as they are: a stack whose own task needs a thread has
/// three of them, and a machine may have two processors.
const ATTEMPTS: u32 = 20;

/// Whether the threads ran side by side for most of the time. Where the machine has only one processor to spare, they
/// run one after the other, and do not disturb each other.
fn at_once(a: &Sample, b: &Sample) -> bool {
    let common = a.end.min(b.end).saturating_duration_since(a.start.max(b.start));
    let whole = a.end.max(b.end) - a.start.min(b.start);
    common >= whole.mul_f64(0.8)
}

/// The mean of both.
fn both(a: &Sample, b: &Sample) -> Sample {
    let time = (a.end - a.start + (b.end - b.start)) / 2;
    Sample { start: a.start, end: a.start + time, allocations: (a.allocations + b.allocations) / 2 }
}

/// Callgrind collects in here alone, by this name: see `instructions`.
#[inline(never)]
fn sample<S, B>(runtime: &Runtime, service: &mut S, job: Job) -> Sample
where
    S: Service<Request<()>, Response = Response<B>, Error: Debug>,
{
    let mut times = None;
    let work = || times = Some(runtime.block_on(timed(service, job.calls)));
    let allocations = if job.count_allocations {
        measure(work).count_total
    } else {
        opt_out(work);
        0
    };
    let (start, end) = times.expect("it ran");
    Sample { start, end, allocations }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn within<S>(runtime: &Runtime, make: impl Fn() -> S) -> S {
    let _context = runtime.enter();
    make()
}

/// Without tokio's budget, which would have some stacks pay for a turn of the runtime now and then.
async fn timed<S, B>(service: &mut S, calls: u32) -> (Instant, Instant)
where
    S: Service<Request<()>, Response = Response<B>, Error: Debug>,
{
    unconstrained(async {
        let start = Instant::now();
        for _ in 0..calls {
            let request = black_box(Request::new(()));
            let answer = service.ready().await.expect("ready").call(request).await;
            black_box(answer.expect("an answer"));
        }
        (start, Instant::now())
    })
    .await
}

pub(crate) struct Times {
    pub(crate) per_call: f64,
    pub(crate) over_bare: f64,
}

/// Runs the stack and the bare service in short slices in turn, so that both have the same share of whatever else
/// the machine does, and takes medians.
pub(crate) fn paired(pair: &mut Pair) -> Times {
    const SLICE: Duration = Duration::from_micros(250);
    const SLICES: usize = 2_000;
    const LONGEST: Duration = Duration::from_secs(3);

    let warm = (0..20).map(|_| pair.stack.ns_per_call(500).max(pair.bare.ns_per_call(500)));
    let cost = warm.fold(f64::INFINITY, f64::min);
    let calls = (SLICE.as_nanos() as f64 / cost).clamp(50.0, 10_000.0) as u32;
    let (mut stack, mut over) = (Vec::with_capacity(SLICES), Vec::with_capacity(SLICES));
    let began = Instant::now();
    for slice in 0..SLICES {
        let before = (slice % 2 == 0).then(|| pair.bare.ns_per_call(calls));
        let time = pair.stack.ns_per_call(calls);
        let bare = before.unwrap_or_else(|| pair.bare.ns_per_call(calls));
        stack.push(time);
        over.push(time - bare);
        if began.elapsed() > LONGEST && slice >= 100 {
            break;
        }
    }
    Times { per_call: median(stack), over_bare: median(over) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2] * 10.0).round() / 10.0
}

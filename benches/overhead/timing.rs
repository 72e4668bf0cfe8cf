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

/// Makes that many calls and returns how long they took; on two threads, that many on each, and the mean.
pub(crate) struct Run(Box<dyn FnMut(u32) -> Duration>);

pub(crate) struct Pair {
    pub(crate) stack: Run,
    pub(crate) bare: Run,
}

impl Run {
    pub(crate) fn run(&mut self, calls: u32) -> Duration {
        (self.0)(calls)
    }

    /// On two threads, none are counted: it is the same code as on one.
    pub(crate) fn allocations_per_call(&mut self) -> f64 {
        const CALLS: u32 = 10_000;
        let info = measure(|| {
            self.run(CALLS);
        });
        // What does not grow with the number of calls is not per call.
        (info.count_total as f64 / f64::from(CALLS) * 100.0).round() / 100.0
    }

    fn ns_per_call(&mut self, calls: u32) -> f64 {
        self.run(calls).as_nanos() as f64 / f64::from(calls)
    }

    /// One thread, with a runtime of its own. Whatever the stack spawns runs there too.
    pub(crate) fn on_one_thread<S, B>(make: impl Fn() -> S) -> Self
    where
        S: Service<Request<()>, Response = Response<B>, Error: Debug> + 'static,
    {
        let runtime = current_thread();
        let mut service = within(&runtime, make);
        Self(Box::new(move |calls| runtime.block_on(timed(&mut service, calls))))
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
            let (results, times) = mpsc::channel();
            let (mut service, at_start) = (service.clone(), Arc::clone(&at_start));
            thread::spawn(move || {
                let runtime = current_thread();
                for (round, calls) in (1..).zip(jobs) {
                    at_start.fetch_add(1, SeqCst);
                    while at_start.load(SeqCst) < round * 2 {
                        spin_loop();
                    }
                    let time = uncounted(|| runtime.block_on(timed(&mut service, calls)));
                    results.send(time).expect("the bench waits for it");
                }
            });
            (orders, times)
        });
        Self(Box::new(move |calls| {
            let _alive = &background;
            threads.iter().for_each(|(orders, _)| orders.send(calls).expect("the thread is there"));
            let times = threads.iter().map(|(_, times)| times.recv().expect("the thread is there"));
            times.sum::<Duration>() / 2
        }))
    }
}

/// Runs `work` without counting its allocations. What is left of the counting costs 1 to 2 ns for each.
pub(crate) fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    let mut result = None;
    opt_out(|| result = Some(work()));
    result.expect("it ran")
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn within<S>(runtime: &Runtime, make: impl Fn() -> S) -> S {
    let _context = runtime.enter();
    make()
}

/// Without tokio's budget, which would have some stacks pay for a turn of the runtime now and then.
async fn timed<S, B>(service: &mut S, calls: u32) -> Duration
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
        start.elapsed()
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

    uncounted(|| {
        let warm = (0..20).map(|_| pair.stack.ns_per_call(500).max(pair.bare.ns_per_call(500)));
        let cost = warm.fold(f64::INFINITY, f64::min);
        let calls = (SLICE.as_nanos() as f64 / cost).clamp(50.0, 10_000.0) as u32;
        let (mut stack, mut over) = (Vec::with_capacity(SLICES), Vec::with_capacity(SLICES));
        for slice in 0..SLICES {
            let before = (slice % 2 == 0).then(|| pair.bare.ns_per_call(calls));
            let time = pair.stack.ns_per_call(calls);
            let bare = before.unwrap_or_else(|| pair.bare.ns_per_call(calls));
            stack.push(time);
            over.push(time - bare);
        }
        Times { per_call: median(stack), over_bare: median(over) }
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2] * 10.0).round() / 10.0
}

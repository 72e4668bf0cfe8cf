//! A reverse proxy that keeps any client inside its upstream's limit.
//!
//! ```text
//! cargo run --release --example gateway -- --upstream https://api.example.com
//! cargo run --release --example gateway      # a demonstration, with an upstream of its own
//! ```

use std::process::ExitCode;
use tower_cooldown_gateway_example::{
    demo::Demo,
    settings::{Command, HELP, Settings},
};

#[tokio::main]
async fn main() -> ExitCode {
    let (settings, mut demo) = match Command::parse(std::env::args().skip(1), |name| std::env::var(name).ok())
    {
        Ok(Command::Serve(settings)) => (settings, None),
        Ok(Command::Demo(settings)) => match with_demo(settings).await {
            Ok((settings, demo)) => (settings, Some(demo)),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        },
        Ok(Command::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    // Each call takes two: the client's and the upstream's. Where there are no more, new connections wait.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        eprintln!("the limit of open files stays as it is: {error}");
    }
    let ready = |gateway: &tower_cooldown_gateway_example::Gateway| {
        println!("listening on http://{}", gateway.address());
        println!("live page on http://{}/", gateway.admin_address().unwrap_or_else(|| gateway.address()));
        if let Some(demo) = &mut demo {
            println!("{}", demo.words());
            demo.call(gateway.address());
        }
    };
    match tower_cooldown_gateway_example::run(settings, ready, stopped()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn with_demo(mut settings: Settings) -> Result<(Settings, Demo), tower::BoxError> {
    let demo = Demo::start().await?;
    settings.upstreams.push(demo.route());
    Ok((settings, demo))
}

/// Completes with the first Ctrl-C or SIGTERM. The second ends the program at once.
async fn stopped() {
    let Ok(mut signals) = Signals::new() else {
        // The system ends the program then, as it does without this.
        return std::future::pending().await;
    };
    signals.next().await;
    eprintln!("stopping: all calls that are here end first; once more ends at once");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(1);
    });
}

/// Listens from the beginning, so that none is missed between two.
#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}

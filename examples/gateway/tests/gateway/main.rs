//! The gateway, asked over real sockets. Sleeps are real time where sockets and processes are, and bounded.

mod bad;
mod browser;
mod calls;
mod common;
mod devtools;
mod pages;
mod raw;
mod shutdown;
mod slider;
mod streams;
mod tls;

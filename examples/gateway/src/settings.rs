//! The command line and the environment.

use http_uri::{base_url, route};
use hyper::{Uri, header::HeaderValue};
use std::{collections::HashSet, fmt, net::SocketAddr, path::PathBuf, time::Duration};
use tower_cooldown::{Rollout, policy::Quota, rollout::ROLLOUT_VARIABLE};

mod http_uri;

/// What `--help` prints.
pub const HELP: &str = include_str!("help.txt");

/// The variable with the token that moves the rollout from anywhere.
pub const TOKEN: &str = "GATEWAY_TOKEN";
/// The variable with the `Authorization` field for the fallback.
pub const FALLBACK_AUTHORIZATION: &str = "GATEWAY_FALLBACK_AUTHORIZATION";

/// How the gateway works. `HELP` says what each is for.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named after the flags")]
pub struct Settings {
    pub listen: SocketAddr,
    pub admin: Option<SocketAddr>,
    /// Longest path first, so that the first that fits is the one.
    pub upstreams: Vec<Route>,
    pub fallback: Option<Uri>,
    pub fallback_authorization: Option<HeaderValue>,
    pub quota: Option<Quota>,
    pub max_wait: Duration,
    pub timeout: Duration,
    pub retries: u32,
    pub max_connections: usize,
    pub rollout: Rollout,
    pub token: Option<Token>,
    pub ca: Option<PathBuf>,
}

/// Where the calls below a path go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Without a slash at the end; empty for all paths.
    pub path: String,
    /// Scheme, authority, and a path without a slash at the end.
    pub to: Uri,
}

/// A secret, which no debug text shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What to do.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one")]
pub enum Command {
    /// Print `HELP`.
    Help,
    /// Serve.
    Serve(Settings),
    /// Nothing was said: show what this is, with an upstream that has to be added.
    Demo(Settings),
}

impl Command {
    /// Reads the command line, without the program's name, and the environment by `variable`.
    ///
    /// # Errors
    /// A text that names the flag or variable that is wrong.
    pub fn parse(
        words: impl IntoIterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut settings = Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: None,
            upstreams: Vec::new(),
            fallback: None,
            fallback_authorization: None,
            quota: None,
            max_wait: Duration::from_secs(60),
            timeout: Duration::from_secs(600),
            retries: 3,
            max_connections: 10_000,
            rollout: Rollout::on(),
            token: None,
            ca: None,
        };
        if let Some(rollout) = variable(ROLLOUT_VARIABLE) {
            settings.rollout = rollout.parse().map_err(|error| format!("{ROLLOUT_VARIABLE}: {error}"))?;
        }
        let mut words = words.into_iter().peekable();
        let said_nothing = words.peek().is_none();
        while let Some(word) = words.next() {
            if word == "--help" || word == "-h" {
                return Ok(Self::Help);
            }
            // Both `--quota 15/30s` and `--quota=15/30s`.
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            let mut value = || value.clone().or_else(|| words.next()).ok_or("needs a value".to_owned());
            settings.set(&flag, &mut value).map_err(|problem| format!("{flag}: {problem}"))?;
        }
        settings.token = text(TOKEN, &variable)?.map(Token);
        if let Some(field) = text(FALLBACK_AUTHORIZATION, &variable)? {
            let field = HeaderValue::try_from(field);
            let mut field = field.map_err(|_| format!("{FALLBACK_AUTHORIZATION}: not a header field"))?;
            field.set_sensitive(true);
            settings.fallback_authorization = Some(field);
        }
        if said_nothing {
            return Ok(Self::Demo(settings));
        }
        settings.check()?;
        Ok(Self::Serve(settings))
    }
}

impl Settings {
    fn set(&mut self, flag: &str, value: &mut dyn FnMut() -> Result<String, String>) -> Result<(), String> {
        match flag {
            "--upstream" => self.upstreams.push(route(&value()?)?),
            "--listen" => self.listen = address(&value()?)?,
            "--admin" => self.admin = Some(address(&value()?)?),
            "--fallback" => self.fallback = Some(base_url(&value()?)?),
            "--quota" => self.quota = Some(quota(&value()?)?),
            "--max-wait" => self.max_wait = time(&value()?)?,
            "--timeout" => self.timeout = time(&value()?)?,
            "--retries" => self.retries = number(&value()?, 0, 100)?,
            "--max-connections" => self.max_connections = number(&value()?, 1, 1_000_000)? as usize,
            "--rollout" => self.rollout = value()?.parse().map_err(|error| format!("{error}"))?,
            "--ca" => self.ca = Some(value()?.into()),
            _ => return Err("no such flag; --help lists them all".to_owned()),
        }
        Ok(())
    }

    /// What one flag alone cannot tell.
    fn check(&mut self) -> Result<(), String> {
        if self.upstreams.is_empty() {
            return Err("--upstream: needed; --help says more".to_owned());
        }
        let mut paths = HashSet::new();
        if let Some(twice) = self.upstreams.iter().find(|route| !paths.insert(&route.path)) {
            let path = if twice.path.is_empty() { "all paths" } else { &twice.path };
            return Err(format!("--upstream: two for {path}"));
        }
        let authority = self.fallback.as_ref().and_then(Uri::authority);
        if authority.is_some() && self.upstreams.iter().any(|route| route.to.authority() == authority) {
            return Err("--fallback: is the host of an --upstream, and would have the same limit".to_owned());
        }
        if self.fallback_authorization.is_some() && self.fallback.is_none() {
            return Err(format!("{FALLBACK_AUTHORIZATION}: set, but there is no --fallback"));
        }
        self.upstreams.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        Ok(())
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("must be an address and a port, such as 127.0.0.1:8080, is {text:?}"))
}

fn quota(text: &str) -> Result<Quota, String> {
    let example = "must be calls per time, such as 500/min or 15/30s";
    let (calls, period) = text.split_once('/').ok_or_else(|| format!("{example}, is {text:?}"))?;
    let one = if period.starts_with(|c: char| c.is_ascii_alphabetic()) { "1" } else { "" };
    let calls = number(calls, 1, u32::MAX).map_err(|problem| format!("{example}; the calls: {problem}"))?;
    let period =
        time(&format!("{one}{period}")).map_err(|problem| format!("{example}; the time: {problem}"))?;
    Quota::new(calls, period).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(format!("must be a time, such as 500ms, 30s or 2min, is {text:?}")),
    }
}

fn number(text: &str, min: u32, max: u32) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {min} to {max}, is {text:?}")),
    }
}

fn text(name: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    match variable(name) {
        Some(text) if text.trim().is_empty() => Err(format!("{name}: set, but empty")),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests;

use super::{
    FleetError, SimulatedStore,
    ledger::Rules,
    redis::RedisStore,
    store::{Store, channel},
    turn::Turn,
};
use crate::{InvalidSetting, policy::Quota};
use std::time::Duration;

/// A quota that many processes share. See the [module docs](super).
///
/// All processes of a fleet have to use the same name and the same settings. Cheap to clone; nothing is connected, and
/// no runtime is needed, before the first call.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub(super) name: String,
    pub(super) store: Store,
    pub(super) rules: Rules,
    pub(super) patience: Duration,
}

const DEFAULT_BUDGET: f64 = 0.01;
const DEFAULT_PATIENCE: Duration = Duration::from_millis(50);
/// Calls a second while nothing is known.
const FIRST_PACE: f64 = 4.0;
const LONGEST_NAME: usize = 200;

impl Fleet {
    /// A fleet on this Redis (6 or later) or Valkey. The client's URL says where it is, who asks
    /// (`redis://user:password@host/db`) and whether by TLS (`rediss://`, with a TLS feature of the `redis` crate, such
    /// as `tokio-rustls-comp`).
    ///
    /// The name is that of the upstream, and of the credential where the upstream counts by credential: not the
    /// credential itself, because the name is part of the keys.
    ///
    /// # Errors
    /// If the name is empty, longer than 200 bytes, or has a brace, a space or a control character in it.
    pub fn redis(client: redis::Client, name: impl Into<String>) -> Result<Self, InvalidSetting> {
        let name = name.into();
        let store = RedisStore::new(client, &name)?;
        Self::with(name, Store::Redis(Box::new(store)))
    }

    /// A fleet on a store in memory, for tests and simulations.
    pub fn simulated(store: &SimulatedStore) -> Self {
        let rules = Rules { budget: DEFAULT_BUDGET, first_pace: FIRST_PACE, seeded: false, most: 0.0 };
        Self {
            name: "simulated".to_owned(),
            store: Store::Simulated(store.clone()),
            rules,
            patience: DEFAULT_PATIENCE,
        }
    }

    fn with(name: String, store: Store) -> Result<Self, InvalidSetting> {
        let problem = if name.is_empty() {
            "must not be empty"
        } else if name.len() > LONGEST_NAME {
            "must not be longer than 200 bytes"
        } else if name.contains(|c: char| c == '{' || c == '}' || c.is_whitespace() || c.is_control()) {
            "must not have braces, spaces or control characters"
        } else {
            let rules = Rules { budget: DEFAULT_BUDGET, first_pace: FIRST_PACE, seeded: false, most: 0.0 };
            return Ok(Self { name, store, rules, patience: DEFAULT_PATIENCE });
        };
        Err(InvalidSetting::new("name", problem))
    }

    /// The share of the calls that may be refused for the sake of learning, from 0 to 0.5. Default: 0.01. With 0 the
    /// pace never grows once it is known; give it a [`seed`](Self::seed) then.
    ///
    /// # Errors
    /// If it is not in that range.
    pub fn budget(mut self, share: f64) -> Result<Self, InvalidSetting> {
        if !(0.0..=0.5).contains(&share) {
            return Err(InvalidSetting::new("budget", format!("must be from 0 to 0.5, is {share}")));
        }
        self.rules.budget = share;
        Ok(self)
    }

    /// A first guess at the quota of the whole fleet, which saves the first refusals. It need not be right. A burst is
    /// not used.
    #[must_use]
    pub fn seed(mut self, quota: Quota) -> Self {
        self.rules.first_pace = quota.rate().clamp(1.0 / 600.0, 1e6);
        self.rules.seeded = true;
        self
    }

    /// The most calls of the whole fleet that are in flight at a time, from 1 to 1,000,000. Default: no bound.
    ///
    /// Processes with more to do have more of them. Where there are fewer than processes that want one, each keeps its
    /// own for four seconds at a time. Without Redis, a process keeps to its share, and to one at least. The calls of a
    /// process that died count for twenty seconds more.
    ///
    /// # Errors
    /// If it is not in that range.
    pub fn max_in_flight(mut self, calls: usize) -> Result<Self, InvalidSetting> {
        if !(1..=1_000_000).contains(&calls) {
            let problem = format!("must be from 1 to 1,000,000, is {calls}");
            return Err(InvalidSetting::new("max_in_flight", problem));
        }
        self.rules.most = calls as f64;
        Ok(self)
    }

    /// The longest that a call waits for Redis, from 1 ms to 10 s. Default: 50 ms. It should be several round trips.
    ///
    /// # Errors
    /// If it is not in that range.
    pub fn patience(mut self, patience: Duration) -> Result<Self, InvalidSetting> {
        if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&patience) {
            return Err(InvalidSetting::new(
                "patience",
                format!("must be from 1 ms to 10 s, is {patience:?}"),
            ));
        }
        self.patience = patience;
        Ok(self)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether Redis can be used as it has to be: reached, with the permissions that are needed, with room left, and
    /// with keys that are this fleet's. Nothing has to be checked; without, a problem is a warning at the first call.
    ///
    /// # Errors
    /// What is wrong.
    ///
    /// # Cancellation
    /// Nothing is half done.
    pub async fn check(&self) -> Result<(), FleetError> {
        let (news, _heard) = channel();
        let mut link = self.store.link(news);
        // Somebody who comes, asks for nothing, and leaves. A ledger that is not there begins.
        let turn = Turn { id: 1, ..Turn::default() };
        link.turn(&turn, &self.rules).await?;
        link.turn(&Turn { leaves: true, ..turn }, &self.rules).await?;
        link.subscribe().await
    }
}

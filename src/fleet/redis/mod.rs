//! The ledger in Redis: one script, one channel.

use super::{
    FleetError,
    ledger::Rules,
    process::{ALIVE, micros},
    reply::{grant, said},
    store::News,
    turn::{Grant, Turn},
};
use crate::InvalidSetting;
use redis::{
    Client, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisError, Script, Value,
    aio::{ConnectionManager, ConnectionManagerConfig, SendError},
};
use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::sync::mpsc;

/// Of the hash. Another version of this crate that writes something else writes another number.
pub(super) const LAYOUT: u32 = 2;
/// Keys that nobody used for so long are gone.
const EXPIRE: Duration = Duration::from_secs(86_400);
/// After that the connection is taken to be lost.
const TIMEOUT: Duration = Duration::from_millis(500);

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../turn.lua")));

/// The names of the numbers that the script is given, in the order of [`numbers`].
const NAMES: &str = "id want back epoch closed pace accepted late also_refused refused told round_trip input output \
                     more_input more_output flying need drops anew opens leaves budget first_pace seeded most alive expire \
                     now";

/// `now` is 0, where Redis's own clock is to be used; tests have theirs.
fn numbers(turn: &Turn, rules: &Rules, now: f64) -> [f64; 29] {
    let flag = |flag: bool| f64::from(u8::from(flag));
    [
        turn.id as f64,
        turn.want,
        turn.back,
        turn.known.epoch,
        turn.known.closed,
        turn.known.pace,
        turn.accepted,
        turn.late,
        turn.also_refused,
        turn.refused,
        turn.told,
        turn.round_trip,
        turn.input,
        turn.output,
        turn.more_input,
        turn.more_output,
        turn.flying,
        turn.need,
        turn.drops,
        flag(turn.anew),
        flag(turn.opens),
        flag(turn.leaves),
        rules.budget,
        rules.first_pace,
        flag(rules.seeded),
        rules.most,
        micros(ALIVE),
        EXPIRE.as_millis() as f64,
        now,
    ]
}

#[derive(Clone)]
pub(super) struct RedisStore {
    client: Client,
    names: Arc<Names>,
}

struct Names {
    ledger: String,
    members: String,
    places: String,
    channel: String,
}

impl RedisStore {
    pub(super) fn new(client: Client, name: &str) -> Result<Self, InvalidSetting> {
        // News come by the same connection, which takes the newer protocol.
        let info = client.get_connection_info();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.clone().set_redis_settings(settings))
            .map_err(|error| InvalidSetting::new("client", error.to_string()))?;
        let names = Names {
            ledger: format!("tower-cooldown:{{{name}}}"),
            members: format!("tower-cooldown:{{{name}}}:members"),
            places: format!("tower-cooldown:{{{name}}}:places"),
            channel: format!("tower-cooldown:{{{name}}}:news"),
        };
        Ok(Self { client, names: Arc::new(names) })
    }

    pub(super) fn link(&self, news: mpsc::Sender<News>) -> RedisLink {
        RedisLink { store: self.clone(), news, manager: None }
    }
}

impl fmt::Debug for RedisStore {
    /// Without the address: there may be a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("key", &self.names.ledger).finish_non_exhaustive()
    }
}

pub(super) struct RedisLink {
    store: RedisStore,
    news: mpsc::Sender<News>,
    manager: Option<ConnectionManager>,
}

impl RedisLink {
    /// It connects when it is first used, and again after each error.
    fn manager(&mut self) -> Result<&mut ConnectionManager, FleetError> {
        if self.manager.is_none() {
            let news = self.news.clone();
            let config = ConnectionManagerConfig::new()
                .set_number_of_retries(0)
                .set_connection_timeout(Some(TIMEOUT))
                .set_response_timeout(Some(TIMEOUT))
                .set_automatic_resubscription()
                .set_push_sender(move |push: PushInfo| heard(&news, &push));
            let manager = ConnectionManager::new_lazy_with_config(self.store.client.clone(), config);
            self.manager = Some(manager.map_err(|error| self.store.error(&error))?);
        }
        self.manager.as_mut().ok_or_else(|| FleetError::Unreachable("not connected".to_owned()))
    }

    pub(super) async fn turn(&mut self, turn: &Turn, rules: &Rules) -> Result<Grant, FleetError> {
        self.turn_at(turn, rules, 0.0).await
    }

    async fn turn_at(&mut self, turn: &Turn, rules: &Rules, now: f64) -> Result<Grant, FleetError> {
        let names = Arc::clone(&self.store.names);
        let mut call = SCRIPT.prepare_invoke();
        call.key(&names.ledger).key(&names.members).key(&names.places);
        call.arg(LAYOUT).arg(&names.channel).arg(NAMES);
        for number in numbers(turn, rules, now) {
            call.arg(number);
        }
        call.arg(turn.id);
        for told in turn.counters.iter().filter(|told| told.key > 0.0) {
            call.arg(told.key).arg(told.bound).arg(told.at).arg(told.reset).arg(told.slack);
        }
        let answer: Result<Vec<f64>, RedisError> = call.invoke_async(self.manager()?).await;
        let answer = answer.map_err(|error| self.store.error(&error))?;
        grant(&answer).ok_or_else(|| FleetError::Refused("the script answered something else".to_owned()))
    }

    pub(super) async fn subscribe(&mut self) -> Result<(), FleetError> {
        let channel = self.store.names.channel.clone();
        let subscribed = self.manager()?.subscribe(channel).await;
        subscribed.map_err(|error| self.store.error(&error))
    }
}

impl RedisStore {
    fn error(&self, error: &RedisError) -> FleetError {
        match error.code() {
            Some("LAYOUT") => {
                FleetError::Layout(error.detail().unwrap_or_default().trim_end_matches('.').to_owned())
            }
            Some("WRONGTYPE" | "FOREIGN") => FleetError::ForeignKey(self.names.ledger.clone()),
            _ if error.detail().is_some_and(|detail| detail.contains("WRONGTYPE")) => {
                FleetError::ForeignKey(self.names.ledger.clone())
            }
            Some(_) => FleetError::Refused(error.to_string()),
            None if error.kind() == ErrorKind::AuthenticationFailed => FleetError::Refused(error.to_string()),
            None => FleetError::Unreachable(error.to_string()),
        }
    }
}

fn heard(news: &mpsc::Sender<News>, push: &PushInfo) -> Result<(), SendError> {
    let item = match push.kind {
        PushKind::Message => match push.data.last() {
            Some(Value::BulkString(text)) => std::str::from_utf8(text).ok().and_then(said).map(News::Said),
            _ => None,
        },
        PushKind::Subscribe => Some(News::Subscribed(true)),
        PushKind::Disconnection | PushKind::Unsubscribe => Some(News::Subscribed(false)),
        _ => None,
    };
    let is_closed = |item| matches!(news.try_send(item), Err(mpsc::error::TrySendError::Closed(_)));
    // The next turn tells as much as what there was no room for.
    if item.is_some_and(is_closed) { Err(SendError) } else { Ok(()) }
}

#[cfg(test)]
mod tests;

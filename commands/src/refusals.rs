//! Refused commands and failed logins, counted together so that nobody can fill the log with them.
//!
//! A minute of one caller's refusals with one code is one event in a stream of its own.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cqrs_es::DomainEvent as _;
use proximity_domain::refusal::{Counted, Event, STREAM};
use proximity_eventstore::{Append, Expected, Lane, NewEvent, Store, StreamAppend};
use uuid::Uuid;

use crate::clock::{Clock, Micros, SECOND};
use crate::{Actor, Error};

const MINUTE: Micros = 60 * SECOND;
/// Different callers and codes in one minute; what is beyond is counted as `others`.
const MAX_KEYS: usize = 1_000;
/// Accounts, credentials and requests named in one event, each.
const MAX_NAMED: usize = 5;

/// Counts refusals in memory until they are flushed.
pub struct Refusals {
    store: Store,
    clock: Arc<dyn Clock>,
    counts: Mutex<BTreeMap<Key, Count>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    caller: String,
    code: &'static str,
    /// Minutes since 1970.
    minute: i64,
}

#[derive(Debug, Default)]
struct Count {
    times: u64,
    commands: BTreeSet<&'static str>,
    accounts: BTreeSet<String>,
    source: Option<String>,
    credentials: BTreeSet<String>,
    requests: BTreeSet<String>,
    first_at: Micros,
    last_at: Micros,
}

impl Refusals {
    /// Nothing is counted yet.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, counts: Mutex::new(BTreeMap::new()) }
    }

    /// Counts a refused command.
    pub fn note(&self, actor: &Actor, command: &'static str, error: &Error) {
        self.count(actor, command, error.code(), None);
    }

    /// Counts a failed login; `account` is a user's id or a keyed hash of a name nobody has.
    pub fn note_login(&self, actor: &Actor, account: &str, error: &Error) {
        self.count(actor, "user.login", error.code(), Some(account));
    }

    fn count(&self, actor: &Actor, command: &'static str, code: &'static str, of: Option<&str>) {
        let now = self.clock.now();
        let minute = now.div_euclid(MINUTE);
        let mut counts = self.lock();
        let mut key = Key { caller: actor.lane(), code, minute };
        if counts.len() >= MAX_KEYS && !counts.contains_key(&key) {
            key.caller = "others".to_owned();
        }
        let count =
            counts.entry(key).or_insert_with(|| Count { first_at: now, ..Count::default() });
        count.times += 1;
        count.last_at = now;
        count.commands.insert(command);
        if let Some(account) = of
            && count.accounts.len() < MAX_NAMED
        {
            count.accounts.insert(account.to_owned());
        }
        let few = |known: &mut BTreeSet<String>, one: Option<String>| {
            if known.len() < MAX_NAMED {
                known.extend(one);
            }
        };
        few(&mut count.credentials, actor.credential());
        few(&mut count.requests, actor.request.clone());
        count.source = actor.source.map(|source| source.to_string());
    }

    /// Writes down what was counted in minutes that are over; returns how many events that took.
    /// What cannot be stored stays counted.
    pub async fn flush(&self) -> Result<usize, Error> {
        let minute = self.clock.now().div_euclid(MINUTE);
        self.flush_before(minute).await
    }

    /// Writes down everything: the server stops.
    pub async fn flush_all(&self) -> Result<usize, Error> {
        self.flush_before(i64::MAX).await
    }

    async fn flush_before(&self, minute: i64) -> Result<usize, Error> {
        let due: Vec<(Key, Count)> = {
            let mut counts = self.lock();
            let keep = std::mem::take(&mut *counts);
            let (due, keep) = keep.into_iter().partition(|(key, _)| key.minute < minute);
            *counts = keep;
            BTreeMap::into_iter(due).collect()
        };
        if due.is_empty() {
            return Ok(0);
        }
        let mut streams = Vec::with_capacity(due.len());
        for (key, count) in &due {
            streams.push(stream(key, count)?);
        }
        let events = streams.len();
        let append = Append {
            id: Uuid::now_v7(),
            lane: Lane::User("refusals".to_owned()),
            streams,
            assertions: vec![],
            side: vec![],
            metadata: Actor::system("refusals").metadata("refusal.count").to_json(),
            fence: None,
            idempotency: None,
        };
        if let Err(error) = self.store.append(append).await {
            let mut counts = self.lock();
            for (key, count) in due {
                counts.insert(key, count);
            }
            return Err(error.into());
        }
        Ok(events)
    }

    /// Counting cannot fail halfway, so a poisoned lock holds what it held.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stream(key: &Key, count: &Count) -> Result<StreamAppend, Error> {
    let event = Event::Counted(Counted {
        caller: key.caller.clone(),
        code: key.code.to_owned(),
        times: count.times,
        commands: count.commands.iter().map(|command| (*command).to_owned()).collect(),
        accounts: count.accounts.iter().cloned().collect(),
        source: count.source.clone(),
        credentials: count.credentials.iter().cloned().collect(),
        requests: count.requests.iter().cloned().collect(),
        first_at: count.first_at,
        last_at: count.last_at,
    });
    let payload = serde_json::to_string(&event)
        .map_err(|error| Error::internal("an event cannot be written", error))?;
    Ok(StreamAppend {
        aggregate_type: STREAM.to_owned(),
        aggregate_id: format!("{}/{}/{}", key.caller, key.code, key.minute),
        expected: Expected::Any,
        events: vec![NewEvent {
            event_type: event.event_type(),
            event_version: event.event_version(),
            payload,
        }],
    })
}

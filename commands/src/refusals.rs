//! Refused calls and failed logins, counted together so that nobody can fill the log with them.
//!
//! A minute of one caller's refusals with one code is a handful of events in a stream of its own: the
//! first few stand alone, each with its request, so that it can be found and traced; all others are
//! counted in one. Each event is an append of its caller's, whose name stands in its metadata.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proximity_domain::refusal::{Counted, Event, STREAM};
use proximity_eventstore::{Append, Store};
use uuid::Uuid;

use crate::clock::{Clock, Micros, SECOND};
use crate::single::single;
use crate::{Actor, Error, Metadata};

const MINUTE: Micros = 60 * SECOND;
/// Different callers and codes in one minute; what is beyond is counted as `others`.
const MAX_KEYS: usize = 1_000;
/// Refusals of one caller with one code in a minute that stand alone.
const ALONE: u8 = 5;
/// Refusals that stand alone and wait to be written down, of all callers.
const MAX_ALONE: usize = 500;
/// Accounts, credentials and paths named in one event, each.
const MAX_NAMED: usize = 5;
/// Characters that are kept of a path.
const PATH: usize = 200;

/// Counts refusals in memory until they are flushed.
pub struct Refusals {
    store: Store,
    clock: Arc<dyn Clock>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: BTreeMap<Key, Count>,
    /// How many of them stand alone.
    alone: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    caller: String,
    code: &'static str,
    /// Minutes since 1970.
    minute: i64,
    /// Below `ALONE` one that stands alone; else all that do not.
    place: u8,
}

#[derive(Debug)]
struct Count {
    times: u64,
    commands: BTreeSet<&'static str>,
    accounts: BTreeSet<String>,
    credentials: BTreeSet<String>,
    paths: BTreeSet<String>,
    /// Who was refused last, with which request.
    last: Actor,
    first_at: Micros,
    last_at: Micros,
}

/// What was refused.
struct Refused<'a> {
    command: &'static str,
    code: &'static str,
    /// The path that was called.
    path: Option<&'a str>,
    /// The account that was tried.
    account: Option<&'a str>,
}

impl Refusals {
    /// Nothing is counted yet.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, counts: Mutex::default() }
    }

    /// Counts a refused call: of which route, to which path, with which code.
    pub fn note(&self, actor: &Actor, command: &'static str, path: &str, code: &'static str) {
        self.count(actor, &Refused { command, code, path: Some(path), account: None });
    }

    /// Counts a failed login; `account` is a user's id or a keyed hash of a name nobody has.
    pub fn note_login(&self, actor: &Actor, account: &str, error: &Error) {
        let (command, code) = ("user.login", error.code());
        self.count(actor, &Refused { command, code, path: None, account: Some(account) });
    }

    fn count(&self, actor: &Actor, refused: &Refused<'_>) {
        let now = self.clock.now();
        let minute = now.div_euclid(MINUTE);
        let mut counts = self.lock();
        let key = counts.place(actor.lane(), refused.code, minute);
        if key.place < ALONE {
            counts.alone += 1;
        }
        let last = Actor::new(actor.identity.clone(), actor.source, actor.request.clone());
        let count = counts.all.entry(key).or_insert_with(|| Count::none(&last, now));
        count.times += 1;
        count.last_at = now;
        count.commands.insert(refused.command);
        few(&mut count.accounts, refused.account.map(str::to_owned));
        few(&mut count.credentials, actor.credential());
        few(&mut count.paths, refused.path.map(|path| path.chars().take(PATH).collect()));
        count.last = last;
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
        let mut due = self.lock().due(minute).into_iter();
        let mut written = 0;
        while let Some((key, count)) = due.next() {
            let append = append(&key, &count)?;
            if let Err(error) = self.store.append(append).await {
                self.lock().give_back(std::iter::once((key, count)).chain(due));
                return Err(error.into());
            }
            written += 1;
        }
        Ok(written)
    }

    /// Counting cannot fail halfway, so a poisoned lock holds what it held.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Where the next one is counted.
    fn place(&self, caller: String, code: &'static str, minute: i64) -> Key {
        let mut key = Key { caller, code, minute, place: 0 };
        while key.place < ALONE && self.all.contains_key(&key) {
            key.place += 1;
        }
        if key.place < ALONE && self.alone >= MAX_ALONE {
            key.place = ALONE;
        }
        let together = self.all.len() - self.alone;
        if key.place == ALONE && together >= MAX_KEYS && !self.all.contains_key(&key) {
            key.caller = "others".to_owned();
        }
        key
    }

    /// Takes out what was counted before a minute.
    fn due(&mut self, minute: i64) -> BTreeMap<Key, Count> {
        let all = std::mem::take(&mut self.all);
        let (due, keep) = all.into_iter().partition(|(key, _)| key.minute < minute);
        self.keep(keep);
        due
    }

    /// Takes back what could not be stored; more may have been counted in its place.
    fn give_back(&mut self, due: impl Iterator<Item = (Key, Count)>) {
        let mut all = std::mem::take(&mut self.all);
        for (key, mut count) in due {
            if let Some(later) = all.remove(&key) {
                count.add(later);
            }
            all.insert(key, count);
        }
        self.keep(all);
    }

    fn keep(&mut self, all: BTreeMap<Key, Count>) {
        self.alone = all.keys().filter(|key| key.place < ALONE).count();
        self.all = all;
    }
}

impl Count {
    fn none(last: &Actor, now: Micros) -> Self {
        Self {
            times: 0,
            commands: BTreeSet::new(),
            accounts: BTreeSet::new(),
            credentials: BTreeSet::new(),
            paths: BTreeSet::new(),
            last: last.clone(),
            first_at: now,
            last_at: now,
        }
    }

    fn add(&mut self, later: Self) {
        self.times += later.times;
        self.commands.extend(later.commands);
        few(&mut self.accounts, later.accounts);
        few(&mut self.credentials, later.credentials);
        few(&mut self.paths, later.paths);
        (self.last, self.last_at) = (later.last, later.last_at);
    }
}

/// Adds to what is named until there is enough.
fn few(known: &mut BTreeSet<String>, more: impl IntoIterator<Item = String>) {
    for one in more {
        if known.len() < MAX_NAMED {
            known.insert(one);
        }
    }
}

fn append(key: &Key, count: &Count) -> Result<Append, Error> {
    let event = Event::Counted(Counted {
        caller: key.caller.clone(),
        code: key.code.to_owned(),
        times: count.times,
        commands: count.commands.iter().map(|command| (*command).to_owned()).collect(),
        accounts: count.accounts.iter().cloned().collect(),
        source: count.last.source.map(|source| source.to_string()),
        credentials: count.credentials.iter().cloned().collect(),
        requests: count.last.request.iter().cloned().collect(),
        paths: count.paths.iter().cloned().collect(),
        first_at: count.first_at,
        last_at: count.last_at,
    });
    // One that stands alone says what was asked for; of more the last one is told.
    let command = match count.commands.first() {
        Some(command) if key.place < ALONE => *command,
        _ => "refusal.count",
    };
    let metadata = if key.caller == "others" {
        Actor::system("refusals").metadata(command)
    } else {
        // Whoever was refused may know of it: it was done in that user's name.
        Metadata { owner: count.last.user(), ..count.last.metadata(command) }
    };
    let stream = (STREAM, format!("{}/{}/{}", key.caller, key.code, key.minute));
    single(Uuid::now_v7(), "refusals".to_owned(), stream, &event, &metadata)
}

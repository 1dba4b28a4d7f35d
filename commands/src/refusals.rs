//! Refused calls and failed logins, and accepted calls that left no other event, counted together so that
//! nobody can fill the log with them.
//!
//! A minute of one caller's refusals with one code is a handful of events in a stream of its own: the
//! first few stand alone, each with its request, so that it can be found and traced; all others are
//! counted in one. Each event is an append of its caller's, whose name stands in its metadata. So are calls
//! that changed nothing, and those that were answered again under their idempotency key.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proximity_domain::UserId;
use proximity_domain::call::{self, Event as CallEvent};
use proximity_domain::refusal::{Counted, Event, STREAM};
use proximity_eventstore::{Append, Store};
use uuid::Uuid;

use crate::clock::{Clock, Micros, SECOND};
use crate::single::{mark_once, single, store_once};
use crate::unsure::Unsure;
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
    unsure: Unsure,
}

#[derive(Debug, Default)]
struct Counts {
    all: BTreeMap<Key, Count>,
    /// Places of those that were written down at once.
    written: BTreeSet<Key>,
    /// How many of both stand alone.
    alone: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    caller: String,
    what: What,
    /// Minutes since 1970.
    minute: i64,
    /// Below `ALONE` one that stands alone; else all that do not.
    place: u8,
    /// Of those that do not: the user whose account was tried, who is to find them.
    tried: Option<UserId>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// With this code.
    Refused(&'static str),
    ChangedNothing,
    Repeated,
}

impl What {
    /// The middle of the stream's id.
    fn name(self) -> &'static str {
        match self {
            Self::Refused(code) => code,
            Self::ChangedNothing => "changed_nothing",
            Self::Repeated => "repeated",
        }
    }
}

#[derive(Debug)]
struct Count {
    times: u64,
    commands: BTreeSet<&'static str>,
    accounts: BTreeSet<String>,
    credentials: BTreeSet<String>,
    paths: BTreeSet<String>,
    firsts: BTreeSet<String>,
    /// Who it was last, with which request.
    last: Actor,
    first_at: Micros,
    last_at: Micros,
}

/// One of what is counted.
#[derive(Clone)]
struct Note<'a> {
    what: What,
    command: &'static str,
    /// The path that was called.
    path: Option<&'a str>,
    /// The account that was tried.
    account: Option<&'a str>,
    /// The request whose answer was given again.
    first: Option<String>,
}

impl<'a> Note<'a> {
    fn of(what: What, command: &'static str, path: Option<&'a str>) -> Self {
        Self { what, command, path, account: None, first: None }
    }
}

impl Refusals {
    /// Nothing is counted yet.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, counts: Mutex::default(), unsure: Unsure::default() }
    }

    /// Counts a refused call: of which route, to which path, with which code.
    pub fn note(&self, actor: &Actor, command: &'static str, path: &str, code: &'static str) {
        self.count(actor, Note::of(What::Refused(code), command, Some(path)));
    }

    /// Counts a failed login; `account` is a user's id or a keyed hash of a name nobody has.
    pub fn note_login(&self, actor: &Actor, account: &str, error: &Error) {
        let note = Note::of(What::Refused(error.code()), "user.login", None);
        self.count(actor, Note { account: Some(account), ..note });
    }

    /// Notes an accepted call that changed nothing. With the idempotency key of someone who is signed in
    /// the first few of a minute are written down at once and take the key; of those beyond, which are
    /// counted, the key alone is marked with the request: so it is known which request was the first.
    /// Returns false, and counts nothing, when that was another one: then this call is a repeat of it.
    /// What fails is that the key is taken along; the call is counted all the same, rather twice than not at
    /// all where the outcome is unknown.
    pub async fn note_unchanged(
        &self,
        actor: &Actor,
        command: &'static str,
        path: &str,
    ) -> Result<bool, Error> {
        let note = Note::of(What::ChangedNothing, command, Some(path));
        if actor.once.is_none() || actor.user().is_none() {
            self.count(actor, note);
            return Ok(true);
        }
        let now = self.clock.now();
        let place = self.lock().written_at(Key::of(actor.lane(), note.what, now));
        let Some(key) = place else {
            let is_first = mark_once(&self.store, actor).await;
            if !matches!(is_first, Ok(false)) {
                self.count(actor, note);
            }
            return is_first;
        };
        let is_first = self.store_alone(actor, &key, note.clone(), now).await;
        if !matches!(is_first, Ok(true)) {
            // Nothing stands there, as far as is known.
            self.lock().vacate(&key);
        }
        if is_first.is_err() {
            self.count(actor, note);
        }
        is_first
    }

    async fn store_alone(
        &self,
        actor: &Actor,
        key: &Key,
        note: Note<'_>,
        now: Micros,
    ) -> Result<bool, Error> {
        let mut count = Count::none(actor, now);
        count.add_one(actor, note, now);
        store_once(&self.store, actor, append(key, &count)?).await
    }

    /// Counts a call that was given the answer of an earlier one of its idempotency key, the `first`.
    pub fn note_repeated(
        &self,
        actor: &Actor,
        command: &'static str,
        path: &str,
        first: Option<String>,
    ) {
        let note = Note::of(What::Repeated, command, Some(path));
        self.count(actor, Note { first, ..note });
    }

    fn count(&self, actor: &Actor, note: Note<'_>) {
        let now = self.clock.now();
        let mut counts = self.lock();
        let key = counts.place(Key::of(actor.lane(), note.what, now), note.account.and_then(user));
        if key.place < ALONE {
            counts.alone += 1;
        }
        let count = counts.all.entry(key).or_insert_with(|| Count::none(actor, now));
        count.add_one(actor, note, now);
    }

    /// How long the present minute goes on: then there is something to [`flush`](Self::flush).
    pub fn next_flush(&self) -> Duration {
        let left = MINUTE - self.clock.now().rem_euclid(MINUTE);
        Duration::from_micros(left.unsigned_abs())
    }

    /// Writes down what was counted in any other minute than the present one; returns how many events
    /// that took. What cannot be stored stays counted.
    pub async fn flush(&self) -> Result<usize, Error> {
        let minute = self.clock.now().div_euclid(MINUTE);
        self.flush_but(minute).await
    }

    /// Writes down everything: the server stops.
    pub async fn flush_all(&self) -> Result<usize, Error> {
        self.flush_but(i64::MAX).await
    }

    async fn flush_but(&self, present: i64) -> Result<usize, Error> {
        self.unsure.settle(&self.store).await?;
        let mut due = self.lock().due(present).into_iter();
        let mut written = 0;
        while let Some((key, count)) = due.next() {
            let append = append(&key, &count)?;
            if let Err(error) = self.unsure.append(&self.store, append).await {
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

impl Key {
    fn of(caller: String, what: What, now: Micros) -> Self {
        Self { caller, what, minute: now.div_euclid(MINUTE), place: 0, tried: None }
    }
}

impl Counts {
    /// Where the next one is counted, from the first place on; `tried` is the user whose account it is.
    fn place(&self, mut key: Key, tried: Option<UserId>) -> Key {
        while key.place < ALONE && (self.all.contains_key(&key) || self.written.contains(&key)) {
            key.place += 1;
        }
        if key.place < ALONE && self.alone >= MAX_ALONE {
            key.place = ALONE;
        }
        if key.place == ALONE {
            key.tried = tried;
        }
        let together = (self.all.len() + self.written.len()).saturating_sub(self.alone);
        if key.place == ALONE && together >= MAX_KEYS && !self.all.contains_key(&key) {
            (key.caller, key.tried) = ("others".to_owned(), None);
        }
        key
    }

    /// Takes a place for one that is written down at once; `None` when all of the minute are taken.
    fn written_at(&mut self, key: Key) -> Option<Key> {
        let key = self.place(key, None);
        if key.place == ALONE {
            return None;
        }
        self.alone += 1;
        self.written.insert(key.clone());
        Some(key)
    }

    /// Gives a place back where nothing was written down.
    fn vacate(&mut self, key: &Key) {
        if self.written.remove(key) {
            self.alone = self.alone.saturating_sub(1);
        }
    }

    /// Takes out what was not counted in the present minute; after it there is something when the clock
    /// was ahead and has been set back, and it must not wait until then.
    fn due(&mut self, present: i64) -> BTreeMap<Key, Count> {
        self.written.retain(|key| key.minute == present);
        let all = std::mem::take(&mut self.all);
        let (due, keep) = all.into_iter().partition(|(key, _)| key.minute != present);
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
        let alone = all.keys().filter(|key| key.place < ALONE).count();
        self.alone = alone + self.written.len();
        self.all = all;
    }
}

impl Count {
    fn none(actor: &Actor, now: Micros) -> Self {
        Self {
            times: 0,
            commands: BTreeSet::new(),
            accounts: BTreeSet::new(),
            credentials: BTreeSet::new(),
            paths: BTreeSet::new(),
            firsts: BTreeSet::new(),
            last: bare(actor),
            first_at: now,
            last_at: now,
        }
    }

    fn add_one(&mut self, actor: &Actor, note: Note<'_>, now: Micros) {
        self.times += 1;
        self.commands.insert(note.command);
        few(&mut self.accounts, note.account.map(str::to_owned));
        few(&mut self.credentials, actor.credential());
        few(&mut self.paths, note.path.map(|path| path.chars().take(PATH).collect()));
        few(&mut self.firsts, note.first);
        (self.last, self.last_at) = (bare(actor), now);
    }

    fn add(&mut self, later: Self) {
        self.times += later.times;
        self.commands.extend(later.commands);
        few(&mut self.accounts, later.accounts);
        few(&mut self.credentials, later.credentials);
        few(&mut self.paths, later.paths);
        few(&mut self.firsts, later.firsts);
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

/// Who it was, without what the call carried along.
fn bare(actor: &Actor) -> Actor {
    Actor::new(actor.identity.clone(), actor.source, actor.request.clone())
}

/// The user of an account that is one.
fn user(account: &str) -> Option<UserId> {
    account.strip_prefix("user/")?.parse().ok()
}

fn append(key: &Key, count: &Count) -> Result<Append, Error> {
    let id = format!("{}/{}/{}", key.caller, key.what.name(), key.minute);
    let (append_id, lane) = (Uuid::now_v7(), "refusals".to_owned());
    match key.what {
        What::Refused(code) => {
            let event = refused(key, count, code);
            single(append_id, lane, (STREAM, id), &event, &metadata(key, count, "refusal.count"))
        }
        What::ChangedNothing | What::Repeated => {
            let event = called(key, count);
            single(append_id, lane, (call::STREAM, id), &event, &metadata(key, count, "call.count"))
        }
    }
}

fn refused(key: &Key, count: &Count, code: &str) -> Event {
    Event::Counted(Counted {
        caller: key.caller.clone(),
        code: code.to_owned(),
        times: count.times,
        commands: count.commands.iter().map(|command| (*command).to_owned()).collect(),
        accounts: count.accounts.iter().cloned().collect(),
        source: count.last.source.map(|source| source.to_string()),
        credentials: count.credentials.iter().cloned().collect(),
        requests: count.last.request.iter().cloned().collect(),
        paths: count.paths.iter().cloned().collect(),
        first_at: count.first_at,
        last_at: count.last_at,
    })
}

fn called(key: &Key, count: &Count) -> CallEvent {
    let counted = call::Counted {
        caller: key.caller.clone(),
        times: count.times,
        calls: count.commands.iter().map(|call| (*call).to_owned()).collect(),
        paths: count.paths.iter().cloned().collect(),
        source: count.last.source.map(|source| source.to_string()),
        credentials: count.credentials.iter().cloned().collect(),
        requests: count.last.request.iter().cloned().collect(),
        firsts: count.firsts.iter().cloned().collect(),
        first_at: count.first_at,
        last_at: count.last_at,
    };
    match key.what {
        What::Repeated => CallEvent::Repeated(counted),
        What::ChangedNothing | What::Refused(_) => CallEvent::ChangedNothing(counted),
    }
}

/// One that stands alone says what was asked for; of more the last one is told.
fn metadata(key: &Key, count: &Count, together: &'static str) -> Metadata {
    let command = match count.commands.first() {
        Some(command) if key.place < ALONE => *command,
        _ => together,
    };
    if key.caller == "others" {
        return Actor::system("refusals").metadata(command);
    }
    // Whoever was refused may know of it: it was done in that user's name. So may the user in whose name
    // somebody tried to sign in, who need not be the same.
    let tried = || match key.place {
        ALONE => key.tried,
        _ => count.accounts.iter().find_map(|account| user(account)),
    };
    Metadata { owner: count.last.user().or_else(tried), ..count.last.metadata(command) }
}

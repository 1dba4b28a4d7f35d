//! Secrets that were opened, counted together: what one actor opens of one record for one endeavour in
//! a minute is one event, so that what is opened again and again does not fill the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proximity_domain::secret_use::{Counted, Event, STREAM};
use proximity_domain::{ApplicationId, OperationId, UserId};
use proximity_eventstore::{Store, tables};
use uuid::Uuid;

use crate::actor::Identity;
use crate::clock::{Micros, SECOND};
use crate::policy::Ownable as _;
use crate::rows::{Columns, text, unreadable};
use crate::secrets::SecretOwner;
use crate::single::single;
use crate::unsure::Unsure;
use crate::{Actor, Error, Metadata};

const MINUTE: Micros = 60 * SECOND;
/// Records told apart at once; uses beyond are counted under the record `others`.
const MAX_RECORDS: usize = 10_000;
/// Names of secrets in one event.
const MAX_NAMES: usize = 20;

/// Who opens a secret, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    actor: Actor,
    /// Whose thing it is opened for, if that is known.
    owner: Option<UserId>,
    operation: Option<OperationId>,
}

impl By {
    /// A part of the program, for no single endeavour.
    pub fn program() -> Self {
        Self { actor: Actor::system("secrets"), owner: None, operation: None }
    }

    /// Whoever asked for something.
    pub fn caller(actor: &Actor) -> Self {
        let actor = Actor::new(actor.identity.clone(), actor.source, actor.request.clone());
        Self { actor, owner: None, operation: None }
    }

    /// What carries an operation out for its owner.
    pub fn operation(operation: OperationId, owner: UserId) -> Self {
        let actor = Actor::system("operations");
        Self { actor, owner: Some(owner), operation: Some(operation) }
    }

    /// For an operation that is begun with it.
    #[must_use]
    pub fn within(self, operation: OperationId) -> Self {
        Self { operation: Some(operation), ..self }
    }
}

/// Counts in memory until it is flushed.
#[derive(Default)]
pub struct SecretUses {
    counts: Mutex<BTreeMap<Key, Count>>,
    unsure: Unsure,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    table: &'static str,
    record: String,
    /// Minutes since 1970.
    minute: i64,
    actor: String,
    operation: Option<Uuid>,
}

#[derive(Debug)]
struct Count {
    times: u64,
    names: BTreeSet<String>,
    /// The last one, with the request that it came with.
    last: By,
    first_at: Micros,
    last_at: Micros,
}

impl SecretUses {
    /// Counts one.
    pub(crate) fn note(&self, owner: &SecretOwner, by: &By, now: Micros) {
        let mut counts = self.lock();
        let (table, minute) = (owner.table, now.div_euclid(MINUTE));
        let operation = by.operation.map(|operation| operation.0);
        let actor = by.actor.name();
        let mut key = Key { table, record: owner.record.clone(), minute, actor, operation };
        if counts.len() >= MAX_RECORDS && !counts.contains_key(&key) {
            (key.record, key.operation) = ("others".to_owned(), None);
        }
        let count = counts.entry(key).or_insert_with(|| Count {
            times: 0,
            names: BTreeSet::new(),
            last: by.clone(),
            first_at: now,
            last_at: now,
        });
        count.times += 1;
        (count.last, count.last_at) = (by.clone(), now);
        if count.names.len() < MAX_NAMES {
            count.names.insert(owner.column.clone());
        }
    }

    /// Writes down what was counted in any other minute than this one (`i64::MAX`: everything), before it
    /// or, where the clock was set back, after it; returns how many events that took. What cannot be stored
    /// stays counted.
    pub async fn flush(&self, store: &Store, now: Micros) -> Result<usize, Error> {
        self.unsure.settle(store).await?;
        let due: Vec<(Key, Count)> = {
            let mut counts = self.lock();
            let minute = now.div_euclid(MINUTE);
            let (due, keep) =
                std::mem::take(&mut *counts).into_iter().partition(|(key, _)| key.minute != minute);
            *counts = keep;
            BTreeMap::into_iter(due).collect()
        };
        let mut written = 0;
        let mut due = due.into_iter();
        while let Some((key, count)) = due.next() {
            if let Err(error) = self.store_one(store, &key, &count).await {
                let mut counts = self.lock();
                for (key, mut count) in std::iter::once((key, count)).chain(due) {
                    if let Some(later) = counts.remove(&key) {
                        count.add(later);
                    }
                    counts.insert(key, count);
                }
                return Err(error);
            }
            written += 1;
        }
        Ok(written)
    }

    /// One append for each count: the record's owner, if it has one, may read of it.
    async fn store_one(&self, store: &Store, key: &Key, count: &Count) -> Result<(), Error> {
        let event = Event::Counted(Counted {
            table: key.table.to_owned(),
            record: key.record.clone(),
            names: count.names.iter().cloned().collect(),
            times: count.times,
            actors: vec![key.actor.clone()],
            first_at: count.first_at,
            last_at: count.last_at,
        });
        let id = Uuid::now_v7();
        let owner = match count.last.owner {
            None => owner(store, key).await?,
            known => known,
        };
        let stream = (STREAM, format!("{}/{}/{}", key.table, key.record, key.minute));
        let metadata = metadata(owner, key, &count.last.actor, id);
        let append = single(id, "secrets".to_owned(), stream, &event, &metadata)?;
        Ok(self.unsure.append(store, append).await?)
    }

    /// Counting cannot fail halfway, so a poisoned lock holds what it held.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    /// What was counted in its place while it could not be stored.
    fn add(&mut self, later: Self) {
        self.times += later.times;
        let room = MAX_NAMES.saturating_sub(self.names.len());
        self.names.extend(later.names.into_iter().take(room));
        (self.last, self.last_at) = (later.last, later.last_at);
    }
}

/// What is opened for an operation belongs to it, and is found with its application.
fn metadata(owner: Option<UserId>, key: &Key, last: &Actor, id: Uuid) -> Metadata {
    let mut metadata = last.metadata("secret.open");
    if let Some(owner) = owner {
        let is_program = matches!(last.identity, Identity::System(_));
        metadata.on_behalf_of = is_program.then_some(owner);
        metadata = metadata.about(owner);
    }
    if let Some(operation) = key.operation {
        metadata = metadata.correlated(OperationId(operation));
        metadata.causation = Some(format!("operation/{}", OperationId(operation)));
    } else if last.request.is_none() {
        metadata = metadata.correlated(id);
    }
    metadata
}

/// Whose application it is, unless it is gone by now or is none.
async fn owner(store: &Store, key: &Key) -> Result<Option<UserId>, Error> {
    if key.table != "applications" {
        return Ok(None);
    }
    let filter = vec![("kind", text(ApplicationId::KIND)), ("id", text(&key.record))];
    let rows = store.rows(&tables::OWNERSHIP, filter, 1).await.map_err(unreadable)?;
    rows.into_iter().next().map(|row| Columns(row).parsed("owner")).transpose()
}

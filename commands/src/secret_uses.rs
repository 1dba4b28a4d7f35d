//! Secrets that were opened, counted together: a minute of one record's uses is one event, so that
//! what is opened again and again does not fill the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cqrs_es::DomainEvent as _;
use proximity_domain::secret_use::{Counted, Event, STREAM};
use proximity_domain::{ApplicationId, UserId};
use proximity_eventstore::{Append, Expected, Lane, NewEvent, Store, StreamAppend, tables};
use uuid::Uuid;

use crate::clock::{Micros, SECOND};
use crate::policy::Ownable as _;
use crate::rows::{Columns, text, unreadable};
use crate::secrets::SecretOwner;
use crate::{Actor, Error, Metadata};

const MINUTE: Micros = 60 * SECOND;
/// Records told apart at once; uses beyond are counted under the record `others`.
const MAX_RECORDS: usize = 10_000;
/// Names of secrets in one event.
const MAX_NAMES: usize = 20;

/// Counts in memory until it is flushed.
#[derive(Default)]
pub struct SecretUses(Mutex<BTreeMap<Key, Count>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    table: &'static str,
    record: String,
    /// Minutes since 1970.
    minute: i64,
}

#[derive(Debug, Default)]
struct Count {
    times: u64,
    names: BTreeSet<String>,
    first_at: Micros,
    last_at: Micros,
}

impl SecretUses {
    /// Counts one.
    pub(crate) fn note(&self, owner: &SecretOwner, now: Micros) {
        let mut counts = self.lock();
        let (table, minute) = (owner.table, now.div_euclid(MINUTE));
        let mut key = Key { table, record: owner.record.clone(), minute };
        if counts.len() >= MAX_RECORDS && !counts.contains_key(&key) {
            key.record = "others".to_owned();
        }
        let count =
            counts.entry(key).or_insert_with(|| Count { first_at: now, ..Count::default() });
        count.times += 1;
        count.last_at = now;
        if count.names.len() < MAX_NAMES {
            count.names.insert(owner.column.clone());
        }
    }

    /// Writes down what was counted before this minute (`i64::MAX`: everything); returns how many
    /// events that took. What cannot be stored stays counted.
    pub async fn flush(&self, store: &Store, before: Micros) -> Result<usize, Error> {
        let due: Vec<(Key, Count)> = {
            let mut counts = self.lock();
            let minute = before.div_euclid(MINUTE);
            let (due, keep) =
                std::mem::take(&mut *counts).into_iter().partition(|(key, _)| key.minute < minute);
            *counts = keep;
            BTreeMap::into_iter(due).collect()
        };
        let mut written = 0;
        let mut due = due.into_iter();
        while let Some((key, count)) = due.next() {
            if let Err(error) = store_one(store, &key, &count).await {
                let mut counts = self.lock();
                counts.insert(key, count);
                counts.extend(due);
                return Err(error);
            }
            written += 1;
        }
        Ok(written)
    }

    /// Counting cannot fail halfway, so a poisoned lock holds what it held.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One append for each record: its owner, if it has one, may read of it.
async fn store_one(store: &Store, key: &Key, count: &Count) -> Result<(), Error> {
    let event = Event::Counted(Counted {
        table: key.table.to_owned(),
        record: key.record.clone(),
        names: count.names.iter().cloned().collect(),
        times: count.times,
        first_at: count.first_at,
        last_at: count.last_at,
    });
    let payload = serde_json::to_string(&event)
        .map_err(|error| Error::internal("an event cannot be written", error))?;
    let id = Uuid::now_v7();
    let owner = owner(store, key).await?;
    let metadata = Metadata {
        owner,
        on_behalf_of: owner,
        ..Actor::system("secrets").metadata("secret.open").correlated(id)
    };
    let append = Append {
        id,
        lane: Lane::User("secrets".to_owned()),
        streams: vec![StreamAppend {
            aggregate_type: STREAM.to_owned(),
            aggregate_id: format!("{}/{}/{}", key.table, key.record, key.minute),
            expected: Expected::Any,
            events: vec![NewEvent {
                event_type: event.event_type(),
                event_version: event.event_version(),
                payload,
            }],
        }],
        assertions: vec![],
        side: vec![],
        metadata: metadata.to_json(),
        fence: None,
        idempotency: None,
    };
    store.append(append).await?;
    Ok(())
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

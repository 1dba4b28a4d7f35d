//! One batch in one transaction: judge each append, write what is accepted.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, ToSql, ffi};

use super::writer::{Writer, is_refusal};
use crate::append::{Append, AppendError, Appended, Expected, Outcome, Position};
use crate::queue::{Answer, Job};
use crate::side::{SideWrite, Value};
use crate::side_sql::Dialect;

const HEAD: &str = "select coalesce(max(position), 0) from events";
const STREAM_HEAD: &str = "select coalesce(max(sequence), 0) from events \
     where aggregate_type = ?1 and aggregate_id = ?2";
const INSERT_EVENT: &str = "insert into events (position, aggregate_type, aggregate_id, sequence, \
     event_type, event_version, payload, metadata, recorded_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const INSERT_APPEND: &str = "insert into appends (append_id, actor, idempotency_key, fingerprint, \
     answer, first_position, last_position, recorded_at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
     on conflict do nothing";
const BY_ID: &str = "select first_position, last_position from appends where append_id = ?1";
const BY_KEY: &str = "select fingerprint, first_position, answer from appends \
     where actor = ?1 and idempotency_key = ?2";
const CLAIM_EPOCH: &str = "select epoch from claims where id = ?1";

/// Why a batch was not stored.
pub(super) enum Trouble {
    /// One append cannot be stored, and it was not guarded by a savepoint.
    Spoilt,
    /// Nothing was stored.
    Unavailable(String),
    /// The commit failed in a way that leaves its outcome open.
    Unknown(String),
}

/// Why one append was not stored.
enum Refusal {
    Typed(AppendError),
    Database(rusqlite::Error),
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        Self::Typed(error)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Stores a batch and returns an answer for each job, and the log's head.
///
/// `careful` puts a savepoint around every append, not only around those with side rows: it costs a
/// copy of each touched page, and keeps an append that the database refuses from spoiling the rest.
pub(super) fn store(
    writer: &mut Writer,
    jobs: &[Job],
    careful: bool,
) -> Result<(Vec<Answer>, Position), Trouble> {
    let stored = in_transaction(writer, jobs, careful);
    writer.roll_back();
    stored
}

fn in_transaction(
    writer: &Writer,
    jobs: &[Job],
    careful: bool,
) -> Result<(Vec<Answer>, Position), Trouble> {
    let connection = &writer.connection;
    run(connection, "begin immediate").map_err(unavailable)?;
    let mut batch = Batch {
        writer,
        connection,
        head: connection
            .prepare_cached(HEAD)
            .and_then(|mut statement| statement.query_row((), |row| row.get(0)))
            .map_err(unavailable)?,
        now: now_micros(),
    };
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        answers.push(batch.judge(&job.append, careful)?);
    }
    run(connection, "commit").map_err(|error| match &error {
        // A full disk or a busy database is noticed before the commit record is written.
        rusqlite::Error::SqliteFailure(failure, _)
            if matches!(failure.code, ErrorCode::DiskFull | ErrorCode::DatabaseBusy) =>
        {
            unavailable(error)
        }
        _ => Trouble::Unknown(error.to_string()),
    })?;
    Ok((answers, batch.head.unsigned_abs()))
}

struct Batch<'a> {
    writer: &'a Writer,
    connection: &'a Connection,
    head: i64,
    now: i64,
}

impl Batch<'_> {
    /// Answers one append, or says that the whole batch has to be given up.
    fn judge(&mut self, append: &Append, careful: bool) -> Result<Answer, Trouble> {
        let guarded = careful || !append.side.is_empty();
        let head = self.head;
        if guarded {
            run(self.connection, "savepoint one").map_err(unavailable)?;
        }
        let answer = match self.store(append) {
            Ok(outcome) => Ok(outcome),
            Err(Refusal::Typed(error)) => Err(error),
            Err(Refusal::Database(error)) if !is_refusal(&error) => {
                return Err(unavailable(error));
            }
            Err(Refusal::Database(_)) if !guarded => return Err(Trouble::Spoilt),
            Err(Refusal::Database(error)) => Err(self.name(&error)),
        };
        if guarded {
            if answer.is_err() {
                self.head = head;
                run(self.connection, "rollback to one").map_err(unavailable)?;
            }
            run(self.connection, "release one").map_err(unavailable)?;
        }
        Ok(answer)
    }

    /// Without side rows nothing is written before the append is known to be acceptable, so that a
    /// typed refusal leaves nothing to take back.
    fn store(&mut self, append: &Append) -> Result<Outcome, Refusal> {
        if let Some(refusal) = self.refusal(append)? {
            // Stale, perhaps because it is stored already.
            return self.earlier(append)?.unwrap_or(Err(refusal.into()));
        }
        let events: usize = append.streams.iter().map(|stream| stream.events.len()).sum();
        let events = i64::try_from(events).map_err(|_| too_large())?;
        let appended = if events == 0 {
            Appended { first: self.head.unsigned_abs(), last: self.head.unsigned_abs() }
        } else {
            Appended {
                first: (self.head + 1).unsigned_abs(),
                last: (self.head + events).unsigned_abs(),
            }
        };
        let idempotency = append.idempotency.as_ref();
        let inserted = self.connection.prepare_cached(INSERT_APPEND)?.execute((
            append.id.into_bytes(),
            idempotency.map(|i| &i.actor),
            idempotency.map(|i| &i.key),
            idempotency.map(|i| &i.fingerprint),
            idempotency.and_then(|i| i.answer.as_ref()),
            appended.first,
            appended.last,
            self.now,
        ))?;
        if inserted == 0 {
            return self
                .earlier(append)?
                .unwrap_or_else(|| Err(invalid("it is stored and is not".to_owned()).into()));
        }
        for write in &append.side {
            self.side(write)?;
        }
        let mut insert = self.connection.prepare_cached(INSERT_EVENT)?;
        for stream in &append.streams {
            let mut sequence = match stream.expected {
                Expected::At(sequence) => sequence,
                Expected::Any => self.stream_head(&stream.aggregate_type, &stream.aggregate_id)?,
            };
            for event in &stream.events {
                self.head += 1;
                sequence += 1;
                insert.execute((
                    self.head,
                    &stream.aggregate_type,
                    &stream.aggregate_id,
                    sequence,
                    &event.event_type,
                    &event.event_version,
                    &event.payload,
                    stream.metadata_in(append),
                    self.now,
                ))?;
            }
        }
        Ok(Outcome::Stored(appended))
    }

    /// What the append under this id, or this idempotency key, came to earlier.
    fn earlier(&self, append: &Append) -> Result<Option<Result<Outcome, Refusal>>, Refusal> {
        let by_id = self
            .connection
            .prepare_cached(BY_ID)?
            .query_row([append.id.into_bytes()], |row| {
                Ok(Appended { first: row.get(0)?, last: row.get(1)? })
            })
            .optional()?;
        if let Some(appended) = by_id {
            return Ok(Some(Ok(Outcome::Stored(appended))));
        }
        let Some(key) = &append.idempotency else { return Ok(None) };
        let by_key = self
            .connection
            .prepare_cached(BY_KEY)?
            .query_row((&key.actor, &key.key), |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        Ok(by_key.map(|(fingerprint, position, answer)| {
            if fingerprint == key.fingerprint {
                Ok(Outcome::Replayed { position, answer })
            } else {
                Err(AppendError::KeyReused.into())
            }
        }))
    }

    /// Everything that can be refused by reading.
    fn refusal(&self, append: &Append) -> Result<Option<AppendError>, Refusal> {
        if let Some(fence) = &append.fence {
            let epoch: Option<u64> = self
                .connection
                .prepare_cached(CLAIM_EPOCH)?
                .query_row([&fence.claim], |row| row.get(0))
                .optional()?;
            if epoch != Some(fence.epoch) {
                return Ok(Some(AppendError::Fenced { claim: fence.claim.clone() }));
            }
        }
        for assertion in &append.assertions {
            let actual = self.stream_head(&assertion.aggregate_type, &assertion.aggregate_id)?;
            if actual != assertion.sequence {
                return Ok(Some(AppendError::AssertionFailed {
                    aggregate_type: assertion.aggregate_type.clone(),
                    aggregate_id: assertion.aggregate_id.clone(),
                    expected: assertion.sequence,
                    actual,
                }));
            }
        }
        for (n, stream) in append.streams.iter().enumerate() {
            let texts = [&stream.aggregate_type, &stream.aggregate_id];
            let events = stream.events.iter().flat_map(|e| [&e.event_type, &e.event_version]);
            if texts.into_iter().chain(events).any(|text| text.contains('\0')) {
                return Ok(Some(invalid("a text contains a NUL byte".to_owned())));
            }
            let Expected::At(expected) = stream.expected else { continue };
            // An append may name a stream twice; then the first part counts for the second.
            let before: usize = append.streams[..n]
                .iter()
                .filter(|s| {
                    s.aggregate_id == stream.aggregate_id
                        && s.aggregate_type == stream.aggregate_type
                })
                .map(|s| s.events.len())
                .sum();
            let actual = self.stream_head(&stream.aggregate_type, &stream.aggregate_id)?
                + u64::try_from(before).map_err(|_| too_large())?;
            if actual != expected {
                return Ok(Some(AppendError::Conflict {
                    aggregate_type: stream.aggregate_type.clone(),
                    aggregate_id: stream.aggregate_id.clone(),
                    expected,
                    actual,
                }));
            }
        }
        Ok(None)
    }

    fn stream_head(&self, aggregate_type: &str, aggregate_id: &str) -> Result<u64, Refusal> {
        Ok(self
            .connection
            .prepare_cached(STREAM_HEAD)?
            .query_row((aggregate_type, aggregate_id), |row| row.get(0))?)
    }

    fn side(&self, write: &SideWrite) -> Result<(), Refusal> {
        let values = write
            .set()
            .iter()
            .chain(write.filter().iter().filter(|(_, value)| *value != Value::Null))
            .map(|(_, value)| value);
        if values.clone().any(|v| matches!(v, Value::Text(text) if text.contains('\0'))) {
            return Err(invalid("a text contains a NUL byte".to_owned()).into());
        }
        let touched = self
            .connection
            .prepare_cached(&write.sql(Dialect::Sqlite))?
            .execute(rusqlite::params_from_iter(values))?;
        match write.expected() {
            Some(expected) if u64::try_from(touched).ok() != Some(expected) => {
                Err(AppendError::SideStale { table: write.table().name }.into())
            }
            _ => Ok(()),
        }
    }

    /// Gives a refusal of the database the name that both stores share.
    fn name(&self, error: &rusqlite::Error) -> AppendError {
        if let rusqlite::Error::SqliteFailure(failure, Some(message)) = error
            && matches!(
                failure.extended_code,
                ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            )
            && let Some(columns) = message.strip_prefix("UNIQUE constraint failed: ")
            && let Some(constraint) = self.writer.unique_names.get(columns)
        {
            return AppendError::SideConflict { constraint: constraint.clone() };
        }
        invalid(error.to_string())
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(SqlValue::Null),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Integer(number) => ToSqlOutput::Owned(SqlValue::Integer(*number)),
            Self::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Self::Boolean(yes) => ToSqlOutput::Owned(SqlValue::Integer(i64::from(*yes))),
        })
    }
}

pub(super) fn run(connection: &Connection, sql: &str) -> Result<(), rusqlite::Error> {
    connection.prepare_cached(sql)?.execute(()).map(drop)
}

fn unavailable(error: rusqlite::Error) -> Trouble {
    Trouble::Unavailable(error.to_string())
}

fn invalid(reason: String) -> AppendError {
    AppendError::Invalid { reason }
}

fn too_large() -> AppendError {
    invalid("it has too many events".to_owned())
}

/// Microseconds since 1970 on the database's host, which is this one.
pub(super) fn now_micros() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

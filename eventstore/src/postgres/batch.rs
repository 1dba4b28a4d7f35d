//! One batch as the arguments of `proximity_append`, and its rows as answers.

use std::collections::HashMap;

use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};

use crate::append::{Append, AppendError, Appended, Expected, Outcome, Position};
use crate::queue::Answer;
use crate::side_sql::Dialect;

const CALL: &str = "select status, first_position, last_position, item, actual, detail \
    from proximity_append($1::text[]::uuid[], $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, \
    $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)";

/// What became of each append, in order, and the last position given.
pub(super) struct Verdicts {
    pub answers: Vec<Answer>,
    pub head: Position,
}

/// Parallel arrays, as the function declares them.
#[derive(Default)]
struct Arguments<'a> {
    ids: Vec<String>,
    actors: Vec<Option<&'a str>>,
    keys: Vec<Option<&'a str>>,
    fingerprints: Vec<Option<&'a str>>,
    answers: Vec<Option<&'a str>>,
    claims: Vec<Option<&'a str>>,
    epochs: Vec<Option<i64>>,
    /// One of each append; those of streams that have their own come after all of them.
    metadata: Vec<&'a str>,
    own_metadata: Vec<&'a str>,
    /// How many appends there are.
    appends: i32,
    checks_until: Vec<i32>,
    side_until: Vec<i32>,
    stream_types: Vec<&'a str>,
    stream_ids: Vec<&'a str>,
    /// What it points to is the metadata of a check's events.
    check_append: Vec<i32>,
    check_stream: Vec<i32>,
    check_expected: Vec<i64>,
    check_events: Vec<i32>,
    event_check: Vec<i32>,
    event_offset: Vec<i32>,
    event_types: Vec<&'a str>,
    event_versions: Vec<&'a str>,
    event_payloads: Vec<&'a str>,
    side_sql: Vec<String>,
    side_row: Vec<Json<serde_json::Value>>,
    side_expected: Vec<i64>,
    /// Index of each stream in `stream_ids`, from 1.
    streams: HashMap<(&'a str, &'a str), i32>,
}

impl<'a> Arguments<'a> {
    fn of(appends: &'a [Append]) -> Result<Self, sqlx::Error> {
        let mut this = Self { appends: index(appends.len())?, ..Self::default() };
        for (append, number) in appends.iter().zip(1..) {
            this.add(append, number)?;
        }
        this.metadata.append(&mut this.own_metadata);
        Ok(this)
    }

    fn add(&mut self, append: &'a Append, number: i32) -> Result<(), sqlx::Error> {
        let idempotency = append.idempotency.as_ref();
        self.ids.push(append.id.to_string());
        self.actors.push(idempotency.map(|i| i.actor.as_str()));
        self.keys.push(idempotency.map(|i| i.key.as_str()));
        self.fingerprints.push(idempotency.map(|i| i.fingerprint.as_str()));
        self.answers.push(idempotency.and_then(|i| i.answer.as_deref()));
        self.claims.push(append.fence.as_ref().map(|fence| fence.claim.as_str()));
        self.epochs.push(append.fence.as_ref().map(|fence| signed(fence.epoch)).transpose()?);
        self.metadata.push(&append.metadata);
        for assertion in &append.assertions {
            let expected = signed(assertion.sequence)?;
            self.check(number, &assertion.aggregate_type, &assertion.aggregate_id, expected, 0);
        }
        for stream in &append.streams {
            let expected = match stream.expected {
                Expected::At(sequence) => signed(sequence)?,
                Expected::Any => -1,
            };
            let events = i32::try_from(stream.events.len()).map_err(encode)?;
            let metadata = match &stream.metadata {
                None => number,
                Some(own) => {
                    self.own_metadata.push(own);
                    self.appends.saturating_add(index(self.own_metadata.len())?)
                }
            };
            let check = self.check(
                metadata,
                &stream.aggregate_type,
                &stream.aggregate_id,
                expected,
                events,
            );
            for (event, offset) in stream.events.iter().zip(0..) {
                self.event_check.push(check);
                self.event_offset.push(offset);
                self.event_types.push(&event.event_type);
                self.event_versions.push(&event.event_version);
                self.event_payloads.push(&event.payload);
            }
        }
        for write in &append.side {
            self.side_sql.push(write.sql(Dialect::Postgres));
            self.side_row.push(Json(write.json()));
            self.side_expected.push(write.expected().map_or(Ok(-1), signed)?);
        }
        self.checks_until.push(index(self.check_append.len())?);
        self.side_until.push(index(self.side_sql.len())?);
        Ok(())
    }

    fn check(
        &mut self,
        metadata: i32,
        aggregate_type: &'a str,
        aggregate_id: &'a str,
        expected: i64,
        events: i32,
    ) -> i32 {
        let next = i32::try_from(self.stream_ids.len() + 1).unwrap_or(i32::MAX);
        let stream = *self.streams.entry((aggregate_type, aggregate_id)).or_insert_with(|| {
            self.stream_types.push(aggregate_type);
            self.stream_ids.push(aggregate_id);
            next
        });
        self.check_append.push(metadata);
        self.check_stream.push(stream);
        self.check_expected.push(expected);
        self.check_events.push(events);
        i32::try_from(self.check_append.len()).unwrap_or(i32::MAX)
    }
}

/// Stores `appends` in one statement, its own transaction.
pub(super) async fn call(
    connection: &mut PgConnection,
    appends: &[Append],
) -> Result<Verdicts, sqlx::Error> {
    let arguments = Arguments::of(appends)?;
    let rows = sqlx::query(CALL)
        .bind(&arguments.ids)
        .bind(&arguments.actors)
        .bind(&arguments.keys)
        .bind(&arguments.fingerprints)
        .bind(&arguments.answers)
        .bind(&arguments.claims)
        .bind(&arguments.epochs)
        .bind(&arguments.metadata)
        .bind(&arguments.checks_until)
        .bind(&arguments.side_until)
        .bind(&arguments.stream_types)
        .bind(&arguments.stream_ids)
        .bind(&arguments.check_append)
        .bind(&arguments.check_stream)
        .bind(&arguments.check_expected)
        .bind(&arguments.check_events)
        .bind(&arguments.event_check)
        .bind(&arguments.event_offset)
        .bind(&arguments.event_types)
        .bind(&arguments.event_versions)
        .bind(&arguments.event_payloads)
        .bind(&arguments.side_sql)
        .bind(&arguments.side_row)
        .bind(&arguments.side_expected)
        .fetch_all(connection)
        .await?;
    if rows.len() != appends.len() {
        return Err(sqlx::Error::RowNotFound);
    }
    let mut verdicts = Verdicts { answers: Vec::with_capacity(rows.len()), head: 0 };
    for (number, (row, append)) in rows.iter().zip(appends).enumerate() {
        let answer = answer(row, number, append, &arguments)?;
        if let Ok(Outcome::Stored(appended)) = &answer {
            verdicts.head = verdicts.head.max(appended.last);
        }
        verdicts.answers.push(answer);
    }
    Ok(verdicts)
}

fn answer(
    row: &sqlx::postgres::PgRow,
    number: usize,
    append: &Append,
    arguments: &Arguments<'_>,
) -> Result<Answer, sqlx::Error> {
    let position = |column: &str| -> Result<Position, sqlx::Error> {
        Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
    };
    let detail = || row.try_get::<Option<String>, _>("detail");
    let item = || -> Result<usize, sqlx::Error> {
        let item: i32 = row.try_get("item")?;
        usize::try_from(item - 1).map_err(encode)
    };
    let status: String = row.try_get("status")?;
    Ok(match status.as_str() {
        "stored" | "known" => Ok(Outcome::Stored(Appended {
            first: position("first_position")?,
            last: position("last_position")?,
        })),
        "replayed" => {
            Ok(Outcome::Replayed { position: position("first_position")?, answer: detail()? })
        }
        "key_reused" => Err(AppendError::KeyReused),
        "fenced" => Err(AppendError::Fenced {
            claim: append.fence.as_ref().map(|fence| fence.claim.clone()).unwrap_or_default(),
        }),
        "stale" => {
            let check = item()?;
            let stream = usize::try_from(arguments.check_stream[check] - 1).map_err(encode)?;
            let aggregate_type = arguments.stream_types[stream].to_owned();
            let aggregate_id = arguments.stream_ids[stream].to_owned();
            let expected = arguments.check_expected[check].unsigned_abs();
            let actual = position("actual")?;
            // An append's assertions are its first checks.
            let before = if number == 0 { 0 } else { arguments.checks_until[number - 1] };
            let of_append = check - usize::try_from(before).map_err(encode)?;
            Err(if of_append < append.assertions.len() {
                AppendError::AssertionFailed { aggregate_type, aggregate_id, expected, actual }
            } else {
                AppendError::Conflict { aggregate_type, aggregate_id, expected, actual }
            })
        }
        "side_conflict" => {
            Err(AppendError::SideConflict { constraint: detail()?.unwrap_or_default() })
        }
        "side_stale" => {
            // The item counts over the whole batch, from 1.
            let before = if number == 0 { 0 } else { arguments.side_until[number - 1] };
            let write = item()? - usize::try_from(before).map_err(encode)?;
            Err(AppendError::SideStale { table: append.side[write].table().name })
        }
        "invalid" => Err(AppendError::Invalid { reason: detail()?.unwrap_or_default() }),
        other => return Err(sqlx::Error::Decode(format!("status {other}").into())),
    })
}

fn signed(number: u64) -> Result<i64, sqlx::Error> {
    i64::try_from(number).map_err(encode)
}

fn index(number: usize) -> Result<i32, sqlx::Error> {
    i32::try_from(number).map_err(encode)
}

fn encode(error: std::num::TryFromIntError) -> sqlx::Error {
    sqlx::Error::Encode(error.into())
}

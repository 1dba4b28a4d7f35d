//! First answers under idempotency keys: kept beside the log for two days, and given again.
//!
//! The append itself stores that a key has had its effect; the answer follows in a write of its own.
//! A crash between the two leaves a key that is used and has no answer: at most one effect, always.
//!
//! A refusal is not kept as an answer, but it is made final before it is given: a try that began
//! earlier and is still on its way (its caller hung up, say) finds the key closed, and stores nothing.

use std::sync::Arc;

use proximity_eventstore::{
    Append, AppendError, Idempotency, Lane, Outcome, Position, Row, SideWrite, Store, Value, tables,
};
use uuid::Uuid;

use crate::actor::Actor;
use crate::clock::{Clock, Micros, SECOND};
use crate::error::Error;
use crate::once::{OnceKey, is_refusal, unchanged_by};
use crate::rows::{Columns, optional, text, unreadable};

/// How long a key and its answer are kept: twice what is promised.
pub const KEEP: Micros = 48 * 3_600 * SECOND;

/// An answer as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    pub content_type: String,
    /// `None`: it showed a one-time secret and cannot be given again.
    pub body: Option<Vec<u8>>,
    pub location: Option<String>,
    /// Where the log stood after the write; 0 when the call wrote nothing.
    pub position: Position,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is free, and was refused so many times.
    Free(u32),
    /// It has had its effect, and there is no answer (yet): the first request may still be on its way.
    Used,
    /// The command keeps its own answer beside the append, and gives it when it is asked again under
    /// the key after so many refusals.
    WithCommand(u32),
    /// The first answer.
    Answer(Answer),
}

/// All kept answers.
#[derive(Clone)]
pub struct Answers {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Answers {
    /// Answers beside this log.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// What is known of a caller's key; one that was used with another request is refused.
    pub async fn find(&self, actor: &Actor, key: &OnceKey) -> Result<Found, Error> {
        if let Some(row) = self.row(actor, key).await? {
            check(row.text("fingerprint")?, key)?;
            return Ok(Found::Answer(answer(&row)?));
        }
        loop {
            let refusals = self.refusals(actor, key).await?;
            let tried = key.after(refusals).key;
            let marked = self.store.idempotent(&actor.lane(), &tried).await.map_err(unreadable)?;
            let Some(marked) = marked else { return Ok(Found::Free(refusals)) };
            if is_refusal(marked.answer.as_deref()) {
                // Refused since the refusals were counted.
                continue;
            }
            check(&marked.fingerprint, key)?;
            let kept = marked.answer.is_some() && unchanged_by(marked.answer.as_deref()).is_none();
            return Ok(if kept { Found::WithCommand(refusals) } else { Found::Used });
        }
    }

    /// The request that had the key's effect, as the first event that was stored with the key names it, or
    /// the key's mark where there is no event.
    pub async fn first(&self, actor: &Actor, key: &OnceKey) -> Result<Option<String>, Error> {
        let tried = key.after(self.refusals(actor, key).await?).key;
        let marked = self.store.idempotent(&actor.lane(), &tried).await.map_err(unreadable)?;
        let Some(marked) = marked.filter(|one| one.position > 0) else { return Ok(None) };
        if let Some(request) = unchanged_by(marked.answer.as_deref()) {
            return Ok((!request.is_empty()).then(|| request.to_owned()));
        }
        let stored = self.store.feed(marked.position - 1, 1).await.map_err(unreadable)?;
        let Some(event) = stored.first() else { return Ok(None) };
        let said: serde_json::Value = serde_json::from_str(&event.metadata)
            .map_err(|error| Error::internal("an event's metadata cannot be read", error))?;
        Ok(said.get("request").and_then(|request| request.as_str()).map(str::to_owned))
    }

    /// Makes the refusal of a try final, which began after so many refusals: whatever tries that began
    /// no later decide, is not stored. Returns false when one of them was stored just before.
    pub async fn refuse(&self, actor: &Actor, key: &OnceKey, refusals: u32) -> Result<bool, Error> {
        let row = vec![
            ("actor", text(actor.lane())),
            ("key", text(&key.key)),
            ("number", Value::Integer(i64::from(refusals) + 1)),
            ("recorded_at", Value::Integer(self.clock.now())),
        ];
        let write = SideWrite::Upsert { table: &tables::REFUSED_TRIES, row };
        let closing = key.after(refusals).refused(actor);
        match self.store.append(beside(actor, write, Some(closing))).await {
            Ok(Outcome::Stored(_)) => Ok(true),
            Ok(Outcome::Replayed { answer, .. }) => Ok(is_refusal(answer.as_deref())),
            // With another request: refused as this one, or stored.
            Err(AppendError::KeyReused) => Ok(self.refusals(actor, key).await? > refusals),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps an answer; returns the earlier one if there was one already, which is then the answer.
    pub async fn keep(
        &self,
        actor: &Actor,
        key: &OnceKey,
        answer: &Answer,
    ) -> Result<Option<Found>, Error> {
        let row = self.columns(actor, key, answer);
        let write = SideWrite::Insert { table: &tables::KEPT_ANSWERS, row };
        match self.store.append(beside(actor, write, None)).await {
            Ok(_) => Ok(None),
            Err(AppendError::SideConflict { .. }) => self.find(actor, key).await.map(Some),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets what is older than two days; returns how many answers. Call it now and then.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let before = self.clock.now() - KEEP;
        self.store.forget_appends(before).await.map_err(unreadable)?;
        // Longer than what was stored under the number that they say.
        let refusals = self.store.prune(&tables::REFUSED_TRIES, "recorded_at", before - KEEP).await;
        refusals.map_err(unreadable)?;
        let answers = self.store.prune(&tables::KEPT_ANSWERS, "recorded_at", before).await;
        answers.map_err(unreadable)
    }

    async fn row(&self, actor: &Actor, key: &OnceKey) -> Result<Option<Columns>, Error> {
        let filter = vec![("actor", text(actor.lane())), ("key", text(&key.key))];
        let rows = self.store.rows(&tables::KEPT_ANSWERS, filter, 1).await.map_err(unreadable)?;
        Ok(rows.into_iter().next().map(Columns))
    }

    /// How many times a key was refused.
    async fn refusals(&self, actor: &Actor, key: &OnceKey) -> Result<u32, Error> {
        let filter = vec![("actor", text(actor.lane())), ("key", text(&key.key))];
        let rows = self.store.rows(&tables::REFUSED_TRIES, filter, 1).await.map_err(unreadable)?;
        let Some(row) = rows.into_iter().next().map(Columns) else { return Ok(0) };
        u32::try_from(row.integer("number")?)
            .map_err(|error| Error::internal("a count of refusals is malformed", error))
    }

    fn columns(&self, actor: &Actor, key: &OnceKey, answer: &Answer) -> Row {
        let body = answer.body.clone().map_or(Value::Null, Value::Bytes);
        vec![
            ("actor", text(actor.lane())),
            ("key", text(&key.key)),
            ("fingerprint", text(&key.fingerprint)),
            ("status", Value::Integer(answer.status.into())),
            ("content_type", text(&answer.content_type)),
            ("body", body),
            ("location", optional(answer.location.as_deref())),
            ("position", Value::Integer(i64::try_from(answer.position).unwrap_or(i64::MAX))),
            ("recorded_at", Value::Integer(self.clock.now())),
        ]
    }
}

/// A row beside the log, without an event.
fn beside(actor: &Actor, write: SideWrite, idempotency: Option<Idempotency>) -> Append {
    Append {
        id: Uuid::now_v7(),
        lane: Lane::User(actor.lane()),
        streams: vec![],
        assertions: vec![],
        side: vec![write],
        metadata: "{}".to_owned(),
        fence: None,
        idempotency,
    }
}

fn check(fingerprint: &str, key: &OnceKey) -> Result<(), Error> {
    if fingerprint == key.fingerprint { Ok(()) } else { Err(AppendError::KeyReused.into()) }
}

fn answer(row: &Columns) -> Result<Answer, Error> {
    let number = |column| -> Result<u64, Error> { Ok(row.integer(column)?.unsigned_abs()) };
    Ok(Answer {
        status: u16::try_from(number("status")?)
            .map_err(|error| Error::internal("a kept answer is malformed", error))?,
        content_type: row.text("content_type")?.to_owned(),
        body: row.optional_bytes("body")?.map(<[u8]>::to_vec),
        location: row.optional_text("location")?.map(str::to_owned),
        position: number("position")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::dispatch::Unit;
    use crate::once::Once;
    use crate::testing::{Site, Stopped, a_user};

    fn key(name: &str, fingerprint: &str) -> OnceKey {
        OnceKey { key: name.to_owned(), fingerprint: fingerprint.to_owned() }
    }

    fn an_answer(body: &[u8]) -> Answer {
        Answer {
            status: 201,
            content_type: "application/json".to_owned(),
            body: Some(body.to_vec()),
            location: Some("/there".to_owned()),
            position: 7,
        }
    }

    #[tokio::test]
    async fn the_first_answer_stays_the_answer_for_its_caller_and_request() {
        let site = Site::open().await;
        let answers = Answers::new(site.store.clone(), Stopped::at(SECOND));
        let (ann, bob) = (a_user(1), a_user(2));
        let once = key("POST /x k", "f");
        assert_eq!(answers.find(&ann, &once).await.unwrap(), Found::Free(0));
        let first = an_answer(b"first");
        assert_eq!(answers.keep(&ann, &once, &first).await.unwrap(), None);
        let kept = Some(Found::Answer(first.clone()));
        assert_eq!(answers.keep(&ann, &once, &an_answer(b"second")).await.unwrap(), kept);
        assert_eq!(answers.find(&ann, &once).await.unwrap(), Found::Answer(first));
        assert_eq!(answers.find(&bob, &once).await.unwrap(), Found::Free(0));
        let other = answers.find(&ann, &key("POST /x k", "g")).await.unwrap_err();
        assert_eq!(other.code(), "idempotency_key.reused");
    }

    #[tokio::test]
    async fn a_refusal_ends_the_tries_before_it_and_leaves_the_key_free() {
        let site = Site::open().await;
        let answers = Answers::new(site.store.clone(), Stopped::at(SECOND));
        let (ann, once) = (a_user(1), key("POST /x k", "f"));
        // What a try that began after so many refusals stores: a row with this name.
        let tried = async |refusals, name| {
            let once = Some(Arc::new(Once::new(once.after(refusals))));
            let ann = Actor { once, ..a_user(1) };
            let mut unit = Unit::new(&site.store, ann.metadata("test"));
            let row = answers.columns(&ann, &key(name, "f"), &an_answer(b"stored"));
            unit.write(SideWrite::Insert { table: &tables::KEPT_ANSWERS, row });
            unit.commit().await
        };
        // The first try is on its way while its repeats are refused, twice and with another body.
        assert!(answers.refuse(&ann, &once, 0).await.unwrap());
        assert!(answers.refuse(&ann, &once, 0).await.unwrap());
        assert!(answers.refuse(&ann, &key("POST /x k", "g"), 0).await.unwrap());
        assert!(matches!(tried(0, "late").await.unwrap_err(), AppendError::KeyRefused));
        assert_eq!(answers.find(&ann, &key("late", "f")).await.unwrap(), Found::Free(0));
        assert_eq!(answers.find(&ann, &once).await.unwrap(), Found::Free(1));
        // The next one may be carried out, and then no try is refused any more.
        tried(1, "in time").await.unwrap();
        assert_eq!(answers.find(&ann, &once).await.unwrap(), Found::Used);
        assert!(!answers.refuse(&ann, &once, 1).await.unwrap());
        assert!(!answers.refuse(&ann, &key("POST /x k", "g"), 1).await.unwrap());
        assert_eq!(answers.find(&ann, &once).await.unwrap(), Found::Used);
    }

    #[tokio::test]
    async fn what_is_older_than_two_days_is_forgotten_and_nothing_younger() {
        let site = Site::open().await;
        // The database notes the real time of an append, so the clock begins there.
        let now = crate::clock::SystemClock::shared().now();
        let clock = Stopped::at(now);
        let answers = Answers::new(site.store.clone(), clock.clone());
        let ann = a_user(1);
        answers.keep(&ann, &key("a", "f"), &an_answer(b"a")).await.unwrap();
        clock.advance(KEEP - 60 * SECOND);
        answers.keep(&ann, &key("b", "f"), &an_answer(b"b")).await.unwrap();
        assert_eq!(answers.sweep().await.unwrap(), 0);
        clock.advance(120 * SECOND);
        assert_eq!(answers.sweep().await.unwrap(), 1);
        assert_eq!(answers.find(&ann, &key("a", "f")).await.unwrap(), Found::Free(0));
        let Found::Answer(_) = answers.find(&ann, &key("b", "f")).await.unwrap() else {
            panic!("the younger one is gone");
        };
    }
}

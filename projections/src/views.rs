//! The handle to all read models: queries go through it, and so do following, rebuilding, verifying.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proximity_eventstore::Position;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use uuid::Uuid;

use crate::applications::Applications;
use crate::back::{drop_previous, switch_back};
use crate::backend::{
    Backend, Location, Mark, Postgres, Rows, Slot, Sqlite, WHOLE_AT, discard, is_damage, position,
};
use crate::backup_schedules::BackupSchedules;
use crate::backups::Backups;
use crate::build::{Cause, OnProgress, Rebuild, Rebuilt, build};
use crate::cell::{Cell, Kind};
use crate::error::{Error, chain};
use crate::feed::Feed;
use crate::hosts::Hosts;
use crate::leases::Leases;
use crate::operations::Operations;
use crate::projection::{AnyProjection, boxed};
use crate::runner::Runner;
use crate::status::{Progress, Stand, State, Status};
use crate::verify::{Verdict, verify};

/// A page of a list, and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub total: u64,
}

/// All read models; clones share everything.
#[derive(Clone)]
pub struct Views {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub backend: Box<dyn Backend>,
    pub feed: Arc<dyn Feed>,
    pub projections: Vec<Box<dyn AnyProjection>>,
    pub progress: watch::Sender<Progress>,
    statements: AtomicU64,
    /// Until the rows hold this position, they are only a part of what they were; 0 when they are whole.
    whole_at: AtomicU64,
}

/// How far rows may be behind at a start and still count as whole: what a kill leaves unwritten.
const NEAR: Position = 10_000;

/// The projections of the product.
pub fn standard() -> Vec<Box<dyn AnyProjection>> {
    vec![
        boxed::<Applications>(),
        boxed::<BackupSchedules>(),
        boxed::<Backups>(),
        boxed::<Hosts>(),
        boxed::<Leases>(),
        boxed::<Operations>(),
    ]
}

impl Views {
    /// Opens the product's read models and creates what is missing of their tables; a `views.db` that is
    /// damaged is begun anew. Only for the server that has the log: to others the file may be of use.
    pub async fn open(location: &Location, feed: Arc<dyn Feed>) -> Result<Self, Error> {
        Self::open_with(location, feed, standard()).await
    }

    /// The same with other projections.
    pub async fn open_with(
        location: &Location,
        feed: Arc<dyn Feed>,
        projections: Vec<Box<dyn AnyProjection>>,
    ) -> Result<Self, Error> {
        let inner = Inner::around(backend(location, true).await?, feed, projections);
        let inner = match (inner.prepare().await, location) {
            (Err(Error::Sqlite(error)), Location::Sqlite { dir }) if is_damage(&error) => {
                let Inner { backend: damaged, feed, projections, .. } = inner;
                damaged.close().await;
                discard(dir, &error)?;
                let inner = Inner::around(backend(location, true).await?, feed, projections);
                inner.prepare().await?;
                inner
            }
            (prepared, _) => prepared.map(|()| inner)?,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens the product's read models to change them beside a server, or without one: what is damaged
    /// is an error.
    pub async fn open_beside(location: &Location, feed: Arc<dyn Feed>) -> Result<Self, Error> {
        let inner = Inner::around(backend(location, false).await?, feed, standard());
        inner.prepare().await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens the product's read models as they are and changes nothing, whatever is missing of them;
    /// `None` when there are none at all.
    pub async fn open_read_only(
        location: &Location,
        feed: Arc<dyn Feed>,
    ) -> Result<Option<Self>, Error> {
        let backend: Box<dyn Backend> = match location {
            Location::Sqlite { dir } => {
                let dir = dir.clone();
                let opened =
                    tokio::task::spawn_blocking(move || Sqlite::open_read_only(&dir)).await;
                let Some(opened) = opened.map_err(|_| Error::Closed)?? else { return Ok(None) };
                Box::new(opened)
            }
            Location::Postgres { url, connections } => {
                Box::new(Postgres::open_read_only(url, *connections).await?)
            }
        };
        let mut session = backend.snapshot().await?;
        let has_checkpoints = session.has_checkpoints().await?;
        session.rollback().await?;
        if !has_checkpoints {
            backend.close().await;
            return Ok(None);
        }
        Ok(Some(Self { inner: Arc::new(Inner::around(backend, feed, standard())) }))
    }

    /// Starts to follow the log; call it once for a process. Rows of an older version, or of
    /// another life of the log, are built anew beside the live ones.
    pub fn follow(&self) -> Runner {
        Runner::start(&self.inner)
    }

    /// Waits until the rows hold this position; false when they did not within the time, and at
    /// once when they will not: a projection is stopped or being built, or nothing follows the log.
    pub async fn wait_for(&self, position: Position, patience: Duration) -> bool {
        let mut progress = self.inner.progress.subscribe();
        let reached = async {
            loop {
                match progress.borrow_and_update().reached(position) {
                    Some(true) => return true,
                    None => return false,
                    Some(false) => {}
                }
                if progress.changed().await.is_err() {
                    return false;
                }
            }
        };
        // No database call is in here, so nothing is harmed when the time is up.
        tokio::time::timeout(patience, reached).await.unwrap_or(false)
    }

    /// Whether the rows are being built and nothing serves meanwhile: after `views.db` was deleted, after
    /// the log was restored, or far behind after a start. A list would lack most of what there is.
    pub fn is_filling(&self) -> bool {
        let whole_at = self.inner.whole_at.load(Ordering::Relaxed);
        if whole_at == 0 {
            return false;
        }
        let is_whole = self.inner.progress.borrow().is_whole_at(whole_at);
        if is_whole {
            self.inner.whole_at.store(0, Ordering::Relaxed);
        }
        !is_whole
    }

    /// Waits until [`Self::is_filling`] says no; a runner has to follow the log.
    pub async fn filled(&self) {
        let mut progress = self.inner.progress.subscribe();
        while self.is_filling() {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether damage was found in the rows: what is read of them may be wrong.
    pub fn is_damaged(&self) -> bool {
        self.inner.backend.is_damaged()
    }

    /// Whether queries are answered from rows that are whole and at most this far behind the head; rows
    /// of an older version, which serve while newer ones are built, may be further behind.
    pub async fn serves(&self, head: Position, near: Position) -> bool {
        if self.is_filling() || self.is_damaged() || !self.inner.progress.borrow().moves() {
            return false;
        }
        match self.status().await {
            Ok(found) if found.len() == self.inner.projections.len() => {
                let follows = |state| matches!(state, State::Running | State::Stopped);
                let is_near = |position: Position| head.saturating_sub(position) <= near;
                found.iter().all(|one| !follows(one.state) || is_near(one.position))
            }
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the read models cannot be read");
                false
            }
        }
    }

    /// The position up to which the rows of all running projections go, as this process knows.
    pub fn position(&self) -> Position {
        let progress = self.inner.progress.borrow();
        let running = progress.projections.values().filter(|known| known.state == State::Running);
        running.map(|known| known.position).min().unwrap_or_default()
    }

    /// How each projection stands, as the database says; with what this process knows beside it.
    pub async fn status(&self) -> Result<Vec<Status>, Error> {
        let (sql, kinds) = Mark::select();
        let marks = Mark::read(self.select(&sql, Vec::new(), kinds).await?);
        let incarnation = self.inner.feed.incarnation();
        let (sql, cells) = (WHOLE_AT, vec![incarnation.as_str().into()]);
        // What was made by an earlier program has no such table, and nobody who only looks makes it.
        let found = match self.select(sql, cells, &[Kind::Integer]).await {
            Err(changed @ Error::File(_)) => return Err(changed),
            found => found.unwrap_or_default(),
        };
        let whole_at = position(&found);
        let mut now = 0;
        if marks.iter().any(|mark| mark.slot == Slot::Next) {
            let mut session = self.inner.backend.snapshot().await?;
            now = session.now().await?;
            session.rollback().await?;
        }
        // Asked last: what was written meanwhile lies beyond the rows, and none of them beyond the log.
        let head = self.inner.feed.head().await?;
        let progress = self.inner.progress.borrow().clone();
        let stand = Stand { marks, whole_at, now, head, incarnation, progress };
        let projections = self.inner.projections.iter();
        Ok(projections.filter_map(|one| stand.of(one.name(), one.version())).collect())
    }

    /// Builds projections anew beside the live ones and switches when they have caught up; an
    /// empty list means all. Runs to its end even if the caller goes away.
    pub async fn rebuild(
        &self,
        names: &[&str],
        on_progress: OnProgress,
    ) -> Result<Vec<Rebuilt>, Error> {
        self.rebuild_as(names, Rebuild::default(), on_progress).await
    }

    /// The same, done otherwise than usual.
    pub async fn rebuild_as(
        &self,
        names: &[&str],
        options: Rebuild,
        on_progress: OnProgress,
    ) -> Result<Vec<Rebuilt>, Error> {
        let chosen = self.inner.chosen(names)?;
        let inner = Arc::clone(&self.inner);
        let cause = Cause::Asked(options);
        let task = tokio::spawn(async move { build(&inner, &chosen, cause, &on_progress).await });
        task.await.map_err(|_| Error::Closed)?
    }

    /// Puts the previous generation in the place of the live one, which is kept in turn; an empty
    /// list means all. Runs to its end even if the caller goes away.
    pub async fn switch_back(
        &self,
        names: &[&str],
        on_progress: OnProgress,
    ) -> Result<Vec<Rebuilt>, Error> {
        let chosen = self.inner.chosen(names)?;
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let mut switched = Vec::new();
            for index in chosen {
                switched.push(switch_back(&inner, index, &on_progress).await?);
            }
            Ok(switched)
        });
        task.await.map_err(|_| Error::Closed)?
    }

    /// Removes the previous generations, which take as much room as the live ones; an empty list
    /// means all.
    pub async fn drop_previous(&self, names: &[&str]) -> Result<(), Error> {
        for index in self.inner.chosen(names)? {
            drop_previous(&self.inner, index).await?;
        }
        Ok(())
    }

    /// Folds the log anew in memory and compares row by row with the live rows.
    pub async fn verify(&self, name: &str, on_progress: OnProgress) -> Result<Verdict, Error> {
        let chosen = self.inner.chosen(&[name])?;
        let index = chosen.first().copied().unwrap_or_default();
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { verify(&inner, index, &on_progress).await });
        task.await.map_err(|_| Error::Closed)?
    }

    /// How many reading statements were sent so far; a list must be one.
    pub fn statements(&self) -> u64 {
        self.inner.statements.load(Ordering::Relaxed)
    }

    /// Closes the connections; stop the runner first.
    pub async fn close(&self) {
        self.inner.backend.close().await;
    }

    /// One reading statement: every query of this crate goes through here.
    pub(crate) async fn select(
        &self,
        sql: &str,
        cells: Vec<Cell>,
        kinds: &[Kind],
    ) -> Result<Rows, Error> {
        self.inner.statements.fetch_add(1, Ordering::Relaxed);
        self.inner.backend.select(sql, cells, kinds).await
    }

    /// Rows that are read from a statement's one column, their JSON body.
    pub(crate) async fn bodies<T: DeserializeOwned>(
        &self,
        sql: &str,
        cells: Vec<Cell>,
        table: &str,
    ) -> Result<Vec<T>, Error> {
        let rows = self.select(sql, cells, &[Kind::Text]).await?;
        let bodies = rows.into_iter().filter_map(|mut row| row.pop()?.text());
        bodies.map(|body| parse(&body, table)).collect()
    }
}

/// A database that may be written; `mends` a `views.db` that is none.
async fn backend(location: &Location, mends: bool) -> Result<Box<dyn Backend>, Error> {
    Ok(match location {
        Location::Sqlite { dir } => {
            let dir = dir.clone();
            let opened = tokio::task::spawn_blocking(move || Sqlite::open(&dir, mends)).await;
            Box::new(opened.map_err(|_| Error::Closed)??)
        }
        Location::Postgres { url, connections } => {
            Box::new(Postgres::open(url, *connections).await?)
        }
    })
}

impl Inner {
    fn around(
        backend: Box<dyn Backend>,
        feed: Arc<dyn Feed>,
        projections: Vec<Box<dyn AnyProjection>>,
    ) -> Self {
        let progress = watch::Sender::new(Progress::default());
        Self {
            backend,
            feed,
            projections,
            progress,
            statements: AtomicU64::new(0),
            whole_at: AtomicU64::new(0),
        }
    }

    /// Creates the tables that are missing, each with its checkpoint at 0.
    async fn prepare(&self) -> Result<(), Error> {
        let incarnation = self.feed.incarnation();
        let mut session = self.backend.begin().await?;
        session.lock_schema().await?;
        session.ensure_checkpoints().await?;
        let live = session.marks(Slot::Live, false).await?;
        for projection in &self.projections {
            let projection = projection.as_ref();
            if live.iter().any(|mark| mark.name == projection.name()) {
                continue;
            }
            let generation = Uuid::new_v4().simple().to_string();
            // Tables without a checkpoint are what an interrupted hand left behind.
            session.drop_tables(projection, Slot::Live).await?;
            session.create_table(projection, Slot::Live).await?;
            session.create_indexes(projection, Slot::Live, &generation).await?;
            session.plant(projection, Slot::Live, &generation, &incarnation).await?;
        }
        // What the rows lack of the log that is there now, or lacked when they were begun.
        let head = self.feed.head().await?;
        let begun = session.whole_at(&incarnation).await?;
        let is_whole = self.projections.iter().all(|projection| {
            let known = live.iter().find(|mark| mark.name == projection.name());
            known.is_some_and(|mark| {
                let ours = mark.incarnation == incarnation && mark.position <= head;
                let follows = mark.version == projection.version() && mark.problem.is_none();
                let near = mark.position >= begun && head.saturating_sub(mark.position) <= NEAR;
                ours && (!follows || near)
            })
        });
        if !is_whole {
            session.fill_up_to(&incarnation, head).await?;
        }
        session.commit().await?;
        self.whole_at.store(if is_whole { 0 } else { head }, Ordering::Relaxed);
        Ok(())
    }

    fn chosen(&self, names: &[&str]) -> Result<Vec<usize>, Error> {
        if names.is_empty() {
            return Ok((0..self.projections.len()).collect());
        }
        names
            .iter()
            .map(|name| {
                let found = self.projections.iter().position(|one| one.name() == *name);
                found.ok_or_else(|| Error::NoSuchProjection { name: (*name).to_owned() })
            })
            .collect()
    }
}

/// A row's body.
pub(crate) fn parse<T: DeserializeOwned>(body: &str, table: &str) -> Result<T, Error> {
    serde_json::from_str(body)
        .map_err(|error| Error::Row { table: table.to_owned(), reason: error.to_string() })
}

/// A count, which is never negative.
pub(crate) fn count(cell: &Cell) -> u64 {
    cell.integer().and_then(|number| u64::try_from(number).ok()).unwrap_or_default()
}

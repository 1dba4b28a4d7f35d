//! The checkpoints, and the tables that they stand for: made, filled beside the live ones, switched.

use proximity_eventstore::Position;

use super::{Dialect, Session};
use crate::cell::{Cell, Column, Kind, Table};
use crate::error::Error;
use crate::projection::AnyProjection;

/// Whether rows are read by everybody, are still being built, or were read before the last switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Live,
    Next,
    Previous,
    /// While two others change places, within one transaction.
    Aside,
}

impl Slot {
    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Next => "next",
            Self::Previous => "previous",
            Self::Aside => "aside",
        }
    }

    /// The name of a table in this slot.
    pub fn table(self, name: &str) -> String {
        match self {
            Self::Live => name.to_owned(),
            Self::Next => format!("{name}__next"),
            Self::Previous => format!("{name}__previous"),
            Self::Aside => format!("{name}__aside"),
        }
    }
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub name: String,
    pub slot: Slot,
    pub version: i32,
    /// Random; a table that was replaced has another one.
    pub generation: String,
    /// Which life of the log the rows are from.
    pub incarnation: String,
    pub position: Position,
    /// Why it stopped, as the runner that stopped last said.
    pub problem: Option<String>,
    /// Microseconds since 1970.
    pub updated_at: i64,
}

/// Where a checkpoint goes from `mark`.
pub(crate) struct Move<'a> {
    pub mark: &'a Mark,
    pub to: Position,
    /// Why the projection stops there.
    pub problem: Option<&'a str>,
}

const COLUMNS: &str = "name, slot, version, generation, incarnation, position, problem, updated_at";
const KINDS: [Kind; 8] = [
    Kind::Text,
    Kind::Text,
    Kind::Integer,
    Kind::Text,
    Kind::Text,
    Kind::Integer,
    Kind::Text,
    Kind::Integer,
];

impl Mark {
    fn from_row(row: Vec<Cell>) -> Option<Self> {
        let [name, slot, version, generation, incarnation, position, problem, updated_at] =
            <[Cell; 8]>::try_from(row).ok()?;
        Some(Self {
            name: name.text()?,
            slot: match slot.text()?.as_str() {
                "next" => Slot::Next,
                "previous" => Slot::Previous,
                "aside" => Slot::Aside,
                _ => Slot::Live,
            },
            version: i32::try_from(version.integer()?).ok()?,
            generation: generation.text()?,
            incarnation: incarnation.text()?,
            position: Position::try_from(position.integer()?).ok()?,
            problem: problem.text(),
            updated_at: updated_at.integer()?,
        })
    }

    /// The reading statement.
    pub fn select() -> (String, &'static [Kind]) {
        (format!("select {COLUMNS} from checkpoints order by name, slot"), &KINDS)
    }

    /// What the statement gave.
    pub fn read(rows: super::Rows) -> Vec<Self> {
        rows.into_iter().filter_map(Self::from_row).collect()
    }
}

/// Up to where the rows of this life of the log have to go to be whole.
pub(crate) const WHOLE_AT: &str = "select whole_at from filling where incarnation = $1";

/// The position that a statement gave; 0 when it gave none.
pub(crate) fn position(rows: &super::Rows) -> Position {
    let found = rows.first().and_then(|row| row.first()).and_then(Cell::integer);
    found.and_then(|position| Position::try_from(position).ok()).unwrap_or_default()
}

fn number(position: Position) -> Cell {
    Cell::Integer(i64::try_from(position).unwrap_or(i64::MAX))
}

impl dyn Session + '_ {
    /// Creates the table of checkpoints.
    pub async fn ensure_checkpoints(&mut self) -> Result<(), Error> {
        let text = self.dialect().column_type(Kind::Text);
        let integer = self.dialect().column_type(Kind::Integer);
        let sql = format!(
            "create table if not exists checkpoints (\
               name {text} not null, slot {text} not null, version {integer} not null, \
               generation {text} not null, incarnation {text} not null, \
               position {integer} not null, problem {text}, updated_at {integer} not null, \
               primary key (name, slot))"
        );
        self.execute(&sql, Vec::new()).await?;
        // Up to where rows that were begun anew have to go before they are all that there is.
        let sql = format!(
            "create table if not exists filling (\
               incarnation {text} not null, whole_at {integer} not null, primary key (incarnation))"
        );
        self.execute(&sql, Vec::new()).await.map(drop)
    }

    /// Up to where the rows of this life of the log have to go to be whole; 0 when they were always.
    pub async fn whole_at(&mut self, incarnation: &str) -> Result<Position, Error> {
        let rows = self.select(WHOLE_AT, vec![incarnation.into()], &[Kind::Integer]).await?;
        Ok(position(&rows))
    }

    /// Keeps that for every process, and for the next start.
    pub async fn fill_up_to(&mut self, incarnation: &str, to: Position) -> Result<(), Error> {
        self.execute("delete from filling", Vec::new()).await?;
        let sql = "insert into filling (incarnation, whole_at) values ($1, $2)";
        self.execute(sql, vec![incarnation.into(), number(to)]).await.map(drop)
    }

    /// Whether the table of checkpoints is there.
    pub async fn has_checkpoints(&mut self) -> Result<bool, Error> {
        let sql = self.dialect().table_count();
        let found = self.select(sql, vec!["checkpoints".into()], &[Kind::Integer]).await?;
        Ok(found == [[Cell::Integer(1)]])
    }

    /// The checkpoints of a slot, by name; locked until the transaction ends when `lock` is set.
    pub async fn marks(&mut self, slot: Slot, lock: bool) -> Result<Vec<Mark>, Error> {
        let lock = if lock { self.dialect().for_update() } else { "" };
        let sql = format!("select {COLUMNS} from checkpoints where slot = $1 order by name{lock}");
        Ok(Mark::read(self.select(&sql, vec![slot.as_str().into()], &KINDS).await?))
    }

    /// One checkpoint, locked until the transaction ends.
    pub async fn mark(&mut self, name: &str, slot: Slot) -> Result<Option<Mark>, Error> {
        let lock = self.dialect().for_update();
        let sql = format!("select {COLUMNS} from checkpoints where name = $1 and slot = $2{lock}");
        let rows = self.select(&sql, vec![name.into(), slot.as_str().into()], &KINDS).await?;
        Ok(Mark::read(rows).pop())
    }

    /// A new checkpoint at 0, in the place of one that is there.
    pub async fn plant(
        &mut self,
        projection: &dyn AnyProjection,
        slot: Slot,
        generation: &str,
        incarnation: &str,
    ) -> Result<(), Error> {
        self.uproot(projection.name(), slot).await?;
        let now = self.now().await?;
        let cells = vec![
            projection.name().into(),
            slot.as_str().into(),
            i64::from(projection.version()).into(),
            generation.into(),
            incarnation.into(),
            now.into(),
        ];
        let sql =
            format!("insert into checkpoints ({COLUMNS}) values ($1, $2, $3, $4, $5, 0, null, $6)");
        self.execute(&sql, cells).await.map(drop)
    }

    /// Removes a checkpoint.
    pub async fn uproot(&mut self, name: &str, slot: Slot) -> Result<(), Error> {
        let sql = "delete from checkpoints where name = $1 and slot = $2";
        self.execute(sql, vec![name.into(), slot.as_str().into()]).await.map(drop)
    }

    /// Moves checkpoints on, those that are where the caller left them. Fewer than were given means
    /// that somebody else moved one, and that the caller's rows must not be kept.
    pub async fn advance(&mut self, moves: &[Move<'_>]) -> Result<bool, Error> {
        if moves.is_empty() {
            return Ok(true);
        }
        let now = self.now().await?;
        let mut cells = vec![now.into()];
        let mut rows = Vec::with_capacity(moves.len());
        for Move { mark, to, problem } in moves {
            let first = cells.len() + 1;
            let places: Vec<String> = (first..first + 6).map(|place| format!("${place}")).collect();
            rows.push(format!("({})", places.join(", ")));
            cells.extend([
                mark.name.as_str().into(),
                mark.slot.as_str().into(),
                mark.generation.as_str().into(),
                number(mark.position),
                number(*to),
                problem.unwrap_or_default().into(),
            ]);
        }
        let sql = format!(
            "with moved (name, slot, generation, was, reached, problem) as (values {}) \
             update checkpoints set position = moved.reached, \
             problem = nullif(moved.problem, ''), updated_at = $1 from moved \
             where checkpoints.name = moved.name and checkpoints.slot = moved.slot \
             and checkpoints.generation = moved.generation and checkpoints.position = moved.was",
            rows.join(", ")
        );
        Ok(self.execute(&sql, cells).await? == moves.len() as u64)
    }

    /// Creates a projection's empty table, without indexes but its key.
    pub async fn create_table(
        &mut self,
        projection: &dyn AnyProjection,
        slot: Slot,
    ) -> Result<(), Error> {
        let table = projection.table();
        let sql = create(self.dialect(), &table, &slot.table(table.name));
        self.execute(&sql, Vec::new()).await.map(drop)
    }

    /// Creates the indexes; filling a table before it has them is quicker.
    pub async fn create_indexes(
        &mut self,
        projection: &dyn AnyProjection,
        slot: Slot,
        generation: &str,
    ) -> Result<(), Error> {
        // An index keeps its name when its table is renamed, so the name holds the generation.
        let generation = generation.get(..8).unwrap_or(generation);
        let table = projection.table();
        let physical = slot.table(table.name);
        for (number, columns) in table.indexes.iter().enumerate() {
            let name = format!("{}_{number}_{generation}", table.name);
            let sql = format!("create index {name} on {physical} ({columns})");
            self.execute(&sql, Vec::new()).await?;
        }
        Ok(())
    }

    /// Drops a projection's table, and those that its earlier versions had beside it.
    pub async fn drop_tables(
        &mut self,
        projection: &dyn AnyProjection,
        slot: Slot,
    ) -> Result<(), Error> {
        for name in names(projection) {
            let sql = format!("drop table if exists {}", slot.table(name));
            self.execute(&sql, Vec::new()).await?;
        }
        Ok(())
    }

    /// Puts what was built in the place of what is live, which is kept as the previous generation.
    pub async fn switch(&mut self, projection: &dyn AnyProjection) -> Result<(), Error> {
        self.drop_generation(projection, Slot::Previous).await?;
        self.relabel(projection, Slot::Live, Slot::Previous).await?;
        self.relabel(projection, Slot::Next, Slot::Live).await
    }

    /// Lets the live generation and the previous one change places.
    pub async fn switch_back(&mut self, projection: &dyn AnyProjection) -> Result<(), Error> {
        self.relabel(projection, Slot::Live, Slot::Aside).await?;
        self.relabel(projection, Slot::Previous, Slot::Live).await?;
        self.relabel(projection, Slot::Aside, Slot::Previous).await
    }

    /// Removes the tables and the checkpoint of a slot.
    pub async fn drop_generation(
        &mut self,
        projection: &dyn AnyProjection,
        slot: Slot,
    ) -> Result<(), Error> {
        self.drop_tables(projection, slot).await?;
        self.uproot(projection.name(), slot).await
    }

    async fn relabel(
        &mut self,
        projection: &dyn AnyProjection,
        from: Slot,
        to: Slot,
    ) -> Result<(), Error> {
        for name in names(projection) {
            let (old, new) = (from.table(name), to.table(name));
            // Only rows of an earlier version have the ones that were retired.
            let sql = self.dialect().table_count();
            let found = self.select(sql, vec![old.as_str().into()], &[Kind::Integer]).await?;
            if found == [[Cell::Integer(1)]] {
                self.execute(&format!("alter table {old} rename to {new}"), Vec::new()).await?;
            }
        }
        let sql = "update checkpoints set slot = $1 where name = $2 and slot = $3";
        let cells = vec![to.as_str().into(), projection.name().into(), from.as_str().into()];
        self.execute(sql, cells).await.map(drop)
    }

    /// Says that a build is alive; false when it is not this one's any more.
    pub async fn touch(&mut self, mark: &Mark) -> Result<bool, Error> {
        let now = self.now().await?;
        let sql = "update checkpoints set updated_at = $1 \
                   where name = $2 and slot = $3 and generation = $4";
        let cells = vec![
            now.into(),
            mark.name.as_str().into(),
            mark.slot.as_str().into(),
            mark.generation.as_str().into(),
        ];
        Ok(self.execute(sql, cells).await? == 1)
    }

    /// Makes rows that somebody brought forward one's own: under another generation, so that a build
    /// that was not dead after all writes nothing any more.
    pub async fn take_over(&mut self, dead: &Mark, generation: &str) -> Result<(), Error> {
        let now = self.now().await?;
        let sql = "update checkpoints set generation = $1, updated_at = $2 \
                   where name = $3 and slot = $4 and generation = $5";
        let cells = vec![
            generation.into(),
            now.into(),
            dead.name.as_str().into(),
            dead.slot.as_str().into(),
            dead.generation.as_str().into(),
        ];
        self.execute(sql, cells).await.map(drop)
    }
}

/// All tables that a generation of the projection can have.
fn names(projection: &dyn AnyProjection) -> impl Iterator<Item = &'static str> {
    std::iter::once(projection.table().name).chain(projection.retired().iter().copied())
}

fn create(dialect: Dialect, table: &Table, physical: &str) -> String {
    let column = |column: Column| format!("{} {}", column.name, dialect.column_type(column.kind));
    let key = format!("{} primary key not null", column(table.key));
    let others = table.columns.iter().map(|other| column(*other));
    let columns: Vec<String> = std::iter::once(key).chain(others).collect();
    format!("create table {physical} ({})", columns.join(", "))
}

//! What a time is in the log: bounds of positions, since a clock can jump ahead and be set back.

use super::{Search, Sql, Statement};
use crate::append::Position;
use crate::error::Error;
use crate::side::Value;
use crate::side_sql::Dialect;
use crate::store::Store;

impl Search {
    /// The first and the last position in the wanted time. Between them stand events of other times, too,
    /// so each event's own time still counts.
    pub(super) fn bounds(&self, dialect: Dialect) -> Option<Statement> {
        if self.from.is_none() && self.to.is_none() {
            return None;
        }
        let mut sql = Sql::new(dialect);
        // Not a bare column: else one end is looked for by walking the positions.
        sql.push("select min(position + 0), max(position + 0)").events_by("events_recorded_at");
        sql.push("where recorded_at >= ").bind(Value::Integer(self.from.unwrap_or(0)));
        sql.push(" and recorded_at < ").bind(Value::Integer(self.to.unwrap_or(i64::MAX)));
        Some(sql.done())
    }
}

/// The first and the last position of events whose time is in these bounds.
async fn between(
    store: &Store,
    from: Option<i64>,
    to: Option<i64>,
) -> Result<Option<(Position, Position)>, Error> {
    let times = Search { from, to, ..Search::default() };
    let Some(statement) = times.bounds(store.dialect()) else { return Ok(None) };
    let bounds = store.numbers(statement).await?;
    let [Some(first), Some(last)] = bounds[..] else { return Ok(None) };
    Ok(Some((first.unsigned_abs(), last.unsigned_abs())))
}

/// Where a search that looked through everything up to here goes on with a later `to`: no further than
/// to the first event that is not before the present one.
pub(super) async fn onward(
    store: &Store,
    wanted: &Search,
    reached: Position,
) -> Result<Position, Error> {
    if wanted.to.is_none() {
        return Ok(reached);
    }
    let beyond = between(store, wanted.to, None).await?;
    Ok(beyond.map_or(reached, |(first, _)| reached.min(first.saturating_sub(1))))
}

/// Where the log stood at a moment (µs since 1970): at the last event whose time is not later.
///
/// Where no clock was ever set back, that is the event of the latest such time, which is found at once. One
/// behind it with an earlier time is looked for among the events of earlier times, or among those behind it,
/// whichever are fewer by far.
pub(crate) async fn place(store: &Store, moment: i64) -> Result<Position, Error> {
    let Some(latest) = one(store, latest_of(store.dialect(), moment)).await? else { return Ok(0) };
    let behind = store.head().await?.saturating_sub(latest);
    // To read an event by its position takes some times as long as by the index of times alone.
    if behind.saturating_mul(4) < latest {
        let further = one(store, behind_it(store.dialect(), latest, moment)).await?;
        return Ok(further.unwrap_or(latest));
    }
    let until = between(store, None, Some(moment.saturating_add(1))).await?;
    Ok(until.map_or(latest, |(_, last)| last.max(latest)))
}

async fn one(store: &Store, statement: Statement) -> Result<Option<Position>, Error> {
    let found = store.numbers(statement).await?;
    Ok(found.first().copied().flatten().map(i64::unsigned_abs))
}

/// The event of the latest time that is not later than this.
fn latest_of(dialect: Dialect, moment: i64) -> Statement {
    let mut sql = Sql::new(dialect);
    sql.push("select (select position").events_by("events_recorded_at");
    sql.push("where recorded_at <= ").bind(Value::Integer(moment));
    sql.push(" order by recorded_at desc, position desc limit 1)");
    sql.done()
}

/// The last event behind this one whose time is not later either.
fn behind_it(dialect: Dialect, latest: Position, moment: i64) -> Statement {
    let mut sql = Sql::new(dialect);
    sql.push("select max(position) from events where position > ").integer(latest);
    // Not a bare column: else all events of earlier times are looked through.
    sql.push(" and recorded_at + 0 <= ").bind(Value::Integer(moment));
    sql.done()
}

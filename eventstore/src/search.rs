//! Looking through the log: which events fit, found by the indexes on it and by nothing else.
//!
//! The metadata of an event is a flat object of texts; those that are looked for have an index. A
//! search is a few short reads of one index each, joined in order of position, so that its cost
//! follows from what is found and not from the length of the log.

mod narrow;
mod times;

pub(crate) use times::place;

use std::fmt::Write as _;

use crate::append::{Position, Recorded};
use crate::error::Error;
use crate::side::Value;
use crate::side_sql::Dialect;
use crate::store::Store;

/// Which events are looked for; all that is named has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Only events after this position.
    pub after: Position,
    /// Only events up to this position.
    pub until: Option<Position>,
    /// `actor` in the metadata.
    pub actor: Option<String>,
    /// `owner` in the metadata.
    pub owner: Option<String>,
    /// What this owner may see: events with it as `owner`. With `around`, those of that stream are
    /// seen anyhow.
    pub seen_by: Option<String>,
    /// `request` in the metadata.
    pub request: Option<String>,
    /// `correlation` in the metadata, any of these.
    pub correlations: Option<Vec<String>>,
    /// How the event's name begins.
    pub type_prefix: Option<String>,
    /// The event's name.
    pub event_type: Option<String>,
    /// Only this stream: type and id.
    pub stream: Option<(String, String)>,
    /// This stream, and everything that shares a correlation with one of its events.
    pub around: Option<(String, String)>,
    /// With `around`, a kind of streams that go on when that one has ended: those that share a
    /// correlation with one of its events count as it does.
    pub outliving: Option<String>,
    /// µs since 1970: not before this.
    pub from: Option<i64>,
    /// µs since 1970: before this.
    pub to: Option<i64>,
    /// Whether `after` and `until` hold the bounds of the time already; see `Store::pinned`.
    pub pinned: bool,
}

/// A page of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In order of position.
    pub events: Vec<Recorded>,
    /// Up to where the log was looked through.
    pub reached: Position,
    /// For `after` of the next page. Once the search is complete, for `after` of one that goes on with a
    /// later `until` or `to`, which misses nothing then: with `to`, no event that is not before it stands at
    /// this position or earlier. Where a clock was set back, some that are before it stand behind one that
    /// is not: these are found now, and once more by whoever goes on.
    pub next: Position,
    /// Whether there is nothing more within the bounds, or up to the log's head as it was.
    pub complete: bool,
}

/// A statement and what is bound to it, in order.
pub(crate) type Statement = (String, Vec<Value>);

/// Events counted at most to learn which condition is the rarer one.
const COUNTED: usize = 5_000;

/// One condition that an index answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// The index that holds the events that fit, in order of position.
    index: &'static str,
    /// The indexed expression.
    left: String,
    value: String,
}

impl Condition {
    fn of(index: &'static str, left: impl Into<String>, value: &str) -> Self {
        Self { index, left: left.into(), value: value.to_owned() }
    }
}

/// Names compare byte by byte on both, so that those that begin alike stand together.
fn name_of_type(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "event_type",
        Dialect::Postgres => "event_type collate \"C\"",
    }
}

fn by_type(dialect: Dialect, name: &str) -> Condition {
    Condition::of("events_type", name_of_type(dialect), name)
}

/// Texts with numbered parameters.
struct Sql {
    dialect: Dialect,
    text: String,
    bound: Vec<Value>,
}

impl Sql {
    fn new(dialect: Dialect) -> Self {
        Self { dialect, text: String::with_capacity(600), bound: Vec::new() }
    }

    fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    fn bind(&mut self, value: Value) -> &mut Self {
        self.bound.push(value);
        let mark = if self.dialect == Dialect::Sqlite { '?' } else { '$' };
        // Writing to a String cannot fail.
        if write!(self.text, "{mark}{}", self.bound.len()).is_err() {
            unreachable!("a String accepts every write");
        }
        self
    }

    fn integer(&mut self, number: u64) -> &mut Self {
        self.bind(Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bind(Value::Text(text.to_owned()))
    }

    /// `from events`, by this index where the dialect lets us say so.
    fn events_by(&mut self, index: &str) -> &mut Self {
        self.push(" from events ");
        if self.dialect == Dialect::Sqlite && !index.is_empty() {
            self.push("indexed by ").push(index).push(" ");
        }
        self
    }

    fn done(self) -> Statement {
        (self.text, self.bound)
    }
}

impl Search {
    /// Names an event's type, or what comes before the dot of several: `lease.acquired`, `lease`.
    pub fn of_type(&mut self, name: &str) {
        match name.trim_end_matches('.').split_once('.') {
            Some(_) => self.event_type = Some(name.to_owned()),
            None => self.type_prefix = Some(format!("{}.", name.trim_end_matches('.'))),
        }
    }

    /// The conditions that are single values of an index.
    pub(crate) fn conditions(&self, dialect: Dialect) -> Vec<Condition> {
        let mut all = Vec::new();
        if let Some(request) = &self.request {
            all.push(Condition::of("events_request", "metadata ->> 'request'", request));
        }
        if let Some(event_type) = &self.event_type {
            all.push(by_type(dialect, event_type));
        }
        if let Some(actor) = &self.actor {
            all.push(Condition::of("events_actor", "metadata ->> 'actor'", actor));
        }
        let seen_by = self.seen_by.as_ref().filter(|_| self.around.is_none());
        for owner in
            self.owner.iter().chain(seen_by.filter(|one| self.owner.as_ref() != Some(*one)))
        {
            all.push(Condition::of("events_owner", "metadata ->> 'owner'", owner));
        }
        all
    }

    /// Whether anything but conditions chooses the events that are read.
    pub(crate) fn is_narrow(&self) -> bool {
        self.around.is_some() || self.stream.is_some() || self.correlations.is_some()
    }

    /// How many events fit one condition, up to a bound.
    pub(crate) fn count(&self, dialect: Dialect, condition: &Condition) -> Statement {
        let mut sql = Sql::new(dialect);
        sql.push("select count(*) from (select 1").events_by(condition.index);
        sql.push("where ").push(&condition.left).push(" = ").text(&condition.value);
        sql.push(" and position > ").integer(self.after);
        sql.push(" limit ").integer(COUNTED as u64).push(") as counted");
        sql.done()
    }

    /// The names of events that begin as wanted: one look at the index for each.
    pub(crate) fn types(dialect: Dialect, prefix: &str) -> Statement {
        let mut sql = Sql::new(dialect);
        let (name, end) = (name_of_type(dialect), format!("{prefix}\u{10FFFF}"));
        // A plain `distinct` would read every event; this hops from one name to the next.
        sql.push("with recursive names(name) as (select min(").push(name);
        sql.push(") from events where ").push(name).push(" >= ").text(prefix);
        sql.push(" and ").push(name).push(" < ").text(&end);
        sql.push(" union all select (select min(").push(name).push(") from events where ");
        sql.push(name).push(" > names.name and ").push(name).push(" < ").text(&end);
        sql.push(") from names where names.name is not null) ");
        sql.push("select name from names where name is not null");
        sql.done()
    }

    /// The page's statement. `driver` is read in order; with `types` it is read once for each.
    pub(crate) fn page(
        &self,
        dialect: Dialect,
        driver: Option<&Condition>,
        types: Option<&[String]>,
        limit: usize,
    ) -> Statement {
        let mut sql = Sql::new(dialect);
        if self.is_narrow() && dialect == Dialect::Postgres {
            self.nested(&mut sql, types, limit);
            return sql.done();
        }
        sql.push("select ").push(columns(dialect)).push(" from events where position in (");
        if self.is_narrow() {
            self.narrow(&mut sql);
            sql.push(") and ");
            self.filters(&mut sql, None);
            one_of(&mut sql, types);
        } else {
            let each: Vec<Option<Condition>> = match (driver, types) {
                (None, Some(types)) => {
                    types.iter().map(|name| Some(by_type(dialect, name))).collect()
                }
                (driver, _) => vec![driver.cloned()],
            };
            for (number, by) in each.iter().enumerate() {
                sql.push(if number == 0 { "" } else { " union all " });
                sql.push("select position from (select position");
                sql.events_by(by.as_ref().map_or("", |by| by.index)).push("where ");
                self.filters(&mut sql, by.as_ref());
                one_of(&mut sql, types.filter(|_| driver.is_some()));
                sql.push(" order by position limit ").integer(limit as u64).push(") as found");
            }
            sql.push(")");
        }
        sql.push(" order by position limit ").integer(limit as u64);
        sql.done()
    }

    /// Everything that each event has to fit; the driver's own condition comes first.
    fn filters(&self, sql: &mut Sql, driver: Option<&Condition>) {
        sql.push("position > ").integer(self.after);
        if let Some(until) = self.until {
            sql.push(" and position <= ").integer(until);
        }
        if let Some(from) = self.from {
            sql.push(" and recorded_at >= ").bind(Value::Integer(from));
        }
        if let Some(to) = self.to {
            sql.push(" and recorded_at < ").bind(Value::Integer(to));
        }
        let conditions = self.conditions(sql.dialect);
        for condition in conditions.iter().chain(driver.filter(|one| !conditions.contains(one))) {
            sql.push(" and ").push(&condition.left).push(" = ").text(&condition.value);
        }
    }
}

/// Finds out which index to read, reads it, and says whether that was all.
pub(crate) async fn run(store: &Store, wanted: &Search, limit: usize) -> Result<Found, Error> {
    let dialect = store.dialect();
    // Read first: what is stored from now on is for the next page.
    let head = store.head().await?;
    let pinned = pin(store, wanted, head).await?;
    // What was looked through: no further than to the bounds.
    let end = match &pinned {
        Some(search) => search.until.unwrap_or(head),
        // Nothing is within the time as yet; what comes may be within another one.
        None if wanted.to.is_some() => wanted.after,
        None => wanted.until.unwrap_or(head).min(head),
    };
    let reached = end.max(wanted.after);
    let Some(search) = pinned else {
        return Ok(Found { events: Vec::new(), reached, next: reached, complete: true });
    };
    let types = match &search.type_prefix {
        Some(prefix) => Some(store.texts(Search::types(dialect, prefix)).await?),
        None => None,
    };
    let is_none = search.correlations.as_ref().is_some_and(Vec::is_empty)
        || types.as_ref().is_some_and(Vec::is_empty);
    let mut events = if is_none {
        Vec::new()
    } else {
        let driver = choose(store, &search, types.is_some()).await?;
        // One more than asked for tells whether there is more.
        let statement = search.page(dialect, driver.as_ref(), types.as_deref(), limit + 1);
        store.found(statement).await?
    };
    let complete = events.len() <= limit;
    events.truncate(limit);
    Ok(match events.last().map(|last| last.position) {
        Some(last) if !complete => Found { events, reached: last, next: last, complete },
        // The last of several pages holds something, so events before `after` may have been passed over
        // as too late for this time. An only page begins where it was asked to.
        Some(_) => {
            Found { next: times::onward(store, wanted, reached).await?, events, reached, complete }
        }
        None => {
            let next = times::onward(store, wanted, reached).await?.max(wanted.after);
            Found { events, reached, next, complete }
        }
    })
}

/// The same search within bounds that stay as they are; `None` when nothing was stored in its time.
pub(crate) async fn pin(
    store: &Store,
    wanted: &Search,
    head: Position,
) -> Result<Option<Search>, Error> {
    let mut search = wanted.clone();
    search.until = Some(search.until.unwrap_or(head).min(head));
    if search.pinned {
        return Ok(Some(search));
    }
    search.pinned = true;
    if let Some(statement) = search.bounds(store.dialect()) {
        let bounds = store.numbers(statement).await?;
        let [Some(first), Some(last)] = bounds[..] else { return Ok(None) };
        search.after = search.after.max(first.unsigned_abs().saturating_sub(1));
        search.until = search.until.map(|until| until.min(last.unsigned_abs()));
    }
    Ok(Some(search))
}

/// The condition that the fewest events fit; `None` when the types, or nothing, should be read.
async fn choose(
    store: &Store,
    search: &Search,
    has_types: bool,
) -> Result<Option<Condition>, Error> {
    let mut conditions = search.conditions(store.dialect());
    if search.is_narrow() {
        return Ok(None);
    }
    // PostgreSQL knows how common each value is; SQLite is told which index to read.
    if store.dialect() == Dialect::Postgres || conditions.len() + usize::from(has_types) < 2 {
        return Ok(conditions.into_iter().next());
    }
    let mut rarest = (COUNTED, None);
    for condition in conditions.drain(..) {
        let counted = store.numbers(search.count(store.dialect(), &condition)).await?;
        let fits = counted.first().copied().flatten().unwrap_or(0);
        let fits = usize::try_from(fits).unwrap_or(COUNTED);
        // Of two that are both common the first stands: conditions come in order of selectivity.
        if fits < rarest.0 || (rarest.1.is_none() && !has_types) {
            rarest = (fits, Some(condition));
        }
    }
    Ok(rarest.1)
}

/// Of an event, as it is read.
fn columns(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => {
            "position, aggregate_type, aggregate_id, sequence, event_type, event_version, \
             payload, metadata, recorded_at"
        }
        Dialect::Postgres => {
            "position, aggregate_type, aggregate_id, sequence, event_type, event_version, \
             payload::text, metadata::text, recorded_at"
        }
    }
}

fn one_of(sql: &mut Sql, types: Option<&[String]>) {
    let Some(types) = types else { return };
    sql.push(" and event_type in (");
    for (number, name) in types.iter().enumerate() {
        sql.push(if number == 0 { "" } else { ", " }).text(name);
    }
    sql.push(")");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_in_the_order_in_which_they_are_bound() {
        let search = Search {
            after: 7,
            actor: Some("user/1".to_owned()),
            type_prefix: Some("lease".to_owned()),
            ..Search::default()
        };
        let types = ["lease.acquired".to_owned(), "lease.released".to_owned()];
        let (sql, bound) = search.page(Dialect::Postgres, None, Some(&types), 10);
        assert_eq!(sql.matches("union all").count(), 1, "{sql}");
        assert!(sql.ends_with(&format!("limit ${}", bound.len())), "{sql}");
        let (sql, bound) = search.page(Dialect::Sqlite, None, Some(&types), 10);
        assert!(
            sql.contains("indexed by events_type") && sql.contains(&format!("?{}", bound.len()))
        );
    }
}

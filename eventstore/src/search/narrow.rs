//! The statements of a search that names streams or correlations: few events, wherever they are in the log.
//!
//! PostgreSQL is given them as loops that it cannot turn round. Its own plan follows from what it believes
//! to know of the values, and that is nothing right after a restore, and old while a log grows fast: it
//! then reads the whole log for one application.

use super::{Search, Sql, columns, one_of};
use crate::side_sql::Dialect;

/// What the events of a stream belong to; they are what is called `own`.
const OF_OWN: &str = "select correlation from own";
/// Each event of a correlation, by the index on that. `offset 0` keeps it a loop of its own.
const EACH_OF_CORRELATION: &str = "cross join lateral (select position, aggregate_type, aggregate_id, \
    metadata ->> 'owner' as owner from events where metadata ->> 'correlation' = c.correlation \
    offset 0) as e";

impl Search {
    /// For SQLite, whose indexes are named: the positions of few events, whatever else is wanted of them.
    pub(super) fn narrow(&self, sql: &mut Sql) {
        if let Some((kind, id)) = &self.stream {
            sql.push("select position from events where aggregate_type = ").text(kind);
            sql.push(" and aggregate_id = ").text(id);
            return;
        }
        if let Some(correlations) = &self.correlations {
            sql.push("select position").events_by("events_correlation");
            sql.push("where metadata ->> 'correlation' in (");
            listed(sql, correlations, "", "");
            sql.push(")");
            return;
        }
        let Some((kind, id)) = &self.around else { return };
        sql.push("select position from events where aggregate_type = ").text(kind);
        sql.push(" and aggregate_id = ").text(id);
        sql.push(" union select position").events_by("events_correlation");
        sql.push("where metadata ->> 'correlation' in (");
        correlations(sql, kind, id);
        if let Some(other) = &self.outliving {
            sql.push(
                " union select metadata ->> 'correlation' from events where aggregate_type = ",
            );
            sql.text(other).push(" and aggregate_id in (select aggregate_id");
            sql.events_by("events_correlation").push("where metadata ->> 'correlation' in (");
            correlations(sql, kind, id);
            sql.push(") and aggregate_type = ").text(other).push(")");
        }
        sql.push(")");
        if let Some(owner) = &self.seen_by {
            sql.push(" and metadata ->> 'owner' = ").text(owner);
        }
    }

    /// For PostgreSQL: the whole statement. The positions first, then each event by its position, in order
    /// and no more of them than are asked for.
    pub(super) fn nested(&self, sql: &mut Sql, types: Option<&[String]>, limit: usize) {
        self.wanted(sql);
        sql.push("select e.* from (select position from wanted where position > ");
        sql.integer(self.after).push(" order by position) as w cross join lateral (select ");
        sql.push(columns(Dialect::Postgres)).push(" from events where position = w.position and ");
        self.filters(sql, None);
        one_of(sql, types);
        sql.push(" offset 0) as e order by w.position limit ").integer(limit as u64);
    }

    /// The positions as `wanted`.
    fn wanted(&self, sql: &mut Sql) {
        if let Some((kind, id)) = &self.stream {
            sql.push("with wanted as materialized (select position from events where ");
            of_stream(sql, kind, id);
            sql.push(") ");
            return;
        }
        if let Some(correlations) = &self.correlations {
            sql.push("with c(correlation) as (values ");
            listed(sql, correlations, "(", ")");
            sql.push("), wanted as materialized (select distinct position from c ");
            sql.push(EACH_OF_CORRELATION).push(") ");
            return;
        }
        let Some((kind, id)) = &self.around else { return };
        sql.push("with own as materialized (select position, metadata ->> 'correlation' as ");
        sql.push("correlation from events where ");
        of_stream(sql, kind, id);
        sql.push("), c as materialized (").push(OF_OWN);
        if let Some(other) = &self.outliving {
            sql.push(" union select e.correlation from (select distinct aggregate_id from (");
            sql.push(OF_OWN).push(" group by correlation) as c ").push(EACH_OF_CORRELATION);
            sql.push(" where e.aggregate_type = ").text(other).push(") as o cross join lateral (");
            sql.push("select metadata ->> 'correlation' as correlation from events where ");
            sql.push("aggregate_type = ").text(other);
            sql.push(" and aggregate_id = o.aggregate_id offset 0) as e");
        } else {
            sql.push(" group by correlation");
        }
        sql.push(
            "), wanted as materialized (select position from own union select e.position from c ",
        );
        sql.push(EACH_OF_CORRELATION);
        if let Some(owner) = &self.seen_by {
            sql.push(" where e.owner = ").text(owner);
        }
        sql.push(") ");
    }
}

fn of_stream(sql: &mut Sql, kind: &str, id: &str) {
    sql.push("aggregate_type = ").text(kind).push(" and aggregate_id = ").text(id);
}

fn correlations(sql: &mut Sql, kind: &str, id: &str) {
    sql.push("select metadata ->> 'correlation' from events where ");
    of_stream(sql, kind, id);
}

fn listed(sql: &mut Sql, values: &[String], open: &str, close: &str) {
    for (number, one) in values.iter().enumerate() {
        sql.push(if number == 0 { "" } else { ", " }).push(open).text(one).push(close);
    }
}

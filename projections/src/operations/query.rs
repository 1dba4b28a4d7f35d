//! What is asked about operations and their log lines.

use super::fold::{Row, lines};
use super::{LogLine, Operation, Operations};
use crate::cell::{Cell, Kind};
use crate::error::Error;
use crate::projection::{Cannot, Projection as _};
use crate::views::{Page, Views, count, parse};

/// Which operations a list holds.
#[derive(Debug, Clone, Default)]
pub struct OperationFilter {
    /// Only this user's; `None` shows all, for admins.
    pub owner: Option<i64>,
    pub state: Option<String>,
    /// Only those of this application, and the one that has reserved it, whose ever that is.
    pub app: Option<String>,
}

const LOG_KINDS: [Kind; 3] = [Kind::Text, Kind::Integer, Kind::Integer];

impl Views {
    /// A page of operations, newest first; `page` counts from 1.
    pub async fn operations(
        &self,
        filter: &OperationFilter,
        page: u32,
        per_page: u32,
    ) -> Result<Page<Operation>, Error> {
        let mut cells = Vec::new();
        let mut wanted = String::from("true");
        let mut bind = |cell: Cell| {
            cells.push(cell);
            format!("${}", cells.len())
        };
        // An application is reserved by an operation that is another one's while it is copied.
        let reserves =
            |app: &str| format!("id = (select a.operation from applications a where a.id = {app}");
        let app = filter.app.as_deref().map(|app| bind(app.into()));
        if let Some(app) = &app {
            wanted.push_str(&format!(" and (app = {app} or {}))", reserves(app)));
        }
        if let Some(owner) = filter.owner {
            let owner = bind(owner.into());
            wanted.push_str(&match &app {
                Some(app) => {
                    format!(" and (owner = {owner} or {} and a.owner = {owner}))", reserves(app))
                }
                None => format!(" and owner = {owner}"),
            });
        }
        if let Some(state) = &filter.state {
            let state = bind(state.as_str().into());
            wanted.push_str(&format!(" and state = {state}"));
        }
        let offset = i64::from(page.saturating_sub(1)) * i64::from(per_page);
        let (limit_at, offset_at) = (cells.len() + 1, cells.len() + 2);
        cells.extend([Cell::Integer(per_page.into()), Cell::Integer(offset)]);
        let sql = format!(
            "with page as (select body, born, count(*) over () as total \
               from operations where {wanted} order by born desc \
               limit ${limit_at} offset ${offset_at}) \
             select coalesce(p.total, (select count(*) from operations where {wanted})), p.body \
             from (select 1 as one) as anchor left join page p on true order by p.born desc"
        );
        let rows = self.select(&sql, cells, &[Kind::Integer, Kind::Text]).await?;
        let total = rows.first().and_then(|row| row.first()).map(count).unwrap_or_default();
        let items = rows
            .into_iter()
            .filter_map(|mut row| row.pop()?.text())
            .map(|body| parse::<Row>(&body, "operations").map(|row| row.operation));
        Ok(Page { items: items.collect::<Result<_, _>>()?, total })
    }

    /// One operation.
    pub async fn operation(&self, id: &str) -> Result<Option<Operation>, Error> {
        let sql = "select body from operations where id = $1";
        let rows = self.bodies::<Row>(sql, vec![id.into()], "operations").await?;
        Ok(rows.into_iter().next().map(|row| row.operation))
    }

    /// The newest lines about an application, newest first, and how many there are in all: what the
    /// events say that its operations' rows hold, one line each.
    pub async fn app_logs(&self, app: &str, limit: u32) -> Result<Page<LogLine>, Error> {
        let sql = "select id, events, reached from operations where app = $1 order by reached desc";
        let rows = self.select(sql, vec![app.into()], &LOG_KINDS).await?;
        let rows: Vec<(String, u64, i64)> = rows
            .into_iter()
            .filter_map(|row| {
                let [id, events, reached] = <[Cell; 3]>::try_from(row).ok()?;
                Some((id.text()?, count(&events), reached.integer()?))
            })
            .collect();
        let total = rows.iter().map(|(_, events, _)| events).sum();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut items: Vec<LogLine> = Vec::new();
        for (id, events, reached) in rows {
            // Those that ended before the oldest line that is wanted have nothing newer.
            if limit
                .checked_sub(1)
                .and_then(|last| items.get(last))
                .is_some_and(|line| line.id > reached)
            {
                break;
            }
            let mut stream = self.inner.feed.stream(Operations::STREAM, &id).await?;
            // The log may be ahead of the rows.
            stream.truncate(usize::try_from(events).unwrap_or(usize::MAX));
            let told = lines(&stream).map_err(|Cannot(reason)| Error::Row {
                table: Operations::TABLE.name.to_owned(),
                reason,
            })?;
            items.extend(told);
            items.sort_unstable_by_key(|line| std::cmp::Reverse(line.id));
            items.truncate(limit);
        }
        Ok(Page { items, total })
    }
}

//! What is asked about operations and their log lines.

use super::fold::Row;
use super::{LogLine, Operation};
use crate::cell::{Cell, Kind};
use crate::error::Error;
use crate::text::Moment;
use crate::views::{Page, Views, count, parse};

/// Which operations a list holds.
#[derive(Debug, Clone, Default)]
pub struct OperationFilter {
    /// Only this user's; `None` shows all, for admins.
    pub owner: Option<i64>,
    pub state: Option<String>,
    pub app: Option<String>,
}

const LOG_KINDS: [Kind; 6] =
    [Kind::Integer, Kind::Integer, Kind::Text, Kind::Text, Kind::Text, Kind::Integer];

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
        let mut and = |column: &str, cell: Cell| {
            cells.push(cell);
            wanted.push_str(&format!(" and {column} = ${}", cells.len()));
        };
        if let Some(owner) = filter.owner {
            and("owner", owner.into());
        }
        if let Some(state) = &filter.state {
            and("state", state.as_str().into());
        }
        if let Some(app) = &filter.app {
            and("app", app.as_str().into());
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

    /// The newest lines about an application, newest first, and how many there are in all.
    pub async fn app_logs(&self, app: &str, limit: u32) -> Result<Page<LogLine>, Error> {
        let sql = "select id, told_at, level, message, step, \
                     (select count(*) from app_logs where app = $1) \
                   from app_logs where app = $1 order by id desc limit $2";
        let cells = vec![app.into(), Cell::Integer(limit.into())];
        let rows = self.select(sql, cells, &LOG_KINDS).await?;
        let total = rows.first().and_then(|row| row.last()).map(count).unwrap_or_default();
        let items = rows.into_iter().filter_map(|row| {
            let [id, at, level, message, step, _] = <[Cell; 6]>::try_from(row).ok()?;
            Some(LogLine {
                id: id.integer()?,
                timestamp: Moment(at.integer()?),
                level: level.text()?,
                message: message.text()?,
                step: step.text(),
            })
        });
        Ok(Page { items: items.collect(), total })
    }
}

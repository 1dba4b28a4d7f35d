//! What is asked about applications; a list is one statement, however long.

use serde::Serialize;

use super::fold::Row;
use super::{App, AppOperation};
use crate::cell::{Cell, Kind};
use crate::error::Error;
use crate::text::contains;
use crate::views::{Page, Views, count, parse};

/// Which applications a list holds.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this user's; `None` shows all, for admins.
    pub owner: Option<i64>,
    pub status: Option<String>,
    /// A substring of name or hostname, in any case.
    pub search: Option<String>,
    /// Only those on this host.
    pub host: Option<i64>,
}

/// Memory that running deployments were promised on a node and that it may not show as used yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Promised {
    pub host_id: i64,
    pub node: String,
    /// MiB.
    pub memory_mb: u64,
    pub deployments: u64,
}

const WITH_OPERATION: &str = "left join operations o on o.id = a.operation";
const OPERATION_COLUMNS: &str = "o.id, o.kind, o.step, o.attempt";
const KINDS: [Kind; 6] =
    [Kind::Integer, Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Integer];

impl Views {
    /// A page of applications, newest first; `page` counts from 1.
    pub async fn apps(
        &self,
        filter: &Filter,
        page: u32,
        per_page: u32,
    ) -> Result<Page<App>, Error> {
        let mut cells = Vec::new();
        let mut wanted = String::from("removed = 0");
        let mut and = |condition: &str, cell: Cell| {
            cells.push(cell);
            wanted.push_str(&format!(
                " and {condition}${}{}",
                cells.len(),
                match condition {
                    "search like " => r" escape '\'",
                    _ => "",
                }
            ));
        };
        if let Some(owner) = filter.owner {
            and("owner = ", owner.into());
        }
        if let Some(status) = &filter.status {
            and("status = ", status.as_str().into());
        }
        if let Some(host) = filter.host {
            and("host_id = ", host.into());
        }
        if let Some(term) = filter.search.as_deref().filter(|term| !term.is_empty()) {
            and("search like ", contains(&term.to_lowercase()).into());
        }
        let offset = i64::from(page.saturating_sub(1)) * i64::from(per_page);
        let (limit_at, offset_at) = (cells.len() + 1, cells.len() + 2);
        cells.extend([Cell::Integer(per_page.into()), Cell::Integer(offset)]);
        // Counted apart: a window over the page would carry every body there is. The outer join keeps
        // the total when the page itself is empty.
        let sql = format!(
            "with page as (select body, operation, born from applications where {wanted} \
               order by born desc limit ${limit_at} offset ${offset_at}) \
             select (select count(*) from applications where {wanted}), \
               a.body, {OPERATION_COLUMNS} \
             from (select 1 as one) as anchor left join page a on true {WITH_OPERATION} \
             order by a.born desc"
        );
        let rows = self.select(&sql, cells, &KINDS).await?;
        let total = rows.first().and_then(|row| row.first()).map(count).unwrap_or_default();
        let items = rows.into_iter().filter_map(|row| app(row).transpose());
        Ok(Page { items: items.collect::<Result<_, _>>()?, total })
    }

    /// One application; one that is gone is only found when `removed` is true.
    pub async fn app(&self, id: &str, removed: bool) -> Result<Option<App>, Error> {
        let sql = format!(
            "select 1, a.body, {OPERATION_COLUMNS} from applications a {WITH_OPERATION} \
             where a.id = $1 and a.removed <= $2"
        );
        let rows = self.select(&sql, vec![id.into(), removed.into()], &KINDS).await?;
        rows.into_iter().next().map_or(Ok(None), app)
    }

    /// How many applications a host has.
    pub async fn apps_on_host(&self, host: i64) -> Result<u64, Error> {
        let sql = "select count(*) from applications where host_id = $1 and removed = 0";
        let rows = self.select(sql, vec![host.into()], &[Kind::Integer]).await?;
        Ok(rows.first().and_then(|row| row.first()).map(count).unwrap_or_default())
    }

    /// What running deployments were promised, per node.
    pub async fn promised(&self) -> Result<Vec<Promised>, Error> {
        let sql = "select host_id, node, cast(sum(memory_mb) as bigint), count(*) \
                   from applications where status = 'deploying' and removed = 0 \
                   group by host_id, node order by host_id, node";
        let kinds = [Kind::Integer, Kind::Text, Kind::Integer, Kind::Integer];
        let rows = self.select(sql, Vec::new(), &kinds).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let [host, node, memory, deployments] = <[Cell; 4]>::try_from(row).ok()?;
                Some(Promised {
                    host_id: host.integer()?,
                    node: node.text()?,
                    memory_mb: count(&memory),
                    deployments: count(&deployments),
                })
            })
            .collect())
    }
}

/// A row of `KINDS`; `None` when it only carries the total.
fn app(row: Vec<Cell>) -> Result<Option<App>, Error> {
    let Ok([_, body, id, kind, step, attempt]) = <[Cell; 6]>::try_from(row) else {
        return Ok(None);
    };
    let Some(body) = body.text() else { return Ok(None) };
    let mut app = parse::<Row>(&body, "applications")?.app;
    app.operation = match (id.text(), kind.text()) {
        (Some(id), Some(kind)) => Some(AppOperation {
            id,
            kind,
            step: step.text(),
            attempt: u32::try_from(attempt.integer().unwrap_or_default()).unwrap_or_default(),
        }),
        _ => None,
    };
    Ok(Some(app))
}

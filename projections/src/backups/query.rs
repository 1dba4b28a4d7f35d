//! What is asked about backups; a list is one statement, however long.

use super::fold::Row;
use super::{Backup, BackupStats, GIBIBYTE, MEBIBYTE, in_units};
use crate::cell::{Cell, Kind};
use crate::error::Error;
use crate::views::{Page, Views, count, parse};

/// Which backups a list holds.
#[derive(Debug, Clone, Default)]
pub struct BackupFilter {
    /// Only this user's; `None` shows all, for admins.
    pub owner: Option<i64>,
    /// Only this application's.
    pub application: Option<String>,
}

impl Views {
    /// The newest backups, newest first, and how many there are in all.
    pub async fn backups(
        &self,
        filter: &BackupFilter,
        page: u32,
        per_page: u32,
    ) -> Result<Page<Backup>, Error> {
        let mut cells = Vec::new();
        let mut wanted = String::from("removed = 0");
        let mut and = |column: &str, cell: Cell| {
            cells.push(cell);
            wanted.push_str(&format!(" and {column} = ${}", cells.len()));
        };
        if let Some(owner) = filter.owner {
            and("owner", owner.into());
        }
        if let Some(application) = &filter.application {
            and("application", application.as_str().into());
        }
        let offset = i64::from(page.saturating_sub(1)) * i64::from(per_page);
        let (limit_at, offset_at) = (cells.len() + 1, cells.len() + 2);
        cells.extend([Cell::Integer(per_page.into()), Cell::Integer(offset)]);
        let sql = format!(
            "with page as (select body, number, count(*) over () as total \
               from backups where {wanted} order by number desc \
               limit ${limit_at} offset ${offset_at}) \
             select coalesce(p.total, (select count(*) from backups where {wanted})), p.body \
             from (select 1 as one) as anchor left join page p on true order by p.number desc"
        );
        let rows = self.select(&sql, cells, &[Kind::Integer, Kind::Text]).await?;
        let total = rows.first().and_then(|row| row.first()).map(count).unwrap_or_default();
        let items = rows
            .into_iter()
            .filter_map(|mut row| row.pop()?.text())
            .map(|body| parse::<Row>(&body, "backups").map(|row| row.backup));
        Ok(Page { items: items.collect::<Result<_, _>>()?, total })
    }

    /// One backup.
    pub async fn backup(&self, id: i64) -> Result<Option<Backup>, Error> {
        let sql = "select body from backups where id = $1 and removed = 0";
        let rows = self.bodies::<Row>(sql, vec![id.to_string().into()], "backups").await?;
        Ok(rows.into_iter().next().map(|row| row.backup))
    }

    /// Figures about an application's backups.
    pub async fn backup_stats(&self, application: &str) -> Result<BackupStats, Error> {
        let sql = "select status, count(*), cast(coalesce(sum(size), 0) as bigint) from backups \
                   where application = $1 and removed = 0 group by status";
        let kinds = [Kind::Text, Kind::Integer, Kind::Integer];
        let rows = self.select(sql, vec![application.into()], &kinds).await?;
        let (mut stats, mut bytes, mut sized) = (BackupStats::default(), 0, 0);
        for row in rows {
            let Ok([status, number, size]) = <[Cell; 3]>::try_from(row) else { continue };
            let (number, size) = (count(&number), count(&size));
            stats.total_backups += number;
            bytes += size;
            match status.text().as_deref() {
                Some("completed") => {
                    stats.completed_backups += number;
                    sized += number;
                }
                Some("failed") => stats.failed_backups += number,
                _ => {
                    stats.in_progress_backups += number;
                    if size > 0 {
                        sized += number;
                    }
                }
            }
        }
        stats.total_size_gb = in_units(bytes, GIBIBYTE);
        if let Some(average) = bytes.checked_div(sized) {
            stats.average_size_mb = in_units(average, MEBIBYTE);
        }
        Ok(stats)
    }
}

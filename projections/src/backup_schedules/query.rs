//! What is asked about schedules of backups; a list is one statement, however long.

use super::BackupSchedule;
use super::fold::Row;
use crate::cell::{Cell, Kind};
use crate::error::Error;
use crate::views::{Page, Views, count, parse};

impl Views {
    /// Schedules, oldest first, and how many there are in all. `owner`: only this user's; `None`
    /// shows all, for admins.
    pub async fn backup_schedules(
        &self,
        owner: Option<i64>,
        page: u32,
        per_page: u32,
    ) -> Result<Page<BackupSchedule>, Error> {
        let mut cells: Vec<Cell> = owner.into_iter().map(Cell::from).collect();
        let wanted = if owner.is_some() { "removed = 0 and owner = $1" } else { "removed = 0" };
        let offset = i64::from(page.saturating_sub(1)) * i64::from(per_page);
        let (limit_at, offset_at) = (cells.len() + 1, cells.len() + 2);
        cells.extend([Cell::Integer(per_page.into()), Cell::Integer(offset)]);
        let sql = format!(
            "with page as (select body, number, count(*) over () as total \
               from backup_schedules where {wanted} order by number \
               limit ${limit_at} offset ${offset_at}) \
             select coalesce(p.total, (select count(*) from backup_schedules where {wanted})), \
               p.body from (select 1 as one) as anchor left join page p on true order by p.number"
        );
        let rows = self.select(&sql, cells, &[Kind::Integer, Kind::Text]).await?;
        let total = rows.first().and_then(|row| row.first()).map(count).unwrap_or_default();
        let items = rows
            .into_iter()
            .filter_map(|mut row| row.pop()?.text())
            .map(|body| parse::<Row>(&body, "backup_schedules").map(|row| row.schedule));
        Ok(Page { items: items.collect::<Result<_, _>>()?, total })
    }

    /// One schedule.
    pub async fn backup_schedule(&self, id: i64) -> Result<Option<BackupSchedule>, Error> {
        let sql = "select body from backup_schedules where id = $1 and removed = 0";
        let cells = vec![id.to_string().into()];
        let rows = self.bodies::<Row>(sql, cells, "backup_schedules").await?;
        Ok(rows.into_iter().next().map(|row| row.schedule))
    }
}

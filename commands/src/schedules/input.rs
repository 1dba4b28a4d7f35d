//! A schedule as a person sends it, and the settings that it is read as: every wrong field is named.

use proximity_domain::ValueError;
use proximity_domain::backup_schedule::{Cron, Retention, Settings, Timezone};

use super::Calendar;
use crate::accounts::Fields;
use crate::error::Error;

/// The settings by their names in the contract; `None` leaves one as it is, or at its default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleInput {
    /// Has to be there for a new schedule.
    pub cron: Option<String>,
    pub timezone: Option<String>,
    pub backup_type: Option<String>,
    pub compression: Option<String>,
    pub keep_last: Option<i64>,
    pub keep_daily: Option<i64>,
    pub keep_weekly: Option<i64>,
    pub keep_monthly: Option<i64>,
    pub enabled: Option<bool>,
}

impl ScheduleInput {
    /// The settings that follow, over those that are there.
    pub fn over(&self, before: Option<&Settings>) -> Result<Settings, Error> {
        let mut fields = Fields::default();
        let cron = match (&self.cron, before) {
            (Some(text), _) => fields.take("cron", read_cron(text)),
            (None, Some(before)) => Some(before.cron.clone()),
            (None, None) => fields.take("cron", "".parse()),
        };
        let zone = before.map_or_else(Timezone::default, |before| before.timezone.clone());
        let timezone = read(&mut fields, "timezone", self.timezone.as_deref(), zone, read_zone);
        let mode = before.map(|before| before.mode).unwrap_or_default();
        let mode = read(&mut fields, "backup_type", self.backup_type.as_deref(), mode, str::parse);
        let kind = before.map(|before| before.compression).unwrap_or_default();
        let compression =
            read(&mut fields, "compression", self.compression.as_deref(), kind, str::parse);
        let keep = before.map(|before| before.keep).unwrap_or_default();
        let mut number = |field, sent: Option<i64>, now| match sent {
            Some(sent) => fields.take(field, Retention::number(sent)),
            None => Some(now),
        };
        let last = number("keep_last", self.keep_last, keep.last);
        let daily = number("keep_daily", self.keep_daily, keep.daily);
        let weekly = number("keep_weekly", self.keep_weekly, keep.weekly);
        let monthly = number("keep_monthly", self.keep_monthly, keep.monthly);
        let enabled = self.enabled.unwrap_or_else(|| before.is_none_or(|before| before.enabled));
        let keep = last
            .zip(daily)
            .zip(weekly.zip(monthly))
            .map(|((last, daily), (weekly, monthly))| Retention { last, daily, weekly, monthly });
        match (cron, timezone, mode, compression, keep) {
            (Some(cron), Some(timezone), Some(mode), Some(compression), Some(keep)) => {
                Ok(Settings { cron, timezone, mode, compression, keep, enabled })
            }
            _ => Err(fields.into_error()),
        }
    }
}

fn read<T>(
    fields: &mut Fields,
    field: &str,
    sent: Option<&str>,
    now: T,
    parse: fn(&str) -> Result<T, ValueError>,
) -> Option<T> {
    match sent {
        Some(text) => fields.take(field, parse(text)),
        None => Some(now),
    }
}

fn read_cron(text: &str) -> Result<Cron, ValueError> {
    let cron: Cron = text.parse()?;
    Calendar::read(&cron).map(|_| cron)
}

fn read_zone(text: &str) -> Result<Timezone, ValueError> {
    let zone: Timezone = text.parse()?;
    Calendar::zone(&zone).map(|_| zone)
}

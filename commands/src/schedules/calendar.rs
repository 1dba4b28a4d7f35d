//! What a schedule's expression means: which time comes next, and in which day, week and month a
//! moment is.
//!
//! An expression is read on the wall clock of its time zone, once for each time that it shows. A time
//! that the clock leaps over in spring comes as much later as it leapt; of one that it shows twice in
//! autumn, the first counts.

use cronexpr::{Crontab, parse_crontab};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proximity_domain::ValueError;
use proximity_domain::backup_schedule::retention::Candidate;
use proximity_domain::backup_schedule::{Cron, Settings, Timezone};

use crate::clock::Micros;

/// Times on the wall clock that are looked at for one answer: more than a clock that is set back by
/// a day shows twice.
const LOOKS: usize = 2_000;

/// A schedule's expression and time zone, understood.
#[derive(Debug, Clone)]
pub struct Calendar {
    crontab: Crontab,
    zone: TimeZone,
}

impl Calendar {
    /// Understands an expression.
    pub fn read(cron: &Cron) -> Result<Crontab, ValueError> {
        let refuse = |message| ValueError { code: "backup_schedule.cron_invalid", message };
        // The wall clock is a calendar of its own: whose it is, matters only afterwards.
        let crontab = parse_crontab(&format!("{cron} UTC")).map_err(|error| {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            let reason = reason.trim_start_matches([' ', '^']);
            refuse(format!("this expression cannot be read: {reason}"))
        })?;
        match crontab.find_next(Timestamp::UNIX_EPOCH) {
            Ok(_) => Ok(crontab),
            Err(_) => Err(refuse("the time that this expression names never comes".to_owned())),
        }
    }

    /// Finds a time zone by its name.
    pub fn zone(name: &Timezone) -> Result<TimeZone, ValueError> {
        TimeZone::get(name.as_str()).map_err(|_| ValueError {
            code: "backup_schedule.timezone_invalid",
            message: format!("there is no time zone {name}"),
        })
    }

    /// The calendar of these settings.
    pub fn of(settings: &Settings) -> Result<Self, ValueError> {
        Ok(Self { crontab: Self::read(&settings.cron)?, zone: Self::zone(&settings.timezone)? })
    }

    /// The first time after this moment; `None` when there is none for years.
    pub fn next(&self, after: Micros) -> Option<Micros> {
        let shown = Timestamp::from_microsecond(after).ok()?.to_zoned(self.zone.clone()).datetime();
        let mut shown = shown.to_zoned(TimeZone::UTC).ok()?.timestamp();
        for _ in 0..LOOKS {
            let found = self.crontab.find_next(shown).ok()?;
            let moment = found.datetime().to_zoned(self.zone.clone()).ok()?.timestamp();
            if moment.as_microsecond() > after {
                return Some(moment.as_microsecond());
            }
            shown = found.timestamp();
        }
        None
    }

    /// Puts a candidate's moment into its day, week (from Monday) and month.
    #[must_use]
    pub fn placed(&self, candidate: Candidate) -> Candidate {
        // Moments outside the calendar's years cannot be stored: all would be one period.
        let Ok(moment) = Timestamp::from_microsecond(candidate.at) else { return candidate };
        let date = moment.to_zoned(self.zone.clone()).date();
        let midnight = date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp().as_second());
        let day = midnight.unwrap_or_default().div_euclid(86_400);
        // The first day of 1970 was a Thursday.
        let week = (day + 3).div_euclid(7);
        let month = i64::from(date.year()) * 12 + i64::from(date.month());
        Candidate { day, week, month, ..candidate }
    }
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;

//! Which backups of a schedule are kept: a pure choice among our own records.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::value::{BackupId, ValueError};

/// The largest number of backups that one rule can keep.
pub const MOST: u16 = 1_000;

/// How many backups are kept by each rule; a backup is kept when at least one rule keeps it. All
/// zero: every backup is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The newest ones.
    pub last: u16,
    /// The newest one of each of so many days that have one.
    pub daily: u16,
    /// The same by weeks, which begin on Monday.
    pub weekly: u16,
    /// The same by months.
    pub monthly: u16,
}

impl Retention {
    /// Whether nothing is ever removed.
    pub fn keeps_all(self) -> bool {
        self == Self::default()
    }

    /// A number as a person sends it: 0 to 1000.
    pub fn number(number: i64) -> Result<u16, ValueError> {
        match u16::try_from(number) {
            Ok(number) if number <= MOST => Ok(number),
            _ => Err(ValueError::new(
                "backup_schedule.keep_invalid",
                format!("the number of backups to keep lies between 0 and {MOST}"),
            )),
        }
    }
}

/// A completed backup that may be kept or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub backup: BackupId,
    /// When it was asked for: µs since 1970.
    pub at: i64,
    /// The day, week and month in which that was, in the schedule's time zone; any numbering does
    /// in which later ones are not smaller.
    pub day: i64,
    pub week: i64,
    pub month: i64,
    /// An operation uses or removes it: it counts, but it is not to be touched.
    pub in_use: bool,
}

/// Which day, week or month a backup is in.
type Period = fn(&Candidate) -> i64;

/// The backups that no rule keeps, oldest first. Never the newest one, and none that is in use.
pub fn excess(keep: Retention, backups: &[Candidate]) -> Vec<BackupId> {
    if keep.keeps_all() {
        return Vec::new();
    }
    let mut newest_first: Vec<&Candidate> = backups.iter().collect();
    newest_first.sort_by_key(|one| std::cmp::Reverse((one.at, one.backup)));
    let mut kept: BTreeSet<BackupId> =
        newest_first.iter().take(usize::from(keep.last).max(1)).map(|one| one.backup).collect();
    let rules: [(u16, Period); 3] = [
        (keep.daily, |one| one.day),
        (keep.weekly, |one| one.week),
        (keep.monthly, |one| one.month),
    ];
    for (number, period) in rules {
        let mut seen = BTreeSet::new();
        for one in &newest_first {
            if seen.len() == usize::from(number) {
                break;
            }
            if seen.insert(period(one)) {
                kept.insert(one.backup);
            }
        }
    }
    newest_first
        .iter()
        .rev()
        .filter(|one| !one.in_use && !kept.contains(&one.backup))
        .map(|one| one.backup)
        .collect()
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;

//! What expressions mean, across leaps of the clock and the ends of months.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proximity_domain::BackupId;
use proximity_domain::backup::{Compression, Mode};
use proximity_domain::backup_schedule::Retention;

use super::*;

fn calendar(cron: &str, timezone: &str) -> Calendar {
    Calendar::of(&Settings {
        cron: cron.parse().unwrap(),
        timezone: timezone.parse().unwrap(),
        mode: Mode::Snapshot,
        compression: Compression::Zstd,
        keep: Retention::default(),
        enabled: true,
    })
    .unwrap()
}

fn moment(text: &str) -> Micros {
    text.parse::<Timestamp>().unwrap().as_microsecond()
}

/// The next times after a moment.
fn times(cron: &str, timezone: &str, after: &str, count: usize) -> Vec<String> {
    let calendar = calendar(cron, timezone);
    let mut after = moment(after);
    let mut found = Vec::new();
    for _ in 0..count {
        after = calendar.next(after).unwrap();
        found.push(Timestamp::from_microsecond(after).unwrap().to_string());
    }
    found
}

#[test]
fn a_time_is_meant_in_its_time_zone() {
    let winter = times("0 2 * * *", "Europe/Berlin", "2026-11-24T12:00:00Z", 2);
    assert_eq!(winter, ["2026-11-25T01:00:00Z", "2026-11-26T01:00:00Z"]);
    let summer = times("0 2 * * *", "Europe/Berlin", "2026-07-01T12:00:00Z", 1);
    assert_eq!(summer, ["2026-07-02T00:00:00Z"]);
    let plain = times("0 2 * * *", "UTC", "2026-11-24T02:00:00Z", 1);
    assert_eq!(plain, ["2026-11-25T02:00:00Z"], "the next one is a later one");
}

#[test]
fn a_time_that_the_clock_leaps_over_comes_as_much_later() {
    // 2027-03-28: 02:00 becomes 03:00 in Berlin.
    let found = times("30 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", 2);
    assert_eq!(found, ["2027-03-28T01:30:00Z", "2027-03-29T00:30:00Z"]);
    let hourly = times("0 * * * *", "Europe/Berlin", "2027-03-27T23:30:00Z", 3);
    assert_eq!(hourly, ["2027-03-28T00:00:00Z", "2027-03-28T01:00:00Z", "2027-03-28T02:00:00Z"]);
}

#[test]
fn a_time_that_the_clock_shows_twice_comes_once() {
    // 2026-10-25: 03:00 becomes 02:00 in Berlin.
    let found = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    // Asked in the middle of the second hour, no time of the first one is given again.
    let asked = times("*/10 2 * * *", "Europe/Berlin", "2026-10-25T01:05:00Z", 1);
    assert_eq!(asked, ["2026-10-26T01:00:00Z"]);
}

#[test]
fn the_last_day_of_a_month_and_leap_days_are_found() {
    let last = times("0 3 L * *", "UTC", "2027-01-31T12:00:00Z", 2);
    assert_eq!(last, ["2027-02-28T03:00:00Z", "2027-03-31T03:00:00Z"]);
    assert_eq!(times("0 3 29 2 *", "UTC", "2026-11-24T00:00:00Z", 1), ["2028-02-29T03:00:00Z"]);
}

#[test]
fn times_go_on_and_never_repeat() {
    for zone in ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]
    {
        let calendar = calendar("*/7 */2 * * *", zone);
        let mut after = moment("2026-10-24T00:00:00Z");
        for _ in 0..3_000 {
            let next = calendar.next(after).unwrap();
            assert!(next > after, "{zone}: {next} after {after}");
            after = next;
        }
    }
}

#[test]
fn an_expression_that_means_nothing_is_refused_and_says_why() {
    let refused = |cron: &str| Calendar::read(&cron.parse().unwrap()).unwrap_err();
    for cron in ["60 2 * * *", "0 24 * * *", "0 2 0 * *", "0 2 * 13 *", "0 2 * * 8", "a b c d e"] {
        let error = refused(cron);
        assert_eq!(error.code, "backup_schedule.cron_invalid", "{cron}");
        assert!(!error.message.contains('\n') && error.message.len() > 40, "{}", error.message);
    }
    assert!(refused("0 2 30 2 *").message.contains("never comes"));
    assert!(refused("H 2 * * *").message.contains("cannot be read"));
    let zone = Calendar::zone(&"Europe/Nowhere".parse().unwrap()).unwrap_err();
    assert_eq!(zone.code, "backup_schedule.timezone_invalid");
}

#[test]
fn days_weeks_and_months_are_those_of_the_time_zone() {
    let berlin = calendar("0 2 * * *", "Europe/Berlin");
    let placed = |at: &str| {
        let (backup, at) = (BackupId(1), moment(at));
        let one = Candidate { backup, at, day: 0, week: 0, month: 0, in_use: false };
        let placed = berlin.placed(one);
        (placed.day, placed.week, placed.month)
    };
    // Sunday to Monday, and November to December, at 23:00 UTC.
    let (before, after) = (placed("2026-11-29T22:59:59Z"), placed("2026-11-29T23:00:00Z"));
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (1, 1, 0));
    let (before, after) = (placed("2026-11-30T22:59:59Z"), placed("2026-11-30T23:00:00Z"));
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (1, 0, 1));
    let (before, after) = (placed("2026-12-31T22:59:59Z"), placed("2026-12-31T23:00:00Z"));
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (1, 0, 1));
}

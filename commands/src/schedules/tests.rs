//! What a person may send as a schedule, and what is said of it when it is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proximity_domain::backup::{Compression, Mode};
use proximity_domain::backup_schedule::Retention;

use super::*;

fn named(error: &Error) -> Vec<(&str, &str)> {
    match error {
        Error::Invalid(fields) => {
            fields.iter().map(|wrong| (wrong.field.as_str(), wrong.code)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_expression_is_all_that_a_schedule_needs() {
    let input = ScheduleInput { cron: Some(" 0 2 * * * ".into()), ..ScheduleInput::default() };
    let settings = input.over(None).unwrap();
    assert_eq!((settings.cron.as_str(), settings.timezone.as_str()), ("0 2 * * *", "UTC"));
    assert_eq!((settings.mode, settings.compression), (Mode::Snapshot, Compression::Zstd));
    assert!(settings.keep.keeps_all() && settings.enabled);
}

#[test]
fn every_wrong_field_is_named() {
    let error = ScheduleInput::default().over(None).unwrap_err();
    assert_eq!(named(&error), [("cron", "backup_schedule.cron_invalid")]);
    let input = ScheduleInput {
        cron: Some("0 25 * * *".into()),
        timezone: Some("Mars/Olympus".into()),
        backup_type: Some("full".into()),
        compression: Some("rar".into()),
        keep_last: Some(-1),
        keep_daily: Some(1_001),
        keep_weekly: Some(i64::MAX),
        keep_monthly: Some(i64::MIN),
        enabled: None,
    };
    let expected = [
        ("cron", "backup_schedule.cron_invalid"),
        ("timezone", "backup_schedule.timezone_invalid"),
        ("backup_type", "backup.type_invalid"),
        ("compression", "backup.compression_invalid"),
        ("keep_last", "backup_schedule.keep_invalid"),
        ("keep_daily", "backup_schedule.keep_invalid"),
        ("keep_weekly", "backup_schedule.keep_invalid"),
        ("keep_monthly", "backup_schedule.keep_invalid"),
    ];
    assert_eq!(named(&input.over(None).unwrap_err()), expected);
}

#[test]
fn what_is_left_out_stays_as_it_is() {
    let first = ScheduleInput {
        cron: Some("0 2 * * *".into()),
        timezone: Some("Europe/Berlin".into()),
        backup_type: Some("stop".into()),
        compression: Some("gzip".into()),
        keep_last: Some(1),
        keep_daily: Some(2),
        keep_weekly: Some(3),
        keep_monthly: Some(4),
        enabled: Some(false),
    };
    let before = first.over(None).unwrap();
    assert_eq!(ScheduleInput::default().over(Some(&before)).unwrap(), before);
    let one = ScheduleInput { keep_daily: Some(0), ..ScheduleInput::default() };
    let after = one.over(Some(&before)).unwrap();
    assert_eq!(after.keep, Retention { daily: 0, ..before.keep });
    assert_eq!(Settings { keep: before.keep, ..after }, before);
}

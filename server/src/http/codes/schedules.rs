//! Codes of schedules of backups.

use super::{Code, code};

pub(super) const CODES: &[Code] = &[
    code(
        422,
        "backup_schedule.id_invalid",
        "This is not the id of a schedule",
        "A schedule's id is a number from 1.",
    ),
    code(
        422,
        "backup_schedule.cron_invalid",
        "The cron expression is not valid",
        "Send five fields: minute, hour, day of month, month, day of week; for example `0 2 * * *` for every night at two. `*`, lists (`1,15`), ranges (`1-5`), steps (`*/6`), names (`MON`, `JAN`), `L` for the last day of a month, `1W` for the nearest weekday and `5#3` for the third Friday are understood. The detail names the field. A time that never comes (30 February) is refused, too.",
    ),
    code(
        422,
        "backup_schedule.timezone_invalid",
        "There is no such time zone",
        "Send a name of the IANA time zone database, for example `Europe/Berlin`, or leave it out for `UTC`.",
    ),
    code(
        422,
        "backup_schedule.keep_invalid",
        "The number of backups to keep is out of range",
        "`keep_last`, `keep_daily`, `keep_weekly` and `keep_monthly` lie between 0 and 1000. All four 0: every backup is kept.",
    ),
    code(
        422,
        "backup_schedule.application_unknown",
        "You have no such application",
        "`application_id` names no application of yours, or one that is gone. Leave it out for a schedule of all your applications.",
    ),
    code(
        422,
        "backup_schedule.application_fixed",
        "A schedule's application does not change",
        "Retention counts the backups that a schedule made of an application. Make another schedule for another application.",
    ),
    code(
        409,
        "backup_schedule.too_many",
        "You have too many schedules",
        "A user has at most 100. Delete one, or use one schedule for all applications.",
    ),
    code(
        409,
        "backup_schedule.state",
        "The schedule has moved on",
        "It fired, or its run went on, a moment ago. Try again.",
    ),
];

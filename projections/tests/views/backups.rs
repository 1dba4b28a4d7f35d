//! What is shown of backups and of the schedules that make them, and that a rebuild shows the same.

use proximity_domain::backup::{Archive, Compression, Event as Backup, Mode, Requested, Scheduled};
use proximity_domain::backup_schedule::{
    Created, Deleted, Event as Schedule, Outcome, PassedOver, Retention, RunResult, Settings,
};
use proximity_domain::plan::Kind as Operation;
use proximity_domain::{BackupId, OperationId, ScheduleId, UserId};
use proximity_projections::backups::BackupFilter;
use uuid::Uuid;

use crate::on_both;
use crate::samples::*;
use crate::support::*;

const GIB: u64 = 1 << 30;

fn op(number: u128) -> OperationId {
    OperationId(Uuid::from_u128(number))
}

fn requested(sample: &Sample, scheduled: Option<i64>) -> Backup {
    let asked = |schedule| Scheduled { schedule: ScheduleId(schedule), due: 60, at: 61 };
    Backup::Requested(Box::new(Requested {
        application: sample.application(),
        owner: UserId(sample.owner),
        operation: op(1),
        guest: sample.guest(),
        storage: "local".to_owned(),
        mode: Mode::Snapshot,
        compression: Compression::Gzip,
        scheduled: scheduled.map(asked),
    }))
}

fn completed(size: Option<u64>) -> Backup {
    let volume = "local:backup/vzdump-lxc-104-2026_11_23-20_24_34.tar.gz".to_owned();
    Backup::Completed { operation: op(1), archive: Archive { volume, size, mode: Mode::Suspend } }
}

fn failed() -> Backup {
    Backup::Failed { operation: op(1), problem: "no space left".to_owned(), absent: true }
}

fn removing() -> Backup {
    Backup::OperationBegan { operation: op(2), kind: Operation::BackupDelete }
}

fn kept(problem: &str) -> Backup {
    Backup::OperationEnded { operation: op(2), problem: Some(problem.to_owned()) }
}

on_both! {
    a_backup_shows_how_it_was_asked_for_and_how_it_was_really_made(site) {
        let views = site.views().await;
        let runner = views.follow();
        let sample = Sample::new(1);
        let position = site.append(vec![stream("backup", "1", &[requested(&sample, Some(3))])]).await;
        caught_up(&views, position).await;
        let row = views.backup(1).await.unwrap().unwrap();
        assert_eq!((row.status.as_str(), row.is_in_progress, row.is_completed), ("creating", true, false));
        assert_eq!((row.schedule_id, row.operation, row.size), (Some(3), Some(op(1).to_string()), None));
        assert_eq!((row.file_name.as_str(), row.storage_name.as_str()), ("", "local"));

        let position = site.append(vec![stream("backup", "1", &[completed(Some(GIB + GIB / 2))])]).await;
        caught_up(&views, position).await;
        let row = views.backup(1).await.unwrap().unwrap();
        assert_eq!((row.status.as_str(), row.is_in_progress, row.is_completed), ("completed", false, true));
        assert_eq!(row.file_name, "vzdump-lxc-104-2026_11_23-20_24_34.tar.gz");
        assert_eq!((row.size, row.size_mb, row.size_gb), (Some(GIB + GIB / 2), Some(1536.0), Some(1.5)));
        assert_eq!((row.requested_type.as_str(), row.backup_type.as_str()), ("snapshot", "suspend"));
        assert_eq!((row.operation, row.completed_at), (None, Some(row.updated_at)));

        let position = site.append(vec![stream("backup", "1", &[removing()])]).await;
        caught_up(&views, position).await;
        let row = views.backup(1).await.unwrap().unwrap();
        assert_eq!((row.status.as_str(), row.operation), ("deleting", Some(op(2).to_string())));
        let position = site.append(vec![stream("backup", "1", &[kept("it is protected")])]).await;
        caught_up(&views, position).await;
        let row = views.backup(1).await.unwrap().unwrap();
        let shown = (row.status.as_str(), row.error_message.as_deref(), row.is_completed);
        assert_eq!(shown, ("completed", Some("it is protected"), true));
        let gone = [removing(), Backup::Deleted { operation: op(2) }];
        let position = site.append(vec![stream("backup", "1", &gone)]).await;
        caught_up(&views, position).await;
        assert_eq!(views.backup(1).await.unwrap(), None);
        assert_eq!(views.verify("backups", silent()).await.unwrap().rows_different, 0);
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    a_failed_backup_stays_failed_whatever_is_tried_with_it(site) {
        let views = site.views().await;
        let runner = views.follow();
        let past = [requested(&Sample::new(1), None), failed(), removing(), kept("it is away")];
        let position = site.append(vec![stream("backup", "7", &past)]).await;
        caught_up(&views, position).await;
        let row = views.backup(7).await.unwrap().unwrap();
        assert_eq!((row.status.as_str(), row.is_completed, row.schedule_id), ("failed", false, None));
        assert_eq!(row.error_message.as_deref(), Some("it is away"));
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    backups_are_listed_newest_first_for_those_who_may_see_them_and_counted(site) {
        let views = site.views().await;
        let runner = views.follow();
        let (mine, theirs) = (Sample::new(1), Sample { owner: 2, ..Sample::new(2) });
        let mut position = 0;
        for (id, sample, events) in [
            ("1", &mine, vec![completed(Some(GIB))]),
            ("2", &theirs, vec![completed(Some(GIB))]),
            ("3", &mine, vec![failed()]),
            ("10", &mine, vec![completed(Some(2 * GIB)), removing()]),
            ("11", &mine, vec![]),
            ("12", &mine, vec![completed(None)]),
        ] {
            let events = [vec![requested(sample, None)], events].concat();
            position = site.append(vec![stream("backup", id, &events)]).await;
        }
        caught_up(&views, position).await;
        let listed = async |owner, application: Option<String>, page, per_page| {
            let before = views.statements();
            let filter = BackupFilter { owner, application };
            let found = views.backups(&filter, page, per_page).await.unwrap();
            assert_eq!(views.statements() - before, 1, "a list is one statement");
            (found.items.iter().map(|backup| backup.id).collect::<Vec<_>>(), found.total)
        };
        assert_eq!(listed(None, None, 1, 100).await, (vec![12, 11, 10, 3, 2, 1], 6), "by number");
        assert_eq!(listed(Some(2), None, 1, 100).await, (vec![2], 1));
        assert_eq!(listed(Some(3), None, 1, 100).await, (vec![], 0));
        assert_eq!(listed(None, Some(mine.id()), 2, 2).await, (vec![10, 3], 5));
        assert_eq!(listed(Some(1), Some(theirs.id()), 1, 100).await, (vec![], 0));
        assert_eq!(listed(None, None, 9, 100).await, (vec![], 6), "a page beyond the end");

        let stats = views.backup_stats(&mine.id()).await.unwrap();
        assert_eq!((stats.total_backups, stats.completed_backups, stats.failed_backups), (5, 2, 1));
        assert_eq!((stats.in_progress_backups, stats.total_size_gb), (2, 3.0));
        assert_eq!(views.backup_stats("nginx-00000009").await.unwrap().total_backups, 0);
        assert_eq!(views.verify("backups", silent()).await.unwrap().rows_different, 0);
        runner.stop().await;
        views.close().await;
    }
}

fn settings() -> Settings {
    Settings {
        cron: "0 2 * * *".parse().unwrap(),
        timezone: "Europe/Berlin".parse().unwrap(),
        mode: Mode::Stop,
        compression: Compression::Lzo,
        keep: Retention { last: 1, daily: 2, weekly: 3, monthly: 4 },
        enabled: true,
    }
}

fn created(owner: i64, sample: Option<&Sample>) -> Schedule {
    Schedule::Created(Box::new(Created {
        owner: UserId(owner),
        application: sample.map(Sample::application),
        settings: settings(),
        next: Some(3_600_000_000),
    }))
}

fn outcome(sample: &Sample, result: RunResult, problem: Option<&str>) -> Outcome {
    let backup = (result == RunResult::Completed).then_some(BackupId(5));
    let problem = problem.map(str::to_owned);
    let pruned = backup.into_iter().map(|_| BackupId(2)).collect();
    Outcome { application: sample.application(), result, backup, problem, pruned }
}

on_both! {
    a_schedule_shows_when_it_fires_and_what_came_of_it(site) {
        let views = site.views().await;
        let runner = views.follow();
        let (one, two) = (Sample::new(1), Sample::new(2));
        let add = async |events: &[Schedule]| {
            let position = site.append(vec![stream("backup_schedule", "4", events)]).await;
            caught_up(&views, position).await;
            views.backup_schedule(4).await.unwrap()
        };
        let row = add(&[created(1, None)]).await.unwrap();
        assert_eq!((row.owner, row.application_id.as_deref(), row.cron.as_str()), (1, None, "0 2 * * *"));
        assert_eq!((row.keep_last, row.keep_daily, row.keep_weekly, row.keep_monthly), (1, 2, 3, 4));
        assert_eq!((row.backup_type.as_str(), row.compression.as_str()), ("stop", "lzo"));
        assert_eq!(row.next_run.unwrap().to_string(), "1970-01-01T01:00:00Z");
        assert_eq!((row.last_run, &row.last_result, row.updated_at), (None, &None, row.created_at));

        let (due, next) = (3_600_000_000, Some(7_200_000_000));
        let fired = add(&[Schedule::Fired { due, next }]).await.unwrap();
        assert!(fired.is_running && fired.last_result.is_none());
        assert_eq!(fired.last_run.unwrap().to_string(), "1970-01-01T01:00:00Z");
        assert_eq!(fired.next_run.unwrap().to_string(), "1970-01-01T02:00:00Z");
        let outcomes = vec![
            outcome(&one, RunResult::Completed, None),
            outcome(&two, RunResult::Failed, Some("no space left")),
        ];
        let ended = add(&[Schedule::RunEnded { due, outcomes }]).await.unwrap();
        let result = ended.last_result.unwrap();
        assert!(!ended.is_running);
        assert_eq!(result.result, "partial");
        assert_eq!(result.message, "1 backed up, 1 failed: no space left.");
        assert_eq!((result.backups[0].backup_id, &result.backups[0].pruned), (Some(5), &vec![2]));
        assert_eq!(result.backups[1].problem.as_deref(), Some("no space left"));

        let (due, next, reason) = (7_200_000_000, None, PassedOver::OwnerDisabled);
        let passed = add(&[Schedule::PassedOver { due, next, reason }]).await.unwrap();
        let result = passed.last_result.unwrap();
        assert_eq!((result.result.as_str(), passed.next_run), ("skipped", None));
        assert!(result.message.contains("disabled"), "{}", result.message);
        for (results, wanted) in [
            (vec![RunResult::Completed], "completed"),
            (vec![RunResult::Failed, RunResult::Failed], "failed"),
            (vec![RunResult::Skipped], "skipped"),
            (vec![RunResult::Failed, RunResult::Skipped], "partial"),
        ] {
            let outcomes = results.into_iter().map(|result| outcome(&one, result, None)).collect();
            let row = add(&[Schedule::RunEnded { due, outcomes }]).await.unwrap();
            assert_eq!(row.last_result.unwrap().result, wanted);
        }
        let off = Settings { enabled: false, ..settings() };
        let off = add(&[Schedule::Changed { settings: off, next: None }]).await.unwrap();
        assert!(!off.enabled && off.updated_at >= off.created_at);
        assert_eq!(views.verify("backup_schedules", silent()).await.unwrap().rows_different, 0);
        assert_eq!(add(&[Schedule::Deleted { reason: Deleted::Asked }]).await, None);
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    schedules_are_listed_oldest_first_for_those_who_may_see_them(site) {
        let views = site.views().await;
        let runner = views.follow();
        let sample = Sample::new(1);
        let mut position = 0;
        for (id, owner) in [("2", 1), ("10", 1), ("9", 2), ("1", 1)] {
            position = site.append(vec![stream("backup_schedule", id, &[created(owner, Some(&sample))])]).await;
        }
        caught_up(&views, position).await;
        let listed = async |owner, page, per_page| {
            let before = views.statements();
            let found = views.backup_schedules(owner, page, per_page).await.unwrap();
            assert_eq!(views.statements() - before, 1, "a list is one statement");
            (found.items.iter().map(|one| one.id).collect::<Vec<_>>(), found.total)
        };
        assert_eq!(listed(None, 1, 100).await, (vec![1, 2, 9, 10], 4));
        assert_eq!(listed(Some(1), 1, 100).await, (vec![1, 2, 10], 3));
        assert_eq!(listed(Some(1), 2, 2).await, (vec![10], 3));
        assert_eq!(listed(Some(7), 1, 100).await, (vec![], 0));
        runner.stop().await;
        views.close().await;
    }
}

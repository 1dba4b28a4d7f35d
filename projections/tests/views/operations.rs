//! What is shown of operations, and what is told about them.

use proximity_domain::UserId;
use proximity_domain::operation::{Direction, Event as Operation, Finding};
use proximity_projections::operations::OperationFilter;

use crate::on_both;
use crate::samples::*;
use crate::support::*;

/// A pull that has to be repeated, a disk that is full, and everything taken back.
fn story(sample: &Sample) -> Vec<Operation> {
    let volume = "local:vztmpl/nginx.tar".to_owned();
    vec![
        sample.planned(),
        intended(STEPS[0], Direction::Act, 1),
        failed(STEPS[0], Direction::Act, 1, Some(1_900_000_000_000_000)),
        intended(STEPS[0], Direction::Act, 2),
        Operation::TaskStarted {
            step: STEPS[0].into(),
            direction: Direction::Act,
            upid: "UPID:pve1:0001:imgpull:local:root@pam:".into(),
        },
        Operation::StepSucceeded {
            step: STEPS[0].into(),
            direction: Direction::Act,
            attempt: 2,
            found: Some(Finding::Archive { volume, digest: None }),
        },
        intended(STEPS[1], Direction::Act, 1),
        failed(STEPS[1], Direction::Act, 1, None),
        Operation::UnwindingBegan { reason: "the container could not be made.".into() },
        intended(STEPS[1], Direction::Undo, 1),
        Operation::Stuck {
            step: STEPS[1].into(),
            direction: Direction::Undo,
            reason: "container 107 is locked".into(),
            instructions: "run `pct unlock 107` on pve1".into(),
        },
        Operation::Resumed { by: UserId(1), note: String::new() },
        intended(STEPS[1], Direction::Undo, 2),
        succeeded(STEPS[1], Direction::Undo, 2),
        Operation::Undone { reason: "the container could not be made".into() },
    ]
}

on_both! {
    what_an_operation_was_stuck_for_is_no_reason_any_more_when_it_is_done(site) {
        let views = site.views().await;
        let runner = views.follow();
        let sample = Sample::new(7);
        let stuck = Operation::Stuck {
            step: STEPS[0].into(),
            direction: Direction::Act,
            reason: "its destruction was broken off".into(),
            instructions: "run `pct unlock 107` on pve1".into(),
        };
        let before = [sample.planned(), intended(STEPS[0], Direction::Act, 1), stuck];
        let after = [
            Operation::Resumed { by: UserId(1), note: String::new() },
            intended(STEPS[0], Direction::Act, 1),
            succeeded(STEPS[0], Direction::Act, 1),
            Operation::Completed,
        ];
        let stories: [(&[Operation], &str, Option<&str>); 2] = [
            (&before, "stuck", Some("its destruction was broken off")),
            (&after, "done", None),
        ];
        for (events, state, reason) in stories {
            let position = site.append(vec![sample.op(events)]).await;
            caught_up(&views, position).await;
            let shown = views.operation(&sample.operation().to_string()).await.unwrap().unwrap();
            assert_eq!((shown.state.as_str(), shown.reason.as_deref()), (state, reason));
        }
        runner.stop().await;
    }
}

on_both! {
    an_operation_is_shown_with_steps_attempts_tasks_and_compensation(site) {
        let views = site.views().await;
        let runner = views.follow();
        let sample = Sample::new(7);
        let mut states = Vec::new();
        for event in story(&sample) {
            let position = site.append(vec![sample.op(&[event])]).await;
            caught_up(&views, position).await;
            let shown = views.operation(&sample.operation().to_string()).await.unwrap().unwrap();
            states.push(shown.state);
        }
        states.dedup();
        assert_eq!(states, ["planned", "running", "unwinding", "stuck", "unwinding", "undone"]);
        let shown = views.operation(&sample.operation().to_string()).await.unwrap().unwrap();
        assert_eq!((shown.app.clone(), shown.kind.as_str(), shown.owner), (sample.id(), "deploy", 1));
        assert_eq!((shown.node.as_deref(), shown.vmid), (Some("pve1"), Some(107)));
        assert!(shown.finished_at.is_some() && shown.instructions.is_none());
        let [pull, create, start, healthy] = shown.steps.try_into().unwrap();
        assert_eq!((pull.act.state.as_str(), pull.act.attempts), ("succeeded", 2));
        assert_eq!(pull.act.upids.len(), 1);
        assert_eq!(pull.act.found.as_deref(), Some("local:vztmpl/nginx.tar"));
        assert!(pull.act.duration_ms.is_some() && pull.act.started_at < pull.act.finished_at);
        assert_eq!(create.act.state, "failed");
        assert_eq!(create.act.failure.as_deref(), Some("storage 'local' is full"));
        let compensation = create.compensation.unwrap();
        assert_eq!((compensation.state.as_str(), compensation.attempts), ("succeeded", 2));
        assert_eq!((start.act.state.as_str(), healthy.compensation), ("pending", None));
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    the_log_of_an_application_reads_as_sentences_newest_first(site) {
        let views = site.views().await;
        let runner = views.follow();
        let sample = Sample::new(7);
        let position = site.append(vec![sample.op(&story(&sample))]).await;
        caught_up(&views, position).await;
        let logs = views.app_logs(&sample.id(), 1_000).await.unwrap();
        assert_eq!((logs.total, logs.items.len()), (15, 15));
        let lines: Vec<String> = logs.items.iter().rev().map(|l| format!("{} {}", l.level, l.message)).collect();
        if site.kind == Kind::Sqlite {
            println!("{}", lines.join("\n"));
        }
        assert_eq!(lines, [
            "INFO Deployment of web-7 planned as container 107 on node pve1.",
            "INFO Pulling the image.",
            "WARNING Pulling the image failed (attempt 1): storage 'local' is full. It will be tried again.",
            "INFO Pulling the image, attempt 2.",
            "INFO Proxmox works on it as task UPID:pve1:0001:imgpull:local:root@pam:.",
            "SUCCESS Pulling the image: done, using local:vztmpl/nginx.tar.",
            "INFO Creating the container.",
            "ERROR Creating the container failed (attempt 1): storage 'local' is full.",
            "WARNING Taking everything back: the container could not be made.",
            "INFO Removing the container again.",
            "ERROR The deploy is stuck: container 107 is locked. An operator has to act: run `pct unlock 107` on pve1.",
            "INFO The deploy goes on.",
            "INFO Removing the container again, attempt 2.",
            "SUCCESS Removing the container again: done.",
            "ERROR The deploy was undone: the container could not be made.",
        ]);
        assert_eq!(logs.items[14].step, None);
        assert_eq!(logs.items[13].step.as_deref(), Some("ensure_oci_image"));
        let few = views.app_logs(&sample.id(), 2).await.unwrap();
        assert_eq!((few.items.len(), few.total), (2, 15));
        assert_eq!(few.items, logs.items[..2]);
        assert!(few.items[0].id > few.items[1].id);
        assert_eq!(views.app_logs("nginx-00000000", 10).await.unwrap().total, 0);
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    the_lines_of_operations_that_overlap_stand_in_the_order_of_the_log(site) {
        let views = site.views().await;
        let runner = views.follow();
        let (sample, other) = (Sample::new(7), Sample::new(8));
        let mut planned = other.planned();
        let Operation::Planned { application, .. } = &mut planned else { unreachable!() };
        *application = sample.application();
        let again = |attempt| intended(STEPS[0], Direction::Act, attempt);
        site.append(vec![sample.op(&[sample.planned(), again(1)])]).await;
        site.append(vec![other.op(&[planned, again(3)])]).await;
        let position = site.append(vec![sample.op(&[again(2)])]).await;
        caught_up(&views, position).await;
        let all = views.app_logs(&sample.id(), 10).await.unwrap();
        let ids: Vec<i64> = all.items.iter().map(|line| line.id).collect();
        assert_eq!((all.total, ids), (5, vec![5, 4, 3, 2, 1]));
        for limit in 0..5 {
            let some = views.app_logs(&sample.id(), limit).await.unwrap();
            assert_eq!((some.total, some.items.as_slice()), (5, &all.items[..limit as usize]));
        }
        runner.stop().await;
        // What the rows do not hold yet is not told.
        site.append(vec![sample.op(&[again(4)])]).await;
        assert_eq!(views.app_logs(&sample.id(), 10).await.unwrap(), all);
        views.close().await;
    }
}

on_both! {
    operations_are_listed_by_owner_state_and_application(site) {
        let views = site.views().await;
        let runner = views.follow();
        let owned = |number: u32, owner: i64| Sample { owner, ..Sample::new(number) };
        for sample in [owned(1, 1), owned(2, 2), owned(3, 2)] {
            site.append(sample.deployment()).await;
        }
        let delete = Operation::Planned {
            application: Sample::new(3).application(),
            owner: UserId(2),
            plan: delete_plan(&Sample::new(3)),
            steps: vec!["destroy".into()],
            deadline: 0,
        };
        site.append(owned(3, 2).success()).await;
        let position = site.append(vec![stream("operation", &uuid::Uuid::from_u128(50).to_string(), &[delete])]).await;
        caught_up(&views, position).await;
        let find = async |owner: Option<i64>, state: Option<&str>, app: Option<String>| {
            let filter = OperationFilter { owner, state: state.map(str::to_owned), app };
            let before = views.statements();
            let page = views.operations(&filter, 1, 100).await.unwrap();
            assert_eq!(views.statements() - before, 1);
            assert_eq!(page.total, page.items.len() as u64);
            page.items.iter().map(|o| (o.app.trim_start_matches("nginx-").trim_start_matches('0').to_owned(), o.kind.clone())).collect::<Vec<_>>()
        };
        let pair = |app: &str, kind: &str| (app.to_owned(), kind.to_owned());
        assert_eq!(find(None, None, None).await, [pair("3", "delete"), pair("3", "deploy"), pair("2", "deploy"), pair("1", "deploy")]);
        assert_eq!(find(Some(1), None, None).await, [pair("1", "deploy")]);
        assert_eq!(find(Some(2), Some("done"), None).await, [pair("3", "deploy")]);
        assert_eq!(find(Some(1), None, Some(Sample::new(3).id())).await, []);
        let filter = OperationFilter::default();
        let page = views.operations(&filter, 9, 100).await.unwrap();
        assert_eq!((page.items.len(), page.total), (0, 4));
        runner.stop().await;
        views.close().await;
    }
}

//! What is shown of applications.

use proximity_domain::BackupId;
use proximity_domain::application::{Event as App, Loss};
use proximity_domain::operation::{Direction, Event as Operation};
use proximity_domain::plan::Kind as OperationKind;
use proximity_projections::applications::Filter;
use proximity_projections::{App as Row, Views};

use crate::on_both;
use crate::samples::*;
use crate::support::*;

async fn one(views: &Views, sample: &Sample) -> Row {
    views.app(&sample.id(), false).await.unwrap().unwrap()
}

fn ids(apps: &[Row]) -> Vec<u64> {
    let number = |app: &Row| u64::from_str_radix(app.id.rsplit_once('-').unwrap().1, 16).unwrap();
    apps.iter().map(number).collect()
}

on_both! {
    a_deployment_is_shown_with_what_runs_on_it_and_without_its_secrets(site) {
        let views = site.views().await;
        let runner = views.follow();
        let sample = Sample::new(7);
        let position = site.append(sample.deployment()).await;
        caught_up(&views, position).await;
        let app = one(&views, &sample).await;
        assert_eq!((app.status.as_str(), app.node.as_str(), app.vmid), ("deploying", "pve1", Some(107)));
        assert_eq!((app.public_port, app.internal_port), (Some(8_107), Some(20_007)));
        assert_eq!(app.ports["8080"], 8_107);
        assert_eq!(app.environment["TITLE"], "Blog");
        assert_eq!(app.environment["PASSWORD"], "[secret]");
        assert_eq!(app.config["PASSWORD"], "[secret]");
        let operation = app.operation.unwrap();
        assert_eq!((operation.kind.as_str(), operation.step, operation.attempt), ("deploy", None, 0));

        site.append(vec![sample.op(&[intended(STEPS[0], Direction::Act, 1), failed(STEPS[0], Direction::Act, 1, Some(5))])]).await;
        let position = site.append(vec![sample.op(&[intended(STEPS[0], Direction::Act, 2)])]).await;
        caught_up(&views, position).await;
        let app = one(&views, &sample).await;
        assert_eq!(app.status, "deploying", "a retry is no error");
        let operation = app.operation.unwrap();
        assert_eq!((operation.step.as_deref(), operation.attempt), (Some(STEPS[0]), 2));

        let position = site.append(sample.success()).await;
        caught_up(&views, position).await;
        let app = one(&views, &sample).await;
        assert_eq!((app.status.as_str(), app.operation), ("running", None));
        assert_eq!((app.address.as_deref(), app.version), (Some("10.0.0.7"), 2));
        let wire = serde_json::to_value(&one(&views, &sample).await).unwrap();
        for (a, b) in [("catalog_id", "catalog_app_id"), ("node", "node_name"), ("lxc_id", "vmid")] {
            assert_eq!(wire[a], wire[b]);
        }
        for field in ["url", "iframe_url", "cpu_usage", "memory_used", "memory_total", "disk_used", "disk_total"] {
            assert!(wire.get(field).unwrap().is_null(), "{field} is there, for the server to fill");
        }
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    an_applications_status_follows_its_operations(site) {
        let views = site.views().await;
        let runner = views.follow();
        let sample = Sample::new(1);
        site.append(sample.deployment()).await;
        site.append(sample.success()).await;
        let operation = proximity_domain::OperationId(uuid::Uuid::from_u128(99));
        let planned = stream("operation", &operation.to_string(), &[sample.planned()]);
        site.append(vec![planned]).await;
        let began = |kind| App::OperationBegan { operation, kind };
        let failed = |kind, running| App::OperationFailed { operation, kind, problem: "no".into(), running };
        let stuck = || App::OperationStuck { operation, problem: "stuck".into() };
        let guest = |number| Sample::new(number).guest();
        let gone = "its container 105 is gone from Proxmox, last seen on pve1: restore a backup, or delete the application";
        let abandoned = || App::OperationAbandoned { operation, problem: "given up".into(), running: None };
        for (event, status, problem, busy) in [
            (began(OperationKind::Stop), "updating", None, true),
            (App::Stopped { operation }, "stopped", None, false),
            (began(OperationKind::Start), "updating", None, true),
            (failed(OperationKind::Start, false), "stopped", Some("no"), false),
            (began(OperationKind::Start), "updating", None, true),
            (App::Started { operation, address: None }, "running", None, false),
            (began(OperationKind::Restart), "updating", None, true),
            (stuck(), "error", Some("stuck"), true),
            (abandoned(), "error", Some("given up"), false),
            (began(OperationKind::Restart), "updating", None, true),
            (App::Restarted { operation, address: None }, "running", None, false),
            (began(OperationKind::Delete), "removing", None, true),
            (failed(OperationKind::Delete, true), "running", Some("no"), false),
            (App::VmidReplaced { operation, from: sample.vmid(), to: Sample::new(5).vmid() }, "running", Some("no"), false),
            (App::Lost(Loss::Gone), "error", Some(gone), false),
            (began(OperationKind::Restore), "updating", None, true),
            (App::GuestSwapped { operation, from: guest(5), to: guest(6) }, "updating", None, true),
            (App::Restored { operation, backup: BackupId(1), address: None, running: true }, "running", None, false),
            (began(OperationKind::Delete), "removing", None, true),
        ] {
            let position = site.append(vec![sample.app(std::slice::from_ref(&event))]).await;
            caught_up(&views, position).await;
            let app = one(&views, &sample).await;
            assert_eq!((app.status.as_str(), app.problem.as_deref()), (status, problem), "{event:?}");
            assert_eq!(app.operation.is_some(), busy, "{event:?}");
        }
        assert_eq!(one(&views, &sample).await.vmid, Some(106));
        let position = site.append(vec![sample.app(&[App::Removed { operation }])]).await;
        caught_up(&views, position).await;
        assert_eq!(views.app(&sample.id(), false).await.unwrap(), None);
        assert!(views.app(&sample.id(), true).await.unwrap().is_some(), "history stays readable");
        assert_eq!(views.apps(&Filter::default(), 1, 20).await.unwrap().total, 0);
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    a_failed_deployment_stays_in_error_and_holds_nothing(site) {
        let views = site.views().await;
        let runner = views.follow();
        let sample = Sample::new(1);
        site.append(sample.deployment()).await;
        let operation = sample.operation();
        let failed = App::DeploymentFailed { operation, problem: "no space left".into() };
        let delete = proximity_domain::OperationId(uuid::Uuid::from_u128(98));
        let again = [
            App::OperationBegan { operation: delete, kind: OperationKind::Delete },
            App::OperationFailed { operation: delete, kind: OperationKind::Delete, problem: "later".into(), running: false },
        ];
        let position = site.append(vec![sample.app(&[failed])]).await;
        caught_up(&views, position).await;
        let app = one(&views, &sample).await;
        assert_eq!((app.status.as_str(), app.problem.as_deref()), ("error", Some("no space left")));
        assert_eq!((app.vmid, app.public_port, app.internal_port, app.address), (None, None, None, None));
        assert_eq!((app.node_name.as_str(), app.host_id), ("pve1", 1), "the web client needs these");
        assert!(views.promised().await.unwrap().is_empty());
        let position = site.append(vec![sample.app(&again)]).await;
        caught_up(&views, position).await;
        assert_eq!(one(&views, &sample).await.status, "error", "it still can only be deleted");
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    audit_15_a_list_is_one_statement_however_long(site) {
        let views = site.views().await;
        let runner = views.follow();
        for chunk in 0..50_u32 {
            let samples = (0..20).map(|n| Sample::new(chunk * 20 + n + 1));
            site.append(samples.flat_map(|sample| sample.deployment()).collect()).await;
        }
        let head = site.store.head().await.unwrap();
        caught_up(&views, head).await;
        let mut spent = Vec::new();
        for (page, per_page, expected) in [(1, 1, 1), (1, 20, 20), (3, 100, 100), (11, 100, 0)] {
            let before = views.statements();
            let list = views.apps(&Filter::default(), page, per_page).await.unwrap();
            spent.push(views.statements() - before);
            assert_eq!((list.items.len(), list.total), (expected, 1_000));
            assert!(list.items.iter().all(|app| app.operation.is_some()));
        }
        println!("figure: {:?}: a list of 1, 20, 100 and 0 of 1,000 applications: {spent:?} statements", site.kind);
        assert_eq!(spent, [1, 1, 1, 1]);
        // Every application is on exactly one page, newest first.
        let mut all = Vec::new();
        for page in 1..=10 {
            all.extend(ids(&views.apps(&Filter::default(), page, 100).await.unwrap().items));
        }
        assert_eq!(all, (1..=1_000).rev().collect::<Vec<_>>());
        let promised = views.promised().await.unwrap();
        assert_eq!((promised.len(), promised[0].memory_mb, promised[0].deployments), (1, 512_000, 1_000));
        assert_eq!(views.apps_on_host(1).await.unwrap(), 1_000);
        assert_eq!(views.count_taken("hostname").await.unwrap(), 1_000);
        let mut verdicts = Vec::new();
        for name in ["applications", "leases", "operations", "hosts"] {
            verdicts.push((name, views.verify(name, silent()).await.unwrap()));
        }
        assert!(verdicts.iter().all(|(_, v)| v.rows_different == 0), "{verdicts:?}");
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    a_list_is_filtered_by_owner_status_and_a_substring_in_any_case(site) {
        let views = site.views().await;
        let runner = views.follow();
        let named = |number: u32, owner: i64, name: &str, hostname: &str| {
            let sample = Sample::new(number);
            Sample { owner, name: name.into(), hostname: hostname.into(), ..sample }
        };
        let samples = [
            named(1, 1, "Ärger 100%", "alpha"),
            named(2, 1, "a_b", "beta-web"),
            named(3, 2, r"back\slash", "gamma"),
            named(4, 2, "axb 1000", "web-delta"),
        ];
        for sample in &samples {
            site.append(sample.deployment()).await;
        }
        let position = site.append(samples[3].success()).await;
        caught_up(&views, position).await;
        let find = async |owner: Option<i64>, status: Option<&str>, search: Option<&str>| {
            let filter = Filter {
                owner,
                status: status.map(str::to_owned),
                search: search.map(str::to_owned),
                host: None,
            };
            let page = views.apps(&filter, 1, 20).await.unwrap();
            assert_eq!(page.total, page.items.len() as u64);
            ids(&page.items)
        };
        assert_eq!(find(None, None, None).await, [4, 3, 2, 1]);
        assert_eq!(find(Some(1), None, None).await, [2, 1]);
        assert_eq!(find(Some(3), None, None).await, [0_u64; 0]);
        assert_eq!(find(None, Some("running"), None).await, [4]);
        assert_eq!(find(Some(2), Some("deploying"), None).await, [3]);
        assert_eq!(find(None, None, Some("WEB")).await, [4, 2], "hostname");
        assert_eq!(find(None, None, Some("ärger")).await, [1], "name, beyond ASCII");
        assert_eq!(find(None, None, Some("100%")).await, [1], "no wildcard");
        assert_eq!(find(None, None, Some("A_B")).await, [2], "no wildcard");
        assert_eq!(find(None, None, Some(r"\S")).await, [3]);
        assert_eq!(find(Some(1), None, Some("web")).await, [2]);
        assert_eq!(find(None, None, Some("'; drop table applications; --")).await, [0_u64; 0]);
        assert_eq!(find(None, None, Some("")).await, [4, 3, 2, 1]);
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    what_running_deployments_were_promised_is_told_per_node(site) {
        let views = site.views().await;
        let runner = views.follow();
        let on = |number: u32, node: &str| Sample { node: node.into(), ..Sample::new(number) };
        for sample in [on(1, "pve1"), on(2, "pve2"), on(3, "pve2"), on(4, "pve2")] {
            site.append(sample.deployment()).await;
        }
        let position = site.append(on(4, "pve2").success()).await;
        caught_up(&views, position).await;
        let promised = views.promised().await.unwrap();
        let told: Vec<_> = promised.iter().map(|p| (p.node.as_str(), p.memory_mb)).collect();
        assert_eq!(told, [("pve1", 512), ("pve2", 1_024)]);
        let undone = Operation::Undone { reason: "x".into() };
        let failed = App::DeploymentFailed { operation: Sample::new(1).operation(), problem: "x".into() };
        let position = site.append(vec![on(1, "pve1").op(&[undone]), on(1, "pve1").app(&[failed])]).await;
        caught_up(&views, position).await;
        assert_eq!(views.promised().await.unwrap().len(), 1);
        runner.stop().await;
        views.close().await;
    }
}

//! What a schedule removes when records and storages do not agree.

use proximity_simulator::{Fault, FaultRule, Times, When};
use serde_json::json;

use crate::harness::on_both;
use crate::schedule_runs::{dealt_with, make, reach, world};

/// Somebody removed the newest ones on Proxmox: the one that is left is the last, whatever the records say.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_archive_is_gone_keeps_nothing_and_is_named() {
    on_both(async |kind| {
        let (world, clock) = world(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let body = json!({ "application_id": app, "cron": "0 2 * * *", "keep_last": 2 });
        let schedule = make(&world, &world.owner, body).await;
        let night = async || {
            let due = reach(&world, &clock, &schedule).await;
            let after = dealt_with(&world, &schedule, &due).await.body;
            after["last_result"]["backups"][0].clone()
        };
        let first = night().await["backup_id"].clone();
        let volumes = || {
            let stored = world.simulator.ledger().backups;
            stored.into_iter().map(|archive| archive.volid).collect::<Vec<_>>()
        };
        let kept = volumes();
        let second = night().await["backup_id"].clone();
        let lost = volumes().into_iter().find(|volid| !kept.contains(volid)).unwrap();
        world.simulator.remove_volume(&lost).unwrap();

        let told = night().await;
        assert_eq!(told["pruned"], json!([]), "{told}");
        let problem = told["problem"].as_str().unwrap();
        assert!(problem.contains(&format!("do not count as kept: {second};")), "{problem}");
        assert!(volumes().contains(&kept[0]) && volumes().len() == 2);

        // Neither does anything go while the storage cannot be read: the third look at it in a night.
        let when = When {
            method: Some("GET".to_owned()),
            path: Some("/storage/local/content$".to_owned()),
            nth: Some(3),
            ..When::default()
        };
        let refused = Fault::Status { status: 403, reason: None, after_effect: false };
        let rule = FaultRule { when, times: Times::Once, fault: refused };
        world.simulator.faults().add(rule).unwrap();
        let told = night().await;
        assert_eq!((&told["result"], &told["pruned"]), (&json!("completed"), &json!([])), "{told}");
        let problem = told["problem"].as_str().unwrap();
        assert!(
            problem.contains("nothing was removed from storage local of node pve"),
            "{problem}"
        );
        assert_eq!(volumes().len(), 3);

        // Of the three that are there the oldest ones go, and the record of the lost one stays.
        let told = night().await;
        assert_eq!(told["pruned"].as_array().unwrap().len(), 2, "{told}");
        assert_eq!(told["pruned"][0], first, "{told}");
        assert!(told["problem"].as_str().unwrap().contains(&format!("kept: {second};")), "{told}");
        assert_eq!(volumes().len(), 2);
        world.stop().await;
    })
    .await;
}

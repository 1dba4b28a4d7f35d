//! Schedules that fire, against the simulator over HTTPS: the clock is moved on by hours and days, and
//! what was made, kept and removed is counted there.

use std::collections::BTreeMap;
use std::sync::Arc;

use proximity_commands::clock::{AheadClock, Clock as _, SECOND};
use proximity_eventstore::Recorded;
use proximity_simulator::{Fault, FaultRule};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::{Answer, Kind, Server, on_both};
use crate::world::{Person, World};

const ALL: &str = "/api/backup-schedules";
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;

/// A world whose clock can be moved on, with tokens that outlast that.
pub async fn world(kind: Kind) -> (World, Arc<AheadClock>) {
    let clock = Arc::new(AheadClock::default());
    let mut world = World::start_by(kind, clock.clone()).await;
    let lasting = async |who: &Person, scopes: Value| {
        let body = json!({ "name": "lasting", "scopes": scopes, "expires_in_days": 366 });
        let made = world.post(who, "/api/auth/tokens", &body).await;
        let token = made.body["token"].as_str().unwrap().to_owned();
        Person { name: who.name.clone(), token }
    };
    let admin = lasting(&world.admin, json!(["read", "write", "admin"])).await;
    let owner = lasting(&world.owner, json!(["read", "write"])).await;
    let other = lasting(&world.other, json!(["read", "write"])).await;
    (world.admin, world.owner, world.other) = (admin, owner, other);
    (world, clock)
}

fn micros(moment: &Value) -> i64 {
    let at = OffsetDateTime::parse(moment.as_str().unwrap(), &Rfc3339).unwrap();
    i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap()
}

/// Moves the clock to just after a schedule's next time; that time.
pub async fn reach(world: &World, clock: &AheadClock, schedule: &str) -> Value {
    let next = world.get(&world.admin, schedule).await.body["next_run"].clone();
    clock.skip(micros(&next) - clock.now() + SECOND);
    next
}

/// Waits until a time of the schedule is dealt with.
pub async fn dealt_with(world: &World, schedule: &str, due: &Value) -> Answer {
    world
        .until(schedule, |answer| {
            answer.body["last_result"]["due"] == *due && answer.body["is_running"] == false
        })
        .await
}

pub async fn make(world: &World, who: &Person, body: Value) -> String {
    let made = world.post(who, ALL, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    format!("{ALL}/{}", made.body["id"])
}

async fn events(server: &Server, event_type: &str) -> Vec<Recorded> {
    let all = server.app.store.feed(0, 100_000).await.unwrap();
    all.into_iter().filter(|event| event.event_type == event_type).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_fires_at_its_times_and_keeps_what_its_rules_say() {
    on_both(async |kind| {
        let (world, clock) = world(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let by_hand = world.backed_up(&world.owner, &app).await;
        let body = json!({ "application_id": app, "cron": "0 2 * * *", "keep_last": 2 });
        let schedule = make(&world, &world.owner, body).await;
        let mut made = Vec::new();
        for night in 1..=4_usize {
            let due = reach(&world, &clock, &schedule).await;
            let after = dealt_with(&world, &schedule, &due).await.body;
            assert_eq!(after["last_run"], due);
            assert_eq!(micros(&after["next_run"]) - micros(&due), DAY, "{after}");
            let result = &after["last_result"];
            assert_eq!(
                (&result["result"], &result["message"]),
                (&json!("completed"), &json!("1 backed up."))
            );
            let told = &result["backups"][0];
            made.push(told["backup_id"].as_i64().unwrap());
            let pruned: &[i64] = if night > 2 { &made[night - 3..night - 2] } else { &[] };
            assert_eq!(told["pruned"], json!(pruned), "night {night}: {after}");

            let kept = world.get(&world.owner, &format!("/api/apps/{app}/backups")).await.body;
            let shown: BTreeMap<i64, Value> = kept["backups"]
                .as_array()
                .unwrap()
                .iter()
                .map(|backup| (backup["id"].as_i64().unwrap(), backup["schedule_id"].clone()))
                .collect();
            let mut expected: BTreeMap<i64, Value> =
                made[night.saturating_sub(2)..].iter().map(|id| (*id, json!(1))).collect();
            expected.insert(by_hand, Value::Null);
            assert_eq!(shown, expected, "what people made is never removed");
            assert_eq!(world.simulator.ledger().backups.len(), expected.len());
        }
        // Everything was done by the schedule, on behalf of its owner.
        for event_type in
            ["backup_schedule.fired", "backup_schedule.run_ended", "backup_run.closed"]
        {
            let found = events(&world.server, event_type).await;
            assert_eq!(found.len(), 4, "{event_type}");
            for event in found {
                let told: Value = serde_json::from_str(&event.metadata).unwrap();
                assert_eq!(
                    (&told["actor"], &told["on_behalf_of"], &told["owner"]),
                    (&json!("schedule/1"), &json!("2"), &json!("2"))
                );
            }
        }
        let audit = "/api/audit/events?actor=schedule/1&limit=1000";
        let seen = world.get(&world.owner, audit).await.body;
        assert!(seen["events"].as_array().unwrap().len() > 12, "{seen}");
        assert_eq!(world.get(&world.other, audit).await.body["events"], json!([]));
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_missed_while_no_server_ran_are_made_up_for_once() {
    on_both(async |kind| {
        let (mut world, clock) = world(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let body = json!({ "application_id": app, "cron": "0 */6 * * *" });
        let schedule = make(&world, &world.owner, body).await;
        let due = world.get(&world.owner, &schedule).await.body["next_run"].clone();
        world.server = world.server.restarted(clock.clone(), || clock.skip(3 * DAY)).await;
        let after = dealt_with(&world, &schedule, &due).await.body;
        assert_eq!(after["last_result"]["result"], "completed", "{after}");
        let next = micros(&after["next_run"]);
        assert!(next > clock.now() && next <= clock.now() + DAY / 4, "{after}");
        // Killed again and again in between, it is still fired once.
        for _ in 0..3 {
            world.server = world.server.restarted(clock.clone(), || {}).await;
        }
        world.until(&schedule, |answer| answer.status == 200).await;
        assert_eq!(events(&world.server, "backup_schedule.fired").await.len(), 1);
        assert_eq!(world.simulator.ledger().backups.len(), 1);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_a_restart_interrupts_goes_on_and_backs_up_once() {
    on_both(async |kind| {
        let (mut world, clock) = world(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let body = json!({ "application_id": app, "cron": "0 2 * * *", "keep_last": 1 });
        let schedule = make(&world, &world.owner, body).await;
        for _ in 0..2 {
            let due = reach(&world, &clock, &schedule).await;
            world.until(&schedule, |answer| answer.body["last_run"] == due).await;
            world.server = world.server.restarted(clock.clone(), || {}).await;
            dealt_with(&world, &schedule, &due).await;
        }
        let asked = events(&world.server, "backup.requested").await;
        assert_eq!(asked.len(), 2, "{asked:#?}");
        assert_eq!(world.simulator.ledger().backups.len(), 1);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_on_one_database_one_fires_each_time() {
    let (world, clock) = world(Kind::Postgres).await;
    let mut schedules = Vec::new();
    for number in 1..=4 {
        let app = world.deployed(&world.owner, &format!("web-0{number}")).await;
        let body = json!({ "application_id": app, "cron": "*/30 * * * *", "keep_last": 2 });
        schedules.push(make(&world, &world.owner, body).await);
    }
    let second = world.server.beside(clock.clone()).await;
    for _ in 0..4 {
        let due = reach(&world, &clock, &schedules[0]).await;
        for schedule in &schedules {
            let after = dealt_with(&world, schedule, &due).await.body;
            assert_eq!(after["last_result"]["result"], "completed", "{after}");
        }
    }
    let mut fired: BTreeMap<(String, String), u32> = BTreeMap::new();
    for event in events(&world.server, "backup_schedule.fired").await {
        let told: Value = serde_json::from_str(&event.payload).unwrap();
        *fired.entry((event.aggregate_id, told["fired"]["due"].to_string())).or_default() += 1;
    }
    assert_eq!(fired.len(), 16, "four schedules, four times each");
    assert!(fired.values().all(|times| *times == 1), "{fired:#?}");
    let mut asked: BTreeMap<String, u32> = BTreeMap::new();
    for event in events(&world.server, "backup.requested").await {
        let told: Value = serde_json::from_str(&event.payload).unwrap();
        *asked.entry(told["requested"]["scheduled"].to_string()).or_default() += 1;
    }
    assert_eq!(asked.values().sum::<u32>(), 16, "{asked:#?}");
    assert_eq!(events(&world.server, "backup_run.began").await.len(), 16);
    assert_eq!(events(&world.server, "backup_schedule.run_ended").await.len(), 16);
    assert_eq!(events(&world.server, "backup.deleted").await.len(), 8, "two of four are kept");
    assert_eq!(world.simulator.ledger().backups.len(), 8);
    println!("figure: two servers, one PostgreSQL: {} times fired, each once", fired.len());
    second.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_for_all_applications_includes_those_that_are_made_later() {
    on_both(async |kind| {
        let (world, clock) = world(kind).await;
        let schedule =
            make(&world, &world.owner, json!({ "cron": "0 * * * *", "keep_last": 1 })).await;
        let due = reach(&world, &clock, &schedule).await;
        let none = dealt_with(&world, &schedule, &due).await.body;
        let told = &none["last_result"];
        assert_eq!((&told["result"], &told["backups"]), (&json!("skipped"), &json!([])));
        assert!(told["message"].as_str().unwrap().contains("no application"), "{none}");

        let mut mine = vec![world.deployed(&world.owner, "web-01").await];
        let theirs = world.deployed(&world.other, "web-99").await;
        let covered = async |mine: &mut Vec<String>| {
            let due = reach(&world, &clock, &schedule).await;
            let after = dealt_with(&world, &schedule, &due).await.body;
            let told = after["last_result"]["backups"].as_array().unwrap();
            let mut apps: Vec<String> =
                told.iter().map(|one| one["application_id"].as_str().unwrap().to_owned()).collect();
            apps.sort();
            mine.sort();
            assert_eq!(apps, *mine, "{after}");
            assert!(told.iter().all(|one| one["result"] == "completed"), "{after}");
        };
        covered(&mut mine).await;
        mine.push(world.deployed(&world.owner, "web-02").await);
        mine.push(world.deployed(&world.owner, "web-03").await);
        covered(&mut mine).await;
        // One of them goes; its backup stays, and the schedule goes on with the others.
        let gone = mine.remove(0);
        let path = format!("/api/apps/{gone}");
        assert_eq!(world.delete_as(&world.owner, &path).await.status, 202);
        world.until(&path, |answer| answer.status == 404).await;
        covered(&mut mine).await;
        let stored = world.get(&world.admin, "/api/backups").await.body;
        let of = |app: &str| {
            let all = stored["backups"].as_array().unwrap();
            all.iter().filter(|backup| backup["application_id"] == app).count()
        };
        assert_eq!(mine.iter().map(|app| of(app)).collect::<Vec<_>>(), [1, 1]);
        assert_eq!((of(&gone), of(&theirs)), (1, 0), "{stored}");
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_occupied_application_is_tried_for_a_time_and_then_skipped() {
    on_both(async |kind| {
        let (world, clock) = world(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let body = json!({ "application_id": app, "cron": "0 2 * * *" });
        let schedule = make(&world, &world.owner, body).await;
        let due = reach_but(&world, &clock, &schedule, 5 * MINUTE).await;
        let hang = Fault::TaskNeverEnds { after_effect: false };
        world.simulator.faults().add(FaultRule::once("container.shutdown", hang.clone())).unwrap();
        let stop = json!({ "action": "stop" });
        let path = format!("/api/apps/{app}");
        let accepted = world.post(&world.owner, &format!("{path}/action"), &stop).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        clock.skip(5 * MINUTE + SECOND);
        world.until(&schedule, |answer| answer.body["last_run"] == due).await;
        until_logged(&world, "backup_run.deferred", 1).await;
        clock.skip(21 * MINUTE);
        let after = dealt_with(&world, &schedule, &due).await.body;
        let told = &after["last_result"];
        assert_eq!(told["result"], "skipped", "{after}");
        let message = told["message"].as_str().unwrap();
        assert!(message.contains("(stop) was still running"), "{message}");
        assert!(world.simulator.ledger().backups.is_empty());
        assert_eq!(events(&world.server, "backup_run.deferred").await.len(), 1);

        // Free in time, it is backed up although it was occupied when the time came.
        world.simulator.clear_faults();
        world.until(&path, |answer| answer.body["operation"].is_null()).await;
        let due = reach_but(&world, &clock, &schedule, 5 * MINUTE).await;
        world.simulator.faults().add(FaultRule::once("container.start", hang)).unwrap();
        let start = json!({ "action": "start" });
        let again = world.post(&world.owner, &format!("{path}/action"), &start).await;
        assert_eq!(again.status, 202, "{}", again.text);
        clock.skip(5 * MINUTE + SECOND);
        until_logged(&world, "backup_run.deferred", 2).await;
        world.simulator.clear_faults();
        let after = dealt_with(&world, &schedule, &due).await.body;
        assert_eq!(after["last_result"]["result"], "completed", "{after}");
        assert_eq!(world.simulator.ledger().backups.len(), 1);
        world.stop().await;
    })
    .await;
}

/// Moves the clock to so long before a schedule's next time; that time.
async fn reach_but(world: &World, clock: &AheadClock, schedule: &str, before: i64) -> Value {
    let next = world.get(&world.admin, schedule).await.body["next_run"].clone();
    clock.skip(micros(&next) - clock.now() - before);
    next
}

async fn until_logged(world: &World, event_type: &str, count: usize) {
    let path = format!("/api/audit/events?limit=1000&type={event_type}");
    let enough = |answer: &Answer| answer.body["events"].as_array().unwrap().len() >= count;
    world.until(&path, enough).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_is_told_and_the_next_one_is_made() {
    on_both(async |kind| {
        let (world, clock) = world(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let body = json!({ "application_id": app, "cron": "0 2 * * *", "keep_last": 1 });
        let schedule = make(&world, &world.owner, body).await;
        let due = reach_but(&world, &clock, &schedule, MINUTE).await;
        let refused = Fault::Status { status: 403, reason: None, after_effect: false };
        world.simulator.faults().add(FaultRule::forever("backup.create", refused)).unwrap();
        clock.skip(MINUTE + SECOND);
        let after = dealt_with(&world, &schedule, &due).await.body;
        let told = &after["last_result"];
        assert_eq!(
            (&told["result"], &told["backups"][0]["result"]),
            (&json!("failed"), &json!("failed"))
        );
        assert!(
            told["backups"][0]["problem"].as_str().is_some_and(|text| text.len() > 10),
            "{after}"
        );
        let seen =
            world.get(&world.owner, "/api/audit/events?type=backup_schedule.run_ended").await;
        let outcome = &seen.body["events"][0]["payload"]["run_ended"]["outcomes"][0];
        assert_eq!(outcome["result"], "failed", "{}", seen.text);

        world.simulator.clear_faults();
        let due = reach(&world, &clock, &schedule).await;
        let after = dealt_with(&world, &schedule, &due).await.body;
        assert_eq!(after["last_result"]["result"], "completed", "{after}");
        assert_eq!(world.simulator.ledger().backups.len(), 1);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_of_a_schedule_that_is_deleted_meanwhile_ends_and_begins_nothing_more() {
    on_both(async |kind| {
        let (world, clock) = world(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let (path, hang) =
            (format!("/api/apps/{app}"), Fault::TaskNeverEnds { after_effect: false });
        let body = json!({ "application_id": app, "cron": "0 2 * * *", "keep_last": 1 });
        let schedule = make(&world, &world.owner, body.clone()).await;
        let due = reach(&world, &clock, &schedule).await;
        dealt_with(&world, &schedule, &due).await;

        // While an older backup is removed, and before anything was begun.
        world.simulator.faults().add(FaultRule::once("content.delete", hang.clone())).unwrap();
        reach(&world, &clock, &schedule).await;
        until_logged(&world, "backup_run.pruning_began", 1).await;
        assert_eq!(world.delete_as(&world.owner, &schedule).await.status, 204);
        world.simulator.clear_faults();
        until_logged(&world, "backup_run.ended", 2).await;
        let closed = events(&world.server, "backup_run.closed").await;
        let outcome: Value = serde_json::from_str(&closed[1].payload).unwrap();
        let outcome = &outcome["closed"]["outcome"];
        assert_eq!(outcome["result"], "completed", "{outcome}");
        assert_eq!(outcome["pruned"].as_array().unwrap().len(), 1, "{outcome}");

        let schedule = make(&world, &world.owner, body).await;
        world.simulator.faults().add(FaultRule::once("container.shutdown", hang)).unwrap();
        reach_but(&world, &clock, &schedule, MINUTE).await;
        let stop = json!({ "action": "stop" });
        let accepted = world.post(&world.owner, &format!("{path}/action"), &stop).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        clock.skip(MINUTE + SECOND);
        until_logged(&world, "backup_run.deferred", 1).await;
        assert_eq!(world.delete_as(&world.owner, &schedule).await.status, 204);
        until_logged(&world, "backup_run.ended", 3).await;
        let closed = events(&world.server, "backup_run.closed").await;
        assert!(closed[2].payload.contains("the schedule was deleted"), "{}", closed[2].payload);
        world.simulator.clear_faults();
        world.until(&path, |answer| answer.body["operation"].is_null()).await;
        assert_eq!(world.simulator.ledger().backups.len(), 1);
        world.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_owners_schedules_do_not_fire_and_a_removed_applications_end() {
    on_both(async |kind| {
        let (world, clock) = world(kind).await;
        let app = world.deployed(&world.owner, "web-01").await;
        let theirs = world.deployed(&world.other, "web-02").await;
        let every_hour = |app: &str| json!({ "application_id": app, "cron": "0 * * * *" });
        let schedule = make(&world, &world.owner, every_hour(&app)).await;
        let ends = make(&world, &world.other, every_hour(&theirs)).await;
        let path = format!("/api/apps/{theirs}");
        assert_eq!(world.delete_as(&world.other, &path).await.status, 202);
        world.until(&ends, |answer| answer.status == 404).await;
        let ended = events(&world.server, "backup_schedule.deleted").await;
        assert_eq!(ended.len(), 1);
        assert!(ended[0].payload.contains("application_removed"), "{}", ended[0].payload);

        let disabled = async |disabled: bool| {
            let body = Some(json!({ "disabled": disabled }));
            let path = "/api/users/2";
            let method = reqwest::Method::PATCH;
            let answer = world.server.as_person(&world.admin, method, path, body.as_ref()).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
        };
        disabled(true).await;
        let due = reach(&world, &clock, &schedule).await;
        let after = dealt_with(&world, &schedule, &due).await.body;
        assert_eq!(after["last_result"]["result"], "skipped", "{after}");
        assert!(after["last_result"]["message"].as_str().unwrap().contains("disabled"), "{after}");
        assert!(world.simulator.ledger().backups.is_empty());
        disabled(false).await;
        let due = reach(&world, &clock, &schedule).await;
        let after = dealt_with(&world, &schedule, &due).await.body;
        assert_eq!(after["last_result"]["result"], "completed", "{after}");
        assert_eq!(events(&world.server, "backup_schedule.fired").await.len(), 1);
        world.stop().await;
    })
    .await;
}

//! A check of the log passes what is as it should be, and finds each fault that is planted.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use proximity_domain::application::Event as App;
use proximity_domain::lease::{Event as Lease, Holder};
use proximity_domain::operation::{Direction, Event as Operation};
use proximity_domain::plan::Kind as OperationKind;
use proximity_domain::{OperationId, UserId};
use proximity_eventstore::{Append, Lane, Position, Recorded, StreamAppend};
use proximity_projections::applications;
use proximity_projections::replay::{self, Until};
use proximity_projections::{Error, Feed, Location, Views};
use tokio::sync::watch;
use uuid::Uuid;

use crate::on_both;
use crate::samples::*;
use crate::support::*;

const METADATA: &str = r#"{"actor":"system/test","command":"test"}"#;

async fn store(site: &Site, streams: Vec<StreamAppend>) {
    let append = Append {
        id: Uuid::new_v4(),
        lane: Lane::User("test".to_owned()),
        streams,
        assertions: Vec::new(),
        side: Vec::new(),
        metadata: METADATA.to_owned(),
        fence: None,
        idempotency: None,
    };
    site.store.append(append).await.unwrap();
}

/// What a deletion that ends well appends.
fn deletion(sample: &Sample) -> [Vec<StreamAppend>; 2] {
    let operation = OperationId(Uuid::from_u128(1_000 + u128::from(sample.number)));
    let planned = Operation::Planned {
        application: sample.application(),
        owner: UserId(sample.owner),
        plan: delete_plan(sample),
        steps: vec!["destroy".to_owned()],
        deadline: 2_000_000_000_000_000,
    };
    let id = operation.to_string();
    let began = App::OperationBegan { operation, kind: OperationKind::Delete };
    let first = vec![sample.app(&[began]), stream("operation", &id, &[planned])];
    let holder = || Holder::Application(sample.application());
    let mut last = vec![
        stream(
            "operation",
            &id,
            &[
                intended("destroy", Direction::Act, 1),
                succeeded("destroy", Direction::Act, 1),
                Operation::Completed,
            ],
        ),
        sample.app(&[App::Removed { operation }]),
    ];
    for key in sample.holdings().leases(&sample.guest().cluster) {
        last.push(stream("lease", &key.to_string(), &[Lease::Released { holder: holder() }]));
    }
    let reason = "it was removed".to_owned();
    let quarantined = Lease::Quarantined { holder: holder(), until: 1, reason };
    last.push(stream("lease", &sample.guest().vmid_lease().to_string(), &[quarantined]));
    [first, last]
}

/// Two that run, one that is removed, one whose deployment goes on.
async fn fill(site: &Site) {
    for number in 1..=4 {
        let sample = Sample::new(number);
        store(site, sample.deployment()).await;
        if number < 4 {
            store(site, sample.success()).await;
        }
        if number == 3 {
            for streams in deletion(&sample) {
                store(site, streams).await;
            }
        }
    }
}

/// A log that is a list.
struct Listed(Vec<Recorded>);

#[async_trait]
impl Feed for Listed {
    async fn events(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, Error> {
        Ok(self.0.iter().filter(|event| event.position > after).take(limit).cloned().collect())
    }

    async fn stream(&self, aggregate_type: &str, id: &str) -> Result<Vec<Recorded>, Error> {
        let its =
            |event: &&Recorded| event.aggregate_type == aggregate_type && event.aggregate_id == id;
        Ok(self.0.iter().filter(its).cloned().collect())
    }

    async fn head(&self) -> Result<Position, Error> {
        Ok(self.0.last().map_or(0, |last| last.position))
    }

    fn watch(&self) -> watch::Receiver<Position> {
        watch::channel(0).1
    }

    fn incarnation(&self) -> String {
        String::new()
    }
}

pub async fn judged(log: Vec<Recorded>) -> Vec<(Option<u64>, String, String)> {
    let report = replay::judge(Arc::new(Listed(log)), Until::Head, silent()).await.unwrap();
    let first = report.findings.first;
    first.into_iter().map(|one| (one.position, one.subject, one.problem)).collect()
}

fn at<'l>(log: &'l mut [Recorded], event_type: &str, nth: usize) -> &'l mut Recorded {
    log.iter_mut().filter(|event| event.event_type == event_type).nth(nth).unwrap()
}

/// Takes events out and closes the gaps, as somebody would who knows of them.
fn without(log: &mut Vec<Recorded>, gone: impl Fn(&Recorded) -> bool) {
    log.retain(|event| !gone(event));
    let mut sequences = BTreeMap::new();
    for (index, event) in log.iter_mut().enumerate() {
        event.position = index as u64 + 1;
        let key = (event.aggregate_type.clone(), event.aggregate_id.clone());
        let sequence = sequences.entry(key).or_insert(0);
        *sequence += 1;
        event.sequence = *sequence;
    }
}

type Plant = (&'static str, fn(&mut Vec<Recorded>), &'static str);

/// What is planted, and what the check has to say of it.
const PLANTS: &[Plant] = &[
    (
        "two holders of one name",
        |log| {
            let name = at(log, "lease.acquired", 0).aggregate_id.clone();
            let other = log.iter().filter(|e| e.event_type == "lease.acquired").nth(4).unwrap();
            assert!(other.aggregate_id.starts_with("hostname/"));
            let position = other.position;
            let other = log.iter_mut().find(|event| event.position == position).unwrap();
            (other.aggregate_id, other.sequence) = (name, 2);
        },
        "took it while application/nginx-00000001 held it",
    ),
    ("a missing event", |log| drop(log.remove(5)), "position 7 follows 5"),
    (
        "a stream that skips",
        |log| at(log, "operation.completed", 0).sequence += 1,
        "of its stream follows",
    ),
    (
        "a step out of order",
        |log| {
            let steps = ["ensure_oci_image", "start"];
            for nth in [0, 0] {
                let event = at(log, "operation.step_intended", nth);
                event.payload = event.payload.replace(steps[0], steps[1]);
            }
        },
        "is no legal next step",
    ),
    (
        "an outcome without an intent",
        |log| {
            without(log, |event| {
                event.event_type == "operation.step_intended" && event.sequence == 4
            })
        },
        "operation.step_succeeded is no legal next step",
    ),
    (
        "an end before all steps",
        |log| {
            without(log, |event| {
                event.event_type.starts_with("operation.step") && event.sequence > 7
            })
        },
        "operation.completed is no legal next step",
    ),
    (
        "an event after the end",
        |log| {
            let end =
                log.iter().position(|event| event.event_type == "operation.completed").unwrap();
            let mut again = log[end].clone();
            again.sequence += 1;
            log.insert(end + 1, again);
            for (index, event) in log.iter_mut().enumerate() {
                event.position = index as u64 + 1;
            }
        },
        "operation.completed is no legal next step",
    ),
    (
        "an attempt that was never begun",
        |log| {
            let event = at(log, "operation.step_intended", 1);
            event.payload = event.payload.replace("\"attempt\":1", "\"attempt\":3");
        },
        "operation.step_intended is no legal next step",
    ),
    (
        "a lease that nobody gave back",
        |log| {
            without(log, |event| {
                event.event_type == "lease.released"
                    && event.aggregate_id.starts_with("port/public")
            })
        },
        "holds it and does not live",
    ),
    (
        "a live application without its name",
        |log| without(log, |event| event.aggregate_id == "hostname/web-2"),
        "it does not hold hostname/web-2",
    ),
    (
        "an operation that nothing is reserved for",
        |log| without(log, |event| event.aggregate_id == "nginx-00000004"),
        "nginx-00000004 is not reserved for it",
    ),
    (
        "an application that was requested twice",
        |log| {
            let first = at(log, "application.requested", 0).aggregate_id.clone();
            let second = at(log, "application.requested", 1);
            (second.aggregate_id, second.sequence) = (first, 3);
        },
        "application.requested could not happen then",
    ),
    (
        "a payload that cannot be read",
        |log| at(log, "lease.acquired", 2).payload = "{}".to_owned(),
        "lease.acquired cannot be read",
    ),
    (
        "an event under another's name",
        |log| at(log, "lease.acquired", 2).event_type = "lease.released".to_owned(),
        "it is called lease.released and is lease.acquired",
    ),
    (
        "a version that nobody knows",
        |log| at(log, "lease.acquired", 2).event_version = "7".to_owned(),
        "has version 7",
    ),
    (
        "an event that nobody did",
        |log| at(log, "lease.acquired", 2).metadata = "{}".to_owned(),
        "does not say who did what",
    ),
];

on_both! {
    a_check_finds_each_fault_that_is_planted_in_the_log(site) {
        fill(&site).await;
        let clean = site.store.feed(0, 10_000).await.unwrap();
        assert_eq!(judged(clean.clone()).await, []);
        for (what, plant, wanted) in PLANTS {
            let mut log = clean.clone();
            plant(&mut log);
            let found = judged(log).await;
            assert!(
                found.iter().any(|(_, _, problem)| problem.contains(wanted)),
                "{what}: {found:#?}"
            );
        }
        println!("figure: {:?}: {} faults planted in a log, each found; 0 in {} events as they were", site.kind, PLANTS.len(), clean.len());
    }
}

on_both! {
    a_check_finds_each_live_row_that_was_tampered_with(site) {
        let views = site.views().await;
        let runner = views.follow();
        fill(&site).await;
        caught_up(&views, site.store.head().await.unwrap()).await;
        let report = views.check(silent()).await.unwrap();
        assert_eq!(report.findings.first, []);
        assert!(report.rows_compared > 20, "{report:?}");
        let clean = report.rows_compared;
        let plants = [
            ("update applications set status = 'stopped' where id = 'nginx-00000001'", "applications nginx-00000001"),
            ("delete from applications where id = 'nginx-00000002'", "applications nginx-00000002"),
            ("update operations set step = 'x' where app = 'nginx-00000003'", "operations 00000000"),
            ("insert into leases (id, state, holder, body) values ('hostname/ghost', 'held', 'x', '{}')", "leases hostname/ghost"),
            ("delete from leases where id = 'hostname/web-1'", "leases hostname/web-1"),
        ];
        for (plant, subject) in plants {
            site.tamper(plant).await;
            let report = views.check(silent()).await.unwrap();
            let found = |one: &replay::Finding| one.subject.starts_with(subject);
            assert!(report.findings.first.iter().any(found), "{plant}: {report:#?}");
        }
        let report = views.check(silent()).await.unwrap();
        println!("figure: {:?}: planted 5 differences in {clean} live rows, found {}", site.kind, report.findings.total);
        // Two operations are about the application that was removed.
        assert_eq!(report.findings.total, 6);
        runner.stop().await;
        views.close().await;
    }
}

on_both! {
    a_check_that_reads_only_finds_what_it_cannot_compare_and_leaves_it_as_it_is(site) {
        assert!(Views::open_read_only(&site.location, site.feed()).await.unwrap().is_none());
        if let Location::Sqlite { dir } = &site.location {
            assert!(!dir.join("views.db").exists());
        }
        let views = site.views().await;
        let runner = views.follow();
        fill(&site).await;
        let head = site.store.head().await.unwrap();
        caught_up(&views, head).await;
        runner.stop().await;
        views.close().await;
        let check = async || {
            let views = Views::open_read_only(&site.location, site.feed()).await.unwrap().unwrap();
            let report = views.check(silent()).await.unwrap();
            views.close().await;
            report
        };
        let clean = check().await;
        assert_eq!(clean.findings.first, []);
        assert!(clean.compared.values().all(|position| *position == head), "{clean:?}");
        let live = "slot = 'live'";
        // What the next start of a server brings up by itself is not wrong while none runs.
        let waits = ["operations", "backups", "applications", "backup_schedules"];
        for (plant, subject, problem) in [
            (format!("update checkpoints set problem = 'x' where name = 'hosts' and {live}"), "hosts", "it stopped at"),
            (format!("update checkpoints set problem = null where {live}; delete from operations; update checkpoints set position = 0 where name = 'operations' and {live}"), "operations", "it stands at 0 of"),
            (format!("update checkpoints set incarnation = 'other' where name = 'backups' and {live}"), "backups", "of another life of the log"),
            (format!("update checkpoints set version = 99 where name = 'hosts' and {live}"), "hosts", "its rows are of version 99"),
            (format!("update checkpoints set version = 0 where name = 'backup_schedules' and {live}"), "backup_schedules", "its rows are of version 0"),
            (format!("delete from checkpoints where name = 'applications' and {live}"), "applications", "there is no such read model yet"),
        ] {
            site.tamper(&plant).await;
            let is_waiting = waits.contains(&subject);
            for _ in 0..2 {
                let mut report = check().await;
                let found = |one: &replay::Finding| one.subject == subject && one.problem.contains(problem);
                let has = |report: &replay::Report| report.findings.first.iter().any(found);
                assert_eq!(report.waiting.first.iter().any(found), is_waiting, "{plant}: {report:#?}");
                assert_eq!(has(&report), !is_waiting, "{plant}: {report:#?}");
                // Where a server follows the log, all of it is wrong.
                report.followed();
                assert!(has(&report) && report.waiting.total == 0, "{plant}: {report:#?}");
            }
        }
        if site.kind == Kind::Sqlite {
            site.tamper("update leases set id = cast(id as blob)").await;
            let report = check().await;
            let found = |one: &replay::Finding| one.problem.starts_with("its rows cannot be read");
            assert!(report.findings.first.iter().any(found), "{report:#?}");
        }
    }
}

on_both! {
    the_state_is_told_as_it_was_at_a_position_and_at_a_time(site) {
        fill(&site).await;
        let log = site.store.feed(0, 10_000).await.unwrap();
        let live = async |until| {
            let state = replay::state(site.feed(), until, silent()).await.unwrap();
            assert_eq!(state.stopped.len(), 0);
            let ids: Vec<String> = state.rows["applications"].iter().map(|row| row["id"].as_str().unwrap()[13..].to_owned()).collect();
            (ids.concat(), state.rows["leases"].len(), state.rows["operations"].len())
        };
        // Of the removed one only its quarantined number is left.
        assert_eq!(live(Until::Head).await, ("124".to_owned(), 3 * 4 + 1, 1));
        let removed = log.iter().find(|event| event.event_type == "application.removed").unwrap();
        let before = log.iter().rev().find(|event| event.recorded_at < removed.recorded_at).unwrap();
        let was = ("123".to_owned(), 3 * 4, 1);
        assert_eq!(live(Until::Position(before.position)).await, was);
        let place = site.store.place(before.recorded_at).await.unwrap();
        assert_eq!(live(Until::Position(place)).await, was);
        assert_eq!(live(Until::Position(0)).await, (String::new(), 0, 0));
        // Told of all, each application is as it is told alone, its operation included.
        let mut busy = 0;
        for (until, event) in log.iter().enumerate() {
            let state = replay::state(site.feed(), Until::Position(event.position), silent()).await.unwrap();
            for row in &state.rows["applications"] {
                let id = row["id"].as_str().unwrap();
                let Some(alone) = applications::after(id, &log[..=until]).unwrap() else { continue };
                let alone = serde_json::to_value(alone).unwrap();
                // An operation that has ended, of which the application does not know yet, is not listed.
                if row["operation"].is_object() || alone["operation"].is_null() {
                    assert_eq!(alone, *row, "at {}", event.position);
                }
                busy += usize::from(row["operation"].is_object());
            }
        }
        assert!(busy > 0);
        // In the middle of an append nothing is judged: it is read to its end.
        let report = replay::judge(site.feed(), Until::Position(removed.position), silent()).await.unwrap();
        assert_eq!(report.findings.first, []);
        assert!(report.events > removed.position);
    }
}

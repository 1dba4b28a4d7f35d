//! Schedules on a rig, by a clock that can skip days.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proximity_catalog::{Library, Origin};
use proximity_commands::Actor;
use proximity_commands::applications::{Applications, Limits};
use proximity_commands::clock::{AheadClock, Clock as _, SECOND};
use proximity_commands::clusters::{Freshness, LiveClusters};
use proximity_commands::dispatch::{Unit, load};
use proximity_commands::keys::MasterKeys;
use proximity_commands::pools::{PoolRanges, Pools};
use proximity_commands::schedules::{Patience, Scheduler, Schedules};
use proximity_commands::secrets::Secrets;
use proximity_domain::backup::{Compression, Mode};
use proximity_domain::backup_schedule::{
    BackupSchedule, Command, Created, Live, Retention, Settings,
};
use proximity_domain::user::{Command as UserCommand, Role, User, Via};
use proximity_domain::{ApplicationId, UserId};
use proximity_eventstore::{Append, Lane, Recorded, SideWrite, Value, tables};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{CENTURY, SOON, open};
use crate::rig::{CLUSTER, Rig};

/// The one schedule of a rig.
const SCHEDULE: &str = "1";

/// Schedules that fire by this clock.
async fn schedules(rig: &Rig, clock: &Arc<AheadClock>) -> Arc<Schedules> {
    let (store, hypervisors) = (rig.store.clone(), rig.env.hypervisors.clone());
    let secrets =
        Secrets::new(store.clone(), Arc::new(MasterKeys::generate().unwrap())).await.unwrap();
    let applications = Applications {
        store: store.clone(),
        catalog: Arc::new(Library::open(Origin::Embedded).unwrap()),
        clusters: Arc::new(LiveClusters::new(
            store.clone(),
            hypervisors.clone(),
            Freshness::default(),
        )),
        hypervisors,
        markers: rig.env.markers.clone(),
        secrets,
        pools: Pools::new(store, PoolRanges::default()),
        clock: clock.clone(),
        // Whoever goes on with the log years later is not to find them late.
        limits: Limits { deploy: CENTURY, disks: CENTURY, other: CENTURY },
    };
    let look = Duration::from_millis(20);
    let patience = Patience { look, pause: look, ..Patience::default() };
    Arc::new(Schedules { applications: Arc::new(applications), clock: clock.clone(), patience })
}

async fn schedule(rig: &Rig) -> Live {
    let (state, _) = load::<BackupSchedule>(&rig.store, SCHEDULE).await.unwrap();
    state.live().expect("there is a schedule").clone()
}

/// Waits until no run is open any more.
async fn ended(rig: &Rig, is_due: impl Fn(&Live) -> bool) {
    let deadline = Instant::now() + SOON;
    loop {
        let live = schedule(rig).await;
        if live.running.is_none() && !is_due(&live) {
            return;
        }
        assert!(Instant::now() < deadline, "a run does not end: {live:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A schedule fires twice: of its two backups it keeps one.
pub(super) async fn happen(rig: &Rig, application: &ApplicationId) {
    rig.register().await;
    let clock = Arc::new(AheadClock::default());
    let owner = UserId(1);
    let mut unit = Unit::new(&rig.store, Actor::system("rig").metadata("rig.schedule"));
    let register = UserCommand::Register {
        username: "ada".parse().unwrap(),
        email: None,
        role: Role::Admin,
        via: Via::Registration,
    };
    unit.apply::<User>(&owner.to_string(), register).await.unwrap();
    let settings = Settings {
        cron: "0 3 * * *".parse().unwrap(),
        timezone: "UTC".parse().unwrap(),
        mode: Mode::Snapshot,
        compression: Compression::Zstd,
        keep: Retention { last: 1, ..Retention::default() },
        enabled: true,
    };
    let application = Some(application.clone());
    let next = Some(clock.now() + SECOND);
    let created = Created { owner, application, settings, next };
    unit.apply::<BackupSchedule>(SCHEDULE, Command::Create(Box::new(created))).await.unwrap();
    unit.commit().await.unwrap();
    keep(rig, &[]).await;
    let scheduler = Scheduler::start(schedules(rig, &clock).await);
    for _ in 0..2 {
        let due = schedule(rig).await.next.unwrap();
        clock.skip(due + SECOND - clock.now());
        ended(rig, |live| live.next == Some(due)).await;
    }
    scheduler.stop().await;
}

/// Whether a run is open at the end of these events.
pub(super) fn is_running(events: &[Recorded]) -> bool {
    let last = events.iter().rfind(|event| {
        ["backup_schedule.fired", "backup_schedule.run_ended"].contains(&event.event_type.as_str())
    });
    last.is_some_and(|event| event.event_type == "backup_schedule.fired")
}

/// Carries the open run on by a clock that is where the log's was; returns how all operations ended that
/// were begun since.
pub(super) async fn go_on(rig: &Rig, events: &[Recorded]) -> Vec<&'static str> {
    keep(rig, events).await;
    let clock = Arc::new(AheadClock::default());
    let fired = events.iter().rfind(|event| event.event_type == "backup_schedule.fired").unwrap();
    let payload: Json = serde_json::from_str(&fired.payload).unwrap();
    let due = payload.pointer("/fired/due").and_then(Json::as_i64).unwrap();
    clock.skip(due + SECOND - clock.now());
    let scheduler = Scheduler::start(schedules(rig, &clock).await);
    ended(rig, |_| false).await;
    scheduler.stop().await;
    let all = rig.events().await;
    assert_eq!(open(&all), []);
    let begun = all[events.len()..].iter().filter(|event| event.event_type == "operation.planned");
    let mut ends = Vec::new();
    for event in begun {
        ends.push(rig.ended(event.aggregate_id.parse().unwrap(), SOON).await);
    }
    ends
}

/// Writes what the database keeps beside the log: how the host is reached, and which numbers of backups
/// were given away.
async fn keep(rig: &Rig, events: &[Recorded]) {
    let text = |text: &str| Value::Text(text.to_owned());
    let host = vec![
        ("host_id", text("1")),
        ("name", text(CLUSTER)),
        ("address", text("127.0.0.1")),
        ("port", Value::Integer(8_006)),
        ("user", text("root@pam")),
        ("auth", text("password")),
        ("token_id", Value::Null),
        ("secret_id", text(&Uuid::nil().to_string())),
        ("cluster", text(CLUSTER)),
        ("is_active", Value::Boolean(true)),
        ("is_default", Value::Boolean(true)),
        ("suspended", Value::Null),
        ("fingerprint", Value::Null),
        ("verify_ssl", Value::Boolean(false)),
        ("ssh_port", Value::Integer(22)),
        ("updated_at", Value::Integer(0)),
    ];
    let mut side = vec![SideWrite::Insert { table: &tables::HOST_CONNECTIONS, row: host }];
    let backups = events.iter().filter(|event| event.event_type == "backup.requested");
    let last = backups.map(|event| event.aggregate_id.parse::<i64>().unwrap()).max();
    side.extend(last.map(|last| {
        let row = vec![("key", text("backup.last")), ("value", text(&last.to_string()))];
        SideWrite::Insert { table: &tables::INSTALLATION, row }
    }));
    let append = Append {
        id: Uuid::now_v7(),
        lane: Lane::Outcome,
        streams: vec![],
        assertions: vec![],
        side,
        metadata: "{}".to_owned(),
        fence: None,
        idempotency: None,
    };
    rig.store.append(append).await.unwrap();
}

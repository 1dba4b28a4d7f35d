//! A check of the log finds each event that could not have been decided, whatever kind of stream it is
//! in, and accuses none that could.

use proximity_domain::operation::Direction;
use proximity_eventstore::Recorded;
use serde_json::{Value, json};

use crate::replay::judged;
use crate::samples::{STEPS, Sample, intended};

/// A log that is told event by event.
#[derive(Clone, Default)]
pub struct Told(pub Vec<Recorded>);

impl Told {
    pub fn by(&mut self, metadata: &Value, stream: &str, event_type: &str, payload: Value) {
        let (kind, id) = stream.split_once('/').unwrap();
        let its = |event: &&Recorded| event.aggregate_type == kind && event.aggregate_id == id;
        let sequence = self.0.iter().filter(its).count() as u64 + 1;
        let position = self.0.len() as u64 + 1;
        self.0.push(Recorded {
            position,
            aggregate_type: kind.to_owned(),
            aggregate_id: id.to_owned(),
            sequence,
            event_type: event_type.to_owned(),
            event_version: "1".to_owned(),
            payload: payload.to_string(),
            metadata: metadata.to_string(),
            recorded_at: 1_790_000_000_000_000 + i64::try_from(position).unwrap(),
        });
    }

    pub fn say(&mut self, stream: &str, event_type: &str, payload: Value) {
        self.by(&json!({"actor": "system/test", "command": "test"}), stream, event_type, payload);
    }
}

fn operation(number: u8) -> String {
    format!("00000000-0000-0000-0000-0000000000{number:02}")
}

fn connection(name: &str) -> Value {
    json!({
        "name": name, "address": "192.0.2.10", "port": 8006, "user": "root@pam",
        "auth": "password", "credential": operation(77), "verify_ssl": true, "fingerprint": null,
        "ssh_port": 22,
    })
}

fn nodes(online: bool) -> Value {
    let node = json!({
        "name": "pve1", "online": online, "version": null, "cores": 8, "memory_total": null,
        "disk_total": null,
    });
    json!({"nodes_observed": {"nodes": [node]}})
}

fn registered(name: &str) -> Value {
    json!({"registered": {"connection": connection(name), "cluster": name, "is_default": false}})
}

pub fn account(name: &str, email: Option<&str>) -> Value {
    json!({"registered": {"username": name, "email": email, "role": "user", "via": "admin"}})
}

fn settings(enabled: bool) -> Value {
    json!({
        "cron": "0 2 * * *", "timezone": "UTC", "mode": "snapshot", "compression": "zstd",
        "keep": {"last": 1, "daily": 0, "weekly": 0, "monthly": 0}, "enabled": enabled,
    })
}

fn created() -> Value {
    json!({"created": {
        "owner": 7, "application": null, "settings": settings(true), "next": 60,
    }})
}

fn planned() -> Value {
    json!({"planned": {
        "schedule": 3, "owner": 7, "due": 60, "settings": settings(true),
        "targets": ["memos-00000001", "memos-00000002"],
    }})
}

fn closed(application: &str) -> Value {
    json!({"closed": {"outcome": {
        "application": application, "result": "completed", "backup": 1, "problem": null, "pruned": [],
    }}})
}

fn began(application: &str) -> Value {
    json!({"began": {"application": application, "backup": 1, "operation": operation(1)}})
}

fn pruning(backup: u8) -> Value {
    json!({"pruning_began": {
        "application": "memos-00000001", "backup": backup, "operation": operation(3),
    }})
}

pub fn requested() -> Value {
    json!({"requested": {
        "application": "memos-00000001", "owner": 7, "operation": operation(1),
        "guest": {"host": 1, "cluster": "rack", "node": "pve1", "vmid": 104}, "storage": "local",
        "mode": "snapshot", "compression": "zstd",
    }})
}

fn completed(number: u8) -> Value {
    let archive = json!({"volume": "local:backup/a.tar.zst", "size": 1, "mode": "suspend"});
    json!({"completed": {"operation": operation(number), "archive": archive}})
}

pub fn use_of(number: u8) -> Value {
    json!({"operation_began": {"operation": operation(number), "kind": "restore"}})
}

fn end_of_use(number: u8) -> Value {
    json!({"operation_ended": {"operation": operation(number), "problem": null}})
}

fn token() -> Value {
    json!({"issued": {"user": 7, "name": "build", "scopes": ["read"], "expires_at": 9}})
}

fn opened() -> Value {
    json!({"opened": {"user": 7, "source": "192.0.2.7"}})
}

fn rotation(generation: &str, replaced: &str) -> Value {
    json!({"rotation_began": {"generation": generation, "replaced": [replaced]}})
}

fn rotated(generation: &str, replaced: &str) -> Value {
    json!({"rotated": {"generation": generation, "replaced": [replaced], "secrets": 3}})
}

fn memory(memory: u32) -> Value {
    json!({"resources_changed": {"resources": {
        "cores": 2, "memory": memory, "disk": 20, "swap": 512,
    }}})
}

fn restored(position: u64) -> Value {
    json!({"restored": {
        "incarnation": operation(12), "previous": operation(11), "position": position,
        "taken_at": 1, "digest": "ab",
    }})
}

fn confirmed() -> Value {
    json!({"restore_confirmed": {"incarnation": operation(12)}})
}

fn accounts_and_hosts(log: &mut Told) {
    for (key, holder) in [
        ("username/ada", json!({"user": 7})),
        ("email/ada@example.org", json!({"user": 7})),
        ("host-name/rack one", json!({"host": 1})),
        ("cluster/rack", json!({"host": 1})),
    ] {
        let acquired = json!({"acquired": {"holder": holder}});
        log.say(&format!("lease/{key}"), "lease.acquired", acquired);
    }
    log.say("user/7", "user.registered", account("Ada", Some("Ada@example.org")));
    log.say("user/7", "user.logged_in", json!({"logged_in": {"session": operation(5)}}));
    log.say("user/7", "user.logged_in", json!({"logged_in": {"session": operation(5)}}));
    log.say("user/7", "user.password_changed", json!("password_changed"));
    log.say("user/7", "user.role_changed", json!({"role_changed": {"role": "admin"}}));
    log.say("user/7", "user.disabled", json!("disabled"));
    for (stream, ends) in [("session/a", false), ("session/b", true)] {
        log.say(stream, "session.opened", opened());
        log.say(stream, "session.refreshed", json!("refreshed"));
        log.say(stream, "session.refreshed", json!("refreshed"));
        if ends {
            log.say(stream, "session.ended", json!({"ended": {"reason": "logout"}}));
        }
    }
    log.say("api_token/a", "api_token.issued", token());
    log.say("api_token/b", "api_token.issued", token());
    log.say("api_token/b", "api_token.revoked", json!({"revoked": {"reason": "owner"}}));
    let host = json!({"registered": {
        "connection": connection(" Rack One"), "cluster": "rack", "is_default": false,
    }});
    log.say("host/1", "host.registered", host);
    for online in [true, false, true] {
        log.say("host/1", "host.nodes_observed", nodes(online));
    }
    log.say("host/1", "host.suspended", json!({"suspended": {"reason": "another"}}));
    log.say("host/2", "host.registered", registered("gone"));
    log.say("host/2", "host.nodes_observed", nodes(true));
    log.say("host/2", "host.removed", json!("removed"));
}

fn backups(log: &mut Told) {
    log.say("backup_schedule/3", "backup_schedule.created", created());
    let fired = json!({"fired": {"due": 60, "next": 120}});
    log.say("backup_schedule/3", "backup_schedule.fired", fired);
    let over = json!({"passed_over": {"due": 120, "next": 180, "reason": "still_running"}});
    log.say("backup_schedule/3", "backup_schedule.passed_over", over);
    log.say("backup_run/3.60", "backup_run.planned", planned());
    let deferred = json!({"deferred": {
        "application": "memos-00000002", "reason": "it was occupied", "until": 90,
    }});
    log.say("backup_run/3.60", "backup_run.deferred", deferred);
    log.say("backup_run/3.60", "backup_run.began", began("memos-00000001"));
    log.say("backup_run/3.60", "backup_run.pruning_began", pruning(40));
    log.say("backup_run/3.60", "backup_run.closed", closed("memos-00000002"));
    log.say("backup/1", "backup.requested", requested());
    log.say("backup/1", "backup.completed", completed(1));
    for number in [2, 3] {
        log.say("backup/1", "backup.operation_began", use_of(number));
        log.say("backup/1", "backup.operation_ended", end_of_use(number));
    }
    log.say("backup/2", "backup.requested", requested());
    let failed = json!({"failed": {"operation": operation(1), "problem": "full", "absent": true}});
    log.say("backup/2", "backup.failed", failed);
    let removal = json!({"operation_began": {"operation": operation(4), "kind": "backup-delete"}});
    log.say("backup/2", "backup.operation_began", removal);
    log.say("backup/2", "backup.deleted", json!({"deleted": {"operation": operation(4)}}));
    log.say("backup_schedule/4", "backup_schedule.created", created());
    log.say(
        "backup_schedule/4",
        "backup_schedule.deleted",
        json!({"deleted": {"reason": "asked"}}),
    );
}

/// What the product could have written, of each kind of stream that is decided again.
pub fn lawful() -> Told {
    let mut log = Told::default();
    accounts_and_hosts(&mut log);
    backups(&mut log);
    for amount in [512, 1024, 512] {
        log.say("settings/resources", "settings.resources_changed", memory(amount));
    }
    log.say("keys/keys", "keys.rotation_began", rotation("b1", "a0"));
    log.say("keys/keys", "keys.rotated", rotated("b1", "a0"));
    log.say("log/log", "log.restored", restored(log.0.len() as u64));
    log.say("log/log", "log.restored", restored(log.0.len() as u64));
    log.say("log/log", "log.restore_confirmed", confirmed());
    log
}

type Said<'s> = (&'s str, &'s str, Value);

/// What could not be said after that, one at a time.
fn impossible() -> Vec<Said<'static>> {
    let (run, schedule) = ("backup_run/3.60", "backup_schedule/3");
    vec![
        ("backup/1", "backup.requested", requested()),
        ("backup/1", "backup.completed", completed(1)),
        ("backup/1", "backup.completed", completed(3)),
        ("backup/1", "backup.operation_ended", end_of_use(3)),
        ("backup/1", "backup.deleted", json!({"deleted": {"operation": operation(3)}})),
        (run, "backup_run.planned", planned()),
        ("backup_run/3.61", "backup_run.planned", planned()),
        (run, "backup_run.began", began("memos-00000001")),
        (run, "backup_run.began", began("memos-00000003")),
        (run, "backup_run.pruning_began", pruning(40)),
        (run, "backup_run.pruning_began", pruning(1)),
        (run, "backup_run.closed", closed("memos-00000002")),
        (run, "backup_run.ended", json!("ended")),
        (schedule, "backup_schedule.created", created()),
        (schedule, "backup_schedule.fired", json!({"fired": {"due": 60, "next": 120}})),
        (schedule, "backup_schedule.fired", json!({"fired": {"due": 180, "next": 240}})),
        (schedule, "backup_schedule.run_ended", json!({"run_ended": {"due": 0, "outcomes": []}})),
        ("host/1", "host.registered", registered("rack")),
        ("host/1", "host.nodes_observed", nodes(true)),
        ("host/1", "host.suspended", json!({"suspended": {"reason": "again"}})),
        ("user/7", "user.registered", account("Ada", None)),
        ("user/9", "user.registered", account("no name", None)),
        ("user/7", "user.disabled", json!("disabled")),
        ("user/7", "user.role_changed", json!({"role_changed": {"role": "admin"}})),
        ("user/7", "user.logged_in", json!({"logged_in": {"session": operation(5)}})),
        ("session/a", "session.opened", opened()),
        ("api_token/a", "api_token.issued", token()),
        ("settings/resources", "settings.resources_changed", memory(512)),
        ("settings/network", "settings.resources_changed", memory(1024)),
        ("keys/keys", "keys.rotation_began", rotation("b1", "a0")),
        ("keys/keys", "keys.rotated", rotated("b1", "a0")),
        ("keys/keys", "keys.rotated", rotated("c2", "b1")),
        ("keys/keys", "keys.destroyed", json!({"destroyed": {"generation": "b1"}})),
        ("keys/keys", "keys.destroyed", json!({"destroyed": {"generation": "c2"}})),
        ("log/log", "log.restored", restored(5)),
        ("log/log", "log.restore_confirmed", confirmed()),
    ]
}

/// Says one thing more, and wants it to be found, by itself.
async fn is_found(log: &Told, (stream, event_type, payload): Said<'_>) {
    let mut log = log.clone();
    log.say(stream, event_type, payload);
    let position = log.0.len() as u64;
    let found = judged(log.0).await;
    let (at, subject, problem) = found.first().unwrap_or_else(|| panic!("{event_type}: nothing"));
    assert_eq!((*at, subject.as_str()), (Some(position), stream), "{found:#?}");
    let told = ["could not happen then", "does not belong", "says that the event before"];
    assert!(told.iter().any(|part| problem.contains(part)), "{problem}");
}

#[tokio::test]
async fn an_event_that_could_not_have_been_decided_is_found_in_each_kind_of_stream() {
    let lawful = lawful();
    assert_eq!(judged(lawful.0.clone()).await, []);
    let impossible = impossible();
    let count = impossible.len();
    for said in impossible {
        is_found(&lawful, said).await;
    }
    println!("figure: {count} events that could not have been, one at a time: each found");
}

#[tokio::test]
async fn no_stream_begins_in_its_middle_and_none_goes_on_after_its_end() {
    let lawful = lawful();
    let ended = ["session/b", "api_token/b", "host/2", "backup/2", "backup_schedule/4"];
    let (mut begun, mut gone_on) = (0, 0);
    for event in &lawful.0 {
        let (kind, name) = (event.aggregate_type.as_str(), event.event_type.as_str());
        let payload: Value = serde_json::from_str(&event.payload).unwrap();
        if event.sequence > 1 {
            is_found(&lawful, (&format!("{kind}/never"), name, payload.clone())).await;
            begun += 1;
        }
        let stream = format!("{kind}/{}", event.aggregate_id);
        if ended.contains(&stream.as_str()) {
            is_found(&lawful, (&stream, name, payload)).await;
            gone_on += 1;
        }
    }
    assert!(begun > 20 && gone_on > 10, "{begun} and {gone_on}");
}

#[tokio::test]
async fn what_may_happen_again_is_not_accused() {
    for (stream, event_type, payload) in [
        ("host/1", "host.nodes_observed", nodes(false)),
        ("session/a", "session.refreshed", json!("refreshed")),
        ("user/7", "user.password_changed", json!("password_changed")),
        ("backup/1", "backup.operation_began", use_of(3)),
        ("settings/resources", "settings.resources_changed", memory(1024)),
        ("keys/keys", "keys.destroyed", json!({"destroyed": {"generation": "a0"}})),
        ("backup_run/3.60", "backup_run.pruning_began", pruning(41)),
    ] {
        let mut log = lawful();
        log.say(stream, event_type, payload);
        let mut found = judged(log.0).await;
        // The operation that uses the backup is not told here.
        found.retain(|(position, _, _)| position.is_some());
        assert_eq!(found, [], "{event_type}");
    }
}

#[tokio::test]
async fn whoever_is_registered_holds_its_names() {
    for key in ["username/ada", "email/ada@example.org", "host-name/rack one", "cluster/rack"] {
        let mut log = Told::default();
        for event in lawful().0.iter().filter(|event| event.aggregate_id != key) {
            let stream = format!("{}/{}", event.aggregate_type, event.aggregate_id);
            let payload = match event.event_type.as_str() {
                "log.restored" => restored(log.0.len() as u64),
                _ => serde_json::from_str(&event.payload).unwrap(),
            };
            log.say(&stream, &event.event_type, payload);
        }
        let found = judged(log.0).await;
        let told: Vec<&str> = found.iter().map(|(_, _, problem)| problem.as_str()).collect();
        assert_eq!(told, [format!("it does not hold {key}")]);
    }
}

#[tokio::test]
async fn metadata_names_the_owner_that_the_event_names_and_an_actor_that_there_can_be() {
    let user = |rest: Value| {
        let mut metadata = json!({"actor": "user/7", "command": "test", "owner": "7"});
        for (name, value) in rest.as_object().unwrap() {
            metadata[name] = value.clone();
        }
        metadata
    };
    for (metadata, wanted) in [
        (user(json!({})), None),
        (json!({"actor": "system/cli", "command": "test"}), None),
        (user(json!({"owner": "8"})), Some("user 8's, and it is user 7's")),
        (json!({"actor": "user/7", "command": "test"}), Some("does not say whose it is")),
        (user(json!({"owner": "ada"})), Some("which no user is called")),
        (user(json!({"actor": "elvis"})), Some("names \"elvis\"")),
        (user(json!({"actor": 7})), Some("cannot be read")),
    ] {
        let events = [
            ("backup/1", "backup.requested", requested()),
            ("backup_schedule/3", "backup_schedule.created", created()),
            ("backup_run/3.60", "backup_run.planned", planned()),
            ("api_token/a", "api_token.issued", token()),
        ];
        for (stream, event_type, payload) in events {
            let mut log = Told::default();
            log.say("user/7", "user.registered", account("Ada", None));
            log.by(&metadata, stream, event_type, payload);
            let mut found = judged(log.0).await;
            found.retain(|(position, _, _)| position.is_some());
            let told: Vec<&str> = found.iter().map(|(_, _, problem)| problem.as_str()).collect();
            match wanted {
                None => assert!(told.is_empty(), "{event_type}: {told:?}"),
                Some(wanted) => {
                    assert!(told.iter().any(|one| one.contains(wanted)), "{event_type}: {told:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn metadata_of_an_operation_names_its_owner_and_the_operation() {
    let sample = Sample::new(1);
    let id = sample.operation().to_string();
    let by = |actor: &str, owner: &str, correlation: &str| json!({"actor": actor, "command": "test", "owner": owner, "correlation": correlation});
    let user = by("user/1", "1", &id);
    let runner = by("system/operations", "1", &id);
    let silent = |actor: &str| json!({"actor": actor, "command": "test"});
    for (asked, found, wanted) in [
        (user.clone(), runner.clone(), None),
        (silent("system/cli"), runner.clone(), None),
        (by("user/1", "2", &id), runner.clone(), Some("user 2's, and it is user 1's")),
        (silent("user/1"), runner.clone(), Some("does not say whose it is")),
        (by("user/1", "1", "other"), runner, Some("says that it belongs to other")),
        (user.clone(), silent("system/operations"), Some("does not say whose it is")),
        (user.clone(), by("system/operations", "2", &id), Some("user 2's")),
        (user.clone(), by("system/operations", "1", "other"), Some("it belongs to other")),
        (
            user,
            json!({"actor": "system/operations", "command": "c", "owner": "1"}),
            Some("what it belongs to"),
        ),
    ] {
        let mut log = Told::default();
        let stream = format!("operation/{id}");
        let requested = serde_json::to_value(sample.requested()).unwrap();
        let planned = serde_json::to_value(sample.planned()).unwrap();
        let intended = serde_json::to_value(intended(STEPS[0], Direction::Act, 1)).unwrap();
        log.by(&asked, &format!("application/{}", sample.id()), "application.requested", requested);
        log.by(&asked, &stream, "operation.planned", planned);
        log.by(&found, &stream, "operation.step_intended", intended);
        let mut told = judged(log.0).await;
        told.retain(|(position, _, _)| position.is_some());
        match wanted {
            None => assert_eq!(told, []),
            Some(wanted) => {
                assert!(told.iter().any(|(_, _, one)| one.contains(wanted)), "{wanted}: {told:?}");
            }
        }
    }
}

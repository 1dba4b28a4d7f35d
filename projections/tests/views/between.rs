//! A check of the log finds what could not be beside the other streams, and accuses nothing that could.

use serde_json::{Value, json};

use crate::laws::{Told, account, lawful, requested, use_of};
use crate::replay::judged;
use crate::samples::Sample;

/// What the product could have written, with an application that runs on the first host.
fn lived_in() -> Told {
    let mut log = lawful();
    let sample = Sample::new(1);
    for part in [sample.deployment(), sample.success()].into_iter().flatten() {
        let stream = format!("{}/{}", part.aggregate_type, part.aggregate_id);
        for event in part.events {
            let payload = serde_json::from_str(&event.payload).unwrap();
            log.say(&stream, &event.event_type, payload);
        }
    }
    log
}

fn acquired(holder: Value) -> Value {
    json!({"acquired": {"holder": holder}})
}

fn kept(seconds: i64) -> Value {
    let until = 1_790_000_000_000_000 + seconds * 1_000_000;
    json!({"quarantined": {
        "holder": {"application": "nginx-00000001"}, "until": until, "reason": "it was its",
    }})
}

#[tokio::test]
async fn what_cannot_be_beside_the_other_streams_is_found() {
    let lived_in = lived_in();
    assert_eq!(judged(lived_in.0.clone()).await, []);
    let application = || acquired(json!({"application": "nginx-00000001"}));
    let has_none = "holds it and has no such thing";
    let mut cases = vec![
        ("backup/1", "backup.operation_began", use_of(3), "is in use by operation"),
        ("backup/3", "backup.requested", requested(), "is in use by operation"),
        ("host/1", "host.removed", json!("removed"), "nginx-00000001 was on it"),
        ("lease/username/eve", "lease.acquired", acquired(json!({"user": 7})), has_none),
        ("lease/email/eve@example.org", "lease.acquired", acquired(json!({"user": 7})), has_none),
        ("lease/hostname/web-9", "lease.acquired", acquired(json!({"user": 7})), has_none),
        ("lease/host-name/other", "lease.acquired", acquired(json!({"host": 1})), has_none),
        ("lease/cluster/other", "lease.acquired", acquired(json!({"host": 1})), has_none),
        ("lease/colour/red", "lease.acquired", application(), "it is no lease key"),
        ("lease/vmid/homelab/x", "lease.acquired", application(), "it is no lease key"),
        (
            "session/c",
            "session.opened",
            json!({"opened": {"user": 9, "source": "192.0.2.7"}}),
            "is for user 9, whom there never was",
        ),
        (
            "api_token/c",
            "api_token.issued",
            json!({"issued": {"user": 9, "name": "b", "scopes": ["read"], "expires_at": 9}}),
            "is for user 9, whom there never was",
        ),
    ];
    for key in [
        "lease/hostname/web-9",
        "lease/vmid/homelab/199",
        "lease/vmid/other/101",
        "lease/port/public/8199",
        "lease/port/internal/20199",
        "lease/address/homelab/10.0.0.9",
    ] {
        cases.push((key, "lease.acquired", application(), has_none));
    }
    for (stream, event_type, payload, wanted) in cases {
        let mut log = lived_in.clone();
        log.say(stream, event_type, payload);
        let found = judged(log.0).await;
        let told = found.iter().any(|(_, at, one)| at == stream && one.contains(wanted));
        assert!(told, "{event_type} of {stream}: {found:?}");
    }
}

#[tokio::test]
async fn a_number_is_cleared_only_when_its_time_is_over() {
    // Clocks of a server and of its database differ by some minutes at most.
    for (seconds, is_found) in [(0, false), (240, false), (900, true)] {
        let mut log = lived_in();
        let stream = "lease/vmid/homelab/150";
        log.say(stream, "lease.acquired", acquired(json!({"application": "nginx-00000001"})));
        log.say(stream, "lease.quarantined", kept(seconds));
        log.say(stream, "lease.cleared", json!("cleared"));
        let position = log.0.len() as u64;
        let found = judged(log.0).await;
        let told = "lease.cleared, although it was given back a moment ago";
        assert_eq!(found.len(), usize::from(is_found), "{seconds}: {found:?}");
        let here = |(at, _, one): &(Option<u64>, String, String)| {
            *at == Some(position) && one.starts_with(told)
        };
        assert!(found.iter().all(here), "{found:?}");
    }
}

#[tokio::test]
async fn who_is_registered_and_signed_in_at_once_is_known() {
    let mut log = lawful();
    let opened = json!({"opened": {"user": 9, "source": "192.0.2.7"}});
    log.say("session/c", "session.opened", opened);
    log.say("lease/username/eve", "lease.acquired", acquired(json!({"user": 9})));
    log.say("user/9", "user.registered", account("eve", None));
    let moment = log.0.last().unwrap().recorded_at;
    let count = log.0.len();
    for event in &mut log.0[count - 3..] {
        event.recorded_at = moment;
    }
    assert_eq!(judged(log.0.clone()).await, []);
    // In an append of its own, it comes too late.
    log.0[count - 1].recorded_at = moment + 1;
    let found = judged(log.0).await;
    assert!(found.iter().any(|(_, stream, _)| stream == "session/c"), "{found:?}");
}

//! The rules of registered hosts, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cqrs_es::test::TestFramework;

use super::*;
use crate::fixture::assert_stored_as_promised;
use crate::value::Vmid;

fn connection() -> Connection {
    Connection {
        name: "rack".into(),
        address: "192.0.2.10".into(),
        port: "8006".parse().unwrap(),
        user: "root@pam".into(),
        auth: Auth::Token { id: "proximity".into() },
        credential: "0f9c2f4e-6a54-4a8e-8a3a-0c1d2e3f4a5b".parse().unwrap(),
        verify_ssl: false,
        fingerprint: Some("ab".repeat(32).parse().unwrap()),
        ssh_port: "22".parse().unwrap(),
    }
}

fn registered() -> Event {
    Event::Registered {
        connection: connection(),
        cluster: "rack1".parse().unwrap(),
        is_default: true,
    }
}

fn changed(is_active: bool, is_default: bool) -> Event {
    Event::Changed { connection: connection(), is_active, is_default }
}

fn change(is_active: bool, is_default: bool) -> Command {
    Command::Change { connection: connection(), is_active, is_default }
}

fn node(name: &str, online: bool) -> ObservedNode {
    ObservedNode {
        name: name.parse().unwrap(),
        online,
        version: Some("9.1.7".into()),
        cores: Some(8),
        memory_total: Some(33_000_000_000),
        disk_total: None,
    }
}

fn suspended() -> Event {
    Event::Suspended { reason: "it answers as rack2".into() }
}

async fn given(past: Vec<Event>, command: Command) -> Result<Vec<Event>, Error> {
    TestFramework::<Host>::with(()).given(past).when_async(command).await.inspect_result()
}

#[tokio::test]
async fn a_host_is_registered_once_and_its_id_is_never_used_again() {
    let register = || Command::Register {
        connection: connection(),
        cluster: "rack1".parse().unwrap(),
        is_default: true,
    };
    assert_eq!(given(vec![], register()).await, Ok(vec![registered()]));
    assert_eq!(given(vec![registered()], register()).await, Err(Error::AlreadyRegistered));
    let past = vec![registered(), Event::Removed];
    assert_eq!(given(past, register()).await, Err(Error::AlreadyRegistered));
}

#[tokio::test]
async fn nothing_can_be_asked_of_a_host_that_is_absent_or_removed() {
    for past in [vec![], vec![registered(), Event::Removed]] {
        for command in [
            change(true, true),
            Command::ObserveNodes { nodes: vec![] },
            Command::Suspend { reason: "why".into() },
            Command::Remove,
        ] {
            assert_eq!(given(past.clone(), command).await, Err(Error::NotFound));
        }
    }
}

#[tokio::test]
async fn a_change_to_what_already_is_so_is_no_event() {
    assert_eq!(given(vec![registered()], change(true, true)).await, Ok(vec![]));
    assert_eq!(
        given(vec![registered()], change(true, false)).await,
        Ok(vec![changed(true, false)])
    );
}

#[tokio::test]
async fn a_host_that_is_not_active_cannot_be_the_default() {
    let refused = given(vec![registered()], change(false, true)).await;
    assert_eq!(refused, Err(Error::DefaultMustBeActive));
}

#[tokio::test]
async fn the_same_nodes_seen_again_are_no_event_whatever_their_order_and_totals() {
    let observe = |nodes| Command::ObserveNodes { nodes };
    let first = given(vec![registered()], observe(vec![node("b", true), node("a", true)])).await;
    let seen = Event::NodesObserved { nodes: vec![node("a", true), node("b", true)] };
    assert_eq!(first, Ok(vec![seen.clone()]));
    let mut grown = node("a", true);
    grown.memory_total = Some(34_000_000_000);
    let again =
        given(vec![registered(), seen.clone()], observe(vec![node("b", true), grown])).await;
    assert_eq!(again, Ok(vec![]));
    let down = vec![node("a", false), node("b", true)];
    let change = given(vec![registered(), seen.clone()], observe(down.clone())).await;
    assert_eq!(change, Ok(vec![Event::NodesObserved { nodes: down }]));
    let fewer = given(vec![registered(), seen], observe(vec![node("a", true)])).await;
    assert_eq!(fewer, Ok(vec![Event::NodesObserved { nodes: vec![node("a", true)] }]));
}

#[tokio::test]
async fn a_host_is_suspended_until_an_admin_leaves_it_active() {
    let suspend = || Command::Suspend { reason: "it answers as rack2".into() };
    assert_eq!(given(vec![registered()], suspend()).await, Ok(vec![suspended()]));
    assert_eq!(given(vec![registered(), suspended()], suspend()).await, Ok(vec![]));
    let released = given(vec![registered(), suspended()], change(true, true)).await;
    assert_eq!(released, Ok(vec![changed(true, true)]));
    let fold = |events: Vec<Event>| events.into_iter().fold(Host::default(), Host::evolve);
    let off = fold(vec![registered(), suspended(), changed(false, false)]);
    assert!(off.registration().unwrap().suspended.is_some());
    let on = fold(vec![registered(), suspended(), changed(true, false)]);
    assert!(on.registration().unwrap().suspended.is_none());
}

#[test]
fn a_fingerprint_has_one_spelling() {
    let written = ["AB"; 32].join(":");
    for text in [written.clone(), written.to_lowercase(), "ab".repeat(32)] {
        assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), written);
    }
    let misplaced = format!("A:BAB:{}", ["AB"; 30].join(":"));
    for bad in ["", "AB", &"ab".repeat(31), &"zz".repeat(32), &format!("{written}:AB"), &misplaced]
    {
        assert_eq!(bad.parse::<Fingerprint>().unwrap_err().code, "fingerprint.invalid", "{bad}");
    }
}

#[test]
fn every_event_of_a_host_is_stored_as_promised() {
    for event in [
        registered(),
        changed(true, false),
        Event::NodesObserved { nodes: vec![node("pve1", true)] },
        Event::DiscrepanciesObserved { discrepancies: vec![orphan(104)] },
        suspended(),
        Event::Removed,
    ] {
        assert_stored_as_promised(&event);
    }
}

fn orphan(vmid: i64) -> Discrepancy {
    Discrepancy {
        vmid: Vmid::try_from(vmid).unwrap(),
        node: "pve1".parse().unwrap(),
        kind: DiscrepancyKind::Orphan,
        application: "memos-0a1b2c3d".parse().unwrap(),
        volume: None,
        snapshot: None,
    }
}

#[tokio::test]
async fn what_a_person_has_to_look_at_is_recorded_once_and_again_when_it_is_over() {
    let report = |discrepancies| Command::ReportDiscrepancies { discrepancies };
    assert_eq!(given(vec![registered()], report(vec![])).await, Ok(vec![]));
    let two = Event::DiscrepanciesObserved { discrepancies: vec![orphan(104), orphan(105)] };
    let unsorted = report(vec![orphan(105), orphan(104)]);
    assert_eq!(given(vec![registered()], unsorted.clone()).await, Ok(vec![two.clone()]));
    assert_eq!(given(vec![registered(), two.clone()], unsorted).await, Ok(vec![]));
    let over = Event::DiscrepanciesObserved { discrepancies: vec![] };
    assert_eq!(given(vec![registered(), two], report(vec![])).await, Ok(vec![over]));
}

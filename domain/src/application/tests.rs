//! The rules of applications, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use cqrs_es::test::TestFramework;
use uuid::Uuid;

use super::*;
use crate::fixture::assert_stored_as_promised;
use crate::plan::{GuestRef, Health, Holdings, Probe};
use crate::value::{BackupId, EnvValue, HostId, Resources, Vmid};

fn op(number: u128) -> OperationId {
    OperationId(Uuid::from_u128(number))
}

fn wanted() -> Box<Requested> {
    Box::new(Requested {
        owner: UserId(7),
        operation: op(1),
        catalog_id: "memos".into(),
        catalog_version: "0.25".into(),
        name: "Memos".into(),
        guest: GuestRef {
            host: HostId(1),
            cluster: "lab".parse().unwrap(),
            node: "pve1".parse().unwrap(),
            vmid: "104".parse().unwrap(),
        },
        holdings: Holdings {
            hostname: "notes".parse().unwrap(),
            public_port: Some("8100".parse().unwrap()),
            internal_port: Some("9100".parse().unwrap()),
            address: Some("10.0.0.7".parse().unwrap()),
        },
        resources: Resources {
            cores: 2.try_into().unwrap(),
            memory: 2048.try_into().unwrap(),
            disk: 20.try_into().unwrap(),
            swap: 512.try_into().unwrap(),
        },
        environment: BTreeMap::from([("MODE".into(), EnvValue::Plain("prod".into()))]),
        config: BTreeMap::new(),
        endpoint: Some(Endpoint {
            port: "5230".parse().unwrap(),
            protocol: "http".into(),
            path: None,
        }),
        health: Health { probe: Probe::Tcp { port: "5230".parse().unwrap() }, within_s: 60 },
        icon: "📝".into(),
        category: "Productivity".into(),
        description: "Notes".into(),
        origin: Origin::Deployed,
    })
}

fn requested() -> Event {
    Event::Requested(wanted())
}

fn deployed() -> Event {
    Event::Deployed { operation: op(1), address: Some("10.0.0.7".parse().unwrap()) }
}

fn failed() -> Event {
    Event::DeploymentFailed { operation: op(1), problem: "no space left".into() }
}

fn began(kind: Kind) -> Event {
    Event::OperationBegan { operation: op(2), kind }
}

fn begin(kind: Kind) -> Command {
    Command::BeginOperation { operation: op(2), kind }
}

async fn given(past: Vec<Event>, command: Command) -> Result<Vec<Event>, Error> {
    TestFramework::<Application>::with(()).given(past).when_async(command).await.inspect_result()
}

#[tokio::test]
async fn an_application_is_requested_once() {
    assert_eq!(given(vec![], Command::Request(wanted())).await, Ok(vec![requested()]));
    let again = given(vec![requested()], Command::Request(wanted())).await;
    assert_eq!(again, Err(Error::AlreadyExists));
}

#[tokio::test]
async fn nothing_else_begins_while_it_deploys() {
    for kind in [Kind::Start, Kind::Stop, Kind::Restart, Kind::Delete] {
        let refused = given(vec![requested()], begin(kind)).await;
        assert_eq!(refused, Err(Error::Busy { operation: op(1) }), "{kind:?}");
    }
}

#[tokio::test]
async fn a_running_application_can_be_stopped_restarted_and_deleted() {
    for kind in [Kind::Stop, Kind::Restart, Kind::Delete] {
        let events = given(vec![requested(), deployed()], begin(kind)).await;
        assert_eq!(events, Ok(vec![began(kind)]));
    }
}

#[tokio::test]
async fn starting_what_runs_and_stopping_what_is_stopped_is_no_error() {
    let running = vec![requested(), deployed()];
    assert_eq!(given(running.clone(), begin(Kind::Start)).await, Ok(vec![]));
    let stopped = [running, vec![began(Kind::Stop), Event::Stopped { operation: op(2) }]].concat();
    let stop = Command::BeginOperation { operation: op(3), kind: Kind::Stop };
    assert_eq!(given(stopped.clone(), stop).await, Ok(vec![]));
    let restart = Command::BeginOperation { operation: op(3), kind: Kind::Restart };
    assert_eq!(given(stopped, restart).await, Err(Error::NotRunning));
}

#[tokio::test]
async fn what_could_not_be_seen_is_begun_also_when_it_is_recorded_to_be_so() {
    let unseen = |kind| Command::BeginUnseen { operation: op(2), kind };
    let running = || vec![requested(), deployed()];
    assert_eq!(given(running(), unseen(Kind::Start)).await, Ok(vec![began(Kind::Start)]));
    let stopped = vec![requested(), deployed(), observed("pve1", false)];
    assert_eq!(given(stopped.clone(), unseen(Kind::Stop)).await, Ok(vec![began(Kind::Stop)]));
    assert_eq!(given(stopped, unseen(Kind::Restart)).await, Err(Error::NotRunning));
    let busy = [running(), vec![began(Kind::Backup)]].concat();
    let start = Command::BeginUnseen { operation: op(3), kind: Kind::Start };
    assert_eq!(given(busy, start).await, Err(Error::Busy { operation: op(2) }));
}

#[tokio::test]
async fn that_it_is_protected_again_is_noted_only_between_operations() {
    let note = || Command::NoteProtected { operation: op(2) };
    let past = || vec![requested(), deployed()];
    assert_eq!(given(past(), note()).await, Ok(vec![Event::Protected { operation: op(2) }]));
    let busy = [past(), vec![began(Kind::Backup)]].concat();
    for past in [vec![], vec![requested()], busy] {
        assert_eq!(given(past, note()).await, Ok(vec![]));
    }
}

#[tokio::test]
async fn a_stopped_application_can_be_started() {
    let past =
        vec![requested(), deployed(), began(Kind::Stop), Event::Stopped { operation: op(2) }];
    let start = Command::BeginOperation { operation: op(3), kind: Kind::Start };
    let events = given(past, start).await;
    assert_eq!(events, Ok(vec![Event::OperationBegan { operation: op(3), kind: Kind::Start }]));
}

#[tokio::test]
async fn a_failed_deployment_leaves_it_only_deletable() {
    let past = || vec![requested(), failed()];
    for kind in [Kind::Start, Kind::Stop, Kind::Restart, Kind::Deploy, Kind::Clone] {
        assert_eq!(given(past(), begin(kind)).await, Err(Error::OnlyDeletable), "{kind:?}");
    }
    assert_eq!(given(past(), begin(Kind::Delete)).await, Ok(vec![began(Kind::Delete)]));
}

#[tokio::test]
async fn only_the_operation_that_runs_can_end() {
    let stranger = Command::CompleteDeployment { operation: op(9), address: None };
    assert_eq!(given(vec![requested()], stranger).await, Err(Error::NotThisOperation));
    let late = Command::FailDeployment { operation: op(1), problem: "late".into() };
    assert_eq!(given(vec![requested(), deployed()], late).await, Err(Error::NotThisOperation));
}

#[tokio::test]
async fn a_number_can_change_only_under_the_running_operation() {
    let to: Vmid = "105".parse().unwrap();
    let events = given(vec![requested()], Command::ReplaceVmid { operation: op(1), to }).await;
    let from = "104".parse().unwrap();
    assert_eq!(events, Ok(vec![Event::VmidReplaced { operation: op(1), from, to }]));
    let late = Command::ReplaceVmid { operation: op(1), to };
    assert_eq!(given(vec![requested(), deployed()], late).await, Err(Error::NotThisOperation));
}

#[tokio::test]
async fn a_stuck_operation_keeps_the_application_reserved() {
    let stuck = Event::OperationStuck { operation: op(1), problem: "locked".into() };
    let past = || vec![requested(), stuck.clone()];
    let refused = given(past(), begin(Kind::Delete)).await.unwrap_err();
    assert_eq!(refused, Error::Stuck { operation: op(1), kind: Kind::Deploy });
    let said = refused.to_string();
    assert!(said.contains(&op(1).to_string()) && said.contains("administrator"), "{said}");
    let again = Command::MarkStuck { operation: op(1), problem: "locked".into() };
    assert_eq!(given(past(), again).await, Ok(vec![]));
}

#[tokio::test]
async fn a_failed_start_leaves_it_as_it_was_found() {
    let past = vec![
        requested(),
        deployed(),
        began(Kind::Restart),
        Event::OperationFailed {
            operation: op(2),
            kind: Kind::Restart,
            problem: "it does not answer".into(),
            running: false,
        },
    ];
    let start = Command::BeginOperation { operation: op(3), kind: Kind::Start };
    let events = given(past, start).await;
    assert_eq!(events, Ok(vec![Event::OperationBegan { operation: op(3), kind: Kind::Start }]));
}

#[tokio::test]
async fn a_removed_application_does_not_exist() {
    let past =
        vec![requested(), deployed(), began(Kind::Delete), Event::Removed { operation: op(2) }];
    assert_eq!(given(past, begin(Kind::Start)).await, Err(Error::NotFound));
}

fn copied() -> Event {
    let origin = Origin::Cloned { from: "memos-0a1b2c3d".parse().unwrap() };
    Event::Requested(Box::new(Requested { origin, ..*wanted() }))
}

#[tokio::test]
async fn the_copy_of_a_stopped_application_is_stopped_and_can_be_started() {
    let ready = Event::CloneReady { operation: op(1), address: None, running: false };
    let events = given(vec![copied(), ready], begin(Kind::Start)).await;
    assert_eq!(events, Ok(vec![began(Kind::Start)]));
}

#[tokio::test]
async fn an_application_that_is_copied_is_busy_until_the_copy_has_ended() {
    let past = || vec![requested(), deployed(), began(Kind::Clone)];
    let start = || Command::BeginOperation { operation: op(3), kind: Kind::Stop };
    assert_eq!(given(past(), start()).await, Err(Error::Busy { operation: op(2) }));
    let into = "memos-11111111".parse().unwrap();
    let mut past = past();
    past.push(Event::Cloned { operation: op(2), into, running: true });
    let began = Event::OperationBegan { operation: op(3), kind: Kind::Stop };
    assert_eq!(given(past, start()).await, Ok(vec![began]));
}

#[tokio::test]
async fn a_clone_that_is_given_up_leaves_the_source_as_it_is_and_an_empty_copy() {
    let given_up = |operation| Event::OperationAbandoned {
        operation,
        problem: "gone".to_owned(),
        running: None,
    };
    let past = vec![requested(), deployed(), began(Kind::Clone), given_up(op(2))];
    let stop = Command::BeginOperation { operation: op(3), kind: Kind::Stop };
    assert!(given(past, stop.clone()).await.is_ok());
    assert_eq!(given(vec![copied(), given_up(op(1))], stop).await, Err(Error::OnlyDeletable));
}

#[tokio::test]
async fn an_application_that_a_given_up_operation_stopped_can_be_started() {
    let given_up = |running| Event::OperationAbandoned {
        operation: op(2),
        problem: "no time".to_owned(),
        running,
    };
    let past = |running| vec![requested(), deployed(), began(Kind::Restore), given_up(running)];
    let start = Command::BeginOperation { operation: op(3), kind: Kind::Start };
    assert_eq!(given(past(None), start.clone()).await, Ok(vec![]), "it runs, as recorded");
    let event = Event::OperationBegan { operation: op(3), kind: Kind::Start };
    assert_eq!(given(past(Some(false)), start).await, Ok(vec![event]));
}

#[test]
fn stored_applications_can_be_read_for_ever() {
    let problem = || "it does not answer".to_owned();
    let address = Some("10.0.0.7".parse().unwrap());
    for event in [
        requested(),
        deployed(),
        failed(),
        Event::VmidReplaced {
            operation: op(1),
            from: "104".parse().unwrap(),
            to: "105".parse().unwrap(),
        },
        began(Kind::Stop),
        Event::Started { operation: op(2), address },
        Event::Stopped { operation: op(2) },
        Event::Restarted { operation: op(2), address },
        Event::OperationFailed {
            operation: op(2),
            kind: Kind::Start,
            problem: problem(),
            running: false,
        },
        Event::OperationEnded { operation: op(2), kind: Kind::Backup, running: true },
        Event::OperationStuck { operation: op(2), problem: problem() },
        Event::OperationAbandoned { operation: op(2), problem: problem(), running: None },
        Event::Removed { operation: op(2) },
        Event::CloneReady { operation: op(1), address, running: true },
        Event::Cloned { operation: op(2), into: "memos-0a1b2c3d".parse().unwrap(), running: true },
        Event::Adopted { operation: op(1), address: None, running: false },
        observed("pve2", false),
        Event::Lost(Loss::Gone),
        Event::Protected { operation: op(2) },
    ] {
        assert_stored_as_promised(&event);
    }
}

#[tokio::test]
async fn an_application_runs_on_after_its_backup_and_takes_one_operation_at_a_time() {
    let past = || vec![requested(), deployed(), began(Kind::Backup)];
    let second = Command::BeginOperation { operation: op(3), kind: Kind::Backup };
    assert_eq!(given(past(), second).await, Err(Error::Busy { operation: op(2) }));
    let end = Command::EndOperation { operation: op(2), running: true };
    let ended = Event::OperationEnded { operation: op(2), kind: Kind::Backup, running: true };
    assert_eq!(given(past(), end).await, Ok(vec![ended.clone()]));
    let restart = Command::BeginOperation { operation: op(3), kind: Kind::Restart };
    let events = given([past(), vec![ended]].concat(), restart).await;
    assert_eq!(events.map(|events| events.len()), Ok(1));
}

fn observed(node: &str, running: bool) -> Event {
    let address = running.then(|| "10.0.0.8".parse().unwrap());
    Event::Observed { node: node.parse().unwrap(), running, address }
}

fn see(node: &str, running: bool) -> Command {
    let Event::Observed { node, running, address } = observed(node, running) else {
        unreachable!()
    };
    Command::Observe(Sighting::Present { node, running, address })
}

#[tokio::test]
async fn a_look_that_finds_what_is_recorded_is_no_event() {
    assert_eq!(given(vec![requested(), deployed()], see("pve1", true)).await, Ok(vec![]));
}

#[tokio::test]
async fn what_was_done_by_hand_is_recorded_and_counts_from_then_on() {
    let past = || vec![requested(), deployed()];
    let stopped = observed("pve2", false);
    assert_eq!(given(past(), see("pve2", false)).await, Ok(vec![stopped.clone()]));
    let later = [past(), vec![stopped]].concat();
    assert_eq!(given(later.clone(), begin(Kind::Start)).await, Ok(vec![began(Kind::Start)]));
    assert_eq!(given(later, see("pve2", false)).await, Ok(vec![]));
}

#[tokio::test]
async fn a_look_means_nothing_while_an_operation_runs_or_before_the_first_one_has_ended() {
    let gone = || Command::Observe(Sighting::Missing(Loss::Gone));
    for past in [
        vec![requested()],
        vec![requested(), failed()],
        vec![requested(), deployed(), began(Kind::Stop)],
        vec![requested(), deployed(), began(Kind::Delete), Event::Removed { operation: op(2) }],
    ] {
        assert_eq!(given(past.clone(), gone()).await, Ok(vec![]), "{past:?}");
        assert_eq!(given(past.clone(), see("pve2", false)).await, Ok(vec![]), "{past:?}");
    }
}

#[tokio::test]
async fn a_lost_container_can_only_be_deleted_until_it_is_back() {
    let lost = || vec![requested(), deployed(), Event::Lost(Loss::Gone)];
    for kind in [Kind::Start, Kind::Restart, Kind::Clone, Kind::Backup] {
        let refused = given(lost(), begin(kind)).await;
        assert!(matches!(refused, Err(Error::Lost)), "{kind:?}: {refused:?}");
    }
    assert_eq!(given(lost(), begin(Kind::Delete)).await, Ok(vec![began(Kind::Delete)]));
    let gone = Command::Observe(Sighting::Missing(Loss::Gone));
    assert_eq!(given(lost(), gone).await, Ok(vec![]), "it is known already");
    let back = observed("pve1", true);
    assert_eq!(given(lost(), see("pve1", true)).await, Ok(vec![back.clone()]));
    let again = given([lost(), vec![back]].concat(), begin(Kind::Restart)).await;
    assert_eq!(again, Ok(vec![began(Kind::Restart)]));
}

fn restored_guest() -> GuestRef {
    GuestRef { vmid: "105".parse().unwrap(), ..wanted().guest }
}

fn swapped() -> Event {
    Event::GuestSwapped { operation: op(2), from: wanted().guest, to: restored_guest() }
}

#[tokio::test]
async fn a_restored_container_takes_the_place_of_the_old_one_once() {
    let past = vec![requested(), deployed(), began(Kind::Restore)];
    let swap = Command::SwapGuest { operation: op(2), to: restored_guest() };
    assert_eq!(given(past.clone(), swap.clone()).await, Ok(vec![swapped()]));
    let again: Vec<Event> = past.iter().cloned().chain([swapped()]).collect();
    assert_eq!(given(again.clone(), swap.clone()).await, Ok(vec![]));
    let other = Command::SwapGuest { operation: op(3), to: restored_guest() };
    assert_eq!(given(past, other).await, Err(Error::NotThisOperation));
    let state = again.into_iter().fold(Application::default(), Application::evolve);
    assert_eq!(state.live().unwrap().requested.guest, restored_guest());
}

#[tokio::test]
async fn a_restore_ends_with_what_its_application_did_before() {
    let past = vec![requested(), deployed(), began(Kind::Restore), swapped()];
    let finish = Command::FinishRestore {
        operation: op(2),
        backup: BackupId(3),
        address: Some("10.0.0.7".parse().unwrap()),
        running: false,
    };
    let ended = Event::Restored {
        operation: op(2),
        backup: BackupId(3),
        address: Some("10.0.0.7".parse().unwrap()),
        running: false,
    };
    assert_eq!(given(past.clone(), finish).await, Ok(vec![ended.clone()]));
    let state = past.into_iter().chain([ended]).fold(Application::default(), Application::evolve);
    let live = state.live().unwrap();
    assert!(!live.running && live.complete && live.current.is_none());
}

#[tokio::test]
async fn an_application_whose_container_is_gone_can_be_restored() {
    let past = vec![requested(), deployed(), Event::Lost(Loss::Gone)];
    assert_eq!(given(past.clone(), begin(Kind::Restore)).await, Ok(vec![began(Kind::Restore)]));
    assert_eq!(given(past.clone(), begin(Kind::Backup)).await, Err(Error::Lost));
    let state = past
        .into_iter()
        .chain([began(Kind::Restore), swapped()])
        .fold(Application::default(), Application::evolve);
    assert_eq!(state.live().unwrap().lost, None);
}

#[tokio::test]
async fn an_application_that_failed_to_deploy_cannot_be_restored() {
    let refused = given(vec![requested(), failed()], begin(Kind::Restore)).await;
    assert_eq!(refused, Err(Error::OnlyDeletable));
}

#[test]
fn the_events_of_a_restore_are_stored_as_promised() {
    assert_stored_as_promised(&swapped());
    assert_stored_as_promised(&Event::Restored {
        operation: op(2),
        backup: BackupId(3),
        address: Some("10.0.0.7".parse().unwrap()),
        running: true,
    });
}

//! The rules of operations, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cqrs_es::test::TestFramework;

use super::*;
use crate::fixture::assert_stored_as_promised;
use crate::plan::{DeletePlan, GuestRef};
use crate::value::HostId;

fn plan() -> Plan {
    Plan::Delete(DeletePlan {
        guest: Some(GuestRef {
            host: HostId(1),
            cluster: "lab".parse().unwrap(),
            node: "pve1".parse().unwrap(),
            vmid: "104".parse().unwrap(),
        }),
        holdings: None,
        was_running: true,
        adopted_by: None,
        replaced: false,
        detached: false,
    })
}

fn planned() -> Event {
    Event::Planned {
        application: "memos-0a1b2c3d".parse().unwrap(),
        owner: UserId(7),
        plan: plan(),
        steps: vec!["stop".into(), "destroy".into()],
        deadline: 1_000_000,
    }
}

fn intended(step: &str, direction: Direction, attempt: u32) -> Event {
    Event::StepIntended { step: step.into(), direction, attempt, stood: None, site: None }
}

fn succeeded(step: &str, direction: Direction, attempt: u32) -> Event {
    Event::StepSucceeded { step: step.into(), direction, attempt, found: None }
}

fn failure(class: FailureClass) -> Failure {
    Failure { class, message: "no answer".into() }
}

fn failed(step: &str, direction: Direction, class: FailureClass, retry_at: Option<i64>) -> Event {
    let failure = failure(class);
    Event::StepFailed { step: step.into(), direction, attempt: 1, failure, retry_at }
}

fn unwinding() -> Event {
    Event::UnwindingBegan { reason: "it does not start".into() }
}

fn stuck(step: &str, direction: Direction) -> Event {
    let (reason, instructions) = ("locked".into(), "unlock it".into());
    Event::Stuck { step: step.into(), direction, reason, instructions }
}

fn after(past: Vec<Event>) -> Operation {
    past.into_iter().fold(Operation::default(), Operation::evolve)
}

fn next(past: Vec<Event>) -> Move {
    after(past).progress().expect("it has not ended").next_move()
}

fn attempt(step: &str, direction: Direction, number: u32) -> Move {
    Move::Try { step: step.into(), direction, number }
}

async fn given(past: Vec<Event>, command: Command) -> Result<Vec<Event>, Error> {
    TestFramework::<Operation>::with(()).given(past).when_async(command).await.inspect_result()
}

use Direction::{Act, Undo};

#[test]
fn steps_are_tried_in_order_and_then_it_is_complete() {
    let mut past = vec![planned()];
    assert_eq!(next(past.clone()), attempt("stop", Act, 1));
    past.extend([intended("stop", Act, 1), succeeded("stop", Act, 1)]);
    assert_eq!(next(past.clone()), attempt("destroy", Act, 1));
    past.extend([intended("destroy", Act, 1), succeeded("destroy", Act, 1)]);
    assert_eq!(next(past), Move::Complete);
}

#[test]
fn an_intent_without_outcome_is_recovered_with_the_task_it_started() {
    let mut past = vec![planned(), intended("stop", Act, 1)];
    let recover = |upid: Option<&str>| Move::Recover {
        step: "stop".into(),
        direction: Act,
        number: 1,
        upid: upid.map(str::to_owned),
    };
    assert_eq!(next(past.clone()), recover(None));
    let upid = "UPID:pve1:1:2:3:vzstop:104:root@pam:".to_owned();
    past.push(Event::TaskStarted { step: "stop".into(), direction: Act, upid: upid.clone() });
    assert_eq!(next(past), recover(Some(&upid)));
}

#[test]
fn a_retryable_failure_is_tried_again_and_an_unknown_one_begins_with_a_look() {
    let past =
        |class| vec![planned(), intended("stop", Act, 1), failed("stop", Act, class, Some(5))];
    assert_eq!(next(past(FailureClass::Retryable)), attempt("stop", Act, 2));
    let look = Move::Recover { step: "stop".into(), direction: Act, number: 2, upid: None };
    assert_eq!(next(past(FailureClass::Unknown)), look);
}

#[test]
fn a_failure_without_another_try_is_given_up() {
    let past = vec![
        planned(),
        intended("stop", Act, 3),
        failed("stop", Act, FailureClass::Permanent, None),
    ];
    let failure = failure(FailureClass::Permanent);
    assert_eq!(next(past), Move::GiveUp { step: "stop".into(), direction: Act, failure });
}

#[test]
fn unwinding_takes_back_the_failed_step_too_in_reverse() {
    let mut past = vec![
        planned(),
        intended("stop", Act, 1),
        succeeded("stop", Act, 1),
        intended("destroy", Act, 1),
        failed("destroy", Act, FailureClass::Permanent, None),
        unwinding(),
    ];
    assert_eq!(next(past.clone()), attempt("destroy", Undo, 1));
    past.extend([intended("destroy", Undo, 1), succeeded("destroy", Undo, 1)]);
    assert_eq!(next(past.clone()), attempt("stop", Undo, 1));
    past.extend([intended("stop", Undo, 1), succeeded("stop", Undo, 1)]);
    assert_eq!(next(past), Move::FinishUndo);
}

#[test]
fn a_resumed_operation_goes_on_in_the_direction_in_which_it_got_stuck() {
    let forward = vec![planned(), intended("stop", Act, 1), stuck("stop", Act)];
    assert_eq!(next(forward.clone()), Move::AwaitOperator);
    let resumed = Event::Resumed { by: UserId(1), note: "unlocked".into() };
    assert_eq!(next([forward, vec![resumed.clone()]].concat()), attempt("stop", Act, 1));
    let back = vec![planned(), intended("stop", Act, 1), unwinding(), stuck("stop", Undo), resumed];
    assert_eq!(next(back), attempt("stop", Undo, 1));
}

#[tokio::test]
async fn a_step_out_of_turn_is_refused() {
    let early =
        Command::IntendStep { step: "destroy".into(), direction: Act, stood: None, site: None };
    assert_eq!(given(vec![planned()], early).await, Err(Error::NotNext));
    let wrong_way =
        Command::IntendStep { step: "stop".into(), direction: Undo, stood: None, site: None };
    assert_eq!(given(vec![planned()], wrong_way).await, Err(Error::NotNext));
    let unbegun = Command::SucceedStep { step: "stop".into(), direction: Act, found: None };
    assert_eq!(given(vec![planned()], unbegun).await, Err(Error::NotNext));
    assert_eq!(given(vec![planned()], Command::Complete).await, Err(Error::NotNext));
    assert_eq!(given(vec![planned()], Command::FinishUndo).await, Err(Error::NotNext));
}

#[tokio::test]
async fn an_operation_past_its_pivot_is_not_taken_back() {
    let unwind = Command::Unwind { reason: "cancelled".into(), past_pivot: true };
    assert_eq!(given(vec![planned()], unwind).await, Err(Error::PastPivot));
}

#[tokio::test]
async fn an_ended_operation_takes_no_more_commands() {
    let done = vec![
        planned(),
        intended("stop", Act, 1),
        succeeded("stop", Act, 1),
        intended("destroy", Act, 1),
        succeeded("destroy", Act, 1),
        Event::Completed,
    ];
    let cancel = Command::Cancel { by: UserId(7), reason: "changed my mind".into() };
    assert_eq!(given(done, cancel).await, Err(Error::Ended));
}

#[tokio::test]
async fn only_a_stuck_operation_is_resumed_or_abandoned() {
    let resume = || Command::Resume { by: UserId(1), note: "unlocked".into() };
    let abandon = || Command::Abandon { by: UserId(1), note: "gone by hand".into() };
    assert_eq!(given(vec![planned()], resume()).await, Err(Error::NotStuck));
    assert_eq!(given(vec![planned()], abandon()).await, Err(Error::NotStuck));
    let past = || vec![planned(), intended("stop", Act, 1), stuck("stop", Act)];
    assert_eq!(given(past(), resume()).await.map(|events| events.len()), Ok(1));
    assert_eq!(given(past(), abandon()).await.map(|events| events.len()), Ok(1));
    let step = Command::IntendStep { step: "stop".into(), direction: Act, stood: None, site: None };
    assert_eq!(given(past(), step).await, Err(Error::IsStuck));
}

#[tokio::test]
async fn cancelling_twice_or_while_unwinding_changes_nothing() {
    let cancel = || Command::Cancel { by: UserId(7), reason: "changed my mind".into() };
    let requested = Event::CancelRequested { by: UserId(7), reason: "changed my mind".into() };
    assert_eq!(given(vec![planned()], cancel()).await, Ok(vec![requested.clone()]));
    assert_eq!(given(vec![planned(), requested], cancel()).await, Ok(vec![]));
    assert_eq!(given(vec![planned(), unwinding()], cancel()).await, Ok(vec![]));
}

#[test]
fn stored_operations_can_be_read_for_ever() {
    let upid = "UPID:pve1:00000271:0005EA12:6B049FDA:vzstop:104:root@pam:".to_owned();
    for event in [
        planned(),
        intended("stop", Act, 1),
        Event::TaskStarted { step: "stop".into(), direction: Act, upid },
        Event::StepSucceeded {
            step: "ensure_template".into(),
            direction: Act,
            attempt: 1,
            found: Some(Finding::Archive { volume: "local:vztmpl/a.tar.xz".into(), digest: None }),
        },
        failed("stop", Act, FailureClass::Unknown, Some(5)),
        Event::PlanChanged { plan: plan(), reason: "its number was taken".into() },
        Event::CancelRequested { by: UserId(7), reason: "changed my mind".into() },
        unwinding(),
        Event::Completed,
        Event::Undone { reason: "it does not start".into() },
        stuck("stop", Undo),
        Event::Resumed { by: UserId(1), note: "unlocked".into() },
        Event::Abandoned { by: UserId(1), note: "gone by hand".into() },
    ] {
        assert_stored_as_promised(&event);
    }
}

/// What stood before the first try is what counts, until another number is tried.
#[test]
fn what_stood_under_the_number_is_kept_from_the_first_look_on() {
    let look = |volume: &str| {
        let (storage, volume) = ("local".to_owned(), format!("local:104/{volume}.raw"));
        Volumes::from([(storage, [volume].into())])
    };
    let intended = |stood: Option<Volumes>| {
        let replaced = ["local:104/vm-104-disk-9.raw".to_owned()].into();
        let (node, unlisted) = ("pve1".parse().unwrap(), ["local".to_owned()].into());
        let site = stood.as_ref().map(|_| Site { node, replaced, unlisted });
        Event::StepIntended { step: "stop".into(), direction: Act, attempt: 1, stood, site }
    };
    let first = Some(look("vm-104-disk-0"));
    let mut operation = Operation::default();
    for event in [planned(), intended(first.clone()), intended(None)] {
        operation.apply(event);
    }
    assert_eq!(operation.progress().unwrap().stood, first);
    let site = operation.progress().unwrap().site.clone().unwrap();
    assert_eq!((site.node.as_str(), site.replaced.len(), site.unlisted.len()), ("pve1", 1, 1));
    operation.apply(Event::PlanChanged { plan: plan(), reason: "taken".into() });
    assert_eq!(operation.progress().unwrap().stood, None);
    assert_eq!(operation.progress().unwrap().site, None);
    let stored = serde_json::to_value(intended(first.clone())).unwrap();
    let stood = &stored["step_intended"]["stood"];
    assert_eq!(stood, &serde_json::json!({ "local": ["local:104/vm-104-disk-0.raw"] }));
    assert_eq!(serde_json::from_value::<Event>(stored.clone()).unwrap(), intended(first));
    let mut older = stored;
    older["step_intended"]["site"].as_object_mut().unwrap().remove("unlisted");
    let site: Site = serde_json::from_value(older["step_intended"]["site"].clone()).unwrap();
    assert_eq!(site.unlisted.len(), 0);
    older["step_intended"].as_object_mut().unwrap().remove("site");
    let older: Event = serde_json::from_value(older).unwrap();
    assert!(matches!(older, Event::StepIntended { stood: Some(_), site: None, .. }));
}

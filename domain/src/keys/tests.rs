//! What is promised about key generations, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::fixture::assert_stored_as_promised;

const OLD: &str = "a0a0a0a0";
const NEW: &str = "b1b1b1b1";

fn begin() -> Command {
    Command::BeginRotation { generation: NEW.into(), replaced: vec![OLD.into()] }
}

fn finish() -> Command {
    Command::FinishRotation { generation: NEW.into(), replaced: vec![OLD.into()], secrets: 3 }
}

fn after(commands: &[Command]) -> Keys {
    commands.iter().fold(Keys::default(), |keys, command| {
        let events = keys.decide(command.clone()).unwrap();
        events.into_iter().fold(keys, Keys::evolve)
    })
}

#[test]
fn a_rotation_that_is_asked_for_again_goes_on_and_is_no_second_one() {
    let keys = after(&[begin()]);
    assert_eq!(keys.decide(begin()), Ok(vec![]));
    let keys = after(&[begin(), finish()]);
    assert_eq!(keys.decide(finish()), Ok(vec![]));
    assert!(keys.leaving.is_empty() && keys.replaced.contains(OLD));
}

#[test]
fn only_what_was_replaced_can_be_destroyed() {
    let destroy = |name: &str| Command::Destroy { generation: name.into() };
    let under_way = after(&[begin()]);
    assert_eq!(under_way.decide(destroy(OLD)), Err(Error::InUse(OLD.into())));
    assert_eq!(under_way.decide(destroy(NEW)), Err(Error::InUse(NEW.into())));
    let rotated = after(&[begin(), finish()]);
    assert_eq!(rotated.decide(destroy("c2")), Err(Error::Unknown("c2".into())));
    let destroyed = after(&[begin(), finish(), destroy(OLD)]);
    assert_eq!(destroyed.decide(destroy(OLD)), Ok(vec![]));
    let back = Command::BeginRotation { generation: OLD.into(), replaced: vec![NEW.into()] };
    assert_eq!(destroyed.decide(back), Err(Error::Destroyed(OLD.into())));
}

#[test]
fn a_rotation_during_a_rotation_leaves_two_generations_behind() {
    let third = Command::BeginRotation { generation: "c2".into(), replaced: vec![NEW.into()] };
    let keys = after(&[begin(), third]);
    assert_eq!(keys.current.as_deref(), Some("c2"));
    assert_eq!(keys.leaving, [OLD.to_owned(), NEW.to_owned()].into());
}

#[test]
fn the_events_are_stored_as_promised() {
    let (generation, replaced) = (NEW.to_owned(), vec![OLD.to_owned()]);
    let began = Event::RotationBegan { generation: generation.clone(), replaced: replaced.clone() };
    assert_stored_as_promised(&began);
    assert_stored_as_promised(&Event::Rotated { generation, replaced, secrets: 3 });
    assert_stored_as_promised(&Event::Destroyed { generation: OLD.to_owned() });
}

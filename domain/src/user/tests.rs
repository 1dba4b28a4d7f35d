//! The rules of accounts and sessions, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cqrs_es::test::TestFramework;

use super::*;
use crate::fixture::assert_stored_as_promised;
use crate::value::{LeaseKey, UserId};

fn registered() -> Event {
    Event::Registered {
        username: "Ada".into(),
        email: Some("ada@example.org".into()),
        role: Role::User,
        via: Via::Registration,
    }
}

fn register() -> Command {
    Command::Register {
        username: "Ada".parse().unwrap(),
        email: Some("ada@example.org".parse().unwrap()),
        role: Role::User,
        via: Via::Registration,
    }
}

fn rename(first: &str, email: Option<&str>) -> Command {
    Command::ChangeProfile {
        first_name: first.parse().unwrap(),
        last_name: "Lovelace".parse().unwrap(),
        email: email.map(|text| text.parse().unwrap()),
    }
}

fn renamed() -> Event {
    Event::ProfileChanged {
        first_name: "Ada".into(),
        last_name: "Lovelace".into(),
        email: Some("ada@example.org".into()),
    }
}

fn session() -> SessionId {
    "6f2b8a52-29a0-4a55-9a35-0d7c4b7e2a10".parse().unwrap()
}

fn opened() -> SessionEvent {
    SessionEvent::Opened { user: UserId(7), source: "192.0.2.7".into() }
}

async fn given(past: Vec<Event>, command: Command) -> Result<Vec<Event>, Error> {
    TestFramework::<User>::with(()).given(past).when_async(command).await.inspect_result()
}

async fn given_session(
    past: Vec<SessionEvent>,
    command: SessionCommand,
) -> Result<Vec<SessionEvent>, SessionError> {
    TestFramework::<Session>::with(()).given(past).when_async(command).await.inspect_result()
}

#[tokio::test]
async fn a_new_user_is_registered_once() {
    assert_eq!(given(vec![], register()).await, Ok(vec![registered()]));
    assert_eq!(given(vec![registered()], register()).await, Err(Error::AlreadyRegistered));
}

#[tokio::test]
async fn nothing_can_be_asked_of_a_user_who_was_never_registered() {
    for command in [
        rename("Ada", None),
        Command::ChangePassword,
        Command::ChangeRole { role: Role::Admin },
        Command::Disable,
        Command::Enable,
        Command::LogIn { session: session() },
    ] {
        assert_eq!(given(vec![], command).await, Err(Error::NotFound));
    }
}

#[tokio::test]
async fn a_profile_that_stays_the_same_is_no_event() {
    let change = || rename("Ada", Some("ada@example.org"));
    assert_eq!(given(vec![registered()], change()).await, Ok(vec![renamed()]));
    assert_eq!(given(vec![registered(), renamed()], change()).await, Ok(vec![]));
}

#[tokio::test]
async fn a_disabled_user_cannot_log_in_until_enabled_again() {
    let log_in = || Command::LogIn { session: session() };
    let in_log = Event::LoggedIn { session: session() };
    let past = vec![registered(), Event::Disabled];
    assert_eq!(given(past.clone(), log_in()).await, Err(Error::Disabled));
    let past = [past, vec![Event::Enabled]].concat();
    assert_eq!(given(past, log_in()).await, Ok(vec![in_log]));
}

#[tokio::test]
async fn repeating_a_change_of_role_or_state_is_no_event() {
    let admin = Command::ChangeRole { role: Role::Admin };
    let made_admin = Event::RoleChanged { role: Role::Admin };
    assert_eq!(given(vec![registered()], admin.clone()).await, Ok(vec![made_admin.clone()]));
    assert_eq!(given(vec![registered(), made_admin], admin).await, Ok(vec![]));
    assert_eq!(given(vec![registered()], Command::Enable).await, Ok(vec![]));
    assert_eq!(given(vec![registered()], Command::Disable).await, Ok(vec![Event::Disabled]));
    assert_eq!(given(vec![registered(), Event::Disabled], Command::Disable).await, Ok(vec![]));
}

#[tokio::test]
async fn a_changed_password_is_recorded_without_it() {
    let events = given(vec![registered()], Command::ChangePassword).await;
    assert_eq!(events, Ok(vec![Event::PasswordChanged]));
}

#[tokio::test]
async fn a_session_is_opened_refreshed_and_ended() {
    let open = || SessionCommand::Open { user: UserId(7), source: "192.0.2.7".into() };
    let end = || SessionCommand::End { reason: EndReason::Logout };
    let ended = SessionEvent::Ended { reason: EndReason::Logout };
    assert_eq!(given_session(vec![], open()).await, Ok(vec![opened()]));
    assert_eq!(given_session(vec![opened()], open()).await, Err(SessionError::AlreadyOpened));
    assert_eq!(
        given_session(vec![opened()], SessionCommand::Refresh).await,
        Ok(vec![SessionEvent::Refreshed])
    );
    assert_eq!(given_session(vec![opened()], end()).await, Ok(vec![ended.clone()]));
    assert_eq!(given_session(vec![opened(), ended], end()).await, Ok(vec![]));
}

#[tokio::test]
async fn an_ended_session_cannot_be_refreshed_or_opened_again() {
    let past = vec![opened(), SessionEvent::Ended { reason: EndReason::RefreshReused }];
    let open = SessionCommand::Open { user: UserId(7), source: "192.0.2.7".into() };
    assert_eq!(
        given_session(past.clone(), SessionCommand::Refresh).await,
        Err(SessionError::Ended)
    );
    assert_eq!(given_session(past, open).await, Err(SessionError::AlreadyOpened));
    assert_eq!(given_session(vec![], SessionCommand::Refresh).await, Err(SessionError::NotFound));
}

#[test]
fn user_names_that_differ_in_case_are_one_name() {
    let lease = |name: &str| name.parse::<Username>().unwrap().lease();
    assert_eq!(lease("Ada"), lease("aDA"));
    assert_eq!(lease("Ada"), LeaseKey::Username("ada".into()));
}

#[test]
fn a_user_name_has_only_the_characters_that_the_old_product_allowed() {
    let long = "a".repeat(150);
    for good in ["a", "ada@example.org", "a.b+c-d_e", long.as_str()] {
        assert!(good.parse::<Username>().is_ok(), "{good}");
    }
    let long = "a".repeat(151);
    for bad in ["", "ada lovelace", "ada\n", "a/b", "ädä", "a\0", long.as_str()] {
        assert_eq!(bad.parse::<Username>().unwrap_err().code, "username.invalid", "{bad:?}");
    }
}

#[test]
fn a_mail_address_is_one_plain_address() {
    for good in ["a@b", "ada@example.org", "a+b@sub.example.org", "o'neil@example.org"] {
        assert!(good.parse::<EmailAddress>().is_ok(), "{good}");
    }
    for bad in ["", "ada", "@b", "a@", "a@b..c", "a b@c", "a@-b", "a@b\n", "a@b, c@d"] {
        assert_eq!(bad.parse::<EmailAddress>().unwrap_err().code, "email.invalid", "{bad:?}");
    }
}

#[test]
fn every_event_of_a_user_is_stored_as_promised() {
    for event in [
        registered(),
        renamed(),
        Event::PasswordChanged,
        Event::RoleChanged { role: Role::Admin },
        Event::Disabled,
        Event::Enabled,
        Event::LoggedIn { session: session() },
    ] {
        assert_stored_as_promised(&event);
    }
}

#[test]
fn every_event_of_a_session_is_stored_as_promised() {
    for event in
        [opened(), SessionEvent::Refreshed, SessionEvent::Ended { reason: EndReason::Logout }]
    {
        assert_stored_as_promised(&event);
    }
}

//! Signing in, and what happens to those who cannot.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_user_signs_in_by_name_in_any_case_or_by_mail_address() {
    let office = Office::open(Registration::Closed).await;
    let (made, password) = office.user("Ada", Role::Admin).await;
    for name in ["Ada", "ada", " ADA ", "ada@example.org"] {
        let signed_in = office.login(name, &password).await.unwrap();
        assert_eq!(signed_in.user, made);
        assert_eq!(signed_in.user.username, "Ada");
        let actor = office.actor(&signed_in.tokens.access).await.unwrap();
        assert_eq!(actor.user(), Some(made.id));
        assert_eq!(actor.session(), Some(signed_in.tokens.session));
        Admin::prove(&actor).unwrap();
    }
    assert_eq!(
        office.site.history("user", "1").await,
        ["user.registered", "user.logged_in", "user.logged_in", "user.logged_in", "user.logged_in"]
    );
}

#[tokio::test]
async fn a_wrong_name_a_wrong_password_and_a_disabled_user_are_told_the_same() {
    let office = Office::open(Registration::Closed).await;
    let (ada, password) = office.user("ada", Role::User).await;
    let wrong = office.login("ada", &random()).await.unwrap_err();
    let unknown = office.login("nobody", &random()).await.unwrap_err();
    let disable = UserChange { role: None, disabled: Some(true) };
    office.accounts.change_user(&operator(), ada.id, disable).await.unwrap();
    let disabled = office.login("ada", &password).await.unwrap_err();
    for error in [&wrong, &unknown, &disabled] {
        assert_eq!(error.code(), "login.failed");
        assert_eq!(error.to_string(), wrong.to_string());
    }
    let nothing =
        Credentials { username: Some(" ".into()), email: None, ..credentials("", &random()) };
    assert_eq!(code(office.accounts.login(&visitor(7), nothing).await), "username.missing");
}

#[tokio::test]
async fn after_five_failures_each_next_attempt_waits_longer_and_live_sessions_stay() {
    let office = Office::open(Registration::Closed).await;
    let (_, password) = office.user("ada", Role::User).await;
    let live = office.login("ada", &password).await.unwrap().tokens.access;
    for _ in 0..5 {
        assert_eq!(code(office.login("ada", &random()).await), "login.failed");
    }
    let mut waits = Vec::new();
    for _ in 0..4 {
        // The right password has to wait as well: the limit would be none otherwise.
        let limited = office.login("ada", &password).await.unwrap_err();
        let Error::TooMany { code, retry_after, .. } = limited else { panic!("{limited:?}") };
        assert_eq!(code, "login.limited");
        waits.push(retry_after);
        assert!(office.actor(&live).await.is_some(), "a live session is not locked out");
        office.clock.advance(retry_after.as_micros().try_into().unwrap());
        assert_eq!(self::code(office.login("ada", &random()).await), "login.failed");
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0] + Duration::from_secs(5)), "{waits:?}");
    let elsewhere = office.accounts.login(&visitor(8), credentials("ada", &password)).await;
    elsewhere.unwrap();
    office.clock.advance(20 * 60 * SECOND);
    office.login("ada", &password).await.unwrap();
    assert_eq!(code(office.login("ada", &random()).await), "login.failed");
    office.login("ada", &password).await.unwrap();
}

#[tokio::test]
async fn many_guesses_at_once_are_no_way_around_the_limit() {
    let office = Office::open(Registration::Closed).await;
    office.user("ada", Role::User).await;
    let mut guesses = Vec::new();
    for _ in 0..30 {
        let accounts = office.accounts.clone();
        let given = credentials("ada", &random());
        guesses.push(tokio::spawn(async move { accounts.login(&visitor(7), given).await }));
    }
    let mut compared = 0;
    for guess in guesses {
        match code(guess.await.unwrap()) {
            "login.failed" => compared += 1,
            other => assert_eq!(other, "login.limited"),
        }
    }
    assert_eq!(compared, 5);
}

#[tokio::test]
async fn one_user_may_sign_in_many_times_at_once() {
    let office = Office::open(Registration::Closed).await;
    let (_, password) = office.user("ada", Role::User).await;
    let mut logins = Vec::new();
    for _ in 0..20 {
        let accounts = office.accounts.clone();
        let given = credentials("ada", &password);
        logins.push(tokio::spawn(async move { accounts.login(&visitor(7), given).await }));
    }
    for login in logins {
        login.await.unwrap().unwrap();
    }
}

/// The metadata of all events of a type.
async fn metadata_of(office: &Office, event_type: &str) -> Vec<serde_json::Value> {
    let events = office.site.store.feed(0, 1_000).await.unwrap();
    let of_type = events.iter().filter(|event| event.event_type == event_type);
    of_type.map(|event| serde_json::from_str(&event.metadata).unwrap()).collect()
}

#[tokio::test]
async fn whoever_signs_in_has_done_so_by_a_password_and_goes_on_by_the_session() {
    let office = Office::open(Registration::Open).await;
    let (_, password) = office.user("ada", Role::User).await;
    let signed_in = office.login("ada", &password).await.unwrap();
    let tokens = office.sessions.refresh(&visitor(7), &signed_in.tokens.refresh).await.unwrap();
    office.sessions.logout(&visitor(7), None, Some(&tokens.refresh)).await.unwrap();
    let session = format!("session/{}", tokens.session);
    for (event_type, credential) in [
        ("user.logged_in", "password"),
        ("session.opened", "password"),
        ("session.refreshed", session.as_str()),
        ("session.ended", session.as_str()),
    ] {
        let said = metadata_of(&office, event_type).await;
        assert_eq!(said.len(), 1, "{event_type}");
        assert_eq!((&said[0]["actor"], &said[0]["owner"]), (&"user/1".into(), &"1".into()));
        assert_eq!(said[0]["credential"], credential);
        assert!(said[0].get("on_behalf_of").is_none(), "{}", said[0]);
    }
    let bob = office.accounts.register(&visitor(8), asked("bob", &random())).await.unwrap();
    for event_type in ["user.registered", "user.logged_in"] {
        let said = metadata_of(&office, event_type).await.pop().unwrap();
        assert_eq!(said["actor"], format!("user/{}", bob.user.id), "{event_type}");
        assert_eq!(said["owner"], bob.user.id.to_string());
    }
}

#[tokio::test]
async fn a_failed_login_is_found_by_whose_account_it_was_and_is_nobodys_act() {
    let office = Office::open(Registration::Closed).await;
    office.user("ada", Role::User).await;
    office.user("bob", Role::User).await;
    // More than stand alone, of three accounts that are tried from one address.
    for name in ["nobody", "nobody", "nobody", "nobody", "nobody", "ada", "bob", "ada"] {
        office.login(name, &random()).await.unwrap_err();
    }
    office.refusals.flush_all().await.unwrap();
    let mut times = std::collections::BTreeMap::new();
    for event in office.site.store.feed(0, 1_000).await.unwrap() {
        if event.event_type != "refusal.counted" {
            continue;
        }
        let said: serde_json::Value = serde_json::from_str(&event.metadata).unwrap();
        let told: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
        assert_eq!(said["actor"], "anonymous");
        let owner = said["owner"].as_str().unwrap_or("nobody").to_owned();
        let accounts = told["counted"]["accounts"].as_array().unwrap();
        let of_owner = format!("user/{owner}");
        let others = accounts.iter().filter(|account| **account != of_owner.as_str()).count();
        assert_eq!(others == 0, owner != "nobody", "nobody sees who else was tried: {told}");
        *times.entry(owner).or_insert(0) += told["counted"]["times"].as_u64().unwrap();
    }
    let wanted = [("1", 2), ("2", 1), ("nobody", 5)].map(|(owner, n)| (owner.to_owned(), n));
    assert_eq!(times, wanted.into());
}

#[tokio::test]
async fn failures_are_counted_in_a_few_events_a_minute_and_name_no_unknown_user() {
    let office = Office::open(Registration::Closed).await;
    office.user("ada", Role::User).await;
    let unknown = random();
    for _ in 0..3 {
        office.login("ada", &random()).await.unwrap_err();
        office.login(&unknown, &random()).await.unwrap_err();
    }
    assert_eq!(office.refusals.flush().await.unwrap(), 0, "the minute is not over");
    office.clock.advance(60 * SECOND);
    assert_eq!(office.refusals.flush().await.unwrap(), 6, "five alone, then all others");
    assert_eq!(office.refusals.flush().await.unwrap(), 0, "nothing is counted twice");
    let log = office.site.whole_log().await;
    assert!(!log.contains(&unknown));
    let (mut times, mut accounts) = (0, std::collections::BTreeSet::new());
    for event in office.site.store.feed(0, 100).await.unwrap() {
        if event.event_type != "refusal.counted" {
            continue;
        }
        assert!(event.aggregate_id.starts_with("anonymous/192.0.2.7/login.failed/"));
        let counted: proximity_domain::refusal::Event =
            serde_json::from_str(&event.payload).unwrap();
        let proximity_domain::refusal::Event::Counted(counted) = counted;
        times += counted.times;
        accounts.extend(counted.accounts);
    }
    assert_eq!(times, 6);
    assert_eq!(accounts.len(), 2);
    assert!(accounts.contains("user/1"));
}

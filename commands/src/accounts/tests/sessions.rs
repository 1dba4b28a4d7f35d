//! Sessions: tokens that live for a while, are exchanged once and end at once.

use proximity_eventstore::tables;

use super::*;

async fn signed_in(office: &Office) -> (Tokens, String) {
    let (_, password) = office.user("ada", Role::User).await;
    (office.login("ada", &password).await.unwrap().tokens, password)
}

#[tokio::test]
async fn an_access_token_is_good_for_an_hour_and_no_other_text_is() {
    let office = Office::open(Registration::Closed).await;
    let (tokens, _) = signed_in(&office).await;
    assert_eq!(tokens.access_expires_in, 3_600);
    office.sessions.verify(&tokens.access).await.unwrap();
    for wrong in [&tokens.refresh, &secret(""), &secret(&random())] {
        assert!(office.actor(wrong).await.is_none());
        assert_eq!(code(office.sessions.verify(wrong).await), "identity.required");
    }
    office.clock.advance(3_599 * SECOND);
    assert!(office.actor(&tokens.access).await.is_some());
    office.clock.advance(SECOND);
    assert!(office.actor(&tokens.access).await.is_none());
}

#[tokio::test]
async fn a_refresh_exchanges_both_tokens() {
    let office = Office::open(Registration::Closed).await;
    let (old, _) = signed_in(&office).await;
    let new = office.sessions.refresh(&visitor(7), &old.refresh).await.unwrap();
    assert_eq!(new.session, old.session);
    assert!(office.actor(&old.access).await.is_none());
    assert!(office.actor(&new.access).await.is_some());
    office.sessions.refresh(&visitor(7), &new.refresh).await.unwrap();
    let history = office.site.history("session", &old.session.to_string()).await;
    assert_eq!(history, ["session.opened", "session.refreshed", "session.refreshed"]);
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_its_whole_family() {
    let office = Office::open(Registration::Closed).await;
    let (first, password) = signed_in(&office).await;
    let other = office.login("ada", &password).await.unwrap().tokens;
    let second = office.sessions.refresh(&visitor(7), &first.refresh).await.unwrap();
    let stolen = office.sessions.refresh(&visitor(9), &first.refresh).await;
    assert_eq!(code(stolen), "identity.required");
    assert!(office.actor(&second.access).await.is_none());
    let after = office.sessions.refresh(&visitor(7), &second.refresh).await;
    assert_eq!(code(after), "identity.required");
    assert!(office.actor(&other.access).await.is_some(), "another login is another family");
    let history = office.site.history("session", &first.session.to_string()).await;
    assert_eq!(history.last().unwrap(), "session.ended");
}

#[tokio::test]
async fn of_many_refreshes_at_once_one_wins_at_most() {
    let office = Office::open(Registration::Closed).await;
    let (tokens, _) = signed_in(&office).await;
    let mut racers = Vec::new();
    for _ in 0..10 {
        let (sessions, refresh) = (office.sessions.clone(), tokens.refresh.clone());
        racers.push(tokio::spawn(async move { sessions.refresh(&visitor(7), &refresh).await }));
    }
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.code(), "identity.required"),
        }
    }
    assert_eq!(won, 1);
    let history = office.site.history("session", &tokens.session.to_string()).await;
    assert_eq!(history, ["session.opened", "session.refreshed", "session.ended"]);
}

#[tokio::test]
async fn a_session_ends_after_two_idle_weeks_or_ninety_days() {
    let office = Office::open(Registration::Closed).await;
    let (tokens, password) = signed_in(&office).await;
    office.clock.advance(14 * 86_400 * SECOND);
    let late = office.sessions.refresh(&visitor(7), &tokens.refresh).await;
    assert_eq!(code(late), "identity.required");
    let mut tokens = office.login("ada", &password).await.unwrap().tokens;
    for _ in 0..8 {
        office.clock.advance(10 * 86_400 * SECOND);
        tokens = office.sessions.refresh(&visitor(7), &tokens.refresh).await.unwrap();
    }
    assert_eq!(tokens.refresh_expires_in, 10 * 86_400, "what is left of ninety days");
    office.clock.advance(10 * 86_400 * SECOND);
    let late = office.sessions.refresh(&visitor(7), &tokens.refresh).await;
    assert_eq!(code(late), "identity.required");
    office.clock.advance(SECOND);
    assert!(office.sessions.sweep().await.unwrap() > 0);
    let left = office.site.store.rows(&tables::SESSIONS, vec![], 10).await.unwrap();
    assert_eq!(left, Vec::<proximity_eventstore::Row>::new());
}

#[tokio::test]
async fn logout_ends_the_session_at_once_and_may_be_repeated() {
    let office = Office::open(Registration::Closed).await;
    let (tokens, _) = signed_in(&office).await;
    let ada = visitor(7);
    let logout = || office.sessions.logout(&ada, Some(&tokens.access), Some(&tokens.refresh));
    logout().await.unwrap();
    assert!(office.actor(&tokens.access).await.is_none());
    let dead = office.sessions.refresh(&visitor(7), &tokens.refresh).await;
    assert_eq!(code(dead), "identity.required");
    logout().await.unwrap();
    office.sessions.logout(&visitor(7), None, None).await.unwrap();
    let history = office.site.history("session", &tokens.session.to_string()).await;
    assert_eq!(history, ["session.opened", "session.ended"]);
}

#[tokio::test]
async fn a_changed_password_ends_all_other_sessions() {
    let office = Office::open(Registration::Closed).await;
    let (mine, password) = signed_in(&office).await;
    let other = office.login("ada", &password).await.unwrap().tokens;
    let actor = office.actor(&mine.access).await.unwrap();
    let new = random();
    let change = |old: &str, one: &str, two: &str| {
        let (old, one, two) = (secret(old), secret(one), secret(two));
        let (accounts, actor) = (office.accounts.clone(), actor.clone());
        async move { accounts.change_password(&actor, old, one, two).await }
    };
    assert_eq!(code(change(&random(), &new, &new).await), "password.wrong");
    assert_eq!(code(change(&password, &new, &random()).await), "password.mismatch");
    assert_eq!(code(change(&password, "short", "short").await), "password.too_short");
    change(&password, &new, &new).await.unwrap();
    assert!(office.actor(&mine.access).await.is_some());
    assert!(office.actor(&other.access).await.is_none());
    let dead = office.sessions.refresh(&visitor(7), &other.refresh).await;
    assert_eq!(code(dead), "identity.required");
    assert_eq!(code(office.login("ada", &password).await), "login.failed");
    office.login("ada", &new).await.unwrap();
}

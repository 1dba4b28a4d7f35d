//! What admins do about users, and how it takes effect.

use super::*;

fn role(role: Role) -> UserChange {
    UserChange { role: Some(role), disabled: None }
}

fn disabled(disabled: bool) -> UserChange {
    UserChange { role: None, disabled: Some(disabled) }
}

#[tokio::test]
async fn demotion_takes_effect_on_the_next_request() {
    let office = Office::open(Registration::Closed).await;
    office.user("root", Role::Admin).await;
    let (ada, password) = office.user("ada", Role::Admin).await;
    let access = office.login("ada", &password).await.unwrap().tokens.access;
    Admin::prove(&office.actor(&access).await.unwrap()).unwrap();
    office.accounts.change_user(&operator(), ada.id, role(Role::User)).await.unwrap();
    let actor = office.actor(&access).await.unwrap();
    assert_eq!(code(Admin::prove(&actor)), "admin.required");
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_and_old_sessions_stay_dead() {
    let office = Office::open(Registration::Closed).await;
    let (ada, password) = office.user("ada", Role::User).await;
    let tokens = office.login("ada", &password).await.unwrap().tokens;
    office.accounts.change_user(&operator(), ada.id, disabled(true)).await.unwrap();
    assert!(office.actor(&tokens.access).await.is_none());
    let dead = office.sessions.refresh(&visitor(7), &tokens.refresh).await;
    assert_eq!(code(dead), "identity.required");
    office.accounts.change_user(&operator(), ada.id, disabled(false)).await.unwrap();
    assert!(office.actor(&tokens.access).await.is_none());
    office.login("ada", &password).await.unwrap();
}

#[tokio::test]
async fn the_last_admin_can_neither_be_demoted_nor_disabled() {
    let office = Office::open(Registration::Closed).await;
    let (root, _) = office.user("root", Role::Admin).await;
    let (ada, _) = office.user("ada", Role::User).await;
    let change = |id, change| {
        let accounts = office.accounts.clone();
        async move { accounts.change_user(&operator(), id, change).await }
    };
    assert_eq!(code(change(root.id, role(Role::User)).await), "user.last_admin");
    assert_eq!(code(change(root.id, disabled(true)).await), "user.last_admin");
    change(ada.id, role(Role::Admin)).await.unwrap();
    change(ada.id, disabled(true)).await.unwrap();
    assert_eq!(code(change(root.id, role(Role::User)).await), "user.last_admin");
    change(ada.id, disabled(false)).await.unwrap();
    change(root.id, role(Role::User)).await.unwrap();
    assert_eq!(code(change(UserId(99), role(Role::User)).await), "not_found");
}

#[tokio::test]
async fn two_admins_who_demote_each_other_at_once_leave_one() {
    for _ in 0..5 {
        let office = Office::open(Registration::Closed).await;
        let (one, _) = office.user("one", Role::Admin).await;
        let (two, _) = office.user("two", Role::Admin).await;
        let demote = |id| {
            let accounts = office.accounts.clone();
            tokio::spawn(
                async move { accounts.change_user(&operator(), id, role(Role::User)).await },
            )
        };
        let (first, second) = (demote(one.id), demote(two.id));
        let results = [first.await.unwrap(), second.await.unwrap()];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        let users = office.accounts.users(&operator()).await.unwrap();
        assert_eq!(users.iter().filter(|user| user.role == Role::Admin).count(), 1);
    }
}

#[tokio::test]
async fn a_reset_gives_a_new_password_and_ends_every_session() {
    let office = Office::open(Registration::Closed).await;
    let (ada, password) = office.user("ada", Role::User).await;
    let tokens = office.login("ada", &password).await.unwrap().tokens;
    let reset = office.accounts.reset_password(&operator(), ada.id).await.unwrap();
    assert!(office.actor(&tokens.access).await.is_none());
    assert_eq!(code(office.login("ada", &password).await), "login.failed");
    office.login("ada", reset.password.expose()).await.unwrap();
    assert!(!office.site.whole_log().await.contains(reset.password.expose()));
}

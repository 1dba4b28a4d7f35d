//! How accounts come to be.

use super::*;

async fn setup(office: &Office) -> Secret {
    office.accounts.setup_token_if_first_start().await.unwrap().expect("nobody is there yet")
}

fn with_token(name: &str, token: &Secret) -> NewUser {
    NewUser { setup_token: Some(token.clone()), ..asked(name, &random()) }
}

#[tokio::test]
async fn the_setup_token_makes_exactly_one_admin_whoever_races_for_it() {
    let office = Office::open(Registration::Closed).await;
    let token = setup(&office).await;
    let mut racers = Vec::new();
    for number in 0..8 {
        let accounts = office.accounts.clone();
        let asked = with_token(&format!("racer{number}"), &token);
        racers.push(tokio::spawn(async move { accounts.register(&visitor(7), asked).await }));
    }
    let mut winners = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(signed_in) => winners.push(signed_in),
            Err(error) => assert_eq!(error.code(), "setup_token.invalid"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(winners[0].user.role, Role::Admin);
    let actor = office.actor(&winners[0].tokens.access).await.unwrap();
    Admin::prove(&actor).unwrap();
    assert!(office.accounts.setup_token_if_first_start().await.unwrap().is_none());
}

#[tokio::test]
async fn a_setup_token_is_refused_when_it_is_wrong_expired_or_no_longer_needed() {
    let office = Office::open(Registration::Closed).await;
    let eve = visitor(7);
    let register = |asked| office.accounts.register(&eve, asked);
    assert_eq!(code(register(with_token("eve", &secret(&random()))).await), "setup_token.invalid");
    let old = setup(&office).await;
    office.clock.advance(8 * 86_400 * SECOND);
    assert_eq!(code(register(with_token("eve", &old)).await), "setup_token.invalid");
    let token = setup(&office).await;
    office.user("ada", Role::Admin).await;
    assert_eq!(code(register(with_token("eve", &token)).await), "setup_token.invalid");
    assert_eq!(office.site.history("user", "2").await, Vec::<String>::new());
}

#[tokio::test]
async fn strangers_register_only_while_registration_is_open() {
    let closed = Office::open(Registration::Closed).await;
    let refused = closed.accounts.register(&visitor(7), asked("eve", &random())).await;
    assert_eq!(code(refused), "registration.closed");
    let open = Office::open(Registration::Open).await;
    let signed_in = open.accounts.register(&visitor(7), asked("eve", &random())).await.unwrap();
    assert_eq!(signed_in.user.role, Role::User);
    assert_eq!(
        code(Admin::prove(&open.actor(&signed_in.tokens.access).await.unwrap())),
        "admin.required"
    );
}

#[tokio::test]
async fn of_many_who_want_one_name_at_once_one_gets_it_and_numbers_are_never_shared() {
    let office = Office::open(Registration::Open).await;
    let mut racers = Vec::new();
    for number in 0..12 {
        let accounts = office.accounts.clone();
        let name = if number % 2 == 0 { "Ada" } else { "aDA" };
        let asked = NewUser { email: None, ..asked(name, &random()) };
        racers.push(tokio::spawn(async move { accounts.register(&visitor(7), asked).await }));
    }
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.code(), "user.username_taken"),
        }
    }
    assert_eq!(won, 1);
    for (index, name) in ["bob", "carol", "dave"].iter().enumerate() {
        let (user, _) = office.user(name, Role::User).await;
        assert_eq!(user.id.0, index as i64 + 2);
    }
    let mail = NewUser { email: Some("BOB@example.org".into()), ..asked("erin", &random()) };
    let refused = office.accounts.create_user(&operator(), mail, Role::User).await;
    assert_eq!(code(refused), "user.email_taken");
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_registration_is_said_at_once_by_field() {
    let office = Office::open(Registration::Open).await;
    let asked = NewUser {
        username: "no spaces".into(),
        email: Some("nonsense".into()),
        password1: Some(secret("short")),
        password2: Some(secret("short")),
        ..NewUser::default()
    };
    let refused = office.accounts.register(&visitor(7), asked).await;
    let Err(Error::Invalid(fields)) = refused else { panic!("{refused:?}") };
    let found: Vec<_> = fields.iter().map(|f| (f.field.as_str(), f.code)).collect();
    let expected = [
        ("username", "username.invalid"),
        ("email", "email.invalid"),
        ("password1", "password.too_short"),
    ];
    assert_eq!(found, expected);
}

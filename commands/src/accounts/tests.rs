//! What is promised about accounts and sessions, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admins;
mod logins;
mod registrations;
mod sessions;

use proximity_domain::user::EmailAddress;

use super::*;
use crate::clock::SECOND;
use crate::passwords::HashingLimits;
use crate::policy::Admin;
use crate::sessions::Lifetimes;
use crate::testing::{Site, Stopped};
use crate::{Actor, keys::MasterKeys};

/// Accounts on a store of their own, with a clock that the test moves.
struct Office {
    site: Site,
    clock: Arc<Stopped>,
    refusals: Arc<Refusals>,
    accounts: Accounts,
    sessions: Sessions,
}

impl Office {
    async fn open(registration: Registration) -> Self {
        let site = Site::open().await;
        let clock = Stopped::at(1_700_000_000 * SECOND);
        let keys = MasterKeys::generate().unwrap();
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let sessions = Sessions::new(site.store.clone(), Arc::clone(&shared), Lifetimes::default());
        let refusals = Arc::new(Refusals::new(site.store.clone(), Arc::clone(&shared)));
        let accounts = Accounts::new(
            site.store.clone(),
            shared,
            &keys,
            Passwords::new(HashingLimits::default()).unwrap(),
            sessions.clone(),
            Arc::clone(&refusals),
            registration,
        );
        Self { site, clock, refusals, accounts, sessions }
    }

    /// A user made by the operator, with a random password.
    async fn user(&self, name: &str, role: Role) -> (Profile, String) {
        let password = random();
        let asked = asked(name, &password);
        let made = self.accounts.create_user(&operator(), asked, role).await.unwrap();
        (made.user, password)
    }

    async fn login(&self, name: &str, password: &str) -> Result<SignedIn, Error> {
        self.accounts.login(&visitor(7), credentials(name, password)).await
    }

    /// The actor behind an access token.
    async fn actor(&self, access: &Secret) -> Option<Actor> {
        self.sessions.authenticate(access, None, None).await.unwrap().map(|(actor, _)| actor)
    }
}

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn operator() -> Admin {
    Admin::prove(&Actor::system("cli")).unwrap()
}

/// Somebody at 192.0.2.`last`.
fn visitor(last: u8) -> Actor {
    Actor::anonymous(Some([192, 0, 2, last].into()), Some("request".into()))
}

fn credentials(name: &str, password: &str) -> Credentials {
    let username = Some(name.to_owned());
    Credentials { username, email: None, password: secret(password), user_agent: None }
}

fn asked(name: &str, password: &str) -> NewUser {
    NewUser {
        username: name.to_owned(),
        email: Some(format!("{}@example.org", name.to_lowercase())),
        password: Some(secret(password)),
        ..NewUser::default()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    result.unwrap_err().code()
}

#[tokio::test]
async fn audit_08_no_password_token_or_hash_is_ever_in_the_log_or_printed() {
    let office = Office::open(Registration::Open).await;
    let (_, password) = office.user("ada", Role::Admin).await;
    let signed_in = office.login("ada", &password).await.unwrap();
    let tokens = office.sessions.refresh(&visitor(7), &signed_in.tokens.refresh).await.unwrap();
    office.login("ada", &random()).await.unwrap_err();
    office.refusals.flush_all().await.unwrap();
    let row = office.accounts.row(UserId(1)).await.unwrap();
    let hash = row.text("password_hash").unwrap().to_owned();
    let log = office.site.whole_log().await;
    let shown = format!("{signed_in:?} {tokens:?}");
    let all = [&signed_in.tokens, &tokens];
    let texts = all.iter().flat_map(|t| [t.access.expose(), t.refresh.expose()]);
    for text in texts.chain([password.as_str(), hash.as_str()]) {
        assert!(!log.contains(text) && !shown.contains(text));
    }
    assert!(log.contains("user.logged_in") && log.contains("session.refreshed"));
    for entry in std::fs::read_dir(office.site.directory.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for text in [password.as_str(), tokens.access.expose(), tokens.refresh.expose()] {
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()));
        }
    }
}

#[tokio::test]
async fn a_profile_is_changed_and_a_mail_address_is_freed_for_others() {
    let office = Office::open(Registration::Closed).await;
    let (_, password) = office.user("ada", Role::User).await;
    office.user("bob", Role::User).await;
    let access = office.login("ada", &password).await.unwrap().tokens.access;
    let actor = office.actor(&access).await.unwrap();
    let change = |email: &str| ProfileChange {
        first_name: Some("Ada".into()),
        last_name: None,
        email: Some(email.into()),
    };
    let (profile, _) =
        office.accounts.change_profile(&actor, change("New@Example.org")).await.unwrap();
    assert_eq!(profile.email.as_deref(), Some("New@Example.org"));
    assert_eq!((profile.first_name.as_str(), profile.last_name.as_str()), ("Ada", ""));
    let taken = office.accounts.change_profile(&actor, change("BOB@example.org")).await;
    assert_eq!(code(taken), "user.email_taken");
    let wrong = office.accounts.change_profile(&actor, change("nonsense")).await;
    let Err(Error::Invalid(fields)) = wrong else { panic!("{wrong:?}") };
    assert_eq!((fields[0].field.as_str(), fields[0].code), ("email", "email.invalid"));
    let freed: EmailAddress = "ada@example.org".parse().unwrap();
    let mut carol = asked("carol", &random());
    carol.email = Some(freed.to_string());
    office.accounts.create_user(&operator(), carol, Role::User).await.unwrap();
    let by_mail = Credentials {
        username: None,
        email: Some("NEW@example.org".into()),
        password: secret(&password),
        user_agent: None,
    };
    office.accounts.login(&visitor(7), by_mail).await.unwrap();
}

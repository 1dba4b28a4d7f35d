//! Making accounts: with the setup token, by open registration, or by an admin.

use proximity_domain::UserId;
use proximity_domain::lease::{self, Holder, Lease};
use proximity_domain::user::{self, EmailAddress, Role, User, Username, Via};
use proximity_eventstore::{Append, AppendError, Guard, Lane, Position, SideWrite, Value, tables};
use uuid::Uuid;

use super::{Accounts, Fields, Profile, SignedIn, USER_NUMBERS};
use crate::clock::SECOND;
use crate::dispatch::{Refused, Tried, Unit};
use crate::policy::Admin;
use crate::retry::retrying;
use crate::rows::{Columns, optional, text, unreadable};
use crate::sessions::{hash, random_token, role_text};
use crate::{Actor, Error, Proof, Secret, numbers, passwords};

/// How long a setup token is good for; a restart prints a new one.
const SETUP_TOKEN_S: i64 = 7 * 86_400;

/// Whether strangers may make themselves accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registration {
    #[default]
    Closed,
    Open,
}

/// An account as it is asked for.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    pub username: String,
    pub email: Option<String>,
    pub password: Option<Secret>,
    pub password1: Option<Secret>,
    pub password2: Option<Secret>,
    /// Makes its first user an admin, once.
    pub setup_token: Option<Secret>,
    /// What the client says it is.
    pub user_agent: Option<String>,
}

/// An account that was made without signing in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub user: Profile,
    /// Up to here the log holds it.
    pub position: Position,
}

/// The same after parsing, with the password hashed.
struct Wanted {
    username: Username,
    email: Option<EmailAddress>,
    password_hash: String,
    role: Role,
    via: Via,
}

impl Accounts {
    /// Registers a stranger and signs them in. With the setup token they become an admin.
    pub async fn register(&self, actor: &Actor, asked: NewUser) -> Result<SignedIn, Error> {
        let token = asked.setup_token.clone().filter(|token| !token.expose().is_empty());
        let (role, via) = match &token {
            Some(token) => {
                self.check_setup_token(token).await?;
                (Role::Admin, Via::SetupToken)
            }
            None if self.registration == Registration::Open => (Role::User, Via::Registration),
            None => {
                return Err(Error::forbidden(
                    "registration.closed",
                    "registration is closed; ask an administrator for an account",
                ));
            }
        };
        let agent = asked.user_agent.clone();
        let wanted = self.parse(asked, role, via).await?;
        retrying!(async {
            let metadata = actor.metadata("user.register");
            let mut unit = Unit::new(&self.store, metadata);
            let profile = self.register_in(&mut unit, &wanted).await?;
            unit.proved(profile.id, Proof::Password);
            let tokens =
                self.sessions.open_in(&mut unit, profile.id, actor, agent.as_deref()).await?;
            let log_in = user::Command::LogIn { session: tokens.session };
            let logged_in = unit.apply::<User>(&profile.id.to_string(), log_in).await;
            logged_in.map_err(|e| e.or_else(|e| Error::internal("a new user cannot log in", e)))?;
            if let Some(token) = &token {
                unit.write(SideWrite::Delete {
                    table: &tables::SETUP_TOKENS,
                    filter: vec![("hash", hash(token))],
                    guard: Guard::Rows(1),
                });
                unit.write(no_more_setup_tokens());
            }
            let done = commit(unit).await?;
            Ok(SignedIn { user: profile, tokens, position: done })
        })
    }

    /// Makes an account for someone else.
    pub async fn create_user(
        &self,
        admin: &Admin,
        asked: NewUser,
        role: Role,
    ) -> Result<Registered, Error> {
        let via = match admin.actor().user() {
            Some(_) => Via::Admin,
            None => Via::CommandLine,
        };
        let wanted = self.parse(asked, role, via).await?;
        retrying!(async {
            let mut unit = Unit::new(&self.store, admin.actor().metadata("user.create"));
            let user = self.register_in(&mut unit, &wanted).await?;
            if role == Role::Admin {
                // There is an admin now: nobody else may become one without being asked.
                unit.write(no_more_setup_tokens());
            }
            let position = commit(unit).await?;
            Ok(Registered { user, position })
        })
    }

    /// A new setup token while nobody has an account, to be shown to the operator by the caller.
    pub async fn setup_token_if_first_start(&self) -> Result<Option<Secret>, Error> {
        let users = self.store.rows(&tables::USERS, vec![], 1).await.map_err(unreadable)?;
        if !users.is_empty() {
            return Ok(None);
        }
        let token = random_token()?;
        let now = self.clock.now();
        let append = Append {
            id: Uuid::now_v7(),
            lane: Lane::Outcome,
            streams: vec![],
            assertions: vec![],
            side: vec![SideWrite::Insert {
                table: &tables::SETUP_TOKENS,
                row: vec![
                    ("hash", hash(&token)),
                    ("created_at", Value::Integer(now)),
                    ("expires_at", Value::Integer(now + SETUP_TOKEN_S * SECOND)),
                    ("used_at", Value::Null),
                ],
            }],
            metadata: Actor::system("setup").metadata("setup_token.issue").to_json(),
            fence: None,
            idempotency: None,
        };
        self.store.append(append).await?;
        Ok(Some(token))
    }

    async fn check_setup_token(&self, token: &Secret) -> Result<(), Error> {
        let filter = vec![("hash", hash(token))];
        let rows = self.store.rows(&tables::SETUP_TOKENS, filter, 1).await.map_err(unreadable)?;
        match rows.into_iter().next().map(Columns) {
            Some(row) if row.integer("expires_at")? > self.clock.now() => Ok(()),
            _ => Err(setup_token_invalid()),
        }
    }

    /// Parses all fields, says everything that is wrong with them at once, and hashes the password.
    async fn parse(&self, asked: NewUser, role: Role, via: Via) -> Result<Wanted, Error> {
        let mut fields = Fields::default();
        let username = fields.take("username", asked.username.trim().parse::<Username>());
        let email = asked.email.as_deref().map(str::trim).filter(|email| !email.is_empty());
        let email = fields.take("email", email.map(str::parse::<EmailAddress>).transpose());
        let chosen = passwords::chosen(asked.password, asked.password1, asked.password2);
        let password = match fields.also(chosen)? {
            Some((password, field)) => {
                let checked = passwords::check(&password, &asked.username, field);
                fields.also(checked)?.map(|()| password)
            }
            None => None,
        };
        let (Some(username), Some(email), Some(password)) = (username, email, password) else {
            return Err(fields.into_error());
        };
        let password_hash = self.passwords.hash(password).await?;
        Ok(Wanted { username, email, password_hash, role, via })
    }

    /// Puts a new user into a unit of work: number, name, address, events and row.
    async fn register_in(&self, unit: &mut Unit<'_>, wanted: &Wanted) -> Result<Profile, Tried> {
        let now = self.clock.now();
        let id = UserId(numbers::next(&self.store, unit, USER_NUMBERS).await?);
        take_username(unit, &wanted.username, id).await?;
        if let Some(email) = &wanted.email {
            take_email(unit, email, id).await?;
        }
        let register = user::Command::Register {
            username: wanted.username.clone(),
            email: wanted.email.clone(),
            role: wanted.role,
            via: wanted.via,
        };
        match unit.apply::<User>(&id.to_string(), register).await {
            Ok(_) => {}
            // Someone else took the number after it was read here: the append could only be stale.
            Err(Refused::Judged(_)) => return Err(numbers::taken()),
            Err(Refused::Failed(error)) => return Err(error.into()),
        }
        let email_folded = wanted.email.as_ref().map(EmailAddress::folded);
        unit.write(SideWrite::Insert {
            table: &tables::USERS,
            row: vec![
                ("id", text(id)),
                ("username", text(wanted.username.folded())),
                ("username_shown", text(&wanted.username)),
                ("email", optional(email_folded)),
                ("email_shown", optional(wanted.email.as_ref())),
                ("password_hash", text(&wanted.password_hash)),
                ("role", text(role_text(wanted.role))),
                ("disabled", Value::Boolean(false)),
                ("first_name", text("")),
                ("last_name", text("")),
                ("created_at", Value::Integer(now)),
                ("updated_at", Value::Integer(now)),
            ],
        });
        Ok(Profile {
            id,
            username: wanted.username.to_string(),
            email: wanted.email.as_ref().map(ToString::to_string),
            first_name: String::new(),
            last_name: String::new(),
            role: wanted.role,
            disabled: false,
            created_at: now,
        })
    }
}

/// A setup token that was used by someone else meanwhile is no good any more.
async fn commit(unit: Unit<'_>) -> Result<Position, Tried> {
    match unit.commit().await {
        Ok(done) => Ok(done.position),
        Err(AppendError::SideStale { table }) if table == tables::SETUP_TOKENS.name => {
            Err(setup_token_invalid().into())
        }
        Err(error) => Err(numbers::tried(error)),
    }
}

async fn take_username(unit: &mut Unit<'_>, name: &Username, id: UserId) -> Result<(), Error> {
    let taken = Error::conflict("user.username_taken", "this user name is taken");
    acquire(unit, &name.lease().to_string(), id, taken).await
}

pub(super) async fn take_email(
    unit: &mut Unit<'_>,
    email: &EmailAddress,
    id: UserId,
) -> Result<(), Error> {
    let taken = Error::conflict("user.email_taken", "this mail address belongs to another account");
    acquire(unit, &email.lease().to_string(), id, taken).await
}

async fn acquire(unit: &mut Unit<'_>, key: &str, id: UserId, taken: Error) -> Result<(), Error> {
    let acquire = lease::Command::Acquire { holder: Holder::User(id) };
    match unit.apply::<Lease>(key, acquire).await {
        Ok(_) => Ok(()),
        Err(Refused::Judged(_)) => Err(taken),
        Err(Refused::Failed(error)) => Err(error),
    }
}

fn no_more_setup_tokens() -> SideWrite {
    SideWrite::Delete { table: &tables::SETUP_TOKENS, filter: vec![], guard: Guard::None }
}

fn setup_token_invalid() -> Error {
    Error::forbidden(
        "setup_token.invalid",
        "this setup token was used, has expired or never was; a restart without users prints a new one",
    )
}

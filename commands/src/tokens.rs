//! Personal API tokens: what programs use in a user's name, looked up on every request.
//!
//! A token is shown once and kept as a hash. It never has more rights than its user has at that
//! moment, and an administrator's only where it was given that scope.

use std::net::IpAddr;
use std::sync::Arc;

use proximity_domain::UserId;
use proximity_domain::user::{
    ApiToken, ApiTokenCommand, ApiTokenError, RevokeReason, Role, Scope, TokenName, User,
};
use proximity_eventstore::{Append, Guard, Lane, Position, SideWrite, Store, Value, tables};
use uuid::Uuid;

use crate::accounts::Fields;
use crate::actor::Scopes;
use crate::clock::{Clock, Micros, SECOND};
use crate::dispatch::{Refused, Tried, Unit};
use crate::retry::retrying;
use crate::rows::{Columns, text, unreadable};
use crate::sessions::{hash, random_token, role};
use crate::{Actor, CredentialUsed, Error, FieldError, Identity, Secret};

/// How every token begins, so that it is recognised where it leaks.
pub const PREFIX: &str = "pxt_";
/// Tokens that one user may have.
const MOST: usize = 50;
/// Days that a token is good for when none are named.
const DAYS: i64 = 90;
/// Days that a token is good for at most.
const MOST_DAYS: i64 = 366;
/// The use of a token is noted at most this often.
const NOTE_USE_EVERY: Micros = 10 * 60 * SECOND;
/// An expired token is listed for so long, so that its owner sees why a program fails.
const LISTED_AFTER: Micros = 30 * 86_400 * SECOND;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewToken {
    pub name: String,
    /// `read`, `write`, `admin`.
    pub scopes: Vec<String>,
    /// 1 to 366; 90 when not given.
    pub expires_in_days: Option<i64>,
}

/// A token as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    pub id: Uuid,
    pub name: String,
    pub scopes: Vec<String>,
    /// µs since 1970.
    pub created_at: Micros,
    /// µs since 1970.
    pub expires_at: Micros,
    /// µs since 1970, to ten minutes; `None` while it was never used.
    pub last_used_at: Option<Micros>,
}

/// A new token, to be shown once.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    pub token: Secret,
    pub info: TokenInfo,
    /// Up to here the log holds it.
    pub position: Position,
}

/// Issues, checks and revokes tokens.
#[derive(Clone)]
pub struct ApiTokens {
    store: Store,
    clock: Arc<dyn Clock>,
}

impl ApiTokens {
    /// Tokens in this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Whether a bearer's text is meant to be a token of this kind.
    pub fn looks_like_one(token: &Secret) -> bool {
        token.expose().starts_with(PREFIX)
    }

    /// Who shows this token, and until when it is good at most; `None` when it is not (any more).
    /// Without the scope `admin` even an administrator's token is a plain user's.
    pub async fn authenticate(
        &self,
        token: &Secret,
        source: Option<IpAddr>,
        request: Option<String>,
    ) -> Result<Option<(Actor, Micros)>, Error> {
        let filter = vec![("hash", hash(token))];
        let rows =
            self.store.rows(&tables::API_TOKEN_USERS, filter, 1).await.map_err(unreadable)?;
        let Some(row) = rows.into_iter().next().map(Columns) else { return Ok(None) };
        let (now, until) = (self.clock.now(), row.integer("expires_at")?);
        if until <= now || row.boolean("disabled")? {
            return Ok(None);
        }
        let id: Uuid = row.parsed("id")?;
        let may = scopes(row.text("scopes")?)?;
        let role = match role(row.text("role")?)? {
            Role::Admin if may.admin => Role::Admin,
            Role::Admin | Role::User => Role::User,
        };
        if now - row.optional_integer("last_used_at")?.unwrap_or(0) > NOTE_USE_EVERY {
            self.note_use(id, now).await;
        }
        let credential = CredentialUsed::ApiToken { id, may };
        let identity = Identity::User { id: row.parsed("user_id")?, role, credential };
        Ok(Some((Actor::new(identity, source, request), until)))
    }

    /// Makes a token for the caller, who has to have signed in: a token cannot beget another one.
    pub async fn issue(&self, actor: &Actor, asked: &NewToken) -> Result<IssuedToken, Error> {
        let user = person(actor)?;
        let mut fields = Fields::default();
        let name = fields.take("name", asked.name.parse::<TokenName>());
        let scopes = fields.take("scopes", asked.scopes.iter().map(|s| s.parse()).collect());
        let days = asked.expires_in_days.unwrap_or(DAYS);
        if !(1..=MOST_DAYS).contains(&days) {
            fields.also::<()>(Err(Error::Invalid(vec![FieldError {
                field: "expires_in_days".to_owned(),
                code: "api_token.expiry_invalid",
                detail: format!("a token is good for 1 to {MOST_DAYS} days"),
            }])))?;
        }
        let scopes: Option<Vec<Scope>> = scopes;
        if scopes.as_ref().is_some_and(Vec::is_empty) {
            fields.also::<()>(Err(Error::invalid(
                "scopes",
                "api_token.scope_invalid",
                "a token has at least one of the scopes read, write and admin",
            )))?;
        }
        let (Some(name), Some(mut scopes), true) = (name, scopes, fields.is_empty()) else {
            return Err(fields.into_error());
        };
        scopes.dedup();
        let is_admin = matches!(actor.identity, Identity::User { role: Role::Admin, .. });
        if scopes.contains(&Scope::Admin) && !is_admin {
            let detail = "only an administrator's token can have the scope admin";
            return Err(Error::forbidden("admin.required", detail));
        }
        retrying!(self.try_issue(actor, user, &name, &scopes, days))
    }

    async fn try_issue(
        &self,
        actor: &Actor,
        user: UserId,
        name: &TokenName,
        scopes: &[Scope],
        days: i64,
    ) -> Result<IssuedToken, Tried> {
        if self.of(user).await?.len() >= MOST {
            let detail = format!("a user has at most {MOST} tokens; revoke one first");
            return Err(Error::conflict("api_token.too_many", detail).into());
        }
        let now = self.clock.now();
        let expires_at = now + days * 86_400 * SECOND;
        let random = random_token()?;
        let token = Secret::new(format!("{PREFIX}{}", random.expose()));
        let id = Uuid::new_v4();
        let mut unit = Unit::new(&self.store, actor.metadata("api_token.issue").owned_by(user));
        // Read only: an account that is disabled meanwhile makes this stale.
        unit.load::<User>(&user.to_string()).await?;
        let issue = ApiTokenCommand::Issue {
            user,
            name: name.clone(),
            scopes: scopes.to_vec(),
            expires_at,
        };
        unit.apply::<ApiToken>(&id.to_string(), issue).await.map_err(refused)?;
        let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        unit.write(SideWrite::Insert {
            table: &tables::API_TOKENS,
            row: vec![
                ("id", text(id)),
                ("user_id", text(user)),
                ("hash", hash(&token)),
                ("name", text(name.as_str())),
                ("scopes", text(words.join(" "))),
                ("created_at", Value::Integer(now)),
                ("expires_at", Value::Integer(expires_at)),
                ("last_used_at", Value::Null),
            ],
        });
        let position = unit.commit().await?.position;
        let info = TokenInfo {
            id,
            name: name.as_str().to_owned(),
            scopes: words.into_iter().map(str::to_owned).collect(),
            created_at: now,
            expires_at,
            last_used_at: None,
        };
        Ok(IssuedToken { token, info, position })
    }

    /// The caller's own tokens, newest first.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<TokenInfo>, Error> {
        let mut tokens = self.of(person(actor)?).await?;
        tokens.sort_by_key(|token| std::cmp::Reverse((token.created_at, token.id)));
        Ok(tokens)
    }

    /// Takes one of the caller's own tokens back; it is dead from then on.
    pub async fn revoke(&self, actor: &Actor, id: Uuid) -> Result<Position, Error> {
        let user = person(actor)?;
        retrying!(async {
            let filter = vec![("id", text(id)), ("user_id", text(user))];
            let rows = self.store.rows(&tables::API_TOKENS, filter, 1).await.map_err(unreadable)?;
            if rows.is_empty() {
                return Err(Error::NotFound.into());
            }
            let metadata = actor.metadata("api_token.revoke").owned_by(user);
            let mut unit = Unit::new(&self.store, metadata);
            revoke_in(&mut unit, id, RevokeReason::Owner).await?;
            Ok(unit.commit().await?.position)
        })
    }

    /// Removes rows of what expired long ago; the log keeps their history. Call it now and then.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let before = self.clock.now() - LISTED_AFTER;
        self.store.prune(&tables::API_TOKENS, "expires_at", before).await.map_err(unreadable)
    }

    async fn of(&self, user: UserId) -> Result<Vec<TokenInfo>, Error> {
        let filter = vec![("user_id", text(user))];
        let rows =
            self.store.rows(&tables::API_TOKENS, filter, MOST + 1).await.map_err(unreadable)?;
        rows.into_iter().map(|row| info(&Columns(row))).collect()
    }

    /// When a token was last used is good to know, but not worth failing a request for.
    async fn note_use(&self, id: Uuid, now: Micros) {
        let append = Append {
            id: Uuid::now_v7(),
            lane: Lane::User(format!("token/{id}")),
            streams: vec![],
            assertions: vec![],
            side: vec![SideWrite::Update {
                table: &tables::API_TOKENS,
                set: vec![("last_used_at", Value::Integer(now))],
                filter: vec![("id", text(id))],
                guard: Guard::None,
            }],
            metadata: "{}".to_owned(),
            fence: None,
            idempotency: None,
        };
        if let Err(error) = self.store.append(append).await {
            tracing::warn!(%id, %error, "the use of a token was not noted");
        }
    }
}

/// Revokes all tokens of a user, as part of a unit of work that also moves the user's stream: one
/// that is issued meanwhile makes it stale.
pub(crate) async fn revoke_all_in(
    store: &Store,
    unit: &mut Unit<'_>,
    user: UserId,
    reason: RevokeReason,
) -> Result<(), Error> {
    let filter = vec![("user_id", text(user))];
    let rows = store.rows(&tables::API_TOKENS, filter, 10 * MOST).await.map_err(unreadable)?;
    for row in rows.into_iter().map(Columns) {
        revoke_in(unit, row.parsed("id")?, reason).await?;
    }
    Ok(())
}

async fn revoke_in(unit: &mut Unit<'_>, id: Uuid, reason: RevokeReason) -> Result<(), Error> {
    let revoke = ApiTokenCommand::Revoke { reason };
    unit.apply::<ApiToken>(&id.to_string(), revoke).await.map_err(refused)?;
    unit.write(SideWrite::Delete {
        table: &tables::API_TOKENS,
        filter: vec![("id", text(id))],
        guard: Guard::None,
    });
    Ok(())
}

fn refused(refused: Refused<ApiTokenError>) -> Error {
    refused.or_else(|error| match error {
        ApiTokenError::NotFound => Error::NotFound,
        ApiTokenError::AlreadyIssued => Error::internal("a random id was given twice", error),
    })
}

/// The user, if a person has signed in.
fn person(actor: &Actor) -> Result<UserId, Error> {
    match (actor.user(), actor.session()) {
        (Some(user), Some(_)) => Ok(user),
        (Some(_), None) => Err(Error::forbidden(
            "api_token.not_accepted",
            "this call needs someone who has signed in; API tokens may not make it",
        )),
        (None, _) => Err(Error::Unauthenticated),
    }
}

fn scopes(words: &str) -> Result<Scopes, Error> {
    let mut may = Scopes::default();
    for word in words.split_ascii_whitespace() {
        let scope: Scope =
            word.parse().map_err(|error| Error::internal("a side row is malformed", error))?;
        match scope {
            Scope::Read => may.read = true,
            Scope::Write => may.write = true,
            Scope::Admin => may.admin = true,
        }
    }
    Ok(may)
}

fn info(row: &Columns) -> Result<TokenInfo, Error> {
    Ok(TokenInfo {
        id: row.parsed("id")?,
        name: row.text("name")?.to_owned(),
        scopes: row.text("scopes")?.split_ascii_whitespace().map(str::to_owned).collect(),
        created_at: row.integer("created_at")?,
        expires_at: row.integer("expires_at")?,
        last_used_at: row.optional_integer("last_used_at")?,
    })
}

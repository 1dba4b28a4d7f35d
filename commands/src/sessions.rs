//! Sessions: opaque tokens, looked up on every request, so that an end takes effect at once.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proximity_domain::user::{EndReason, Role, Session, SessionCommand, SessionError};
use proximity_domain::{SessionId, UserId};
use proximity_eventstore::{Append, AppendError, Guard, Lane, SideWrite, Store, Value, tables};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::clock::{Clock, Micros, SECOND};
use crate::dispatch::{Refused, Tried, Unit};
use crate::retry::retrying;
use crate::rows::{Columns, text, unreadable};
use crate::{Actor, CredentialUsed, Error, Identity, Metadata, Proof, Secret, keys};

/// How long tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Seconds that an access token is good for.
    pub access_s: i64,
    /// Seconds that a refresh token is good for; each refresh starts them anew.
    pub refresh_s: i64,
    /// Seconds after which a person signs in again, however often the session was refreshed.
    pub session_s: i64,
}

impl Default for Lifetimes {
    /// An hour, two weeks, ninety days.
    fn default() -> Self {
        Self { access_s: 3_600, refresh_s: 14 * 86_400, session_s: 90 * 86_400 }
    }
}

/// The use of a session is noted at most this often.
const NOTE_USE_EVERY: Micros = 10 * 60 * SECOND;
/// Sessions that one user's are looked for among; more than anybody has.
const MANY: usize = 10_000;
/// What an end is called in the log.
const END: &str = "session.end";
/// Characters of a browser's description that are kept.
const MAX_USER_AGENT: usize = 200;

/// What a client gets: shown once, stored as hashes only.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub session: SessionId,
    pub access: Secret,
    pub refresh: Secret,
    /// Seconds.
    pub access_expires_in: i64,
    /// Seconds.
    pub refresh_expires_in: i64,
}

/// A session as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    pub id: SessionId,
    /// µs since 1970.
    pub created_at: Micros,
    /// µs since 1970, to ten minutes.
    pub last_used_at: Micros,
    /// µs since 1970: when it ends unless it is refreshed.
    pub expires_at: Micros,
    /// The address that the login came from.
    pub source: String,
    /// What the client said it is.
    pub user_agent: String,
}

/// Opens, checks, refreshes and ends sessions.
#[derive(Clone)]
pub struct Sessions {
    store: Store,
    clock: Arc<dyn Clock>,
    lifetimes: Lifetimes,
}

impl Sessions {
    /// Sessions in this store.
    pub fn new(store: Store, clock: Arc<dyn Clock>, lifetimes: Lifetimes) -> Self {
        Self { store, clock, lifetimes }
    }

    /// Who shows this access token, and until when it is good at most; `None` when it is not (any
    /// more). One look-up says whether the session lives, the user is enabled and which role the user
    /// has now.
    pub async fn authenticate(
        &self,
        access: &Secret,
        source: Option<IpAddr>,
        request: Option<String>,
    ) -> Result<Option<(Actor, Micros)>, Error> {
        let filter = vec![("access_hash", hash(access))];
        let rows = self.store.rows(&tables::SESSION_USERS, filter, 1).await.map_err(unreadable)?;
        let Some(row) = rows.into_iter().next().map(Columns) else { return Ok(None) };
        let (now, until) = (self.clock.now(), row.integer("access_expires_at")?);
        if until <= now || row.boolean("disabled")? {
            return Ok(None);
        }
        let session: SessionId = row.parsed("id")?;
        if now - row.integer("last_used_at")? > NOTE_USE_EVERY {
            self.note_use(session, now).await;
        }
        let identity = Identity::User {
            id: row.parsed("user_id")?,
            role: role(row.text("role")?)?,
            credential: CredentialUsed::Session(session),
        };
        Ok(Some((Actor::new(identity, source, request), until)))
    }

    /// Exchanges a refresh token. One that was exchanged before has leaked: its session ends.
    pub async fn refresh(&self, actor: &Actor, refresh: &Secret) -> Result<Tokens, Error> {
        retrying!(self.try_refresh(actor, refresh))
    }

    async fn try_refresh(&self, actor: &Actor, refresh: &Secret) -> Result<Tokens, Tried> {
        let filter = vec![("refresh_hash", hash(refresh))];
        let rows = self.store.rows(&tables::SESSIONS, filter, 1).await.map_err(unreadable)?;
        let Some(row) = rows.into_iter().next().map(Columns) else {
            return self.end_reused(actor, refresh).await.map_err(Tried::from);
        };
        let now = self.clock.now();
        let (session, user): (SessionId, UserId) = (row.parsed("id")?, row.parsed("user_id")?);
        let last = row.integer("created_at")? + self.lifetimes.session_s * SECOND;
        if row.integer("refresh_expires_at")? <= now || !self.is_enabled(user).await? {
            return Err(Error::Unauthenticated.into());
        }
        let tokens = self.new_tokens(session, now, last)?;
        let metadata = actor.metadata("session.refresh").proved(user, Proof::Session(session));
        let mut unit = Unit::new(&self.store, metadata);
        unit.apply::<Session>(&session.to_string(), SessionCommand::Refresh).await.map_err(over)?;
        let mut set = tokens.columns(now);
        set.push(("last_used_at", Value::Integer(now)));
        unit.write(SideWrite::Update {
            table: &tables::SESSIONS,
            set,
            filter: vec![("id", text(session)), ("refresh_hash", hash(refresh))],
            guard: Guard::Rows(1),
        });
        unit.write(SideWrite::Insert {
            table: &tables::SPENT_REFRESH,
            row: vec![
                ("hash", hash(refresh)),
                ("family", text(session)),
                ("user_id", text(user)),
                ("spent_at", Value::Integer(now)),
            ],
        });
        match unit.commit().await {
            Ok(_) => Ok(tokens),
            // Whoever was faster has spent the token: the next attempt finds it among those.
            Err(error @ (AppendError::SideStale { .. } | AppendError::SideConflict { .. })) => {
                Err(Tried::Stale(error))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Whether an access token is good.
    pub async fn verify(&self, access: &Secret) -> Result<(), Error> {
        let actor = self.authenticate(access, None, None).await?;
        actor.map(drop).ok_or(Error::Unauthenticated)
    }

    /// Ends the session of either token; there may be none (any more), which is no error.
    pub async fn logout(
        &self,
        actor: &Actor,
        access: Option<&Secret>,
        refresh: Option<&Secret>,
    ) -> Result<(), Error> {
        for (column, token) in [("access_hash", access), ("refresh_hash", refresh)] {
            let Some(token) = token else { continue };
            let filter = vec![(column, hash(token))];
            let rows = self.store.rows(&tables::SESSIONS, filter, 1).await.map_err(unreadable)?;
            if let Some(row) = rows.into_iter().next().map(Columns) {
                let (session, user) = (row.parsed("id")?, row.parsed("user_id")?);
                let metadata = actor.metadata(END).proved(user, Proof::Session(session));
                self.end(&metadata, session, EndReason::Logout).await?;
            }
        }
        Ok(())
    }

    /// The caller's sessions that live, the one used last first.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<SessionInfo>, Error> {
        let user = actor.user().ok_or(Error::Unauthenticated)?;
        let filter = vec![("user_id", text(user))];
        let rows = self.store.rows(&tables::SESSIONS, filter, MANY).await.map_err(unreadable)?;
        let now = self.clock.now();
        let mut sessions = Vec::new();
        for row in rows.into_iter().map(Columns) {
            let session = SessionInfo {
                id: row.parsed("id")?,
                created_at: row.integer("created_at")?,
                last_used_at: row.integer("last_used_at")?,
                expires_at: row.integer("refresh_expires_at")?,
                source: row.text("source")?.to_owned(),
                user_agent: row.text("user_agent")?.to_owned(),
            };
            if session.expires_at > now {
                sessions.push(session);
            }
        }
        sessions.sort_by_key(|session| std::cmp::Reverse((session.last_used_at, session.id)));
        Ok(sessions)
    }

    /// Ends one of the caller's own sessions; its tokens are dead from then on.
    pub async fn end_one(&self, actor: &Actor, session: SessionId) -> Result<(), Error> {
        let user = actor.user().ok_or(Error::Unauthenticated)?;
        let filter = vec![("id", text(session)), ("user_id", text(user))];
        let rows = self.store.rows(&tables::SESSIONS, filter, 1).await.map_err(unreadable)?;
        if rows.is_empty() {
            return Err(Error::NotFound);
        }
        let metadata = actor.metadata(END).owned_by(user);
        self.end(&metadata, session, EndReason::EndedByUser).await
    }

    /// Removes rows of what has expired; the log keeps their history. Call it now and then.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        let oldest = now - self.lifetimes.session_s * SECOND;
        let mut removed = 0;
        for (table, column, before) in [
            (&tables::SESSIONS, "refresh_expires_at", now),
            (&tables::SPENT_REFRESH, "spent_at", oldest),
            (&tables::SETUP_TOKENS, "expires_at", now),
            (&tables::LOGIN_ATTEMPTS, "window_start", now - 3_600 * SECOND),
        ] {
            removed += self.store.prune(table, column, before).await.map_err(unreadable)?;
        }
        Ok(removed)
    }

    /// Makes a session part of a unit of work.
    pub(crate) async fn open_in(
        &self,
        unit: &mut Unit<'_>,
        user: UserId,
        actor: &Actor,
        user_agent: Option<&str>,
    ) -> Result<Tokens, Error> {
        let now = self.clock.now();
        let session = SessionId(Uuid::new_v4());
        let tokens = self.new_tokens(session, now, now + self.lifetimes.session_s * SECOND)?;
        let source = actor.source.map_or_else(String::new, |source| source.to_string());
        let open = SessionCommand::Open { user, source: source.clone() };
        unit.apply::<Session>(&session.to_string(), open).await.map_err(over)?;
        let agent: String = user_agent.unwrap_or_default().chars().take(MAX_USER_AGENT).collect();
        let mut row = vec![
            ("id", text(session)),
            ("user_id", text(user)),
            ("created_at", Value::Integer(now)),
            ("last_used_at", Value::Integer(now)),
            ("source", text(source)),
            ("user_agent", text(agent)),
        ];
        row.extend(tokens.columns(now));
        unit.write(SideWrite::Insert { table: &tables::SESSIONS, row });
        Ok(tokens)
    }

    /// Ends a user's sessions, all but one, as part of a unit of work that also moves the user's
    /// stream: a session that is opened meanwhile makes it stale.
    pub(crate) async fn end_all_in(
        &self,
        unit: &mut Unit<'_>,
        user: UserId,
        except: Option<SessionId>,
        reason: EndReason,
    ) -> Result<(), Error> {
        let filter = vec![("user_id", text(user))];
        let rows = self.store.rows(&tables::SESSIONS, filter, MANY).await.map_err(unreadable)?;
        for row in rows.into_iter().map(Columns) {
            let session: SessionId = row.parsed("id")?;
            if Some(session) != except {
                end_in(unit, session, reason).await?;
            }
        }
        Ok(())
    }

    /// A refresh token that is not current: if it was once, somebody has copied it.
    async fn end_reused<T>(&self, actor: &Actor, refresh: &Secret) -> Result<T, Error> {
        let filter = vec![("hash", hash(refresh))];
        let rows = self.store.rows(&tables::SPENT_REFRESH, filter, 1).await.map_err(unreadable)?;
        if let Some(row) = rows.into_iter().next().map(Columns) {
            let (session, user): (SessionId, UserId) =
                (row.parsed("family")?, row.parsed("user_id")?);
            tracing::warn!(%session, %user, "a refresh token was used twice; its session is ended");
            // The caller is refused: a key that was sent along stays unused.
            let metadata = actor.aside().metadata(END).owned_by(user);
            self.end(&metadata, session, EndReason::RefreshReused).await?;
        }
        Err(Error::Unauthenticated)
    }

    async fn end(
        &self,
        metadata: &Metadata,
        session: SessionId,
        reason: EndReason,
    ) -> Result<(), Error> {
        retrying!(async {
            let mut unit = Unit::new(&self.store, metadata.clone());
            end_in(&mut unit, session, reason).await?;
            unit.commit().await?;
            Ok(())
        })
    }

    async fn is_enabled(&self, user: UserId) -> Result<bool, Error> {
        let filter = vec![("id", text(user))];
        let rows = self.store.rows(&tables::USERS, filter, 1).await.map_err(unreadable)?;
        match rows.into_iter().next().map(Columns) {
            Some(row) => Ok(!row.boolean("disabled")?),
            None => Ok(false),
        }
    }

    fn new_tokens(&self, session: SessionId, now: Micros, last: Micros) -> Result<Tokens, Error> {
        let left = ((last - now) / SECOND).max(0);
        Ok(Tokens {
            session,
            access: random_token()?,
            refresh: random_token()?,
            access_expires_in: self.lifetimes.access_s.min(left),
            refresh_expires_in: self.lifetimes.refresh_s.min(left),
        })
    }

    /// When a session was last used is good to know, but not worth failing a request for.
    async fn note_use(&self, session: SessionId, now: Micros) {
        let append = Append {
            id: Uuid::now_v7(),
            lane: Lane::User(format!("session/{session}")),
            streams: vec![],
            assertions: vec![],
            side: vec![SideWrite::Update {
                table: &tables::SESSIONS,
                set: vec![("last_used_at", Value::Integer(now))],
                filter: vec![("id", text(session))],
                guard: Guard::None,
            }],
            metadata: "{}".to_owned(),
            fence: None,
            idempotency: None,
        };
        if let Err(error) = self.store.append(append).await {
            tracing::warn!(%session, %error, "the use of a session was not noted");
        }
    }
}

impl Tokens {
    fn columns(&self, now: Micros) -> Vec<(&'static str, Value)> {
        vec![
            ("access_hash", hash(&self.access)),
            ("refresh_hash", hash(&self.refresh)),
            ("access_expires_at", Value::Integer(now + self.access_expires_in * SECOND)),
            ("refresh_expires_at", Value::Integer(now + self.refresh_expires_in * SECOND)),
        ]
    }
}

/// Ends one session: its row goes, and with it everything that its tokens could do.
async fn end_in(unit: &mut Unit<'_>, session: SessionId, reason: EndReason) -> Result<(), Error> {
    let ended = unit.apply::<Session>(&session.to_string(), SessionCommand::End { reason }).await;
    ended.map_err(over)?;
    for (table, column) in [(&tables::SESSIONS, "id"), (&tables::SPENT_REFRESH, "family")] {
        unit.write(SideWrite::Delete {
            table,
            filter: vec![(column, text(session))],
            guard: Guard::None,
        });
    }
    Ok(())
}

fn over(refused: Refused<SessionError>) -> Error {
    refused.or_else(|_| Error::Unauthenticated)
}

/// 256 random bits.
pub(crate) fn random_token() -> Result<Secret, Error> {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    keys::fill(bytes.as_mut_slice()).map_err(|error| Error::internal("no random token", error))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

/// What is stored of a token. It has 256 random bits, so a fast hash is enough.
pub(crate) fn hash(token: &Secret) -> Value {
    Value::Bytes(Sha256::digest(token.expose().as_bytes()).to_vec())
}

/// The role in a side row.
pub(crate) fn role(text: &str) -> Result<Role, Error> {
    match text {
        "admin" => Ok(Role::Admin),
        "user" => Ok(Role::User),
        other => Err(Error::internal("a side row is malformed", format!("role {other:?}"))),
    }
}

/// The role as it stands in a side row.
pub(crate) fn role_text(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::User => "user",
    }
}

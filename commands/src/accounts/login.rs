//! Signing in.

use hmac::{Hmac, Mac as _};
use proximity_domain::UserId;
use proximity_domain::user::{self, User};
use proximity_eventstore::{AppendError, Guard, SideWrite, tables};
use sha2::Sha256;

use super::limits::Pair;
use super::{Accounts, Credentials, SignedIn, profile_of};
use crate::dispatch::{Refused, Unit};
use crate::retry::retrying;
use crate::rows::{Columns, text};
use crate::{Actor, Error, Proof, Secret};

impl Accounts {
    /// Signs a user in. A wrong name, a wrong password and a disabled account answer the same, after
    /// the same work.
    pub async fn login(&self, actor: &Actor, given: Credentials) -> Result<SignedIn, Error> {
        let (name, row) = self.claimed(&given).await?;
        let account = match &row {
            Some(row) => format!("user/{}", row.text("id")?),
            None => self.hidden(&name),
        };
        let pair = Pair::new(account, actor.source);
        let turn = self.turns.take(&pair).await;
        let result = self.login_in_turn(actor, given, row, &pair).await;
        drop(turn);
        if let Err(error @ (Error::Rejected { .. } | Error::TooMany { .. })) = &result {
            self.refusals.note_login(actor, &pair.account, error);
        }
        result
    }

    async fn login_in_turn(
        &self,
        actor: &Actor,
        given: Credentials,
        row: Option<Columns>,
        pair: &Pair,
    ) -> Result<SignedIn, Error> {
        self.check_limits(pair).await?;
        let stored = match &row {
            Some(row) => Some(row.text("password_hash")?.to_owned()),
            None => None,
        };
        let right = self.passwords.verify(given.password, stored.clone()).await?;
        let (Some(row), Some(stored), true) = (row, stored, right) else {
            self.count_failure(pair).await?;
            return Err(login_failed());
        };
        if row.boolean("disabled")? {
            // Counted as well, or the limit would tell that the password was right.
            self.count_failure(pair).await?;
            return Err(login_failed());
        }
        let user: UserId = row.parsed("id")?;
        retrying!(async {
            let metadata = actor.metadata("user.login").proved(user, Proof::Password);
            let mut unit = Unit::new(&self.store, metadata);
            let agent = given.user_agent.as_deref();
            let tokens = self.sessions.open_in(&mut unit, user, actor, agent).await?;
            let log_in = user::Command::LogIn { session: tokens.session };
            unit.apply::<User>(&user.to_string(), log_in).await.map_err(refused)?;
            // The password must still be the one that was compared.
            unit.write(SideWrite::Update {
                table: &tables::USERS,
                set: vec![("password_hash", text(&stored))],
                filter: vec![("id", text(user)), ("password_hash", text(&stored))],
                guard: Guard::Rows(1),
            });
            unit.write(Self::forget_failures(pair));
            match unit.commit().await {
                Ok(done) => {
                    Ok(SignedIn { user: profile_of(&row)?, tokens, position: done.position })
                }
                Err(AppendError::SideStale { .. }) => Err(login_failed().into()),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Compares a signed-in user's own password, under the same limits as a login.
    pub(super) async fn confirm_password(
        &self,
        actor: &Actor,
        row: &Columns,
        password: Secret,
    ) -> Result<bool, Error> {
        let pair = Pair::new(format!("user/{}", row.text("id")?), actor.source);
        let _turn = self.turns.take(&pair).await;
        self.check_limits(&pair).await?;
        let stored = row.text("password_hash")?.to_owned();
        let right = self.passwords.verify(password, Some(stored)).await?;
        if !right {
            self.count_failure(&pair).await?;
        }
        Ok(right)
    }

    /// The name that was given and the account that it names, if any.
    async fn claimed(&self, given: &Credentials) -> Result<(String, Option<Columns>), Error> {
        let said = |name: &Option<String>| {
            name.as_deref().map(str::trim).filter(|name| !name.is_empty()).map(str::to_lowercase)
        };
        match (said(&given.username), said(&given.email)) {
            // Nobody is called so, and PostgreSQL takes not each of these for a text.
            (Some(name), _) | (None, Some(name)) if name.chars().any(char::is_control) => {
                Ok((name, None))
            }
            (Some(name), _) => {
                let mut row = self.find("username", &name).await?;
                // People type their address where a name is asked for.
                if row.is_none() && name.contains('@') {
                    row = self.find("email", &name).await?;
                }
                Ok((name, row))
            }
            (None, Some(email)) => {
                let row = self.find("email", &email).await?;
                Ok((email, row))
            }
            (None, None) => {
                Err(Error::invalid("username", "username.missing", "send a username or an email"))
            }
        }
    }

    /// A name that nobody has may be a password in the wrong field: only a keyed hash is kept.
    fn hidden(&self, name: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(self.unknown_names.bytes());
        let Ok(mut mac) = mac else { unreachable!("HMAC takes keys of any length") };
        mac.update(name.as_bytes());
        let digest = mac.finalize().into_bytes();
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("unknown/{hex}")
    }
}

fn refused(refused: Refused<user::Error>) -> Error {
    refused.or_else(|_| login_failed())
}

pub(super) fn login_failed() -> Error {
    Error::Rejected {
        code: "login.failed",
        detail: "the user name or the password is wrong".to_owned(),
    }
}

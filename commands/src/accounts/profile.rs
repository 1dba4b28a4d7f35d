//! What users change about themselves: names, mail address and password.

use proximity_domain::lease::{self, Holder, Lease};
use proximity_domain::user::{self, EmailAddress, EndReason, PersonalName, RevokeReason, User};
use proximity_domain::{LeaseKey, UserId};
use proximity_eventstore::{AppendError, Guard, Position, SideWrite, Value, tables};

use super::register::take_email;
use super::{Accounts, Fields, Profile, profile_of};
use crate::dispatch::{Refused, Unit};
use crate::retry::retrying;
use crate::rows::{Columns, optional, text};
use crate::{Actor, Error, Secret, passwords, tokens};

/// What is to change; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileChange {
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    /// Empty takes the address away.
    pub email: Option<String>,
}

impl Accounts {
    /// Changes the caller's own profile.
    pub async fn change_profile(
        &self,
        actor: &Actor,
        change: ProfileChange,
    ) -> Result<(Profile, Position), Error> {
        let id = actor.user().ok_or(Error::Unauthenticated)?;
        retrying!(async {
            let metadata = actor.metadata("user.change_profile").owned_by(id);
            let mut unit = Unit::new(&self.store, metadata);
            let user = unit.load::<User>(&id.to_string()).await?;
            let account = user.account().ok_or(Error::NotFound)?;
            let mut fields = Fields::default();
            let first_name = change.first_name.as_deref().unwrap_or(&account.first_name);
            let first_name = fields.take("first_name", first_name.trim().parse::<PersonalName>());
            let last_name = change.last_name.as_deref().unwrap_or(&account.last_name);
            let last_name = fields.take("last_name", last_name.trim().parse::<PersonalName>());
            let email = change.email.as_deref().or(account.email.as_deref()).map(str::trim);
            let email = email.filter(|email| !email.is_empty());
            let email = fields.take("email", email.map(str::parse::<EmailAddress>).transpose());
            let (Some(first_name), Some(last_name), Some(email)) = (first_name, last_name, email)
            else {
                return Err(fields.into_error().into());
            };
            self.swap_email(&mut unit, id, account.email.as_deref(), email.as_ref()).await?;
            unit.write(SideWrite::Update {
                table: &tables::USERS,
                set: vec![
                    ("first_name", text(&first_name)),
                    ("last_name", text(&last_name)),
                    ("email", optional(email.as_ref().map(EmailAddress::folded))),
                    ("email_shown", optional(email.as_ref())),
                    ("updated_at", Value::Integer(self.clock.now())),
                ],
                filter: vec![("id", text(id))],
                guard: Guard::Rows(1),
            });
            let command = user::Command::ChangeProfile { first_name, last_name, email };
            unit.apply::<User>(&id.to_string(), command).await.map_err(refused)?;
            let position = unit.commit().await?.position;
            Ok((profile_of(&self.row(id).await?)?, position))
        })
    }

    /// Changes the caller's own password and ends all other sessions.
    pub async fn change_password(
        &self,
        actor: &Actor,
        old: Secret,
        new1: Secret,
        new2: Secret,
    ) -> Result<Position, Error> {
        let id = actor.user().ok_or(Error::Unauthenticated)?;
        if new1.expose() != new2.expose() {
            let detail = "the two passwords are not the same";
            return Err(Error::invalid("new_password2", "password.mismatch", detail));
        }
        let row = self.row(id).await?;
        passwords::check(&new1, row.text("username")?, "new_password1")?;
        if !self.confirm_password(actor, &row, old).await? {
            let detail = "this is not your password";
            return Err(Error::invalid("old_password", "password.wrong", detail));
        }
        let hash = self.passwords.hash(new1).await?;
        self.set_password(actor, "user.change_password", &row, &hash).await
    }

    /// Stores a new hash if the old one is still there; ends every session but the caller's.
    pub(super) async fn set_password(
        &self,
        actor: &Actor,
        command: &'static str,
        row: &Columns,
        hash: &str,
    ) -> Result<Position, Error> {
        let id: UserId = row.parsed("id")?;
        let old = row.text("password_hash")?;
        retrying!(async {
            let mut unit = Unit::new(&self.store, actor.metadata(command).owned_by(id));
            let changed = unit.apply::<User>(&id.to_string(), user::Command::ChangePassword).await;
            changed.map_err(refused)?;
            let keep = if actor.user() == Some(id) { actor.session() } else { None };
            let reason = EndReason::PasswordChanged;
            self.sessions.end_all_in(&mut unit, id, keep, reason).await?;
            if actor.user() != Some(id) {
                // Whoever knew the old password may have made tokens with it.
                let reason = RevokeReason::PasswordReset;
                tokens::revoke_all_in(&self.store, &mut unit, id, reason).await?;
            }
            unit.write(SideWrite::Update {
                table: &tables::USERS,
                set: vec![
                    ("password_hash", text(hash)),
                    ("updated_at", Value::Integer(self.clock.now())),
                ],
                filter: vec![("id", text(id)), ("password_hash", text(old))],
                guard: Guard::Rows(1),
            });
            match unit.commit().await {
                Ok(done) => Ok(done.position),
                Err(AppendError::SideStale { .. }) => Err(Error::conflict(
                    "password.changed_meanwhile",
                    "the password was changed by someone else at the same moment",
                )
                .into()),
                Err(error) => Err(error.into()),
            }
        })
    }

    async fn swap_email(
        &self,
        unit: &mut Unit<'_>,
        id: UserId,
        old: Option<&str>,
        new: Option<&EmailAddress>,
    ) -> Result<(), Error> {
        let old = old.map(|old| LeaseKey::Email(old.to_ascii_lowercase()));
        if old.as_ref() == new.map(EmailAddress::lease).as_ref() {
            return Ok(());
        }
        if let Some(key) = old {
            let release = lease::Command::Release { holder: Holder::User(id) };
            let released = unit.apply::<Lease>(&key.to_string(), release).await;
            released
                .map_err(|e| e.or_else(|e| Error::internal("a mail address is another's", e)))?;
        }
        match new {
            Some(email) => take_email(unit, email, id).await,
            None => Ok(()),
        }
    }
}

pub(super) fn refused(refused: Refused<user::Error>) -> Error {
    refused.or_else(|error| match error {
        user::Error::NotFound => Error::NotFound,
        user::Error::AlreadyRegistered | user::Error::Disabled => {
            Error::conflict("user.state", error.to_string())
        }
    })
}

//! What admins do about users: list them, change role and state, give a new password.

use proximity_domain::UserId;
use proximity_domain::user::{self, EndReason, RevokeReason, Role, User};
use proximity_eventstore::{Guard, Position, SideWrite, Value, tables};

use super::profile::refused;
use super::{Accounts, Profile, profile_of};
use crate::dispatch::{Tried, Unit};
use crate::policy::Admin;
use crate::retry::retrying;
use crate::rows::{Columns, text, unreadable};
use crate::sessions::{random_token, role_text};
use crate::{Error, Secret, tokens};

/// Users that are listed at most.
const MANY: usize = 10_000;

/// What is to change; `None` leaves it as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserChange {
    pub role: Option<Role>,
    pub disabled: Option<bool>,
}

/// A new password, to be shown once.
#[derive(Debug, Clone)]
pub struct ResetPassword {
    pub password: Secret,
    /// Up to here the log holds it.
    pub position: Position,
}

impl Accounts {
    /// All users, oldest first.
    pub async fn users(&self, _admin: &Admin) -> Result<Vec<Profile>, Error> {
        let rows = self.store.rows(&tables::USERS, vec![], MANY).await.map_err(unreadable)?;
        let mut users =
            rows.into_iter().map(|row| profile_of(&Columns(row))).collect::<Result<Vec<_>, _>>()?;
        users.sort_by_key(|user| user.id);
        Ok(users)
    }

    /// Changes role or state; both take effect on the user's next request. The last enabled admin
    /// can neither be demoted nor disabled.
    pub async fn change_user(
        &self,
        admin: &Admin,
        id: UserId,
        change: UserChange,
    ) -> Result<(Profile, Position), Error> {
        retrying!(self.try_change_user(admin, id, change))
    }

    async fn try_change_user(
        &self,
        admin: &Admin,
        id: UserId,
        change: UserChange,
    ) -> Result<(Profile, Position), Tried> {
        let metadata = admin.actor().metadata("user.change").owned_by(id);
        let mut unit = Unit::new(&self.store, metadata);
        let key = id.to_string();
        let before = unit.load::<User>(&key).await?;
        let before = before.account().ok_or(Error::NotFound)?.clone();
        let role = change.role.unwrap_or(before.role);
        let disabled = change.disabled.unwrap_or(before.disabled);
        let loses = role != Role::Admin || disabled;
        if is_active_admin(&before) && loses && !self.another_admin(&mut unit, id).await? {
            return Err(Error::conflict(
                "user.last_admin",
                "this is the last administrator; make someone else one first",
            )
            .into());
        }
        unit.apply::<User>(&key, user::Command::ChangeRole { role }).await.map_err(refused)?;
        let command = if disabled { user::Command::Disable } else { user::Command::Enable };
        unit.apply::<User>(&key, command).await.map_err(refused)?;
        if disabled && !before.disabled {
            self.sessions.end_all_in(&mut unit, id, None, EndReason::Disabled).await?;
            let reason = RevokeReason::Disabled;
            tokens::revoke_all_in(&self.store, &mut unit, id, reason).await?;
        }
        unit.write(SideWrite::Update {
            table: &tables::USERS,
            set: vec![
                ("role", text(role_text(role))),
                ("disabled", Value::Boolean(disabled)),
                ("updated_at", Value::Integer(self.clock.now())),
            ],
            filter: vec![("id", text(id))],
            guard: Guard::Rows(1),
        });
        let position = unit.commit().await?.position;
        Ok((self.profile(id).await?, position))
    }

    /// Gives a user a new random password; ends all sessions and revokes all API tokens of theirs.
    pub async fn reset_password(&self, admin: &Admin, id: UserId) -> Result<ResetPassword, Error> {
        let row = self.row(id).await?;
        let password = random_token()?;
        let hash = self.passwords.hash(password.clone()).await?;
        let position = self.set_password(admin.actor(), "user.reset_password", &row, &hash).await?;
        Ok(ResetPassword { password, position })
    }

    /// Whether someone else is an enabled admin. That user's stream becomes a read assertion, so of
    /// two admins who demote each other at the same moment one fails.
    async fn another_admin(&self, unit: &mut Unit<'_>, id: UserId) -> Result<bool, Error> {
        let filter =
            vec![("role", text(role_text(Role::Admin))), ("disabled", Value::Boolean(false))];
        let rows = self.store.rows(&tables::USERS, filter, 2).await.map_err(unreadable)?;
        for row in rows.into_iter().map(Columns) {
            let other: UserId = row.parsed("id")?;
            if other == id {
                continue;
            }
            let user = unit.load::<User>(&other.to_string()).await?;
            if user.account().is_some_and(is_active_admin) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_active_admin(account: &user::Account) -> bool {
    account.role == Role::Admin && !account.disabled
}

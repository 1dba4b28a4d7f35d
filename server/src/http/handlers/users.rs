//! Users, for administrators: listed, made, promoted, disabled, helped with a lost password.

use proximity_commands::Secret;
use proximity_commands::accounts::{NewUser, Profile, UserChange};
use proximity_commands::policy::Admin;
use proximity_domain::UserId;
use proximity_domain::user::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::User;
use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Everything.
    Admin,
    /// What is about their own things.
    User,
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::User => Self::User,
        }
    }
}

/// A user as an administrator sees one.
#[derive(Debug, Serialize, ToSchema)]
pub struct Account {
    /// The user.
    #[serde(flatten)]
    pub user: User,
    /// What the user may do; `is_staff` says the same.
    pub role: RoleName,
    /// Whether the user can sign in no more.
    pub disabled: bool,
    /// RFC 3339.
    pub created_at: String,
}

impl From<Profile> for Account {
    fn from(profile: Profile) -> Self {
        Self {
            role: profile.role.into(),
            disabled: profile.disabled,
            created_at: crate::moment::rfc3339(profile.created_at),
            user: profile.into(),
        }
    }
}

/// All users.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accounts {
    /// Oldest first.
    pub users: Vec<Account>,
    /// How many.
    pub total: usize,
}

/// An account to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateUser {
    /// Unique, whatever its case.
    pub username: String,
    /// May be left out.
    #[serde(default)]
    pub email: Option<String>,
    /// The first password.
    #[schema(value_type = String, format = Password)]
    pub password: Secret,
    /// `user` by default.
    #[serde(default)]
    pub role: Option<RoleName>,
    /// The same in another way: whether the user is an administrator.
    #[serde(default)]
    pub is_staff: Option<bool>,
}

/// What is to be different about a user.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ChangeUser {
    /// Stays when left out.
    #[serde(default)]
    pub role: Option<RoleName>,
    /// The same in another way: whether the user is an administrator.
    #[serde(default)]
    pub is_staff: Option<bool>,
    /// Whether the user can sign in no more; stays when left out.
    #[serde(default)]
    pub disabled: Option<bool>,
}

/// A password that is shown once.
#[derive(Serialize, ToSchema)]
pub struct NewPassword {
    /// Random; all sessions of the user have ended.
    pub password: String,
}

/// The role that two fields ask for, which may both be there as long as they say the same.
fn wanted(role: Option<RoleName>, is_staff: Option<bool>) -> Result<Option<Role>, Problem> {
    let named = role.map(|role| role == RoleName::Admin);
    if let (Some(named), Some(is_staff)) = (named, is_staff)
        && named != is_staff
    {
        let detail = "role and is_staff say different things; send one of them";
        return Err(Problem::field("/role", "value.invalid", detail));
    }
    let role = |is_admin| if is_admin { Role::Admin } else { Role::User };
    Ok(named.or(is_staff).map(role))
}

/// All users.
#[utoipa::path(get, path = "/api/users", tag = "users", responses((status = 200, description = "All of them", body = Accounts)))]
pub async fn list(call: Call) -> Result<Reply, Problem> {
    let users = call.app.accounts.users(&Admin::prove(&call.actor)?).await?;
    let users: Vec<Account> = users.into_iter().map(Account::from).collect();
    Reply::json(&Accounts { total: users.len(), users })
}

/// Makes an account.
#[utoipa::path(post, path = "/api/users", tag = "users", request_body = CreateUser, responses((status = 201, description = "The user", body = Account)))]
pub async fn create(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let body: CreateUser = call.json()?;
    let role = wanted(body.role, body.is_staff)?.unwrap_or(Role::User);
    let asked = NewUser {
        username: body.username,
        email: body.email,
        password: Some(body.password),
        ..NewUser::default()
    };
    let done = call.app.accounts.create_user(&admin, asked, role).await?;
    Ok(Reply::created(&Account::from(done.user))?.tagged().at(done.position))
}

/// Changes a user's rights; it takes effect on the user's next request.
#[utoipa::path(patch, path = "/api/users/{id}", tag = "users", params(("id" = i64, Path, description = "The user's id")), request_body = ChangeUser, responses((status = 200, description = "The user", body = Account)))]
pub async fn change(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let body: ChangeUser = call.json()?;
    let role = wanted(body.role, body.is_staff)?;
    let (id, change) = (call.param("id")?, UserChange { role, disabled: body.disabled });
    unchanged(&call, id).await?;
    let (profile, position) = call.app.accounts.change_user(&admin, id, change).await?;
    Ok(Reply::json(&Account::from(profile))?.tagged().at(position))
}

async fn unchanged(call: &Call, id: UserId) -> Result<(), Problem> {
    let now = async || Reply::json(&Account::from(call.app.accounts.profile(id).await?));
    call.unchanged_since(now).await
}

/// Gives a user a new random password, shown once.
#[utoipa::path(post, path = "/api/users/{id}/reset-password", tag = "users", params(("id" = i64, Path, description = "The user's id")), responses((status = 200, description = "The password, shown this once", body = NewPassword)))]
pub async fn reset_password(call: Call) -> Result<Reply, Problem> {
    let admin = Admin::prove(&call.actor)?;
    let id = call.param("id")?;
    unchanged(&call, id).await?;
    let done = call.app.accounts.reset_password(&admin, id).await?;
    let password = done.password.expose().to_owned();
    Ok(Reply::json(&NewPassword { password })?.at(done.position).secret())
}

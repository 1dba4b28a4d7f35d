//! Signing in and out, registering, and the caller's own account.

use proximity_commands::accounts::{Credentials, NewUser, Profile, ProfileChange, SignedIn};
use proximity_commands::sessions::Tokens;
use proximity_commands::{Error, Secret};
use proximity_domain::user::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::call::Call;
use crate::http::cookies;
use crate::http::problem::Problem;
use crate::http::reply::{Reply, StatusCode};

/// The longest token that is looked at: ours have 43 characters.
const TOKEN: usize = 512;

/// A user as the web client knows one.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
    /// 1, 2, 3 …
    pub pk: i64,
    /// The same as `pk`.
    pub id: i64,
    /// Unique, whatever its case.
    pub username: String,
    /// May be empty.
    pub email: String,
    /// May be empty.
    pub first_name: String,
    /// May be empty.
    pub last_name: String,
    /// Whether the user is an administrator.
    pub is_staff: bool,
}

impl From<Profile> for User {
    fn from(profile: Profile) -> Self {
        Self {
            pk: profile.id.0,
            id: profile.id.0,
            username: profile.username,
            email: profile.email.unwrap_or_default(),
            first_name: profile.first_name,
            last_name: profile.last_name,
            is_staff: profile.role == Role::Admin,
        }
    }
}

/// Who signs in.
#[derive(Debug, Deserialize, ToSchema)]
pub struct LoginWanted {
    /// Either this or the e-mail address.
    #[serde(default)]
    pub username: Option<String>,
    /// Either this or the user name.
    #[serde(default)]
    pub email: Option<String>,
    /// The password.
    #[schema(value_type = String, format = Password)]
    pub password: Secret,
}

/// What a login gives.
#[derive(Serialize, ToSchema)]
pub struct LoggedIn {
    /// Opaque; for `Authorization: Bearer`. Also set as a cookie.
    pub access: String,
    /// Opaque; for `/api/auth/token/refresh/`, once. Also set as a cookie.
    pub refresh: String,
    /// Who signed in.
    pub user: User,
}

/// A new account.
#[derive(Debug, Deserialize, ToSchema)]
pub struct RegistrationWanted {
    /// Unique, whatever its case.
    pub username: String,
    /// May be left out.
    #[serde(default)]
    pub email: Option<String>,
    /// Either this, or `password1` and `password2`.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password)]
    pub password: Option<Secret>,
    /// The password.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password)]
    pub password1: Option<Secret>,
    /// The same again.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password)]
    pub password2: Option<Secret>,
    /// What the server printed at its first start; makes an administrator, once.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password)]
    pub setup_token: Option<Secret>,
}

/// What is to be different about the caller's account.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ProfileWanted {
    /// Stays when left out.
    #[serde(default)]
    pub first_name: Option<String>,
    /// Stays when left out.
    #[serde(default)]
    pub last_name: Option<String>,
    /// Stays when left out; empty takes it away.
    #[serde(default)]
    pub email: Option<String>,
}

/// A token to exchange.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct RefreshWanted {
    /// When left out, the cookie's.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub refresh: Option<Secret>,
}

/// New tokens; the old ones are dead.
#[derive(Serialize, ToSchema)]
pub struct Refreshed {
    /// For `Authorization: Bearer`.
    pub access: String,
    /// For the next refresh.
    pub refresh: String,
}

/// A token to look at.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct VerifyWanted {
    /// An access token; when left out, the one of the header or the cookie.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub token: Option<Secret>,
}

/// A new password.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PasswordWanted {
    /// The present one.
    #[schema(value_type = String, format = Password)]
    pub old_password: Secret,
    /// The new one.
    #[schema(value_type = String, format = Password)]
    pub new_password1: Secret,
    /// The new one again.
    #[schema(value_type = String, format = Password)]
    pub new_password2: Secret,
}

/// That it was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    /// A sentence for a person.
    pub detail: &'static str,
}

fn cookies_of(reply: Reply, call: &Call, tokens: &Tokens) -> Reply {
    let secure = call.presented.secure;
    let csrf = call.app.csrf.issue(Some(tokens.session));
    let held = |name, secret: &Secret, seconds| {
        cookies::token(name, secret.expose().to_owned(), seconds, secure)
    };
    reply
        .cookie(held(cookies::ACCESS, &tokens.access, tokens.access_expires_in))
        .cookie(held(cookies::REFRESH, &tokens.refresh, tokens.refresh_expires_in))
        .cookie(cookies::csrf(csrf, secure))
}

fn signed_in(call: &Call, done: SignedIn) -> Result<Reply, Problem> {
    let body = LoggedIn {
        access: done.tokens.access.expose().to_owned(),
        refresh: done.tokens.refresh.expose().to_owned(),
        user: done.user.into(),
    };
    Ok(cookies_of(Reply::json(&body)?, call, &done.tokens).at(done.position).secret())
}

/// Opens a session.
#[utoipa::path(post, path = "/api/auth/login", tag = "auth", request_body = LoginWanted, responses((status = 200, description = "Signed in; both cookies are set", body = LoggedIn)))]
pub async fn login(call: Call) -> Result<Reply, Problem> {
    let body: LoginWanted = call.json()?;
    let credentials = Credentials {
        username: body.username,
        email: body.email,
        password: body.password,
        user_agent: call.presented.user_agent.clone(),
    };
    let done = call.app.accounts.login(&call.actor, credentials).await?;
    signed_in(&call, done)
}

/// Ends the session at once; no session is no error.
#[utoipa::path(post, path = "/api/auth/logout", tag = "auth", responses((status = 200, description = "Signed out; both cookies are taken away", body = Done)))]
pub async fn logout(call: Call) -> Result<Reply, Problem> {
    let shown = &call.presented;
    let (access, refresh) = (shown.access.as_ref(), shown.refresh.as_ref());
    call.app.sessions.logout(&call.actor, access, refresh).await?;
    let secure = shown.secure;
    Ok(Reply::json(&Done { detail: "Successfully logged out." })?
        .cookie(cookies::removal(cookies::ACCESS, secure))
        .cookie(cookies::removal(cookies::REFRESH, secure)))
}

/// The caller.
#[utoipa::path(get, path = "/api/auth/user", tag = "auth", responses((status = 200, description = "Who is signed in", body = User)))]
pub async fn user(call: Call) -> Result<Reply, Problem> {
    let profile = call.app.accounts.profile(call.user()?).await?;
    Ok(Reply::json(&User::from(profile))?.tagged())
}

/// Changes the caller's own account.
#[utoipa::path(put, path = "/api/auth/user", tag = "auth", request_body = ProfileWanted, responses((status = 200, description = "As it is now", body = User)))]
pub async fn put_user(call: Call) -> Result<Reply, Problem> {
    let body: ProfileWanted = call.json()?;
    let change =
        ProfileChange { first_name: body.first_name, last_name: body.last_name, email: body.email };
    let before = async || Reply::json(&User::from(call.app.accounts.profile(call.user()?).await?));
    call.unchanged_since(before).await?;
    let (profile, position) = call.app.accounts.change_profile(&call.actor, change).await?;
    Ok(Reply::json(&User::from(profile))?.at(position))
}

/// Changes the caller's own account.
#[utoipa::path(patch, path = "/api/auth/user", tag = "auth", request_body = ProfileWanted, responses((status = 200, description = "As it is now", body = User)))]
pub async fn patch_user(call: Call) -> Result<Reply, Problem> {
    put_user(call).await
}

/// Makes an account and signs in.
#[utoipa::path(post, path = "/api/auth/registration", tag = "auth", request_body = RegistrationWanted, responses((status = 201, description = "Signed in; both cookies are set", body = LoggedIn)))]
pub async fn registration(call: Call) -> Result<Reply, Problem> {
    let body: RegistrationWanted = call.json()?;
    let with_token = body.setup_token.is_some();
    let asked = NewUser {
        username: body.username,
        email: body.email,
        password: body.password,
        password1: body.password1,
        password2: body.password2,
        setup_token: body.setup_token,
        user_agent: call.presented.user_agent.clone(),
    };
    let done = call.app.accounts.register(&call.actor, asked).await?;
    if with_token {
        crate::setup::forget(&call.app.config);
    }
    Ok(signed_in(&call, done)?.status(StatusCode::CREATED))
}

/// Exchanges a refresh token; one that is used twice ends its session.
#[utoipa::path(post, path = "/api/auth/token/refresh", tag = "auth", request_body(content = RefreshWanted, description = "May be left out"), responses((status = 200, description = "New tokens; both cookies are set", body = Refreshed)))]
pub async fn refresh(call: Call) -> Result<Reply, Problem> {
    let body: RefreshWanted = call.json_or_default()?;
    let token = body.refresh.filter(|token| !token.expose().is_empty());
    let token = token.or_else(|| call.presented.refresh.clone());
    let refused = || {
        let secure = call.presented.secure;
        Problem::from(Error::Unauthenticated)
            .cookie(cookies::removal(cookies::ACCESS, secure))
            .cookie(cookies::removal(cookies::REFRESH, secure))
    };
    let token = token.filter(|token| token.expose().len() <= TOKEN).ok_or_else(refused)?;
    let tokens = match call.app.sessions.refresh(&call.actor, &token).await {
        Ok(tokens) => tokens,
        Err(Error::Unauthenticated) => return Err(refused()),
        Err(error) => return Err(error.into()),
    };
    let body = Refreshed {
        access: tokens.access.expose().to_owned(),
        refresh: tokens.refresh.expose().to_owned(),
    };
    Ok(cookies_of(Reply::json(&body)?, &call, &tokens).secret())
}

/// Whether an access token is good.
#[utoipa::path(post, path = "/api/auth/token/verify", tag = "auth", request_body(content = VerifyWanted, description = "May be left out"), responses((status = 200, description = "It is good", body = Done)))]
pub async fn verify(call: Call) -> Result<Reply, Problem> {
    let body: VerifyWanted = call.json_or_default()?;
    let token = body.token.or_else(|| call.presented.access.clone());
    let token = token
        .filter(|token| token.expose().len() <= TOKEN)
        .ok_or_else(|| Problem::from(Error::Unauthenticated))?;
    call.app.sessions.verify(&token).await?;
    Reply::json(&Done { detail: "The token is good." })
}

/// Changes the caller's password and ends all other sessions.
#[utoipa::path(post, path = "/api/auth/password/change", tag = "auth", request_body = PasswordWanted, responses((status = 200, description = "It is changed", body = Done)))]
pub async fn change_password(call: Call) -> Result<Reply, Problem> {
    let body: PasswordWanted = call.json()?;
    let (new1, new2) = (body.new_password1, body.new_password2);
    let accounts = &call.app.accounts;
    let position = accounts.change_password(&call.actor, body.old_password, new1, new2).await?;
    Ok(Reply::json(&Done { detail: "New password has been saved." })?.at(position))
}

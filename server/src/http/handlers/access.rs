//! The caller's own ways in: sessions and API tokens, listed and ended one by one.

use proximity_commands::sessions::SessionInfo;
use proximity_commands::tokens::{NewToken, TokenInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::moment::rfc3339;

/// A login that lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    /// For `DELETE /api/auth/sessions/{id}`.
    pub id: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339, to ten minutes.
    pub last_used_at: String,
    /// RFC 3339: when it ends unless it is refreshed.
    pub expires_at: String,
    /// The address that the login came from.
    pub source: String,
    /// What the client said it is.
    pub user_agent: String,
    /// Whether this call was made with it.
    pub current: bool,
}

/// The caller's sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sessions {
    /// The one used last first.
    pub sessions: Vec<Session>,
    /// How many.
    pub total: usize,
}

/// An API token, without the token itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiToken {
    /// For `DELETE /api/auth/tokens/{id}`.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// `read`, `write`, `admin`.
    pub scopes: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; it is good until then.
    pub expires_at: String,
    /// RFC 3339, to ten minutes; null while it was never used.
    pub last_used_at: Option<String>,
}

/// The caller's API tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiTokens {
    /// Newest first; expired ones are listed for 30 days.
    pub tokens: Vec<ApiToken>,
    /// How many.
    pub total: usize,
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateApiToken {
    /// 1 to 100 characters.
    #[schema(example = "nightly deploys")]
    pub name: String,
    /// Any of `read` (calls that change nothing), `write` (calls that change something) and `admin`
    /// (an administrator's rights).
    #[schema(example = json!(["read", "write"]))]
    pub scopes: Vec<String>,
    /// 1 to 366; 90 by default.
    #[serde(default)]
    pub expires_in_days: Option<i64>,
}

/// A new token.
#[derive(Serialize, ToSchema)]
pub struct IssuedApiToken {
    /// For `Authorization: Bearer`; shown this once.
    pub token: String,
    /// What it is.
    #[serde(flatten)]
    pub info: ApiToken,
}

impl From<TokenInfo> for ApiToken {
    fn from(info: TokenInfo) -> Self {
        Self {
            id: info.id.to_string(),
            name: info.name,
            scopes: info.scopes,
            created_at: rfc3339(info.created_at),
            expires_at: rfc3339(info.expires_at),
            last_used_at: info.last_used_at.map(rfc3339),
        }
    }
}

/// The caller's sessions.
#[utoipa::path(get, path = "/api/auth/sessions", tag = "auth", responses((status = 200, description = "Those that live", body = Sessions)))]
pub async fn sessions(call: Call) -> Result<Reply, Problem> {
    let current = call.actor.session();
    let sessions: Vec<Session> = call
        .app
        .sessions
        .list(&call.actor)
        .await?
        .into_iter()
        .map(|info: SessionInfo| Session {
            id: info.id.to_string(),
            created_at: rfc3339(info.created_at),
            last_used_at: rfc3339(info.last_used_at),
            expires_at: rfc3339(info.expires_at),
            source: info.source,
            user_agent: info.user_agent,
            current: Some(info.id) == current,
        })
        .collect();
    Reply::json(&Sessions { total: sessions.len(), sessions })
}

/// Ends one of the caller's sessions at once.
#[utoipa::path(delete, path = "/api/auth/sessions/{id}", tag = "auth", params(("id" = String, Path, description = "The session's id")), responses((status = 204, description = "It is over")))]
pub async fn end_session(call: Call) -> Result<Reply, Problem> {
    call.app.sessions.end_one(&call.actor, call.param("id")?).await?;
    Ok(Reply::no_content())
}

/// The caller's API tokens.
#[utoipa::path(get, path = "/api/auth/tokens", tag = "auth", responses((status = 200, description = "All of them", body = ApiTokens)))]
pub async fn tokens(call: Call) -> Result<Reply, Problem> {
    let tokens = call.app.tokens.list(&call.actor).await?;
    let tokens: Vec<ApiToken> = tokens.into_iter().map(ApiToken::from).collect();
    Reply::json(&ApiTokens { total: tokens.len(), tokens })
}

/// Makes an API token; it is shown this once.
#[utoipa::path(post, path = "/api/auth/tokens", tag = "auth", request_body = CreateApiToken, responses((status = 201, description = "The token, shown this once", body = IssuedApiToken)))]
pub async fn create_token(call: Call) -> Result<Reply, Problem> {
    let body: CreateApiToken = call.json()?;
    let asked =
        NewToken { name: body.name, scopes: body.scopes, expires_in_days: body.expires_in_days };
    let issued = call.app.tokens.issue(&call.actor, &asked).await?;
    let body = IssuedApiToken {
        token: issued.token.expose().to_owned(),
        info: ApiToken::from(issued.info),
    };
    Ok(Reply::created(&body)?.at(issued.position).secret())
}

/// Takes one of the caller's API tokens back; it is dead at once.
#[utoipa::path(delete, path = "/api/auth/tokens/{id}", tag = "auth", params(("id" = String, Path, description = "The token's id")), responses((status = 204, description = "It is revoked")))]
pub async fn revoke_token(call: Call) -> Result<Reply, Problem> {
    let position = call.app.tokens.revoke(&call.actor, call.param("id")?).await?;
    Ok(Reply::no_content().at(position))
}

//! The three cookies: two that hold the session and scripts cannot read, one that they must read.

use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};

/// Holds the access token.
pub const ACCESS: &str = "proximity-auth-cookie";
/// Holds the refresh token.
pub const REFRESH: &str = "proximity-refresh-cookie";
/// Holds the CSRF token.
pub const CSRF: &str = "csrftoken";

/// A session cookie of the browser's, gone after `seconds`.
pub fn token(name: &'static str, value: String, seconds: i64, secure: bool) -> Cookie<'static> {
    Cookie::build(name, value)
        .path("/")
        .http_only(true)
        .secure(secure)
        .same_site(SameSite::Lax)
        .max_age(Duration::seconds(seconds))
        .finish()
}

/// Takes a session cookie away.
pub fn removal(name: &'static str, secure: bool) -> Cookie<'static> {
    token(name, String::new(), 0, secure)
}

/// The cookie that scripts copy into the header.
pub fn csrf(value: String, secure: bool) -> Cookie<'static> {
    Cookie::build(CSRF, value)
        .path("/")
        .http_only(false)
        .secure(secure)
        .same_site(SameSite::Lax)
        .max_age(Duration::days(365))
        .finish()
}

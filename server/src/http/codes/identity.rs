//! Codes of identity, rights and accounts.

use super::{Code, code};

pub(super) const CODES: &[Code] = &[
    code(
        401,
        "identity.required",
        "Sign in first",
        "The call needs an identity, and none was sent, or the token is unknown, expired or ended. Log in again, or refresh the session at `/api/auth/token/refresh/`.",
    ),
    code(
        403,
        "admin.required",
        "Only an administrator may do this",
        "Your account may not do this. Ask an administrator.",
    ),
    code(
        403,
        "csrf.failed",
        "The CSRF check failed",
        "A request that changes something and is identified by a cookie needs the header `X-CSRFToken`, equal to the cookie `csrftoken`. Each answer to a browser renews the cookie when it is missing: repeat the request with its value. Bearer tokens need no such header.",
    ),
    code(
        403,
        "origin.refused",
        "Requests from this origin are refused",
        "The page that sent this request is neither this server's own nor listed in `server.cors_origins`.",
    ),
    code(
        400,
        "login.failed",
        "The login failed",
        "User name, e-mail address or password is wrong, or the account is disabled: the answer is the same for all.",
    ),
    code(
        403,
        "registration.closed",
        "Registration is closed",
        "Nobody may make an account here without an invitation. On a new installation send the `setup_token` that the server printed at its first start; otherwise ask an administrator.",
    ),
    code(
        403,
        "setup_token.invalid",
        "The setup token is not valid",
        "The token is wrong or was used before. It is printed at the first start and stands in `setup-token` in the data directory until someone has registered with it; `proximity user add --admin` does the same from the shell.",
    ),
    code(
        429,
        "login.limited",
        "Too many attempts",
        "Too many logins failed for this account from this address. Wait for the seconds in `Retry-After`.",
    ),
    code(
        422,
        "username.missing",
        "A name to sign in with is missing",
        "Send `username` or `email`.",
    ),
    code(
        422,
        "password.wrong",
        "The present password is wrong",
        "Send the password with which you signed in as `old_password`.",
    ),
    code(
        503,
        "login.busy",
        "Too many people sign in at once",
        "Nothing was tried. Repeat it after the seconds in `Retry-After`.",
    ),
    code(
        422,
        "password.missing",
        "A password is missing",
        "Send `password`, or the same one as `password1` and `password2`.",
    ),
    code(
        422,
        "password.too_short",
        "The password is too short",
        "A password has at least 8 characters.",
    ),
    code(
        422,
        "password.too_long",
        "The password is too long",
        "A password has at most 1,024 bytes.",
    ),
    code(
        422,
        "password.numeric",
        "The password is a number",
        "A password does not consist of digits only.",
    ),
    code(
        422,
        "password.like_username",
        "The password is the user name",
        "Choose one that does not follow from the user name.",
    ),
    code(422, "password.mismatch", "The passwords differ", "Send the same password twice."),
    code(
        409,
        "password.changed_meanwhile",
        "The password was changed meanwhile",
        "Another request changed it at the same moment. Sign in with the new one and try again.",
    ),
    code(
        409,
        "user.username_taken",
        "The user name is taken",
        "Another account has this name, in whatever case.",
    ),
    code(
        409,
        "user.email_taken",
        "The e-mail address is taken",
        "Another account has this address, in whatever case.",
    ),
    code(
        409,
        "user.last_admin",
        "This is the last administrator",
        "Make someone else an administrator first.",
    ),
    code(
        409,
        "user.state",
        "The account's state does not allow this",
        "Read the account again; it was changed meanwhile.",
    ),
    code(
        403,
        "api_token.scope_missing",
        "The API token lacks a scope",
        "A token of scope `read` may make calls that change nothing, `write` those that change something, and `admin` those for administrators, each by itself. Make a token with the scope that the detail names.",
    ),
    code(
        403,
        "api_token.not_accepted",
        "API tokens may not do this",
        "Whoever changes how an account is reached signs in: an API token that leaked must not be able to make another one. Log in with user name and password.",
    ),
    code(
        422,
        "api_token.name_invalid",
        "The token's name is not acceptable",
        "A token's name has 1 to 100 printable characters.",
    ),
    code(
        422,
        "api_token.scope_invalid",
        "There is no such scope",
        "Send at least one of `read`, `write` and `admin` in `scopes`.",
    ),
    code(
        422,
        "api_token.expiry_invalid",
        "The token's time is out of range",
        "`expires_in_days` lies between 1 and 366.",
    ),
    code(
        409,
        "api_token.too_many",
        "There are too many API tokens",
        "A user has at most 50 tokens. Revoke one first.",
    ),
];

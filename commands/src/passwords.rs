//! Passwords: what is accepted as one, and argon2id off the async threads behind a bounded queue.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, Secret};

/// Characters at least, as the replaced product asked for.
const MIN_CHARS: usize = 8;
/// Bytes at most: nobody's password is longer, and longer ones only cost.
const MAX_BYTES: usize = 1_024;

/// Refuses a new password that is too easy to guess; `field` is its name in the request.
pub fn check(password: &Secret, username: &str, field: &'static str) -> Result<(), Error> {
    let text = password.expose();
    let refuse = |code, detail: String| Err(Error::invalid(field, code, detail));
    if text.chars().count() < MIN_CHARS {
        let detail = format!("a password has at least {MIN_CHARS} characters");
        return refuse("password.too_short", detail);
    }
    if text.len() > MAX_BYTES {
        return refuse("password.too_long", format!("a password has at most {MAX_BYTES} bytes"));
    }
    if text.chars().all(char::is_numeric) {
        return refuse("password.numeric", "a password does not consist of digits only".into());
    }
    if text.to_lowercase() == username.to_lowercase() {
        return refuse("password.like_username", "a password is not the user name".into());
    }
    Ok(())
}

/// The one form when a person typed a new password once or twice.
pub fn chosen(
    password: Option<Secret>,
    password1: Option<Secret>,
    password2: Option<Secret>,
) -> Result<(Secret, &'static str), Error> {
    match (password, password1, password2) {
        (Some(password), None, None) => Ok((password, "password")),
        (None, Some(one), Some(two)) if one.expose() == two.expose() => Ok((one, "password1")),
        (None, Some(_), Some(_)) => {
            let detail = "the two passwords are not the same";
            Err(Error::invalid("password2", "password.mismatch", detail))
        }
        (None, Some(_), None) => {
            Err(Error::invalid("password2", "password.missing", "repeat the password"))
        }
        _ => {
            let detail = "send either password, or password1 and password2";
            Err(Error::invalid("password", "password.missing", detail))
        }
    }
}

/// Hashes and verifies passwords, a few at a time.
#[derive(Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What an unknown user's password is verified against: the same work, never a match.
    dummy: Arc<str>,
}

/// How much may be hashed at once.
#[derive(Debug, Clone, Copy)]
pub struct HashingLimits {
    /// Threads that hash at the same time; each takes 19 MiB.
    pub running: usize,
    /// Callers that may be there at once, those being served included; more are told to come back.
    pub waiting: usize,
}

impl Default for HashingLimits {
    fn default() -> Self {
        Self { running: 2, waiting: 64 }
    }
}

impl Passwords {
    /// argon2id as OWASP recommends it: 19 MiB, two passes, one lane.
    pub fn new(limits: HashingLimits) -> Result<Self, Error> {
        let params = Params::new(19 * 1024, 2, 1, None).map_err(broken)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = SaltString::generate(&mut OsRng);
        let dummy = hash(&argon2, nobody.as_str())?.into();
        Ok(Self {
            argon2,
            running: Arc::new(Semaphore::new(limits.running)),
            waiting: Arc::new(Semaphore::new(limits.waiting)),
            dummy,
        })
    }

    /// The PHC string to store.
    pub async fn hash(&self, password: Secret) -> Result<String, Error> {
        let permits = self.admit().await?;
        let argon2 = self.argon2.clone();
        // The permits travel along: a caller who goes away does not free the thread it has taken.
        let work = move || {
            let hashed = hash(&argon2, password.expose());
            drop(permits);
            hashed
        };
        tokio::task::spawn_blocking(work).await.map_err(broken)?
    }

    /// Whether the password is the stored one; `None` takes as long and never matches.
    pub async fn verify(&self, password: Secret, stored: Option<String>) -> Result<bool, Error> {
        let permits = self.admit().await?;
        let argon2 = self.argon2.clone();
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.as_ref().to_owned());
        let work = move || {
            let matches = verify(&argon2, password.expose(), &stored);
            drop(permits);
            matches
        };
        let matches = tokio::task::spawn_blocking(work).await.map_err(broken)??;
        Ok(matches && known)
    }

    async fn admit(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Error> {
        let waiting =
            Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| Error::Unavailable {
                code: "login.busy",
                detail: "too many people are signing in at once; try again shortly".into(),
                retry_after: Duration::from_secs(1),
            })?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(broken)?;
        Ok((waiting, running))
    }
}

fn hash(argon2: &Argon2<'_>, password: &str) -> Result<String, Error> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = argon2.hash_password(password.as_bytes(), &salt).map_err(broken)?;
    Ok(hash.to_string())
}

/// A hash that cannot be read is an error, never "wrong password".
fn verify(argon2: &Argon2<'_>, password: &str, stored: &str) -> Result<bool, Error> {
    let stored = PasswordHash::new(stored).map_err(broken)?;
    match argon2.verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::Password) => Ok(false),
        Err(error) => Err(broken(error)),
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("a password could not be hashed", error)
}

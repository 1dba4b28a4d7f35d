//! The CSRF token: random, authenticated, and bound to the session once there is one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use proximity_commands::keys::{Keyring, Purpose};
use proximity_domain::SessionId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::problem::Problem;

const RANDOM: usize = 16;
const TAG: usize = 8;
const MAC: usize = 16;

/// Makes and checks tokens with a key that all replicas share.
pub struct Csrf {
    keys: Keyring,
}

impl Csrf {
    /// The key comes from the oldest master key, so that a rotation invalidates no token.
    pub fn new(keys: Keyring) -> Self {
        Self { keys }
    }

    /// A new token for this session, or for nobody yet.
    pub fn issue(&self, session: Option<SessionId>) -> String {
        let random: [u8; RANDOM] = rand::random();
        let mut bytes = Vec::with_capacity(RANDOM + TAG + MAC);
        bytes.extend_from_slice(&random);
        bytes.extend_from_slice(&tag(session));
        let mac = self.mac(&bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether we made this token at all, for whatever session.
    pub fn is_ours(&self, token: &str) -> bool {
        self.open(token).is_some()
    }

    /// Whether this token was made for exactly this session (or for nobody).
    pub fn fits(&self, token: &str, session: Option<SessionId>) -> bool {
        self.open(token).is_some_and(|found| found == tag(session))
    }

    /// The double submission: the header equals the cookie, and we made it for this session.
    ///
    /// `session` is `None` for login and registration: there the token of whatever session a
    /// browser still carries is good enough, since the identity is not taken from the cookie.
    pub fn check(
        &self,
        cookie: Option<&str>,
        header: Option<&str>,
        session: Option<SessionId>,
    ) -> Result<(), Problem> {
        let refuse = |why: &str| Err(Problem::new("csrf.failed", why));
        let (Some(cookie), Some(header)) = (cookie, header) else {
            return refuse("send the value of the cookie csrftoken in the header X-CSRFToken");
        };
        let equal: bool = cookie.as_bytes().ct_eq(header.as_bytes()).into();
        let made_here = match session {
            Some(_) => self.fits(cookie, session),
            None => self.is_ours(cookie),
        };
        if equal && made_here {
            Ok(())
        } else {
            refuse("the header X-CSRFToken does not match; repeat the request with the new cookie")
        }
    }

    fn open(&self, token: &str) -> Option<[u8; TAG]> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        if bytes.len() != RANDOM + TAG + MAC {
            return None;
        }
        let (signed, mac) = bytes.split_at(RANDOM + TAG);
        let genuine: bool = self.mac(signed).ct_eq(mac).into();
        if genuine { signed[RANDOM..].try_into().ok() } else { None }
    }

    fn mac(&self, bytes: &[u8]) -> [u8; MAC] {
        // HMAC takes keys of any length, so the error cannot happen; an empty tag would fit nothing.
        let key = self.keys.keys().derive_lasting(Purpose::Csrf);
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.bytes()) else { return [0; MAC] };
        mac.update(b"proximity csrf 1");
        mac.update(bytes);
        let full = mac.finalize().into_bytes();
        std::array::from_fn(|i| full[i])
    }
}

fn tag(session: Option<SessionId>) -> [u8; TAG] {
    match session {
        None => [0; TAG],
        Some(session) => {
            let digest = Sha256::digest(session.0.as_bytes());
            std::array::from_fn(|i| digest[i])
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::sync::Arc;

    use proximity_commands::keys::MasterKeys;
    use uuid::Uuid;

    use super::*;

    fn csrf() -> Csrf {
        Csrf::new(Arc::new(MasterKeys::generate().unwrap()).into())
    }

    #[test]
    fn a_token_fits_its_own_session_only() {
        let csrf = csrf();
        let (mine, other) = (SessionId(Uuid::new_v4()), SessionId(Uuid::new_v4()));
        let token = csrf.issue(Some(mine));
        assert!(csrf.check(Some(&token), Some(&token), Some(mine)).is_ok());
        assert!(csrf.check(Some(&token), Some(&token), Some(other)).is_err());
        assert!(csrf.check(Some(&token), None, Some(mine)).is_err());
        assert!(csrf.check(None, Some(&token), Some(mine)).is_err());
        let anonymous = csrf.issue(None);
        assert!(csrf.check(Some(&anonymous), Some(&anonymous), Some(mine)).is_err());
        assert!(csrf.check(Some(&anonymous), Some(&anonymous), None).is_ok());
    }

    #[test]
    fn a_token_that_we_did_not_make_is_refused_even_when_both_halves_agree() {
        let foreign = csrf().issue(None);
        let csrf = csrf();
        assert!(csrf.check(Some(&foreign), Some(&foreign), None).is_err());
        let token = csrf.issue(None);
        for at in 0..token.len() {
            let mut bent = token.clone().into_bytes();
            bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
            let bent = String::from_utf8(bent).unwrap();
            // The last character carries spare bits that decoding refuses to be anything but zero.
            assert!(csrf.check(Some(&bent), Some(&bent), None).is_err(), "{at}");
        }
    }
}

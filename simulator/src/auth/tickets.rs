//! Tickets and CSRF tokens: made, dated and checked by a key that lives as long as the simulator.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, Mac};
use rand::Rng;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Seconds that a ticket and a CSRF token live.
pub(crate) const LIFETIME: i64 = 2 * 60 * 60;
/// Seconds by which a ticket may come from the future (clocks differ).
const SKEW: i64 = 5 * 60;

/// Signs and checks tickets.
pub(crate) struct Tickets {
    key: [u8; 32],
}

impl Tickets {
    pub(crate) fn new() -> Self {
        Self { key: rand::rng().random() }
    }

    fn sign(&self, text: &str) -> String {
        // A key of any length is accepted by HMAC, so there is no other branch.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        mac.update(text.as_bytes());
        STANDARD_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// `PVE:user:TIME::signature`.
    pub(crate) fn ticket(&self, user: &str, now: i64) -> String {
        let plain = format!("PVE:{user}:{now:08X}");
        let signature = self.sign(&plain);
        format!("{plain}::{signature}")
    }

    /// The user of a ticket that is genuine and in its time.
    pub(crate) fn check(&self, ticket: &str, now: i64) -> Option<String> {
        let (plain, signature) = ticket.split_once("::")?;
        let expected = self.sign(plain);
        if !bool::from(expected.as_bytes().ct_eq(signature.as_bytes())) {
            return None;
        }
        let (user, stamp) = plain.strip_prefix("PVE:")?.rsplit_once(':')?;
        in_time(stamp, now).then(|| user.to_owned())
    }

    /// `TIME:signature`, tied to the user.
    pub(crate) fn csrf(&self, user: &str, now: i64) -> String {
        let stamp = format!("{now:08X}");
        let signature = self.sign(&format!("csrf:{stamp}:{user}"));
        format!("{stamp}:{signature}")
    }

    pub(crate) fn check_csrf(&self, token: &str, user: &str, now: i64) -> bool {
        let Some((stamp, signature)) = token.split_once(':') else { return false };
        let expected = self.sign(&format!("csrf:{stamp}:{user}"));
        bool::from(expected.as_bytes().ct_eq(signature.as_bytes())) && in_time(stamp, now)
    }
}

fn in_time(stamp: &str, now: i64) -> bool {
    i64::from_str_radix(stamp, 16).is_ok_and(|made| (-SKEW..LIFETIME).contains(&(now - made)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_ticket_lives_two_hours_and_may_not_come_from_the_future() {
        let tickets = Tickets::new();
        let now = 1_795_465_000;
        let ticket = tickets.ticket("root@pam", now);
        assert_eq!(tickets.check(&ticket, now + 119 * 60).as_deref(), Some("root@pam"));
        assert_eq!(tickets.check(&ticket, now + 121 * 60), None);
        assert_eq!(tickets.check(&ticket, now - 4 * 60).as_deref(), Some("root@pam"));
        assert_eq!(tickets.check(&ticket, now - 6 * 60), None);
        assert_eq!(Tickets::new().check(&ticket, now), None, "another key signed it");
        assert_eq!(tickets.check(&ticket.replace("root", "toor"), now), None);
    }

    #[test]
    fn a_csrf_token_belongs_to_one_user() {
        let tickets = Tickets::new();
        let token = tickets.csrf("root@pam", 1_000_000);
        assert!(tickets.check_csrf(&token, "root@pam", 1_000_000 + 119 * 60));
        assert!(!tickets.check_csrf(&token, "root@pam", 1_000_000 + 121 * 60));
        assert!(!tickets.check_csrf(&token, "other@pve", 1_000_000));
    }
}

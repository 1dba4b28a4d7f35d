//! Limits on failed logins by account and source, shared by all servers through the database.
//!
//! The first few are free, then each next one has to wait twice as long. Only signing in waits:
//! sessions that live are never touched, so nobody can lock a user out of what is open.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use proximity_eventstore::{Guard, SideWrite, tables};
use tokio::sync::{Mutex, MutexGuard};

use super::Accounts;
use crate::Error;
use crate::clock::{Micros, SECOND};
use crate::rows::{Columns, text, unreadable};

/// Failures are counted in windows of this length.
const WINDOW: Micros = 10 * SECOND;
/// Failures older than this are forgotten.
const REMEMBERED: Micros = 15 * 60 * SECOND;
/// Failures of one account from one source before anyone has to wait.
const FREE: u32 = 5;
/// The longest wait.
const LONGEST: Micros = REMEMBERED;
/// Failures from one source, for whatever accounts, before it has to wait.
const FREE_FOR_SOURCE: u64 = 100;

/// Attempts on one account from one source take turns, so that many at once cannot all pass the
/// check before the first of them has failed.
pub(super) struct Turns {
    shards: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        let shards = std::iter::repeat_with(|| Mutex::new(())).take(256).collect();
        Self { shards, hasher: RandomState::new() }
    }
}

impl Turns {
    pub(super) async fn take(&self, pair: &Pair) -> MutexGuard<'_, ()> {
        let hash = self.hasher.hash_one((&pair.account, &pair.source));
        // The remainder is less than 256.
        let shard = usize::try_from(hash % 256).unwrap_or_default();
        self.shards[shard].lock().await
    }
}

/// Who is tried from where.
pub(super) struct Pair {
    /// `user/7`, or a keyed hash of a name that nobody has.
    pub account: String,
    /// An address; of IPv6 the network, since one customer has 2^64 of them.
    pub source: String,
}

impl Pair {
    pub(super) fn new(account: String, source: Option<IpAddr>) -> Self {
        let source = match source.map(|address| address.to_canonical()) {
            None => "unknown".to_owned(),
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        };
        Self { account, source }
    }
}

impl Accounts {
    /// Refuses an attempt that comes too early.
    pub(super) async fn check_limits(&self, pair: &Pair) -> Result<(), Error> {
        let now = self.clock.now();
        let filter = vec![("account", text(&pair.account)), ("source", text(&pair.source))];
        let rows = self.store.rows(&tables::LOGIN_ATTEMPTS, filter, 1_000).await;
        let mut failures = 0;
        let mut last = 0;
        for row in rows.map_err(unreadable)?.into_iter().map(Columns) {
            let start = row.integer("window_start")?;
            if start > now - REMEMBERED {
                failures += u32::try_from(row.integer("failures")?).unwrap_or(u32::MAX);
                last = last.max(start + WINDOW);
            }
        }
        let mut until = last + delay(failures);
        if failures < FREE {
            until = 0;
            let since = now - REMEMBERED;
            let of_source = self.store.login_failures_of_source(&pair.source, since).await;
            if of_source.map_err(unreadable)? >= FREE_FOR_SOURCE {
                until = now + 60 * SECOND;
            }
        }
        if until <= now {
            return Ok(());
        }
        // Rounded up to whole seconds: who waits that long does not come too early again.
        let wait = u64::try_from((until - now + SECOND - 1) / SECOND).unwrap_or(1);
        Err(Error::TooMany {
            code: "login.limited",
            detail: format!("too many failed logins; try again in {wait} s"),
            retry_after: Duration::from_secs(wait),
        })
    }

    /// Counts a failure.
    pub(super) async fn count_failure(&self, pair: &Pair) -> Result<(), Error> {
        let now = self.clock.now();
        let window = now - now.rem_euclid(WINDOW);
        let counted = self.store.count_login_failure(&pair.account, &pair.source, window).await;
        counted.map(drop).map_err(unreadable)
    }

    /// Who has signed in has nothing to wait for the next time.
    pub(super) fn forget_failures(pair: &Pair) -> SideWrite {
        SideWrite::Delete {
            table: &tables::LOGIN_ATTEMPTS,
            filter: vec![("account", text(&pair.account)), ("source", text(&pair.source))],
            guard: Guard::None,
        }
    }
}

/// 10 s after the fifth failure, then doubled with each, a quarter of an hour at most.
fn delay(failures: u32) -> Micros {
    let doublings = failures.saturating_sub(FREE).min(20);
    ((10 * SECOND) << doublings).min(LONGEST)
}

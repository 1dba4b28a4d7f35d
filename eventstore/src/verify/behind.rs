//! What nothing covers although there was time for it: events that were not sealed, blocks that were
//! not published. That is no break, since a server that was killed leaves the same.

use std::fmt;

use super::report::VerifyReport;
use crate::append::Position;
use crate::error::Error;
use crate::heads::{Head, HeadsDir};
use crate::sealer::now_micros;
use crate::store::Store;
use crate::task::blocking;

/// A server seals and publishes within a second or two; a busy machine within this, in microseconds.
const SLOW: i64 = 60_000_000;

/// Events that wait for longer than a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The last event that does not wait.
    pub behind: Position,
    /// The last event of the log, or of the chain.
    pub to: Position,
    /// How old the first one that waits is, in seconds.
    pub seconds: i64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unsealed,
    Unpublished,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, to) = (self.behind + 1, self.to);
        let age = match self.seconds {
            seconds if seconds < 2 * 3_600 => format!("{} minutes", seconds / 60),
            seconds if seconds < 2 * 86_400 => format!("{} hours", seconds / 3_600),
            seconds => format!("{} days", seconds / 86_400),
        };
        match self.kind {
            Kind::Unsealed => write!(
                f,
                "the events {first} to {to} are not sealed, the oldest for {age}: a change in them \
                 cannot be seen"
            ),
            Kind::Unpublished => write!(
                f,
                "no head was published behind event {}, for {age}: that the log was cut off between \
                 there and {to} could not be seen",
                self.behind
            ),
        }
    }
}

/// How far the log's present life was published.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The newest head that is in the directory.
    pub here: Option<Head>,
    /// The block and the position up to which the database says that heads were published there.
    pub noted: Option<(u64, Position)>,
}

/// How far the heads in a directory go. The database tells of a server that publishes elsewhere, too: that
/// is any that has no file here, unless it is the only one, or `server`.
pub async fn reached(
    store: &Store,
    dir: HeadsDir,
    server: Option<String>,
) -> Result<Reached, Error> {
    let incarnation = store.incarnation();
    // Before the heads are: more may come meanwhile.
    let mut rows = store.published().await?;
    rows.retain(|row| row.incarnation == incarnation);
    let is_only = rows.len() == 1;
    blocking(move || {
        let mut noted = None;
        for row in rows {
            let is_asked = is_only || server.as_ref() == Some(&row.server);
            if is_asked || dir.has_files(incarnation, &row.server)? {
                noted = noted.max(Some((row.last_block, row.last_position)));
            }
        }
        let here = dir.latest(incarnation)?.map(|head| head.statement);
        Ok(Reached { here, noted })
    })
    .await
}

/// What waits to be sealed, and to be published behind the block of the newest head of the log's
/// present life.
pub async fn waiting(store: &Store, published: Option<u64>) -> Result<Vec<Waiting>, Error> {
    let (now, head) = (now_micros(), store.head().await?);
    let sealed = store.last_seal().await?.map_or(0, |seal| seal.last);
    let mut found = Vec::new();
    let mut note = |kind, behind, to, since: Option<i64>| {
        let Some(age) = since.map(|since| now - since).filter(|age| *age > SLOW) else { return };
        found.push(Waiting { behind, to, seconds: age / 1_000_000, kind });
    };
    let first = store.feed(sealed, 1).await?;
    note(Kind::Unsealed, sealed, head, first.first().map(|event| event.recorded_at));
    if let Some(block) = published {
        let next = store.seals(block, 1).await?;
        if let Some(seal) = next.first() {
            note(Kind::Unpublished, seal.first.saturating_sub(1), sealed, Some(seal.sealed_at));
        }
    }
    Ok(found)
}

/// What a signature for the log up to `end`, which was put back from elsewhere, cannot prove. How old its
/// first unsealed event was, its own last event tells.
pub(super) async fn unproven(
    store: &Store,
    end: Position,
    report: &VerifyReport,
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let (first, sealed) = (store.feed(report.sealed_to, 1).await?, report.sealed_to);
    let last = store.feed(end.saturating_sub(1), 1).await?;
    if let (Some(first), Some(last)) = (first.first(), last.first())
        && last.recorded_at - first.recorded_at > SLOW
    {
        found.push(format!("the events {} to {end} were never sealed", sealed + 1));
    }
    if sealed > 0 && report.heads == 0 {
        found.push("no head that was published of it was there".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_with_its_age() {
        let said = |kind, seconds| Waiting { behind: 7, to: 9, seconds, kind }.to_string();
        assert!(
            said(Kind::Unsealed, 119)
                .starts_with("the events 8 to 9 are not sealed, the oldest for 1 minutes")
        );
        assert!(said(Kind::Unpublished, 8_000).contains("behind event 7, for 2 hours"));
        assert!(said(Kind::Unsealed, 3 * 86_400).contains("for 3 days"));
    }
}

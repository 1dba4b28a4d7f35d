//! What nothing covers although there was time for it: events that were not sealed, blocks that were
//! not published. That is no break, since a server that was killed leaves the same.

use std::fmt;

use super::complete::{Spans, widest};
use super::report::VerifyReport;
use crate::append::Position;
use crate::error::Error;
use crate::heads::{Head, HeadsDir};
use crate::seal::Sealable;
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
    /// How old the first one that waits is, in seconds; `None` when nothing tells.
    seconds: Option<i64>,
    kind: Kind,
}

impl Waiting {
    /// Whether it waits for longer than this, as far as anything tells.
    pub fn is_longer_than(&self, seconds: i64) -> bool {
        self.seconds.is_none_or(|waited| waited > seconds)
    }
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
            None => "a time that no clock here tells".to_owned(),
            Some(seconds) if seconds < 2 * 3_600 => format!("{} minutes", seconds / 60),
            Some(seconds) if seconds < 2 * 86_400 => format!("{} hours", seconds / 3_600),
            Some(seconds) => format!("{} days", seconds / 86_400),
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
    /// The first and the last block up to there that have no head in the directory, though the database says
    /// that one was published.
    pub gone: Option<(u64, u64)>,
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
        let mut here: Option<Head> = None;
        let mut spans = Spans::default();
        dir.each(incarnation, |head| {
            if head.statement.incarnation != incarnation {
                return;
            }
            spans.add(head.statement.block);
            if here.as_ref().is_none_or(|known| known.block < head.statement.block) {
                here = Some(head.statement);
            }
        })?;
        let (mut noted, mut gone) = (None, None);
        for row in rows {
            let is_asked = is_only || server.as_ref() == Some(&row.server);
            if is_asked || dir.has_files(incarnation, &row.server)? {
                noted = noted.max(Some((row.last_block, row.last_position)));
                gone = widest(gone, spans.lacking(&row, row.last_block));
            }
        }
        Ok(Reached { here, noted, gone })
    })
    .await
}

/// What waits to be sealed, and to be published behind the block of the newest head of the log's
/// present life.
pub async fn waiting(store: &Store, published: Option<u64>) -> Result<Vec<Waiting>, Error> {
    let head = store.head().await?;
    let last = store.last_seal().await?;
    let now = now_micros();
    let sealed = last.as_ref().map_or(0, |seal| seal.last);
    let mut found = Vec::new();
    let mut note = |kind, behind, to, since: &[Option<i64>]| {
        let seconds = age(now, since).map(|age| age / 1_000_000);
        let waiting = Waiting { behind, to, seconds, kind };
        found.extend(Some(waiting).filter(|waiting| waiting.is_longer_than(SLOW / 1_000_000)));
    };
    if let Some(first) = store.sealable(sealed, 1).await?.first() {
        let since = [first.recorded_at, last.map(|seal| seal.sealed_at)];
        note(Kind::Unsealed, sealed, head, &since);
    }
    if let Some(block) = published {
        let next = store.seals(block, 1).await?;
        if let Some(seal) = next.first() {
            let behind = seal.first.saturating_sub(1);
            note(Kind::Unpublished, behind, sealed, &[Some(seal.sealed_at)]);
        }
    }
    Ok(found)
}

/// How long ago the first of these times was that can be true. Whoever may add events gives them their
/// time, too: one that lies in the future hides nothing.
fn age(now: i64, times: &[Option<i64>]) -> Option<i64> {
    let can_be_true = |time: &i64| *time <= now.saturating_add(SLOW);
    let since = times.iter().copied().flatten().find(can_be_true)?;
    Some(now.saturating_sub(since))
}

/// What a signature for the log up to `end`, which was put back from elsewhere, cannot prove. How old its
/// first unsealed event was, its own last event tells; one that says to be younger than that is not believed.
pub(super) async fn unproven(
    store: &Store,
    end: Position,
    report: &VerifyReport,
) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let (first, sealed) = (store.sealable(report.sealed_to, 1).await?, report.sealed_to);
    let last = store.sealable(end.saturating_sub(1), 1).await?;
    let time = |event: &Sealable| event.recorded_at.unwrap_or_default();
    // A server may have sealed in the new life by now.
    if sealed < end
        && let (Some(first), Some(last)) = (first.first(), last.first())
        && time(last).abs_diff(time(first)) > SLOW.unsigned_abs()
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
        let said =
            |kind, seconds| Waiting { behind: 7, to: 9, seconds: Some(seconds), kind }.to_string();
        assert!(
            said(Kind::Unsealed, 119)
                .starts_with("the events 8 to 9 are not sealed, the oldest for 1 minutes")
        );
        assert!(said(Kind::Unpublished, 8_000).contains("behind event 7, for 2 hours"));
        assert!(said(Kind::Unsealed, 3 * 86_400).contains("for 3 days"));
    }

    #[test]
    fn a_time_that_lies_in_the_future_hides_no_wait() {
        let (now, hour, year) = (1_800_000_000_000_000, 3_600_000_000, 31_536_000_000_000);
        assert_eq!(age(now, &[Some(now - hour), Some(now - year)]), Some(hour));
        assert_eq!(age(now, &[Some(now + year), Some(now - hour)]), Some(hour));
        assert_eq!(
            age(now, &[Some(now + 1), Some(now - hour)]),
            Some(-1),
            "clocks differ a little"
        );
        assert_eq!(age(now, &[None, Some(now - hour)]), Some(hour), "it has no time at all");
        let unknown = age(now, &[Some(i64::MAX), None]);
        let waiting = Waiting { behind: 7, to: 9, seconds: unknown, kind: Kind::Unsealed };
        assert!(waiting.is_longer_than(i64::MAX));
        assert!(waiting.to_string().contains("for a time that no clock here tells"));
    }
}

//! The events behind the last block: whether whoever seals can go on with them.

use super::end::end;
use super::report::{Fault, FaultKind};
use super::trust::statements;
use crate::append::Position;
use crate::error::Error;
use crate::heads::HeadsDir;
use crate::kept;
use crate::seal::Sealable;
use crate::signed::Trusted;
use crate::store::Store;
use crate::task::blocking;

/// Events read at once.
const PAGE: usize = 5_000;

/// Follows the log behind its last block.
///
/// At every moment a log of ours has one event behind the other: positions are given and become visible
/// together. So pages that are read while others append show no gap that one of those would fill.
pub(super) struct Tail {
    next: Position,
}

impl Tail {
    pub fn behind(sealed: Position) -> Self {
        Self { next: sealed + 1 }
    }

    /// Takes the next event; what keeps it from being sealed, and all behind it.
    pub fn take(&mut self, event: &Sealable) -> Option<Fault> {
        let (expected, found) = (self.next, event.position);
        self.next = expected.max(found + 1);
        let (kind, position, to, what) = if found > expected {
            let to = found - 1;
            let what = match to == expected {
                true => format!("there is no event {expected}"),
                false => format!("there are no events {expected} to {to}"),
            };
            (FaultKind::Removed, expected, to, format!("{what}, and others stand behind"))
        } else if found < expected {
            let what = format!("a second event stands at position {found}");
            (FaultKind::Duplicated, found, found, what)
        } else if event.leaf.is_none() {
            let what = format!("event {found} holds what no event of ours can hold");
            (FaultKind::Changed, found, found, what)
        } else {
            return None;
        };
        let detail = format!("{what}: nothing from there on can be sealed, or is proven");
        Some(Fault { kind, position, to, detail })
    }
}

/// The first thing that keeps whoever seals from going on: a last block that is none of ours, or whatever
/// stands anywhere behind it. Who signed that block is only told with the keys of the log, and of those
/// that are vouched for in a directory of heads.
pub async fn unsealable(
    store: &Store,
    keys: Option<(Trusted, HeadsDir)>,
) -> Result<Option<Fault>, Error> {
    let (mut trusted, mut began) = (None, Vec::new());
    if let Some((keys, dir)) = keys {
        let kept = kept::statements(store).await?;
        let (all, said, _) = blocking(move || statements(&dir, kept, keys)).await?;
        trusted = Some(all);
        began.extend(said.into_iter().map(|said| said.life));
        began.retain(|life| life.incarnation == store.incarnation());
    }
    let last = match end(store, trusted.as_ref(), &began).await {
        Err(Error::NotOurs { fault }) => return Ok(Some(*fault)),
        other => other?,
    };
    let mut after = last.map_or(0, |seal| seal.last);
    let head = store.head().await?;
    let mut tail = Tail::behind(after);
    while after < head {
        let page = store.sealable(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        if let Some(fault) = page.iter().find_map(|event| tail.take(event)) {
            return Ok(Some(fault));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: Position) -> Sealable {
        Sealable { position, recorded_at: Some(1), leaf: Some([0; 32]) }
    }

    fn found(events: &[Sealable]) -> Vec<(FaultKind, Position, Position)> {
        let mut tail = Tail::behind(4);
        let faults = events.iter().filter_map(|event| tail.take(event));
        faults.map(|fault| (fault.kind, fault.position, fault.to)).collect()
    }

    #[test]
    fn events_one_behind_the_other_can_be_sealed() {
        assert_eq!(found(&[event(5), event(6), event(7)]), []);
    }

    #[test]
    fn each_gap_is_told_once_with_where_it_ends() {
        let gaps = [(FaultKind::Removed, 5, 6), (FaultKind::Removed, 9, 9)];
        assert_eq!(found(&[event(7), event(8), event(10), event(11)]), gaps);
        let last = i64::MAX.unsigned_abs();
        assert_eq!(found(&[event(last)]), [(FaultKind::Removed, 5, last - 1)]);
    }

    #[test]
    fn what_cannot_be_hashed_and_what_stands_there_twice_is_told() {
        let without = Sealable { leaf: None, ..event(6) };
        let wrong = [(FaultKind::Changed, 6, 6), (FaultKind::Duplicated, 6, 6)];
        assert_eq!(found(&[event(5), without, event(6), event(7)]), wrong);
    }
}

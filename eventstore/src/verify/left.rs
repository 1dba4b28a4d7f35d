//! What older lives published up to where a restore left them: those events have to be in this log.
//!
//! A block that was made after the backup may cover events that are in it. The chain does not have it
//! then, but everything that its hash was made of is here, but for its time, which its head tells.

use std::collections::BTreeMap;

use super::heads::Cursor;
use super::lives::Kept;
use super::report::{FaultKind, VerifyReport};
use crate::append::Position;
use crate::error::Error;
use crate::heads::Head;
use crate::hex;
use crate::seal::{BLOCK, Seal};
use crate::store::Store;
use crate::unhex;

/// Heads that are kept to be made anew; more are missing only where the whole chain is gone.
const MOST: usize = 100_000;
/// A block that is older than this at the end of the backup was in the database by then, in
/// microseconds: the clocks of servers and database may differ by as much.
pub(super) const SETTLED: i64 = 60_000_000;

/// Heads of one life that the chain does not have, at or before the last event that is kept of it.
#[derive(Default)]
pub(super) struct Missing {
    heads: BTreeMap<u64, Head>,
    more: bool,
}

impl Missing {
    pub fn note(&mut self, head: &Head) {
        if self.heads.len() < MOST {
            self.heads.insert(head.block, head.clone());
        } else {
            self.more = true;
        }
    }

    /// Makes each block anew from the events that are here. Only the lowest that does not fit is told.
    pub async fn settle(
        self,
        store: &Store,
        kept: Kept,
        report: &mut VerifyReport,
    ) -> Result<(), Error> {
        let mut cursor = Cursor::new(store);
        let mut before: Option<(u64, Position, Vec<u8>)> = None;
        let end = match store.feed(kept.to.saturating_sub(1), 1).await?.first() {
            Some(event) => event.recorded_at,
            None => 0,
        };
        let mut gone: Option<(Position, Position)> = None;
        for head in self.heads.values() {
            if before.as_ref().is_none_or(|(block, _, _)| *block + 1 != head.block) {
                before = match head.block.checked_sub(1) {
                    Some(0) => Some((0, 0, Vec::new())),
                    Some(block) => {
                        let link = cursor.link(block).await?;
                        link.map(|link| (block, link.last, link.hash.clone()))
                    }
                    None => None,
                };
            }
            let from = before.as_ref().map_or(report.sealed_to, |(_, last, _)| *last) + 1;
            let to = head.position.max(from);
            let in_chain = head.block <= kept.block;
            let found = match &before {
                Some((block, last, hash)) => {
                    let previous = (*block > 0).then_some(hash.as_slice());
                    remake(store, head, *last, previous).await?
                }
                None => None,
            };
            match found {
                // Where the chain of the backup ends, or a moment behind it.
                Some(true) if !in_chain && head.sealed_at > end - SETTLED => {}
                Some(true) if !in_chain && !kept.proven => {}
                Some(true) => {
                    let (first, _) = gone.unwrap_or((from, to));
                    gone = Some((first, to));
                }
                // An older statement does not say where exactly its log ended.
                Some(false) | None if !kept.proven && !in_chain => break,
                Some(false) => {
                    if !report.has(from, to) {
                        let detail = format!(
                            "a head of block {} was published, and the events {from} to {to} are not \
                             those that it covered",
                            head.block
                        );
                        report.fault(FaultKind::Rewritten, from, to, detail);
                    }
                    break;
                }
                None => {
                    let (first, _) = gone.unwrap_or((from, to));
                    gone = Some((first, to));
                    break;
                }
            }
            before = unhex(&head.hash).map(|hash| (head.block, head.position, hash));
        }
        if let Some((from, to)) = gone {
            let detail = format!(
                "heads of the events {from} to {to} were published, and the chain has no block of \
                 them: it was cut off, although a restore says that they were kept{}",
                if self.more { ", and so were more" } else { "" }
            );
            report.fault(FaultKind::Cut, from, to, detail);
        }
        Ok(())
    }
}

/// Whether the events after `last` come to the block that the head was published of; `None` when they
/// are not all there.
async fn remake(
    store: &Store,
    head: &Head,
    last: Position,
    previous: Option<&[u8]>,
) -> Result<Option<bool>, Error> {
    let count = head.position.saturating_sub(last);
    let Some(count) = usize::try_from(count).ok().filter(|count| (1..=BLOCK).contains(count))
    else {
        return Ok(None);
    };
    let mut leaves = Vec::with_capacity(count * 32);
    for (event, position) in store.sealable(last, count).await?.into_iter().zip(last + 1..) {
        match event.leaf.filter(|_| event.position == position) {
            Some(leaf) => leaves.extend(leaf),
            None => return Ok(Some(false)),
        }
    }
    if leaves.len() != count * 32 {
        return Ok(Some(false));
    }
    let made = Seal::of_head(head, last + 1, leaves);
    Ok(Some(hex(&made.expected_hash(previous)) == head.hash))
}

//! Whether all heads are there that once were: the database and the statements remember which.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use uuid::Uuid;

use super::heads::Cursor;
use super::left::SETTLED;
use super::lives::Path;
use super::report::{FaultKind, VerifyReport};
use crate::append::Position;
use crate::error::Error;
use crate::heads::{Gone, Head, HeadsDir, Life};
use crate::sealer::{Published, now_micros};
use crate::store::Store;

/// What is this young may not have been sealed or published yet, in microseconds.
const YOUNG: i64 = 5_000_000;

/// Numbers of blocks, as spans from the first to the last one.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeMap<u64, u64>);

impl Spans {
    pub fn add(&mut self, block: u64) {
        let before = self.0.range(..=block).next_back().map(|(first, last)| (*first, *last));
        let first = match before {
            Some((_, last)) if last >= block => return,
            Some((first, last)) if last + 1 == block => first,
            Some(_) | None => block,
        };
        let last = self.0.remove(&(block + 1)).unwrap_or(block);
        self.0.insert(first, last);
    }

    fn first(&self) -> Option<u64> {
        self.0.first_key_value().map(|(first, _)| *first)
    }

    /// The first block from `from` to `to` that is not in here, and the last one.
    fn missing(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let around = self.0.range(..=from).next_back().filter(|(_, last)| **last >= from);
        let first = around.map_or(from, |(_, last)| last + 1);
        if first > to {
            return None;
        }
        let behind = self.0.range(..=to).next_back().filter(|(_, last)| **last >= to);
        Some((first, behind.map_or(to, |(first, _)| first - 1)))
    }

    /// The first and the last block up to `end` that are not in here, and of which the database says that
    /// heads were published.
    pub fn lacking(&self, row: &Published, end: u64) -> Option<(u64, u64)> {
        let to = row.last_block.min(end);
        let before = row.each_from.saturating_sub(1);
        let wanted = [(row.first_block, row.first_block), (before, before), (row.each_from, to)];
        let asked = wanted
            .into_iter()
            .filter(|(from, to)| *from >= row.first_block && from <= to && *to <= end);
        asked.map(|(from, to)| self.missing(from, to)).fold(None, widest)
    }
}

/// The span that reaches over both.
pub(super) fn widest(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some((first, last)), Some((from, to))) => Some((first.min(from), last.max(to))),
        (one, other) => one.or(other),
    }
}

/// Looks for the heads of one life that the database knows to be published.
///
/// Of a server that publishes elsewhere, with no file here, nothing is asked, unless it is the only one.
pub(super) async fn check(
    store: &Store,
    rows: &[Published],
    files: &[PathBuf],
    spans: &Spans,
    path: &Path,
    index: usize,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let life = report.lives[index].clone();
    let rows: Vec<&Published> =
        rows.iter().filter(|row| row.incarnation == life.incarnation).collect();
    let has_files = |server: &str| {
        let ending = format!("-{server}.heads");
        files.iter().any(|file| file.to_string_lossy().ends_with(&ending))
    };
    let mut missing: Option<(u64, u64)> = None;
    for row in &rows {
        // What a restore left behind need not be here; a chain that was cut is told by its own heads,
        // or here when they are gone, too, or elsewhere.
        let is_whole = path.kept(life.incarnation).is_none();
        if is_whole && row.last_block > life.last_block {
            let from = report.sealed_to + 1;
            // It may have gone on since it was read.
            let links = store.links(row.last_block - 1, 1).await?;
            let is_there = links.first().is_some_and(|link| {
                link.block == row.last_block && link.incarnation == life.incarnation
            });
            if !is_there && !report.has(0, row.last_position) {
                let detail = format!(
                    "the database says that heads were published up to {}, and its chain ends before",
                    row.last_position
                );
                report.fault(FaultKind::Cut, from, row.last_position, detail);
            }
        }
        if rows.len() > 1 && !has_files(&row.server) {
            continue;
        }
        missing = widest(missing, spans.lacking(row, life.last_block));
    }
    let Some((first, last)) = missing else { return Ok(()) };
    let mut cursor = Cursor::new(store);
    let from = match first.checked_sub(1).filter(|block| *block > 0) {
        Some(block) => cursor.link(block).await?.map_or(0, |link| link.last) + 1,
        None => 1,
    };
    let to = cursor.link(last).await?.map_or(from, |link| link.last);
    if is_accepted(path, life.incarnation, from, to) {
        return Ok(());
    }
    let detail = format!(
        "heads of the blocks {first} to {last} were published, and are gone: that the log was changed \
         there could not be seen"
    );
    report.note_gone(life.incarnation, from, to);
    report.fault(FaultKind::NoHeads, from, to, detail);
    Ok(())
}

/// Warns of a life whose heads begin behind its first block. Each block is published where its server
/// publishes, so those before were elsewhere, or are gone, whoever went on here and whatever the database
/// remembers.
pub(super) async fn check_start(
    store: &Store,
    dir: &HeadsDir,
    spans: &Spans,
    index: usize,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let life = &report.lives[index];
    let Some(first) = spans.first().filter(|first| *first > life.first_block) else {
        return Ok(());
    };
    if report.faults.iter().any(|fault| fault.kind == FaultKind::NoHeads) {
        return Ok(());
    }
    let before = store.links(first - 2, 1).await?;
    let to = before.first().map_or(life.first_position, |link| link.last);
    report.warnings.push(format!(
        "no head of the events {} to {to} is in {}: they were published elsewhere, or they are gone, and \
         then that the log was cut off there before it went on could not be seen",
        life.first_position,
        dir.path().display()
    ));
    Ok(())
}

/// Whether somebody with the key has said that heads of a life are gone.
///
/// Statements of older programs do not note of which: they count for the lives that they knew of.
fn is_accepted(path: &Path, incarnation: Uuid, from: Position, to: Position) -> bool {
    let statements: Vec<&Life> = path.statements().collect();
    let is_named =
        |gone: &Gone| gone.incarnation == incarnation && gone.from <= from && to <= gone.to;
    let covers = |fault: &super::Fault| {
        fault.kind == FaultKind::NoHeads && fault.position <= from && to <= fault.to
    };
    let is_known = |life: &&Life| {
        life.from == incarnation || life.left.iter().any(|left| left.incarnation == incarnation)
    };
    statements.iter().enumerate().any(|(place, life)| {
        let Some(proof) = life.proof.as_ref().filter(|_| life.incarnation != incarnation) else {
            return false;
        };
        match proof.gone.is_empty() {
            false => proof.gone.iter().any(is_named),
            true => proof.accepted.iter().any(covers) && statements[place..].iter().any(is_known),
        }
    })
}

/// Each statement names how far every life had been published when it was signed.
pub(super) fn check_left(path: &Path, newest: &HashMap<Uuid, Position>, report: &mut VerifyReport) {
    for left in path.statements().filter(|life| life.proof.is_some()).flat_map(|life| &life.left) {
        let found = newest.get(&left.incarnation).copied().unwrap_or(0);
        let (from, to) = (found + 1, left.position);
        if found >= to || is_accepted(path, left.incarnation, from, to) {
            continue;
        }
        // What another life lacks tells nothing of this one.
        let is_told = |gone: &Gone| {
            gone.incarnation == left.incarnation && (gone.from..=gone.to).contains(&to)
        };
        let is_told = report.gone.iter().any(is_told);
        report.note_gone(left.incarnation, from, to);
        if !is_told {
            let detail = format!(
                "heads of the life {} were published up to {to} when the log was restored, and are \
                 gone behind {found}",
                left.incarnation
            );
            report.fault(FaultKind::NoHeads, from, to, detail);
        }
    }
}

/// A life that a restore gave up has ended: one that went on afterwards is what the log was, and the
/// statement, which may have been left by a restore that was broken off, hides its end.
pub(super) fn check_given_up(path: &Path, ends: &HashMap<Uuid, Head>, report: &mut VerifyReport) {
    for life in path.statements().filter(|life| life.proof.is_some()) {
        let left = life.left.iter().map(|left| (left.incarnation, left.position));
        let given_up: BTreeMap<Uuid, Position> =
            [(life.from, life.kept())].into_iter().chain(left).collect();
        for (incarnation, to) in given_up {
            let went_on = |end: &&Head| end.position > to && end.sealed_at > life.began_at;
            let Some(end) = ends.get(&incarnation).filter(went_on) else { continue };
            let detail = format!(
                "the life {incarnation} was given up at {to} for the one that is here, and its heads \
                 went on to {} after that was signed",
                end.position
            );
            report.fault(FaultKind::UnknownLife, to + 1, end.position, detail);
        }
    }
}

/// A log of which nothing was ever sealed or published does not take the place of one that was.
pub(super) fn check_origin(
    path: &Path,
    newest: &HashMap<Uuid, Position>,
    report: &mut VerifyReport,
) {
    let is_older = path.statements().any(|life| life.proof.is_none());
    let is_restored = path.statements().next().is_some();
    let is_known = path.lives().any(|life| newest.get(&life).is_some_and(|to| *to > 0));
    if report.blocks > 0 || is_older || !is_restored || is_known {
        return;
    }
    let Some((incarnation, to)) =
        newest.iter().filter(|(_, to)| **to > 0).max_by_key(|(_, to)| **to)
    else {
        return;
    };
    let detail = format!(
        "nothing of this log was ever sealed or published, and it stands in the place of the life \
         {incarnation}, whose heads were published up to {to}"
    );
    report.fault(FaultKind::UnknownLife, 1, *to, detail);
}

/// A log that was never published, or never even sealed. One `at_rest` was put back from elsewhere:
/// its own last event tells how old the first one was.
pub(super) async fn check_none(
    store: &Store,
    dir: &HeadsDir,
    at_rest: bool,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let mut old = now_micros() - YOUNG;
    let current = report.lives.last().cloned();
    if let Some(life) = current
        && life.published_to == 0
        && life.last_block >= life.first_block
        && life.first_block > 0
    {
        let first = store.seals(life.first_block - 1, 1).await?;
        if first.first().is_some_and(|seal| seal.sealed_at < old)
            && !report.faults.iter().any(|fault| fault.kind == FaultKind::NoHeads)
        {
            let detail = format!(
                "no head of this log was published in {}: that its end was cut off could not be seen",
                dir.path().display()
            );
            let after = report.sealed_to + 1;
            report.note_gone(life.incarnation, after, after);
            report.fault(FaultKind::NoHeads, after, after, detail);
        }
    }
    if report.blocks == 0 && report.first_break.is_none() {
        let (first, head) = (store.feed(0, 1).await?, store.head().await?);
        if at_rest {
            let last = store.feed(head.saturating_sub(1), 1).await?;
            old = last.first().map_or(0, |event| event.recorded_at) - SETTLED;
        }
        if let Some(event) = first.first().filter(|event| event.recorded_at < old) {
            let detail = "there are events, and nothing was ever sealed: a server that runs seals \
                 them within a second, so that sealing fails, or the seals were removed";
            report.fault(FaultKind::Unsealed, event.position, head, detail);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_grow_together_and_tell_what_is_missing() {
        let mut spans = Spans::default();
        for block in [3, 1, 2, 7, 6, 2, 9] {
            spans.add(block);
        }
        assert_eq!(spans.0, BTreeMap::from([(1, 3), (6, 7), (9, 9)]));
        assert_eq!(spans.missing(1, 3), None);
        assert_eq!(spans.missing(2, 6), Some((4, 5)));
        assert_eq!(spans.missing(1, 8), Some((4, 8)));
        assert_eq!(spans.missing(10, 12), Some((10, 12)));
        assert_eq!(spans.missing(4, 9), Some((4, 8)));
    }
}

//! The published heads held against the chain: what the database alone cannot tell.

use std::collections::HashMap;
use std::path::PathBuf;

use uuid::Uuid;

use super::complete::{self, Spans};
use super::left::Missing;
use super::lives::{Kept, Path};
use super::report::{FaultKind, LifeReport, VerifyReport};
use crate::append::Position;
use crate::error::Error;
use crate::heads::{Head, HeadsDir, Survey, lines};
use crate::hex;
use crate::seal::Link;
use crate::signed::{Signed, Trusted};
use crate::store::Store;
use crate::task::blocking;

/// What an honest operator may have done.
const OLDER: &str =
    "a key file that is older than the heads gives the same: add the lines of the newest one";

/// Heads and links read at once.
const PAGE: usize = 1_000;

/// Compares all heads of all lives; returns the newest block of the present one that was published.
pub(super) async fn check(
    store: &Store,
    trusted: &Trusted,
    dir: &HeadsDir,
    path: &Path,
    at_rest: bool,
    report: &mut VerifyReport,
) -> Result<Option<u64>, Error> {
    let rows = store.published().await?;
    let listing = dir.clone();
    let published = blocking(move || listing.incarnations()).await?;
    // Lives that led here, and of which this log's chain has nothing.
    for incarnation in path.lives() {
        let is_shown = report.lives.iter().any(|life| life.incarnation == incarnation);
        if !is_shown && published.contains(&incarnation) {
            let life = LifeReport { restored: true, ..LifeReport::new(incarnation) };
            report.lives.insert(0, life);
        }
    }
    let mut newest: HashMap<Uuid, Position> = HashMap::new();
    let mut ends: HashMap<Uuid, Head> = HashMap::new();
    let mut found = None;
    for index in 0..report.lives.len() {
        let life = report.lives[index].clone();
        let is_last = index + 1 == report.lives.len();
        let by_chain = Kept { to: life.last_position, block: life.last_block, proven: true };
        // A life that nothing explains was told with the lives.
        let is_told = !is_last && path.index(life.incarnation).is_none();
        let kept = path.kept(life.incarnation).or_else(|| is_told.then_some(by_chain));
        let (listing, incarnation) = (dir.clone(), life.incarnation);
        let files = blocking(move || listing.files(incarnation)).await?;
        let mut seen = Seen {
            kept,
            index,
            same: 0,
            last: None,
            spans: Spans::default(),
            missing: Missing::default(),
            end: None,
        };
        for file in &files {
            check_file(store, trusted, file.clone(), &mut seen, report).await?;
        }
        let Seen { spans, missing, end, last, .. } = seen;
        if incarnation == report.incarnation {
            found = last;
        }
        ends.extend(end.map(|end| (incarnation, end)));
        if let Some(kept) = kept {
            missing.settle(store, kept, report).await?;
            let life = &mut report.lives[index];
            life.left_behind = life.published_to.saturating_sub(kept.to);
        }
        newest.insert(incarnation, report.lives[index].published_to);
        complete::check(store, &rows, &files, &spans, path, index, report).await?;
        // Of the lives before, a statement says what they were; of this one's, it is about to.
        if index + 1 + usize::from(at_rest) >= report.lives.len() {
            complete::check_start(store, dir, &spans, index, report).await?;
        }
    }
    for incarnation in published {
        if newest.contains_key(&incarnation) {
            continue;
        }
        let (listing, keys) = (dir.clone(), trusted.clone());
        let survey = blocking(move || listing.survey(incarnation, &keys)).await?;
        if let Some(head) = &survey.newest {
            newest.insert(incarnation, head.statement.position);
            ends.insert(incarnation, head.statement.clone());
        }
        note_foreign(path, incarnation, &survey, report);
    }
    complete::check_left(path, &newest, report);
    complete::check_given_up(path, &ends, report);
    complete::check_origin(path, &newest, report);
    complete::check_none(store, dir, at_rest, report).await?;
    let present = report.incarnation;
    let noted = rows.iter().filter(|row| row.incarnation == present).map(|row| row.last_block);
    // The database notes them now and then: those that are here tell more.
    Ok(noted.chain(ends.get(&present).map(|end| end.block)).chain(found).max())
}

/// A life that this log holds nothing of, and that did not lead here.
fn note_foreign(path: &Path, incarnation: Uuid, survey: &Survey, report: &mut VerifyReport) {
    // Heads of another installation may lie here, too.
    if let Some(file) = &survey.unreadable
        && (survey.newest.is_some() || !survey.readable)
    {
        let detail = format!("{} holds a line that is no head", file.display());
        let after = report.sealed_to + 1;
        report.fault(FaultKind::ForgedHead, after, after, detail);
    }
    let Some(head) = &survey.newest else { return };
    let to = head.statement.position;
    if path.left(incarnation).is_some() {
        let life = LifeReport {
            published_to: to,
            left_behind: to,
            restored: true,
            ..LifeReport::new(incarnation)
        };
        report.lives.insert(0, life);
    } else {
        let detail = format!(
            "heads of another life, {incarnation}, were published up to {to}: the log that they are \
             of was put away, and no signed restore says so"
        );
        report.fault(FaultKind::UnknownLife, 1, to, detail);
    }
}

/// Where a file's heads and the chain stand in step.
pub(super) struct Cursor<'a> {
    store: &'a Store,
    links: Vec<Link>,
    next: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(store: &'a Store) -> Self {
        Self { store, links: Vec::new(), next: 0 }
    }

    /// The chain's block of this number; it is asked for in order.
    pub async fn link(&mut self, block: u64) -> Result<Option<&Link>, Error> {
        loop {
            while self.links.get(self.next).is_some_and(|link| link.block < block) {
                self.next += 1;
            }
            if self.next < self.links.len() {
                break;
            }
            // Read after the head was: a chain that goes on meanwhile has its block by now.
            self.links = self.store.links(block.saturating_sub(1), PAGE).await?;
            self.next = 0;
            if self.links.is_empty() {
                break;
            }
        }
        Ok(self.links.get(self.next).filter(|link| link.block == block))
    }
}

/// What is known of the life whose heads are being read.
struct Seen {
    /// How much of it is in this log; `None` for all.
    kept: Option<Kept>,
    /// Its place in the report.
    index: usize,
    /// The newest published position that is in the chain.
    same: Position,
    /// The newest block of those.
    last: Option<u64>,
    /// The blocks whose heads were found.
    spans: Spans,
    missing: Missing,
    /// The newest head that the chain does not have.
    end: Option<Head>,
}

async fn check_file(
    store: &Store,
    trusted: &Trusted,
    file: PathBuf,
    seen: &mut Seen,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let name = file.display().to_string();
    let mut rest = blocking(move || lines(&file)).await?;
    let mut cursor = Cursor::new(store);
    let mut broken = false;
    let mut unreadable = false;
    let mut newest: Option<Signed<Head>> = None;
    loop {
        let (page, more) = blocking(move || {
            let page: Vec<_> = rest.by_ref().take(PAGE).collect::<Result<_, _>>()?;
            Ok((page, rest))
        })
        .await?;
        rest = more;
        if page.is_empty() {
            break;
        }
        for head in page {
            report.heads += 1;
            let ours = report.lives[seen.index].incarnation;
            let head = head.filter(|head| head.statement.incarnation == ours);
            let Some(head) = head else {
                // One for each file: whoever adds lines must not push the other breaks out.
                if !std::mem::replace(&mut unreadable, true) {
                    let detail = format!("{name} holds a line that is no head of this life");
                    report.fault(FaultKind::ForgedHead, seen.same + 1, seen.same + 1, detail);
                }
                continue;
            };
            let stated = &head.statement;
            let link = cursor.link(stated.block).await?;
            let is_same = link.is_some_and(|link| {
                hex(&link.hash) == stated.hash
                    && link.incarnation == stated.incarnation
                    && link.last == stated.position
            });
            let there = link.is_some();
            if is_same {
                seen.same = stated.position.max(seen.same);
                seen.spans.add(stated.block);
                seen.last = seen.last.max(Some(stated.block));
                let life = &mut report.lives[seen.index];
                life.published_to = life.published_to.max(stated.position);
                if newest.as_ref().is_none_or(|known| known.statement.block <= stated.block) {
                    newest = Some(head);
                }
            } else if !head.is_trusted(trusted) {
                let detail = format!("{name} holds a head that no trusted key signed; {OLDER}");
                let from = (seen.same + 1).min(stated.position);
                report.fault(FaultKind::ForgedHead, from, stated.position, detail);
            } else if seen.is_too_late(&head, there, trusted, report) {
                let detail = format!("{name} holds a head of a key that was destroyed before it");
                let from = (seen.same + 1).min(stated.position);
                report.fault(FaultKind::ForgedHead, from, stated.position, detail);
            } else {
                broken |= seen.note(stated, there, !broken, report);
            }
        }
    }
    // Signatures take long, and what the chain has is signed there: the last one speaks for its file. Of a
    // block whose key is not known, that was told with the chain.
    if let Some(head) = newest.filter(|head| !head.is_trusted(trusted)) {
        let position = head.statement.position;
        let is_told = |fault: &super::Fault| {
            fault.kind == FaultKind::UnknownKey && (fault.position..=fault.to).contains(&position)
        };
        if !report.faults.iter().any(is_told) {
            let detail = format!("{name} ends with a head that no trusted key signed; {OLDER}");
            report.fault(FaultKind::ForgedHead, position, position, detail);
        }
    }
    Ok(())
}

impl Seen {
    /// Whether a head that the chain does not have is of a key that could sign no such one any more:
    /// behind its destruction, or for a block that the chain has not come to, though it has come there.
    fn is_too_late(
        &self,
        head: &Signed<Head>,
        there: bool,
        trusted: &Trusted,
        report: &VerifyReport,
    ) -> bool {
        let position = head.statement.position;
        let is_of_this_log = self.kept.is_none_or(|kept| position <= kept.to);
        trusted.destroyed(&head.key_id).flatten().is_some_and(|at| {
            is_of_this_log && (position >= at || (!there && report.sealed_to >= at))
        })
    }

    /// A trusted head that is not in the chain; whether it is a break. `there`: whether the chain has
    /// another block of its number. Those behind the first one of a file, `is_new`, say nothing new.
    fn note(&mut self, head: &Head, there: bool, is_new: bool, report: &mut VerifyReport) -> bool {
        let Head { block, position, .. } = *head;
        if self.end.as_ref().is_none_or(|end| end.block < block) {
            self.end = Some(head.clone());
        }
        let ours = &mut report.lives[self.index];
        ours.published_to = ours.published_to.max(position);
        if let Some(kept) = self.kept
            && block > ours.last_block
        {
            // Behind the end that is kept, or to be found among the events.
            if position <= kept.to {
                self.missing.note(head);
            }
            return false;
        }
        if is_new {
            let from = (self.same + 1).min(position);
            if there {
                let detail = format!(
                    "a head of block {block} was published, and the chain has another one there"
                );
                report.fault(FaultKind::Rewritten, from, position, detail);
            } else {
                let detail = format!(
                    "a head at {position} was published, and the log's chain ends before it: its tail \
                     was cut off, or an old backup put back"
                );
                let from = (report.sealed_to + 1).max(from);
                report.fault(FaultKind::Cut, from, position, detail);
            }
        }
        true
    }
}

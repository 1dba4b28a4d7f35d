//! How the lives of a log hang together: each after the first has to be explained by a signed restore,
//! and the log has to be the one that the restore was signed for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::report::{FaultKind, LifeReport, VerifyReport};
use super::trust::Said;
use crate::append::Position;
use crate::error::Error;
use crate::heads::Life;
use crate::hex;
use crate::store::Store;

/// The lives that led to this one, newest first, each with the statement that it began with.
pub(super) struct Path {
    steps: Vec<(Uuid, Option<Said>)>,
}

/// How much of an older life is in this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    /// Its last event that is.
    pub to: Position,
    /// Its last block that was.
    pub block: u64,
    /// Whether the statement proves the events behind that block, too.
    pub proven: bool,
}

impl Path {
    /// Walks back from a life to the first one.
    pub fn walk(known: &[Said], from: Uuid) -> Self {
        let (mut steps, mut seen, mut next) = (Vec::new(), HashSet::new(), Some(from));
        while let Some(incarnation) = next.filter(|life| seen.insert(*life)) {
            let said = known.iter().filter(|said| said.life.incarnation == incarnation);
            // The first that was said of it: a later one would change what it began with.
            let first = |said: &&Said| (said.life.proof.is_some(), Reverse(said.life.began_at));
            let statement = said.max_by_key(first).cloned();
            next = statement.as_ref().map(|said| said.life.from);
            steps.push((incarnation, statement));
        }
        Self { steps }
    }

    /// The lives, newest first.
    pub fn lives(&self) -> impl DoubleEndedIterator<Item = Uuid> {
        self.steps.iter().map(|(incarnation, _)| *incarnation)
    }

    /// The statements, newest first.
    pub fn statements(&self) -> impl Iterator<Item = &Life> {
        self.steps.iter().filter_map(|(_, said)| said.as_ref()).map(|said| &said.life)
    }

    /// Those of them that may leave something behind.
    fn leaving(steps: &[(Uuid, Option<Said>)]) -> impl Iterator<Item = &Life> {
        let said = steps.iter().filter_map(|(_, said)| said.as_ref());
        said.filter(|said| said.is_published).map(|said| &said.life)
    }

    /// Where a life stands, 0 for the newest one.
    pub fn index(&self, incarnation: Uuid) -> Option<usize> {
        self.steps.iter().position(|(life, _)| *life == incarnation)
    }

    /// How much of a life is in this log; `None` for all of it, and for lives that did not lead here.
    pub fn kept(&self, incarnation: Uuid) -> Option<Kept> {
        let later = self.steps.get(..self.index(incarnation)?)?;
        Self::leaving(later).fold(None, |kept: Option<Kept>, life| {
            let this = Kept { to: life.kept(), block: life.block, proven: life.proof.is_some() };
            let Some(kept) = kept else { return Some(this) };
            Some(Kept {
                to: this.to.min(kept.to),
                block: this.block.min(kept.block),
                proven: this.proven && kept.proven,
            })
        })
    }

    /// Whether a restore on the way here gave a life up.
    pub fn left(&self, incarnation: Uuid) -> Option<&Life> {
        let gave_up = |life: &&Life| life.left.iter().any(|left| left.incarnation == incarnation);
        Self::leaving(&self.steps).find(gave_up)
    }
}

/// Holds the lives of the chain against the way that the statements tell; what none explains is a
/// fault.
pub(super) fn explain(path: &Path, report: &mut VerifyReport) {
    // A restored log whose new life has sealed nothing yet.
    if report.lives.last().is_none_or(|life| life.incarnation != report.incarnation) {
        let (block, hash) = report
            .lives
            .last()
            .map(|life| (life.last_block, life.last_hash.clone()))
            .unwrap_or_default();
        let life = LifeReport::new(report.incarnation);
        report.lives.push(LifeReport {
            first_block: block + 1,
            last_block: block,
            last_hash: hash,
            ..life
        });
    }
    for index in 0..report.lives.len() {
        let life = report.lives[index].clone();
        let place = path.index(life.incarnation);
        let statement = place.and_then(|place| path.steps[place].1.as_ref()).map(|said| &said.life);
        report.lives[index].note = statement.map(note);
        let before = index.checked_sub(1).and_then(|before| report.lives.get(before).cloned());
        let led_here = match (&before, place) {
            (None, _) => true,
            (Some(before), Some(place)) => {
                statement.is_some()
                    && path.index(before.incarnation).is_some_and(|earlier| earlier > place)
            }
            (Some(_), None) => false,
        };
        let end = before.as_ref().map_or(0, |life| life.last_position);
        if !led_here {
            let detail = format!(
                "a life of the log, {}, begins here and no signed restore explains it: if it was \
                 restored on purpose, say so with `proximity audit restored`",
                life.incarnation
            );
            report.fault(FaultKind::UnknownLife, end + 1, end + 1, detail);
            continue;
        }
        if let Some(index) = index.checked_sub(1) {
            report.lives[index].restored = true;
        }
        let Some(statement) = statement else { continue };
        let ended = life.first_block.saturating_sub(1);
        let other = before.as_ref().is_some_and(|life| life.last_hash != statement.hash);
        if ended != statement.block || (ended > 0 && other) {
            let detail = format!(
                "a restore was signed for a log that ended with block {}, this one ended with \
                 {ended}",
                statement.block
            );
            let from = before.map_or(1, |life| life.first_position.max(1));
            report.fault(FaultKind::Rewritten, from, end.max(from), detail);
        }
    }
}

fn note(life: &Life) -> String {
    let older = match life.proof {
        Some(_) => "",
        None => {
            "; the statement is of an older form, which proves what was sealed then, and not what \
             was not"
        }
    };
    format!("restored: {}{older}", life.note)
}

/// Holds the log against what each statement says of it.
pub(super) async fn hold(
    store: &Store,
    path: &Path,
    digests: &BTreeMap<Position, String>,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let mut least = u64::MAX;
    for life in path.statements() {
        // What a later restore has left behind again is not here.
        let is_here = life.block <= least;
        least = least.min(life.block);
        let mut proven = 0;
        if is_here && life.block > 0 {
            let link = store.links(life.block - 1, 1).await?.into_iter().next();
            match link.filter(|link| link.block == life.block) {
                Some(link) if hex(&link.hash) == life.hash => proven = link.last,
                Some(link) => {
                    if !report.has(0, link.last) {
                        let detail = format!(
                            "block {} is not the one with which the log was restored",
                            life.block
                        );
                        report.fault(FaultKind::Rewritten, 1, link.last, detail);
                    }
                }
                None => {
                    let from = report.sealed_to + 1;
                    let detail = format!(
                        "the log was restored with {} blocks, and its chain ends before",
                        life.block
                    );
                    report.fault(FaultKind::Cut, from, life.kept().max(from), detail);
                }
            }
        }
        let Some(proof) = &life.proof else { continue };
        let same = digests.get(&life.position).is_some_and(|found| *found == proof.digest);
        let (from, to) = ((proven + 1).min(life.position), life.position);
        if !same && !report.has(0, to) {
            let detail = format!(
                "the events up to {to} are not those with which the log was restored: {}",
                life.note
            );
            report.fault(FaultKind::Changed, from, to, detail);
        }
        for accepted in &proof.accepted {
            let known = |fault: &super::Fault| {
                fault.kind == accepted.kind && fault.position == accepted.position
            };
            // Heads that are gone are made up for by the statement; nothing else is.
            if accepted.kind != FaultKind::NoHeads && !report.faults.iter().any(known) {
                let detail =
                    format!("accepted with a restore ({}): {}", life.note, accepted.detail);
                report.fault(accepted.kind, accepted.position, accepted.to, detail);
            }
        }
    }
    Ok(())
}

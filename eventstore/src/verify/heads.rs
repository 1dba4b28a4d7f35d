//! The published heads held against the chain: what the database alone cannot tell.

use std::path::PathBuf;

use uuid::Uuid;

use super::lives;
use super::report::{FaultKind, VerifyReport};
use crate::append::Position;
use crate::error::Error;
use crate::heads::{Head, HeadsDir, Life, lines};
use crate::hex;
use crate::seal::Link;
use crate::sealer::now_micros;
use crate::signed::{Signed, Trusted};
use crate::store::Store;
use crate::task::blocking;

/// Heads and links read at once.
const PAGE: usize = 1_000;
/// A chain this young may not have been published yet, in microseconds.
const YOUNG: i64 = 5_000_000;

/// Compares all heads of all lives.
pub(super) async fn check(
    store: &Store,
    trusted: &Trusted,
    dir: HeadsDir,
    known: &[Signed<Life>],
    report: &mut VerifyReport,
) -> Result<(), Error> {
    lives::explain(known, report);
    let listing = dir.clone();
    let published = blocking(move || listing.incarnations()).await?;
    for incarnation in published {
        let listing = dir.clone();
        let files = blocking(move || listing.files(incarnation)).await?;
        let ours = report.lives.iter().position(|life| life.incarnation == incarnation);
        match ours {
            Some(index) => {
                let mut same = 0;
                for file in files {
                    check_file(store, trusted, file, index, &mut same, report).await?;
                }
            }
            None => {
                let (listing, latest) = (dir.clone(), trusted.clone());
                let newest = blocking(move || listing.latest(incarnation)).await?;
                let newest = newest.filter(|head| head.is_trusted(&latest));
                note_foreign(known, incarnation, newest, report);
            }
        }
    }
    if report.heads == 0 && report.blocks > 0 {
        let first = store.seals(0, 1).await?;
        if first.first().is_some_and(|seal| seal.sealed_at < now_micros() - YOUNG) {
            let detail = format!(
                "no head of this log was published in {}: that its end was cut off could not be seen",
                dir.path().display()
            );
            let after = report.sealed_to + 1;
            report.fault(FaultKind::NoHeads, after, after, detail);
        }
    }
    Ok(())
}

/// A life that this log holds nothing of.
fn note_foreign(
    known: &[Signed<Life>],
    incarnation: Uuid,
    newest: Option<Signed<Head>>,
    report: &mut VerifyReport,
) {
    let Some(head) = newest else { return };
    let to = head.statement.position;
    if lives::was_left(known, report, incarnation) {
        report.lives.insert(
            0,
            super::LifeReport {
                incarnation,
                first_position: 0,
                last_position: 0,
                published_to: to,
                left_behind: 0,
                restored: true,
                last_block: 0,
                last_hash: String::new(),
            },
        );
    } else {
        let detail = format!(
            "heads of another life, {incarnation}, were published up to {to}: the log that they are \
             of was put away, and no signed restore says so"
        );
        report.fault(FaultKind::UnknownLife, 1, to, detail);
    }
}

/// Where a file's heads and the chain stand in step.
struct Cursor<'a> {
    store: &'a Store,
    links: Vec<Link>,
    next: usize,
}

impl Cursor<'_> {
    /// The chain's block of this number.
    async fn link(&mut self, block: u64) -> Result<Option<&Link>, Error> {
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

async fn check_file(
    store: &Store,
    trusted: &Trusted,
    file: PathBuf,
    life: usize,
    same: &mut Position,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let name = file.display().to_string();
    let mut rest = blocking(move || lines(&file)).await?;
    let mut cursor = Cursor { store, links: Vec::new(), next: 0 };
    let mut broken = false;
    loop {
        let (page, more) = blocking(move || {
            let page: Vec<_> = rest.by_ref().take(PAGE).collect::<Result<_, _>>()?;
            Ok((page, rest))
        })
        .await?;
        rest = more;
        if page.is_empty() {
            return Ok(());
        }
        for head in page {
            report.heads += 1;
            let ours = report.lives[life].incarnation;
            let head = head.filter(|head| head.statement.incarnation == ours);
            let Some(head) = head else {
                let detail = format!("{name} holds a line that is no head of this life");
                report.fault(FaultKind::ForgedHead, *same + 1, *same + 1, detail);
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
                *same = stated.position.max(*same);
                let life = &mut report.lives[life];
                life.published_to = life.published_to.max(stated.position);
            } else if !head.is_trusted(trusted) {
                let detail = format!("{name} holds a head that no trusted key signed");
                let from = (*same + 1).min(stated.position);
                report.fault(FaultKind::ForgedHead, from, stated.position, detail);
            } else {
                let seen = Seen { head: stated, same: *same, there, is_new: !broken };
                broken |= seen.note(life, report);
            }
        }
    }
}

/// A trusted head that is not in the chain.
struct Seen<'a> {
    head: &'a Head,
    /// The newest published position that is.
    same: Position,
    /// Whether the chain has another block of its number.
    there: bool,
    /// Whether it is the first one of its file; those behind it say nothing new.
    is_new: bool,
}

impl Seen<'_> {
    /// Whether it is a break.
    fn note(self, life: usize, report: &mut VerifyReport) -> bool {
        let Head { block, position, .. } = *self.head;
        let newest = life + 1 == report.lives.len();
        let ours = &mut report.lives[life];
        ours.published_to = ours.published_to.max(position);
        let beyond = block > ours.last_block;
        if beyond && !newest {
            // Whether the restore behind it is a signed one was judged with the lives.
            ours.left_behind = ours.left_behind.max(position.saturating_sub(ours.last_position));
            return false;
        }
        if self.is_new {
            let from = (self.same + 1).min(position);
            if self.there {
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

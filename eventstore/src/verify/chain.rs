//! The log held against the chain, block by block, the next page on its way meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::report::{Fault, FaultKind, LifeReport, VerifyReport};
use super::tail::Tail;
use crate::append::Position;
use crate::error::Error;
use crate::hex;
use crate::seal::{Digest, Leaf, Seal, Sealable};
use crate::signed::Trusted;
use crate::store::Store;

/// Blocks read at once.
const BLOCKS: usize = 16;
/// Events read at once.
const EVENTS: usize = 5_000;

/// What is asked of the log beside whether it is as it was sealed.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Positions up to which the digest of the log is wanted.
    pub digests: BTreeSet<Position>,
    /// The last event that each restored life keeps of the one before.
    pub began: HashMap<Uuid, Position>,
}

/// Compares all sealed events and blocks, looks whether those behind them can be sealed, and notes the
/// lives that the chain went through.
///
/// The digests are of the events as they were sealed, and as they are where nothing covers them.
pub(super) async fn check(
    store: &Store,
    trusted: &Trusted,
    wanted: &Wanted,
    report: &mut VerifyReport,
    progress: impl Fn(u64),
) -> Result<BTreeMap<Position, String>, Error> {
    let strays = store.strays().await?;
    if strays > 0 {
        let detail = format!("{strays} events stand before the first position");
        report.fault(FaultKind::Duplicated, 0, 0, detail);
    }
    let mut events = Events::new(store);
    let (mut digest, mut digests) = (Digest::new(), BTreeMap::new());
    let mut previous: Option<Seal> = None;
    // The first two events that are not as sealed, with their leaves.
    let mut wrong: Vec<(Position, Leaf)> = Vec::new();
    loop {
        let page = store.seals(previous.as_ref().map_or(0, |seal| seal.block), BLOCKS).await?;
        if page.is_empty() {
            break;
        }
        for seal in page {
            let follows = check_block(trusted, wanted, previous.as_ref(), &seal, report);
            let start =
                if follows { seal.first } else { previous.as_ref().map_or(1, |p| p.last + 1) };
            // One that does not follow says whatever it likes of where it ends.
            let mut reached = if follows { seal.last } else { report.sealed_to };
            for (position, leaf) in (seal.first..).zip(seal.leaves.as_chunks::<32>().0) {
                if position < start {
                    continue;
                }
                reached = reached.max(position);
                report.events += 1;
                digest.take(position, leaf);
                if wanted.digests.contains(&position) {
                    digests.insert(position, digest.now());
                }
                check_event(&mut events, position, leaf, &mut wrong, report).await?;
            }
            note_life(&seal, report);
            report.blocks += 1;
            report.sealed_to = reached;
            previous = Some(seal);
        }
        progress(report.events);
    }
    // A second event at the last sealed position.
    check_extra(&mut events, report.sealed_to + 1, report).await?;
    name_first(store, &wrong, report).await?;
    // To here: a log that grows as it is read has no end.
    let head = store.head().await?;
    let mut tail = Tail::behind(report.sealed_to);
    while let Some(event) = events.peek().await?.filter(|event| event.position <= head).cloned() {
        events.next();
        if let Some(Fault { kind, position, to, detail }) = tail.take(&event) {
            report.fault(kind, position, to, detail);
        }
        if let Some(leaf) = &event.leaf {
            digest.take(event.position, leaf);
        }
        if digest.to == event.position && wanted.digests.contains(&event.position) {
            digests.insert(event.position, digest.now());
        }
    }
    if wanted.digests.contains(&0) {
        digests.insert(0, Digest::new().now());
    }
    // One that was reached through a gap, or not at all, is of no use.
    digests.retain(|position, _| *position <= digest.to);
    Ok(digests)
}

fn check_block(
    trusted: &Trusted,
    wanted: &Wanted,
    previous: Option<&Seal>,
    seal: &Seal,
    report: &mut VerifyReport,
) -> bool {
    let expected = previous.map_or(1, |seal| seal.last + 1);
    let follows = seal.block == previous.map_or(0, |p| p.block) + 1
        && seal.first == expected
        && seal.last >= seal.first
        && seal.leaves.len() as u64 == (seal.last - seal.first + 1).saturating_mul(32);
    let number = seal.block;
    if !follows {
        let detail = format!("block {number} of the chain does not follow the one before it");
        report.fault(FaultKind::BrokenBlock, expected.min(seal.first), seal.last, detail);
    } else if seal.expected_hash(previous.map(|p| p.hash.as_slice())) != seal.hash {
        let detail = format!("the hash of block {number} is not that of its content");
        report.fault(FaultKind::BrokenBlock, seal.first, seal.last, detail);
    }
    match trusted.key(&seal.key_id) {
        None => {
            let detail = format!("block {number} was signed by {}, a key not known", seal.key_id);
            report.fault(FaultKind::UnknownKey, expected.min(seal.first), seal.last, detail);
        }
        Some(key) if !seal.is_signed_by(key) => {
            let detail = format!("the signature of block {number} is not {}'s", seal.key_id);
            report.fault(FaultKind::BadSignature, expected.min(seal.first), seal.last, detail);
        }
        Some(_) => {
            // Whoever seals reads the log first: nobody signs for an event that ends the key. And
            // another life begins with servers that start anew, and with the keys that there are.
            let began = wanted.began.get(&seal.incarnation).copied().unwrap_or(0);
            let destroyed = trusted.destroyed(&seal.key_id).flatten();
            if destroyed.is_some_and(|at| at <= seal.last.max(began)) {
                let detail = format!(
                    "block {number} was signed by {}, which had been destroyed before",
                    seal.key_id
                );
                report.fault(FaultKind::BadSignature, seal.first, seal.last, detail);
            }
        }
    }
    follows
}

async fn check_event(
    events: &mut Events<'_>,
    position: Position,
    leaf: &Leaf,
    wrong: &mut Vec<(Position, Leaf)>,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    check_extra(events, position, report).await?;
    let found = match events.peek().await? {
        Some(event) if event.position == position => Some(event.leaf),
        Some(_) | None => None,
    };
    if found.is_some() {
        events.next();
    }
    if found == Some(Some(*leaf)) {
        return Ok(());
    }
    if wrong.len() < 2 {
        wrong.push((position, *leaf));
    }
    if found.is_some() {
        let detail = format!("event {position} is not the one that was sealed");
        report.fault(FaultKind::Changed, position, position, detail);
    } else {
        let detail = format!("event {position} was sealed and is gone");
        report.fault(FaultKind::Removed, position, position, detail);
    }
    Ok(())
}

/// Events before `position` that stand where others stood already.
async fn check_extra(
    events: &mut Events<'_>,
    position: Position,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    while let Some(extra) = events.peek().await?.map(|event| event.position) {
        if extra >= position {
            break;
        }
        events.next();
        let detail = format!("a second event stands at position {extra}");
        report.fault(FaultKind::Duplicated, extra, extra, detail);
    }
    Ok(())
}

/// Says more of the first event that is not as sealed: whether its bytes, or what stands in its place,
/// are found where others should be.
async fn name_first(
    store: &Store,
    wrong: &[(Position, Leaf)],
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let Some((position, leaf)) = wrong.first().copied() else { return Ok(()) };
    if store.leaf_at(position, position).await?.is_none() {
        return Ok(());
    }
    if let Some((second, its_leaf)) = wrong.get(1).copied() {
        let here = store.leaf_at(second, position).await? == Some(leaf);
        let there = store.leaf_at(position, second).await? == Some(its_leaf);
        if here && there {
            let detail = format!("events {position} and {second} stand in each other's place");
            report.rename(position, FaultKind::Swapped, &detail);
            return Ok(());
        }
        if there && second == position + 1 {
            let detail = format!("event {position} is gone, and those behind it were moved up");
            report.rename(position, FaultKind::Removed, &detail);
            return Ok(());
        }
    }
    if store.leaf_at(position + 1, position).await? == Some(leaf) {
        let detail = format!("an event was put in at {position}, and those behind it moved on");
        report.rename(position, FaultKind::Inserted, &detail);
    }
    Ok(())
}

fn note_life(seal: &Seal, report: &mut VerifyReport) {
    match report.lives.last_mut() {
        Some(life) if life.incarnation == seal.incarnation => {
            life.last_position = seal.last;
            life.last_block = seal.block;
            life.last_hash = hex(&seal.hash);
        }
        Some(_) | None => report.lives.push(LifeReport {
            first_position: seal.first,
            last_position: seal.last,
            first_block: seal.block,
            last_block: seal.block,
            last_hash: hex(&seal.hash),
            ..LifeReport::new(seal.incarnation)
        }),
    }
}

/// The log as leaves, a page ahead.
struct Events<'a> {
    store: &'a Store,
    page: std::iter::Peekable<std::vec::IntoIter<Sealable>>,
    ahead: Option<JoinHandle<Result<Vec<Sealable>, Error>>>,
    after: Position,
    ended: bool,
}

impl<'a> Events<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, page: Vec::new().into_iter().peekable(), ahead: None, after: 0, ended: false }
    }

    async fn peek(&mut self) -> Result<Option<&Sealable>, Error> {
        if self.page.peek().is_none() && !self.ended {
            let mut page = match self.ahead.take() {
                Some(reading) => reading.await.map_err(|_| Error::Closed)??,
                None => self.store.sealable(self.after, EVENTS).await?,
            };
            match page.last().map(|event| event.position) {
                None => self.ended = true,
                Some(last) if page.len() < EVENTS => self.after = last,
                Some(last) => {
                    // All that stand at one position are looked at together.
                    let whole = page.iter().take_while(|event| event.position < last).count();
                    if whole > 0 {
                        page.truncate(whole);
                    }
                    self.after = if whole > 0 { last - 1 } else { last };
                    let (store, after) = (self.store.clone(), self.after);
                    let read = async move { store.sealable(after, EVENTS).await };
                    self.ahead = Some(tokio::spawn(read));
                }
            }
            self.page = page.into_iter().peekable();
        }
        Ok(self.page.peek())
    }

    fn next(&mut self) {
        self.page.next();
    }
}

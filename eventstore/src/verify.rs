//! Compares the log with its sealed chain, and the chain with what was published.

use ed25519_dalek::VerifyingKey;

use crate::append::Position;
use crate::error::Error;
use crate::seal::{PublishedHead, Seal, key_id, leaf};
use crate::store::Store;

/// Blocks read at once.
const PAGE: usize = 64;

/// One thing that is not as it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealFault {
    /// The event at this position has other bytes.
    Changed { position: Position },
    /// No event stands at this sealed position.
    Missing { position: Position },
    /// The block does not follow the one before it, or its hash does not cover its leaves.
    Broken { block: u64 },
    /// The block was not signed by the key that it names.
    BadSignature { block: u64 },
    /// The block names a key that is not among the trusted ones.
    UnknownKey { block: u64, key_id: String },
    /// The chain ends before the published head: its tail was cut off.
    Truncated { published: u64, found: u64 },
    /// The chain has another block where the published head was: it was written anew.
    Rewritten { block: u64 },
}

/// What a verification saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealReport {
    pub blocks: u64,
    /// Sealed events that were compared.
    pub events: u64,
    /// Last sealed position; what stands behind it is not covered yet.
    pub sealed_to: Position,
    /// Empty when everything is as sealed.
    pub faults: Vec<SealFault>,
}

/// Reads the whole log and its chain.
///
/// `published` has to come from outside the database: nothing in it can tell that its tail was cut.
pub async fn verify(
    store: &Store,
    trusted: &[VerifyingKey],
    published: Option<&PublishedHead>,
) -> Result<SealReport, Error> {
    let mut report = SealReport::default();
    let mut previous: Option<Seal> = None;
    loop {
        let page = store.seals(previous.as_ref().map_or(0, |seal| seal.block), PAGE).await?;
        if page.is_empty() {
            break;
        }
        for seal in page {
            check_block(store, trusted, previous.as_ref(), &seal, &mut report);
            check_events(store, &seal, &mut report).await?;
            if let Some(head) = published
                && head.block == seal.block
                && head.hash != crate::hex(&seal.hash)
            {
                report.faults.push(SealFault::Rewritten { block: seal.block });
            }
            report.blocks += 1;
            report.sealed_to = seal.last;
            previous = Some(seal);
        }
    }
    let found = previous.map_or(0, |seal| seal.block);
    if let Some(head) = published
        && head.block > found
    {
        report.faults.push(SealFault::Truncated { published: head.block, found });
    }
    Ok(report)
}

fn check_block(
    store: &Store,
    trusted: &[VerifyingKey],
    previous: Option<&Seal>,
    seal: &Seal,
    report: &mut SealReport,
) {
    let follows = seal.block == previous.map_or(0, |p| p.block) + 1
        && seal.first == previous.map_or(0, |p| p.last) + 1
        && seal.last >= seal.first
        && seal.leaves.len() as u64 == (seal.last - seal.first + 1) * 32;
    let hash = seal.expected_hash(previous.map(|p| p.hash.as_slice()), store.incarnation());
    if !follows || hash != seal.hash {
        report.faults.push(SealFault::Broken { block: seal.block });
    }
    match trusted.iter().find(|key| key_id(key) == seal.key_id) {
        None => report
            .faults
            .push(SealFault::UnknownKey { block: seal.block, key_id: seal.key_id.clone() }),
        Some(key) if !seal.is_signed_by(key) => {
            report.faults.push(SealFault::BadSignature { block: seal.block });
        }
        Some(_) => {}
    }
}

async fn check_events(store: &Store, seal: &Seal, report: &mut SealReport) -> Result<(), Error> {
    let leaves = seal.leaves.as_chunks::<32>().0;
    let mut events =
        store.feed(seal.first.saturating_sub(1), leaves.len()).await?.into_iter().peekable();
    for (position, expected) in (seal.first..=seal.last).zip(leaves) {
        report.events += 1;
        // A malformed position before the one that is looked for stands for no sealed event.
        while events.next_if(|event| event.position < position).is_some() {}
        match events.next_if(|event| event.position == position) {
            None => report.faults.push(SealFault::Missing { position }),
            Some(event) if leaf(&event) != *expected => {
                report.faults.push(SealFault::Changed { position });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

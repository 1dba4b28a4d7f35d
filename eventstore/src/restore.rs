//! A restored backup is another life of the log, and says so where the heads are.

use ed25519_dalek::SigningKey;
use uuid::Uuid;

use crate::append::Position;
use crate::error::Error;
use crate::heads::{HeadsDir, Left, Life, Proof};
use crate::hex;
use crate::kept;
use crate::seal::Link;
use crate::sealer::now_micros;
use crate::signed::{Signed, Trusted};
use crate::store::Store;
use crate::task::blocking;
use crate::verify::{FaultKind, end, rehearse, statements};

/// Links read at once.
const PAGE: usize = 1_000;

/// How a restore is signed.
#[derive(Clone)]
pub struct Restore {
    pub key: SigningKey,
    /// The keys whose signatures count.
    pub trusted: Trusted,
    pub heads: HeadsDir,
    /// What was restored, and why.
    pub note: String,
    /// Where the log's new life began, when whoever restored it has stored that.
    pub began: Option<Began>,
    /// Sign for a log that is not as it was sealed; the statement says what was wrong, for ever.
    pub accept: bool,
}

/// How a new life began, by the log's own event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began {
    pub incarnation: Uuid,
    /// The life that the backup was taken in.
    pub from: Uuid,
    /// The last event of the backup.
    pub position: Position,
}

/// Signs that the log as it is now was restored on purpose, and gives it a new incarnation.
///
/// The log is verified first, as it would be with the statement: one that is not as it was sealed, or
/// lacks what the life before had published up to its end, is refused. A log that whoever restored it
/// gave a new incarnation already keeps that one, even when a server has sealed in it since. The
/// statement names the last event and block that are kept, the digest of the log up to there, and what
/// every life that is known had reached; its note also says what it cannot prove. The database keeps it,
/// too. No server may have the log open, and the store has to be opened anew afterwards.
pub async fn record_restore(store: &Store, restore: Restore) -> Result<Life, Error> {
    let current = store.incarnation();
    let (life, is_over) = sign(store, restore.clone()).await?;
    if life.incarnation == current && is_over {
        return Ok(sign(store, restore).await?.0);
    }
    Ok(life)
}

/// Signs for one life, and says whether no server can go on in it: it publishes nothing where heads of it are
/// gone, and seals nothing behind a block in it that is none of ours.
async fn sign(store: &Store, restore: Restore) -> Result<(Life, bool), Error> {
    let Restore { key, trusted, heads, note, began, accept } = restore;
    let current = store.incarnation();
    let kept = kept::statements(store).await?;
    let (dir, keys) = (heads.clone(), trusted.clone());
    let (all, said, _) = blocking(move || statements(&dir, kept, keys)).await?;
    let is_said = said.iter().any(|said| said.life.incarnation == current);
    let last = store.last_seal().await?;
    let renamed = last.as_ref().map(|seal| seal.incarnation).filter(|before| *before != current);
    let began = began.filter(|began| began.incarnation == current && !is_said);
    let (incarnation, from, position) = match (began, renamed) {
        (Some(began), _) => (current, began.from, began.position),
        (None, Some(before)) if !is_said => (current, before, store.head().await?),
        (None, Some(_) | None) => (Uuid::new_v4(), current, store.head().await?),
    };
    let kept_to = last_before(store, incarnation).await?;
    let is_flawed = last.is_some_and(|seal| seal.incarnation == incarnation)
        && matches!(end(store, Some(&all), &[]).await, Err(Error::NotOurs { .. }));
    let (dir, keys) = (heads.clone(), all);
    let left = blocking(move || {
        let mut left = Vec::new();
        for life in dir.incarnations()?.into_iter().filter(|life| *life != incarnation) {
            if let Some(head) = dir.survey(life, &keys)?.newest {
                left.push(Left { incarnation: life, position: head.statement.position });
            }
        }
        Ok(left)
    })
    .await?;
    let mut life = Life {
        incarnation,
        from,
        position,
        block: kept_to.as_ref().map_or(0, |link| link.block),
        hash: kept_to.map(|link| hex(&link.hash)).unwrap_or_default(),
        left,
        began_at: now_micros(),
        note,
        proof: Some(Proof { digest: String::new(), accepted: Vec::new(), gone: Vec::new() }),
    };
    let report = rehearse(store, &trusted, heads.clone(), &mut life).await?;
    let is_lost = report.gone.iter().any(|gone| gone.incarnation == incarnation);
    if let Some(first) = report.first_break {
        if !accept {
            return Err(Error::NotAsSealed { first: Box::new(first), breaks: report.breaks });
        }
        if let Some(proof) = &mut life.proof {
            proof.gone = report.gone;
            proof.accepted = report.faults;
            // Enough to know for ever that it was not clean, and of each kind where it began.
            proof.accepted.sort_by_key(|fault| (fault.kind != FaultKind::NoHeads, fault.position));
            proof.accepted.truncate(ACCEPTED);
        }
    }
    for unproven in report.warnings {
        life.note.push_str("; ");
        life.note.push_str(&unproven);
    }
    let signed = Signed::new(life, &key)?;
    let signed = blocking(move || {
        heads.vouch(&key, &[])?;
        // Before the database says so: a statement that nothing came of harms nobody.
        heads.add_life(&signed)?;
        Ok(signed)
    })
    .await?;
    kept::keep(store, &signed).await?;
    if incarnation != current {
        store.set_incarnation(incarnation).await?;
    }
    Ok((signed.statement, is_lost || is_flawed))
}

/// Breaks that a statement keeps.
const ACCEPTED: usize = 20;

/// The last block that was not made in this life.
async fn last_before(store: &Store, incarnation: Uuid) -> Result<Option<Link>, Error> {
    let mut last: Option<Link> = None;
    loop {
        let after = last.as_ref().map_or(0, |link| link.block);
        let page = store.links(after, PAGE).await?;
        if page.is_empty() {
            return Ok(last);
        }
        for link in page {
            if link.incarnation == incarnation {
                return Ok(last);
            }
            last = Some(link);
        }
    }
}

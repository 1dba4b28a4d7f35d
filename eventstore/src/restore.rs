//! A restored backup is another life of the log, and says so where the heads are.

use ed25519_dalek::SigningKey;
use uuid::Uuid;

use crate::error::Error;
use crate::heads::{HeadsDir, Left, Life};
use crate::hex;
use crate::sealer::now_micros;
use crate::signed::Signed;
use crate::store::Store;
use crate::task::blocking;

/// Signs that the log as it is now was restored on purpose, and gives it a new incarnation.
///
/// A log that whoever restored it gave a new incarnation already keeps that one, as long as it sealed
/// nothing in it. The statement names the end of the restored chain and what every life that is known
/// had reached: a log that was changed before or after does not fit it. No server may have the log
/// open, and the store has to be opened anew afterwards.
pub async fn record_restore(
    store: &Store,
    key: &SigningKey,
    heads: &HeadsDir,
    note: &str,
) -> Result<Life, Error> {
    let last = store.last_seal().await?;
    let current = store.incarnation();
    let listing = heads.clone();
    let said = blocking(move || listing.lives()).await?;
    let is_said = said.iter().any(|life| life.statement.incarnation == current);
    let renamed = last.as_ref().map(|seal| seal.incarnation).filter(|before| *before != current);
    let (incarnation, from) = match renamed {
        Some(before) if !is_said => (current, before),
        Some(_) | None => (Uuid::new_v4(), current),
    };
    let listing = heads.clone();
    let left = blocking(move || {
        let mut left = Vec::new();
        for incarnation in listing.incarnations()? {
            if let Some(head) = listing.latest(incarnation)? {
                left.push(Left { incarnation, position: head.statement.position });
            }
        }
        Ok(left)
    })
    .await?;
    let life = Life {
        incarnation,
        from,
        position: store.head().await?,
        block: last.as_ref().map_or(0, |seal| seal.block),
        hash: last.map(|seal| hex(&seal.hash)).unwrap_or_default(),
        left,
        began_at: now_micros(),
        note: note.to_owned(),
    };
    let (dir, key) = (heads.clone(), key.clone());
    let signed = Signed::new(life, &key)?;
    let signed = blocking(move || {
        dir.vouch(&key, &[])?;
        // Before the database says so: a statement that nothing came of harms nobody.
        dir.add_life(&signed)?;
        Ok(signed)
    })
    .await?;
    if incarnation != current {
        store.set_incarnation(incarnation).await?;
    }
    Ok(signed.statement)
}

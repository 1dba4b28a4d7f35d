//! The end of the chain: whether it is a block of ours, which whoever seals may go on from.

use super::report::{Fault, FaultKind};
use crate::error::Error;
use crate::heads::Life;
use crate::hex;
use crate::seal::{Link, Seal};
use crate::signed::Trusted;
use crate::store::Store;

/// The last block; an error where it is none of ours, or where the log does not have its events.
///
/// Those before it need no look: its signature covers the hash of the one before, and none of ours signs
/// behind a block that is not. One that is damaged counts where this life was signed for to go on from it.
/// One of another life counts only there, too, but where nobody has signed for this life yet.
pub(crate) async fn end(
    store: &Store,
    trusted: Option<&Trusted>,
    began: &[Life],
) -> Result<Option<Seal>, Error> {
    let Some(last) = store.last_seal().await? else { return Ok(None) };
    let is_accepted =
        began.iter().any(|life| life.block == last.block && life.hash == hex(&last.hash));
    let mut fault = None;
    if !is_accepted {
        let previous = before(store, last.block).await?;
        let has_begun = !began.is_empty()
            || previous.as_ref().is_some_and(|link| link.incarnation == store.incarnation());
        fault = flaw(&last, previous.as_ref(), trusted);
        // A copy of the database goes on in another life with the same keys.
        if fault.is_none() && has_begun && last.incarnation != store.incarnation() {
            let what = format!("was made in another life of the log, {}", last.incarnation);
            fault = Some(no_block(&last, previous.as_ref(), FaultKind::BrokenBlock, &what));
        }
    }
    if fault.is_none() {
        // Read behind the block: all of its events are there by now.
        let head = store.head().await?;
        fault = (last.last > head).then(|| Fault {
            kind: FaultKind::Removed,
            position: head + 1,
            to: last.last,
            detail: format!(
                "block {} ends at {}, and the log itself at {head}",
                last.block, last.last
            ),
        });
    }
    match fault {
        Some(fault) => Err(Error::NotOurs { fault: Box::new(fault) }),
        None => Ok(Some(last)),
    }
}

/// The block before the one of this number.
pub(crate) async fn before(store: &Store, block: u64) -> Result<Option<Link>, Error> {
    let Some(number) = block.checked_sub(1).filter(|number| *number > 0) else { return Ok(None) };
    let found = store.links(number - 1, 1).await?.into_iter().next();
    Ok(found.filter(|link| link.block == number))
}

/// Why a block is none that a server with one of these keys has made behind `previous`. Without any keys
/// its signature is not looked at.
pub(crate) fn flaw(
    seal: &Seal,
    previous: Option<&Link>,
    trusted: Option<&Trusted>,
) -> Option<Fault> {
    let key_id = &seal.key_id;
    let key = trusted.map(|trusted| trusted.key(key_id));
    let (kind, what) = if !seal.stands_behind(previous) {
        (FaultKind::BrokenBlock, "does not follow the one before it".to_owned())
    } else if seal.expected_hash(previous.map(|link| link.hash.as_slice())) != seal.hash {
        (FaultKind::BrokenBlock, "has a hash that is not that of its content".to_owned())
    } else if key == Some(None) {
        (FaultKind::UnknownKey, format!("was signed by {key_id}, a key not known"))
    } else if key.flatten().is_some_and(|key| !seal.is_signed_by(key)) {
        (FaultKind::BadSignature, format!("has a signature that is not {key_id}'s"))
    } else {
        return None;
    };
    Some(no_block(seal, previous, kind, &what))
}

fn no_block(seal: &Seal, previous: Option<&Link>, kind: FaultKind, what: &str) -> Fault {
    let position = previous.map_or(seal.first, |link| link.last + 1);
    let detail = format!(
        "block {}, which says that it has the events {} to {}, {what}",
        seal.block, seal.first, seal.last
    );
    Fault { kind, position, to: seal.last.max(position), detail }
}

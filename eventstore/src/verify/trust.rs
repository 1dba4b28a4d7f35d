//! Which statements beside the heads count, and which of those that the database keeps.

use std::collections::HashSet;
use std::path::PathBuf;

use uuid::Uuid;

use crate::error::Error;
use crate::heads::{HeadsDir, Life, Read};
use crate::signed::{Signed, Trusted};

/// A restore that counts.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub life: Life,
    /// Whether it is where the heads are. One that only the database has, since the heads were lost,
    /// explains a life and leaves nothing behind: whoever may write the database, and has a key, could
    /// put one there to hide that the log was cut off.
    pub is_published: bool,
}

/// The keys that are vouched for, the restores that count, and the files that cannot be read. `kept` are
/// the statements that the database has.
pub(crate) fn statements(
    dir: &HeadsDir,
    kept: Vec<Signed<Life>>,
    trusted: Trusted,
) -> Result<(Trusted, Vec<Said>, Vec<PathBuf>), Error> {
    let (Read { found: vouched, mut unreadable }, lives) = (dir.vouched()?, dir.lives()?);
    let trusted = trusted.and_vouched(&vouched);
    unreadable.extend(lives.unreadable);
    let mut known = lives.found;
    known.retain(|life| life.is_trusted(&trusted));
    let here: HashSet<Uuid> = known.iter().map(|life| life.statement.incarnation).collect();
    // What the directory says of a life stands; an older form does not say where its log ended.
    known.extend(kept.into_iter().filter(|life| {
        !here.contains(&life.statement.incarnation)
            && life.statement.proof.is_some()
            && life.is_trusted(&trusted)
    }));
    // Beside what a living key says of a life, one that was destroyed has nothing to say of it.
    let is_alive = |life: &Signed<Life>| trusted.destroyed(&life.key_id).is_none();
    let settled: HashSet<Uuid> =
        known.iter().filter(|life| is_alive(life)).map(|life| life.statement.incarnation).collect();
    known.retain(|life| is_alive(life) || !settled.contains(&life.statement.incarnation));
    let mut counted = Vec::new();
    for life in &known {
        if counts(dir, &trusted, &known, life)? {
            let is_published = here.contains(&life.statement.incarnation);
            counted.push(Said { life: life.statement.clone(), is_published });
        }
    }
    Ok((trusted, counted, unreadable))
}

/// Whether a statement was signed while its key was one.
///
/// A key that was destroyed may be in other hands. What it signed counts when the log went on long
/// enough for the destruction to stand in it, when a later restore that a living key signed builds on
/// it, or, in a log from before the destruction, when a living key published in the life that it
/// begins; and never when the life that it ends had gone on under another key already.
fn counts(
    dir: &HeadsDir,
    trusted: &Trusted,
    known: &[Signed<Life>],
    life: &Signed<Life>,
) -> Result<bool, Error> {
    let is_alive = |key_id: &str| trusted.destroyed(key_id).is_none();
    let Some(destroyed) = trusted.destroyed(&life.key_id) else { return Ok(true) };
    let mut ancestors = vec![life.statement.incarnation];
    let mut is_built_on = false;
    while let Some(ancestor) = ancestors.pop() {
        for later in known.iter().filter(|later| later.statement.from == ancestor) {
            is_built_on |= is_alive(&later.key_id);
            if ancestors.len() < known.len() && later.statement.incarnation != ancestor {
                ancestors.push(later.statement.incarnation);
            }
        }
        if is_built_on {
            return Ok(true);
        }
    }
    match destroyed {
        Some(at) if life.statement.kept() >= at => return Ok(false),
        Some(_) => {}
        // A log that ends before the destruction, as a backup from before it does: the life has to have gone
        // on under a living key, and of two that were signed for it nothing tells the older one.
        None => {
            let incarnation = life.statement.incarnation;
            let is_doubted = known.iter().any(|other| {
                other.statement.incarnation == incarnation && other.statement != life.statement
            });
            let went_on = || dir.survey(incarnation, &trusted.living());
            if is_doubted || went_on()?.newest.is_none() {
                return Ok(false);
            }
        }
    }
    let newest = dir.survey(life.statement.from, trusted)?.newest;
    Ok(newest.is_none_or(|head| !is_alive(&head.key_id)))
}

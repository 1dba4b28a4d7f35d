//! That this program can read every event that is stored, found out before anything else is done.
//!
//! An event of a newer program would be skipped by whatever does not know it. How far the log was
//! checked, and by which list of events, stands in a file of the data directory: a start reads only what
//! came since. The file may be deleted at any time.

use std::path::PathBuf;

use proximity_domain::known::{EVENTS, is_known};
use proximity_eventstore::Store;
use sha2::{Digest as _, Sha256};

use crate::config::Config;

fn file(config: &Config) -> PathBuf {
    config.data.join("events-checked")
}

/// Names this list of events in this life of this log.
fn list(store: &Store) -> String {
    let mut hash = Sha256::new();
    hash.update(store.incarnation().as_bytes());
    for (kind, version) in EVENTS {
        hash.update(format!("{kind} {version}\n"));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses a log with an event that this program does not know.
pub async fn check(config: &Config, store: &Store) -> anyhow::Result<()> {
    let (path, list) = (file(config), list(store));
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let checked = kept.trim().split_once(' ').filter(|(by, _)| *by == list);
    let checked: u64 = checked.and_then(|(_, position)| position.parse().ok()).unwrap_or_default();
    let head = store.head().await?;
    // A file that is ahead of the log belongs to another one.
    let after = if checked > head { 0 } else { checked };
    for (kind, version) in store.kinds(after).await? {
        if !is_known(&kind, &version) {
            anyhow::bail!(
                "the log has an event {kind} of version {version}, which this program does not know: it was \
                 written by a newer version; start that one, or restore a backup from before the upgrade"
            );
        }
    }
    if head > after
        && let Err(error) = std::fs::write(&path, format!("{list} {head}\n"))
    {
        tracing::warn!(path = %path.display(), %error, "the next start checks the whole log again");
    }
    Ok(())
}

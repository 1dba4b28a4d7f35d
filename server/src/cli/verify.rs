//! `proximity audit verify`, `key` and `restored`: whether the log is as it was sealed.

use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use proximity_commands::Error as CommandError;
use proximity_commands::keys::MasterKeys;
use proximity_commands::secrets::Secrets;
use proximity_domain::log::{Event, STREAM};
use proximity_eventstore::{
    Began, Error, Fault, FaultKind, HeadsDir, Life, Restore, Store, Trusted, VerifyReport, key_id,
    parse_public_key, public_key_text, record_restore, verify,
};
use serde_json::json;

use super::output::{Format, render};
use super::progress::Bar;
use super::stdout::print;
use super::{Failure, Settings};
use crate::app::installation::RunnerId;
use crate::app::key_file;
use crate::app::sealing::{SigningKeys, ended_by_the_log, heads_dir, seal_once};
use crate::http::problem::chain;
use crate::stores;

/// What a verification rests on.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// Where the heads were published, instead of the setting audit.heads_dir
    #[arg(long, value_name = "DIR")]
    heads: Option<PathBuf>,
    /// A public key to trust, or a file with it, instead of the master key's; see `audit key`
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
}

/// Compares the stored bytes with the sealed chain and the published heads; changes nothing.
///
/// Where the key file lacks the key that the log says seals now, blocks of a key not known accuse nobody.
pub async fn run(wanted: Wanted, config: &Settings, format: Format) -> Result<(), Failure> {
    let given = wanted.keys.iter().map(|text| public_key(text)).collect::<Result<Vec<_>, _>>()?;
    let own = match given.is_empty() {
        true => Some(keys(config)?),
        false => None,
    };
    if let Some(dir) = &wanted.heads
        && !dir.is_dir()
    {
        return Err(Failure::NoSuchThing(format!("there is no directory {}", dir.display())));
    }
    let heads = HeadsDir::new(wanted.heads.unwrap_or_else(|| heads_dir(config)));
    let store = open(config).await?;
    let (trusted, lacking) = match own {
        Some(file) => {
            let (held, lacking) = as_logged(&store, file).await;
            let lacking = lacking.map(|error| {
                error.context(format!("{NOT_OF_THE_LOG}, or name a public key with --key"))
            });
            (SigningKeys::derive(&held).trusted(&store).await, lacking)
        }
        None => (ended_by_the_log(&store, Trusted::new(given)).await, None),
    };
    let trusted = trusted.map_err(anyhow::Error::from)?;
    let bar = Bar::new();
    let on_progress = |progress: proximity_eventstore::VerifyProgress| {
        bar.show(progress.events_done, progress.events_total, progress.elapsed);
    };
    let report = verify(&store, &trusted, Some(heads), on_progress).await;
    drop(bar);
    store.close().await;
    let report = report.map_err(anyhow::Error::from)?;
    if let Some(lacking) = lacking.filter(|_| report.faults.iter().all(is_of_a_key)) {
        return Err(Failure::Failed(lacking));
    }
    print(&shown(&report, format)?)?;
    match &report.first_break {
        None => Ok(()),
        Some(fault) => Err(Failure::Found(format!(
            "the log is not as it was sealed: {} at position {}: {} ({} in all)",
            fault.kind.as_str(),
            fault.position,
            fault.detail,
            report.breaks
        ))),
    }
}

/// What is said of a key file that lacks the key that seals.
const NOT_OF_THE_LOG: &str = "the key file here is not that of the log as it is, and cannot verify it: take the \
     log's own, the newest copy of it";

/// The keys of a file as the log has them: without those that were destroyed. Where the file lacks the key
/// that seals now, all that it has, and which one that is.
async fn as_logged(store: &Store, file: MasterKeys) -> (MasterKeys, Option<anyhow::Error>) {
    match Secrets::as_logged_to_verify(store, file.clone()).await {
        Ok(held) => (held, None),
        Err(error @ CommandError::Unavailable { code: "keys.missing", .. }) => {
            (file, Some(anyhow::Error::from(error)))
        }
        // A log whose own word on its keys cannot be read is looked at all the same, which tells why.
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(
                error,
                "what the log says of its keys cannot be read: all that the file has count"
            );
            (file, None)
        }
    }
}

/// The keys of a file for whoever signs in this log. Without the one that seals in it, whoever does would
/// accuse the log of what the file lacks, and sign for that.
async fn signing(store: &Store, file: MasterKeys) -> Result<SigningKeys, Failure> {
    let held = Secrets::as_logged(store, file).await.map_err(|error| {
        let what = match error {
            CommandError::Unavailable { code: "keys.missing", .. } => {
                "the key file here is not that of the log as it is, and nobody signs without the key that \
                 seals in it"
            }
            _ => "what the log says of its keys cannot be read, and without that nobody signs",
        };
        Failure::Failed(anyhow::Error::from(error).context(what))
    })?;
    Ok(SigningKeys::derive(&held))
}

/// Whether a key that is lacking here explains it.
fn is_of_a_key(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::UnknownKey | FaultKind::UnknownLife | FaultKind::ForgedHead)
}

/// Prints the public keys that verify this log, for whoever verifies it elsewhere.
pub async fn show_keys(config: &Settings, format: Format) -> Result<(), Failure> {
    let file = keys(config)?;
    let keys = match stores::open_read_only(config).await {
        Ok(store) => {
            let keys = signing(&store, file).await;
            store.close().await;
            keys?
        }
        // Where no log is here, nothing but the file says which one signs.
        Err(stores::Error::Missing(_)) => SigningKeys::derive(&file),
        Err(error) => return Err(Failure::Unavailable(error.to_string())),
    };
    let keys = keys.public();
    let row = |(index, key): (usize, &VerifyingKey)| json!({ "key_id": key_id(key), "public_key": public_key_text(key), "signs": index == 0 });
    let rows: Vec<_> = keys.iter().enumerate().map(row).collect();
    print(&render(&rows, &["key_id", "public_key", "signs"], format)?)?;
    Ok(())
}

/// Says that the log was restored from a backup on purpose: from now on it is another life of it.
pub async fn restored(
    note: &str,
    accept: bool,
    config: &Settings,
    format: Format,
) -> Result<(), Failure> {
    if note.trim().is_empty() {
        return Err(Failure::Failed(anyhow::anyhow!("say in --note what was restored, and why")));
    }
    let file = keys(config)?;
    let unavailable = |error: stores::Error| Failure::Unavailable(error.to_string());
    stores::at_home(config).map_err(unavailable)?;
    // Until the new life has begun: a server that has the log open would go on in the old one.
    let alone = stores::alone(config).await.map_err(unavailable)?;
    let store = stores::open_existing(config).await.map_err(unavailable)?;
    let signed = match signing(&store, file).await {
        Ok(keys) => {
            sign_restore(&keys, &store, config, note, accept).await.map(|life| (keys, life))
        }
        Err(refused) => Err(refused),
    };
    store.close().await;
    let (keys, life) = signed?;
    let begun = begin_life(&keys, config).await;
    drop(alone);
    print(&render(&[life], &["incarnation", "from", "position", "block", "note"], format)?)?;
    begun
}

/// Signs for a restored log, after a look at all of it. One that is not as it was sealed is only signed
/// for when somebody accepts that.
pub(super) async fn sign_restore(
    keys: &SigningKeys,
    store: &Store,
    config: &Settings,
    note: &str,
    accept: bool,
) -> Result<Life, Failure> {
    let restore = Restore {
        key: keys.current.clone(),
        trusted: keys.trusted(store).await.map_err(anyhow::Error::from)?,
        heads: HeadsDir::new(heads_dir(config)),
        note: note.to_owned(),
        began: began(store).await?,
        accept,
    };
    record_restore(store, restore).await.map_err(|error| match error {
        broken @ Error::NotAsSealed { .. } => Failure::Found(format!(
            "{broken}. It is signed for all the same with --accept-breaks and a --note; heads that are gone \
             are no longer missed then, and every other break each verification will go on showing"
        )),
        other => Failure::Failed(other.into()),
    })
}

/// Seals what the new life begins with, so that nothing is without proof until a server starts. That it cannot
/// be sealed is a failure, although the restore is signed for by then.
pub(super) async fn begin_life(keys: &SigningKeys, config: &Settings) -> Result<(), Failure> {
    let server = RunnerId::take(&config.data)?;
    let store = stores::open(config).await.map_err(|e| Failure::Unavailable(e.to_string()))?;
    match seal_once(config, store, keys, server.id).await.map_err(anyhow::Error::from)? {
        None => Ok(()),
        Some(trouble) => Err(Failure::Failed(anyhow::anyhow!(
            "it is signed for, and what the log's new life begins with is not sealed and published: {trouble}"
        ))),
    }
}

/// What the log itself says of its last restoration.
async fn began(store: &Store) -> Result<Option<Began>, Failure> {
    let events = store.load_stream("log", STREAM).await.map_err(anyhow::Error::from)?;
    let restored =
        events.iter().rev().find_map(|event| match serde_json::from_str(&event.payload) {
            Ok(Event::Restored(restored)) => Some((event.position, restored)),
            Ok(Event::RestoreConfirmed { .. }) | Err(_) => None,
        });
    Ok(restored.filter(|(at, restored)| *at == restored.position + 1).map(|(_, restored)| Began {
        incarnation: restored.incarnation,
        from: restored.previous,
        position: restored.position,
    }))
}

async fn open(config: &Settings) -> Result<Store, Failure> {
    stores::open_read_only(config).await.map_err(|error| Failure::Unavailable(error.to_string()))
}

/// The master keys that there are; none is made.
pub(super) fn keys(config: &Settings) -> Result<MasterKeys, Failure> {
    let opened = key_file(config).read().map_err(anyhow::Error::from);
    Ok(opened
        .map_err(|error| error.context("without the master key, name a public key with --key"))?)
}

fn public_key(text: &str) -> Result<VerifyingKey, Failure> {
    let written = match std::fs::read_to_string(Path::new(text)) {
        Ok(content) => content,
        Err(_) => text.to_owned(),
    };
    parse_public_key(&written).ok_or_else(|| {
        let text = format!(
            "--key {text}: neither a public key of 64 hexadecimal digits nor a file with one"
        );
        Failure::Failed(anyhow::anyhow!(text))
    })
}

fn shown(report: &VerifyReport, format: Format) -> Result<String, Failure> {
    let faults = ["position", "to", "kind", "detail"];
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(report).map_err(anyhow::Error::from)? + "\n",
        Format::Ndjson => render(&[report], &[], format)?,
        Format::Csv => render(&report.faults, &faults, format)?,
        Format::Table => {
            let verdict = if report.clean { "as it was sealed" } else { "NOT as it was sealed" };
            let mut rows = vec![
                json!({ "what": "the log is", "found": verdict }),
                json!({ "what": "events", "found": format!(
                    "{} compared, in {} blocks, sealed to {} of {}",
                    report.events, report.blocks, report.sealed_to, report.head
                ) }),
                json!({ "what": "heads", "found": format!("{} compared", report.heads) }),
                json!({ "what": "took", "found": format!(
                    "{:.2} s, {:.0} events/s", report.seconds, report.events_per_second
                ) }),
            ];
            for warning in &report.warnings {
                rows.push(json!({ "what": "warning", "found": warning }));
            }
            for life in &report.lives {
                let mut text = match (life.first_position, life.last_position) {
                    (0, 0) => format!("{}: nothing sealed here", life.incarnation),
                    (first, last) => format!("{}: {first} to {last}", life.incarnation),
                };
                text.push_str(&format!(", published to {}", life.published_to));
                if life.restored {
                    let left = life.left_behind;
                    text.push_str(&format!(
                        "; ended with a restore, which left {left} events behind"
                    ));
                }
                if let Some(note) = &life.note {
                    text.push_str(&format!("; {note}"));
                }
                rows.push(json!({ "what": "life", "found": text }));
            }
            let mut text = render(&rows, &["what", "found"], format)?;
            if !report.faults.is_empty() {
                text.push('\n');
                text.push_str(&render(&report.faults, &faults, format)?);
            }
            text
        }
    })
}

//! `proximity audit verify`, `key` and `restored`: whether the log is as it was sealed.

use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use proximity_commands::keys::MasterKeys;
use proximity_eventstore::{
    HeadsDir, Life, Store, Trusted, VerifyReport, key_id, parse_public_key, public_key_text,
    record_restore, verify,
};
use serde_json::json;

use super::output::{Format, render};
use super::progress::Bar;
use super::{Failure, Settings};
use crate::app::key_file;
use crate::app::sealing::{SigningKeys, heads_dir};
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

/// Compares the stored bytes with the sealed chain and the published heads; writes nothing.
pub async fn run(wanted: Wanted, config: &Settings, format: Format) -> Result<(), Failure> {
    let trusted = if wanted.keys.is_empty() {
        SigningKeys::derive(&keys(config).await?).trusted()
    } else {
        let keys =
            wanted.keys.iter().map(|text| public_key(text)).collect::<Result<Vec<_>, _>>()?;
        Trusted::new(keys)
    };
    if let Some(dir) = &wanted.heads
        && !dir.is_dir()
    {
        return Err(Failure::NoSuchThing(format!("there is no directory {}", dir.display())));
    }
    let heads = HeadsDir::new(wanted.heads.unwrap_or_else(|| heads_dir(config)));
    let store = open(config).await?;
    let bar = Bar::new();
    let on_progress = |progress: proximity_eventstore::VerifyProgress| {
        bar.show(progress.events_done, progress.events_total, progress.elapsed);
    };
    let report = verify(&store, &trusted, Some(heads), on_progress).await;
    drop(bar);
    store.close().await;
    let report = report.map_err(anyhow::Error::from)?;
    print!("{}", shown(&report, format)?);
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

/// Prints the public keys that verify this log, for whoever verifies it elsewhere.
pub async fn show_keys(config: &Settings, format: Format) -> Result<(), Failure> {
    let keys = SigningKeys::derive(&keys(config).await?).public();
    let row = |(index, key): (usize, &VerifyingKey)| json!({ "key_id": key_id(key), "public_key": public_key_text(key), "signs": index == 0 });
    let rows: Vec<_> = keys.iter().enumerate().map(row).collect();
    print!("{}", render(&rows, &["key_id", "public_key", "signs"], format)?);
    Ok(())
}

/// Says that the log was restored from a backup on purpose: from now on it is another life of it.
pub async fn restored(note: &str, config: &Settings, format: Format) -> Result<(), Failure> {
    if note.trim().is_empty() {
        return Err(Failure::Failed(anyhow::anyhow!("say in --note what was restored, and why")));
    }
    let life = sign(config, note).await?;
    print!("{}", render(&[life], &["incarnation", "from", "position", "block", "note"], format)?);
    Ok(())
}

/// The same for a restoration by the program itself, which has given the log its incarnation.
pub(super) async fn sign_restore(config: &Settings, note: &str) -> Result<(), Failure> {
    sign(config, note).await.map(drop)
}

async fn sign(config: &Settings, note: &str) -> Result<Life, Failure> {
    let keys = SigningKeys::derive(&keys(config).await?);
    let store = stores::open(config).await.map_err(|e| Failure::Unavailable(e.to_string()))?;
    let heads = HeadsDir::new(heads_dir(config));
    let life = record_restore(&store, &keys.current, &heads, note).await;
    store.close().await;
    Ok(life.map_err(anyhow::Error::from)?)
}

async fn open(config: &Settings) -> Result<Store, Failure> {
    stores::open_read_only(config).await.map_err(|error| Failure::Unavailable(error.to_string()))
}

/// The master keys that there are; none is made.
async fn keys(config: &Settings) -> Result<MasterKeys, Failure> {
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

//! `proximity audit`: the log as it was written.

use proximity_eventstore::Recorded;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::{Format, render};
use super::{Failure, Settings, verify};
use crate::stores;

/// Events read at a time.
const PAGE: usize = 1_000;

/// What can be asked of the log.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print events in their order
    Log {
        /// Only those after this position
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Only those whose type starts so, e.g. application.
        #[arg(long = "type", value_name = "PREFIX")]
        kind: Option<String>,
        /// Only those of this actor, e.g. user/1
        #[arg(long)]
        actor: Option<String>,
        /// Only those of this stream, e.g. application/nginx-0a1b2c3d
        #[arg(long)]
        stream: Option<String>,
    },
    /// Whether the log is as it was sealed: its stored bytes, the chain over them, the published heads
    Verify(verify::Wanted),
    /// Print the public keys with which the log can be verified elsewhere
    Key,
    /// Say that the log was restored from a backup on purpose, while no server runs
    Restored {
        /// What was restored, and why; it is kept beside the heads
        #[arg(long, value_name = "TEXT")]
        note: String,
    },
}

/// Reads the log, beside a running server or alone.
pub async fn run(command: Command, config: &Settings, format: Format) -> Result<(), Failure> {
    let (after, limit, kind, actor, stream) = match command {
        Command::Log { after, limit, kind, actor, stream } => (after, limit, kind, actor, stream),
        Command::Verify(wanted) => return verify::run(wanted, config, format).await,
        Command::Key => return verify::show_keys(config, format).await,
        Command::Restored { note } => return verify::restored(&note, config, format).await,
    };
    let store = stores::open_read_only(config)
        .await
        .map_err(|error| Failure::Unavailable(error.to_string()))?;
    let wanted = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        kind.as_ref().is_none_or(|kind| text("type").starts_with(kind.as_str()))
            && actor.as_ref().is_none_or(|actor| text("actor") == actor)
            && stream.as_ref().is_none_or(|stream| text("stream") == stream)
    };
    let (mut rows, mut cursor) = (Vec::new(), after);
    while rows.len() < limit {
        let page = store.feed(cursor, PAGE).await.map_err(anyhow::Error::from)?;
        let Some(last) = page.last() else { break };
        cursor = last.position;
        let matching = page.iter().map(shown).filter(|row| wanted(row));
        rows.extend(matching.take(limit - rows.len()));
    }
    let columns = ["position", "recorded_at", "actor", "stream", "sequence", "type", "payload"];
    print!("{}", render(&rows, &columns, format)?);
    store.close().await;
    Ok(())
}

fn shown(event: &Recorded) -> Value {
    // What cannot be parsed is shown as the text that it is.
    let parsed =
        |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let metadata: Value = parsed(&event.metadata);
    let nanoseconds = i128::from(event.recorded_at) * 1_000;
    let recorded_at = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).map_or_else(
        |_| event.recorded_at.to_string(),
        |at| at.format(&Rfc3339).unwrap_or_default(),
    );
    json!({
        "position": event.position,
        "recorded_at": recorded_at,
        "actor": metadata["actor"],
        "stream": format!("{}/{}", event.aggregate_type, event.aggregate_id),
        "sequence": event.sequence,
        "type": event.event_type,
        "version": event.event_version,
        "payload": parsed(&event.payload),
        "metadata": metadata,
    })
}

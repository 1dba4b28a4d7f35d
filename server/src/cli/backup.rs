//! `proximity backup`: everything that is in the database, in one file, and back.

mod restoring;

use std::path::{Path, PathBuf};
use std::time::Instant;

use proximity_commands::policy::Admin;
use proximity_commands::restored::Restoration;
use proximity_domain::log::{Event, Restored, STREAM};
use proximity_eventstore::backup::{
    BackupFile, BackupReader, Beginning, Digests, Header, Item, Section, Sink, Trailer,
    must_be_empty, restore,
};
use proximity_projections::Replay;
use serde_json::{Value, json};
use uuid::Uuid;

use super::noted::{Act, note, whole};
use super::output::{Format, render};
use super::stdout::print;
use super::{Failure, Settings, must_exist};
use crate::app::sealing::{close_sealed, heads_dir};
use crate::control::{self, Request};
use crate::moment::rfc3339;
use crate::{shell, stores};

/// What can be done with backups of Proximity itself.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Write everything to one file, while servers run; the master key is not in it
    Create {
        /// The file to write; it must not exist
        file: PathBuf,
    },
    /// Read a file to its end, check it, and replay it
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Put a file into an empty data directory or database; nothing is done before it is confirmed
    Restore {
        /// The file
        file: PathBuf,
        /// What is kept beside the heads about it
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// Also when its log is not as it was sealed: what is wrong is signed, and shown for ever;
        /// heads that are gone are no longer missed
        #[arg(long, requires = "note")]
        accept_breaks: bool,
    },
    /// Show what a restored installation found different, and what it would go on with
    Status,
    /// Let a restored installation act again
    Confirm,
}

/// Runs one of them.
pub async fn run(command: Command, config: &Settings, format: Format) -> Result<(), Failure> {
    match command {
        Command::Create { file } => create(config, file, format).await,
        Command::Verify { file } => {
            must_exist(&file)?;
            let verified = blocking(move || read(&file)).await?;
            show(&verified, None, format)
        }
        Command::Restore { file, note, accept_breaks } => {
            let note = note.unwrap_or_else(|| "restored from a backup".to_owned());
            put_back(config, file, &Said { note, accept_breaks }, format).await
        }
        Command::Status => status(config, format).await,
        Command::Confirm => confirm(config, format).await,
    }
}

/// Writes the file, and replays the events that go into it.
struct Replaying {
    file: BackupFile,
    replay: Replay,
}

impl Sink for Replaying {
    fn begin(&mut self, header: &Header) -> Result<(), proximity_eventstore::Error> {
        self.file.begin(header)
    }

    fn item(&mut self, item: &Item) -> Result<(), proximity_eventstore::Error> {
        if let Item::Event(event) = item {
            self.replay.take(event.stored()).map_err(|error| {
                let what = crate::http::problem::chain(&error);
                proximity_eventstore::Error::Malformed { what }
            })?;
        }
        self.file.item(item)
    }
}

async fn create(config: &Settings, path: PathBuf, format: Format) -> Result<(), Failure> {
    let started = Instant::now();
    // Whether there is something to back up, before a file says so.
    stores::open_read_only(config).await.map_err(unavailable)?.close().await;
    let file = BackupFile::create(&path).map_err(anyhow::Error::from)?;
    for left in file.remove_left() {
        tell(&format!(
            "{} was left by a backup that was cut off; it is removed.\n",
            left.display()
        ))?;
    }
    // First, so that the backup itself says that it was made.
    note(config, Act::CreateBackup, &whole(&path)).await?;
    let store = stores::open_read_only(config).await.map_err(unavailable)?;
    let sink = Replaying { file, replay: Replay::default() };
    let exported = store.export(sink).await;
    store.close().await;
    let Replaying { file, replay } = exported.map_err(anyhow::Error::from)?;
    let made = blocking(move || Ok(file.finish(state(replay)?)?)).await?;
    show(&made, Some(started), format)?;
    if format == Format::Table {
        tell(
            "The master key is not in it: without its copy (`proximity keys export-recovery`), no \
             stored credential can be read after a restoration.\n",
        )?;
    }
    Ok(())
}

/// Reads a file to its end: its checksums, and the replay of its events.
fn read(path: &Path) -> anyhow::Result<(Header, Trailer)> {
    let mut reader = BackupReader::open(path)?;
    let mut replay = Replay::default();
    while let Some(item) = reader.next_item()? {
        if let Item::Event(event) = item {
            replay.take(event.stored())?;
        }
    }
    let header = reader.header().clone();
    let trailer = reader.trailer().cloned().unwrap_or_else(|| unreachable!("it was read"));
    let found = state(replay)?;
    // Another version of the program may fold the same events into other rows.
    if header.program == env!("CARGO_PKG_VERSION") && found != trailer.state {
        anyhow::bail!("its events come to another state than when it was made");
    }
    Ok((header, Trailer { state: found, ..trailer }))
}

fn state(replay: Replay) -> anyhow::Result<Digests> {
    let (_, found) = replay.finish()?;
    let section = |(name, one): (String, proximity_projections::Replayed)| {
        (name, Section { rows: one.rows, sha256: one.sha256 })
    };
    Ok(Digests(found.into_iter().map(section).collect()))
}

/// What whoever restores says about it.
struct Said {
    note: String,
    accept_breaks: bool,
}

async fn put_back(
    config: &Settings,
    path: PathBuf,
    said: &Said,
    format: Format,
) -> Result<(), Failure> {
    let started = Instant::now();
    stores::at_home(config).map_err(unavailable)?;
    must_exist(&path)?;
    let checked = path.clone();
    let (header, trailer) = blocking(move || read(&checked)).await?;
    config.ensure_data()?;
    let incarnation = Uuid::new_v4();
    let restored = Restored {
        incarnation,
        previous: header.incarnation,
        position: header.position,
        taken_at: header.taken_at,
        digest: trailer.sections.log(),
    };
    let event = Event::Restored(restored);
    let beginning = Beginning {
        incarnation,
        aggregate_type: "log".to_owned(),
        aggregate_id: STREAM.to_owned(),
        event_type: cqrs_type(&event),
        event_version: "1".to_owned(),
        payload: serde_json::to_string(&event).map_err(anyhow::Error::from)?,
        metadata: shell::actor().metadata("backup.restore").to_json(),
    };
    let location = stores::options(config).location;
    must_be_empty(&location).await.map_err(anyhow::Error::from)?;
    // Signed before the target is touched: a log that does not verify is not put there, and a crash
    // leaves no log that nobody has signed for.
    let signed = restoring::sign(config, &path, beginning.clone(), said).await?;
    restore(&location, &path, beginning).await.map_err(anyhow::Error::from)?;
    // What stands in the database now is replayed once more: it is what will be served.
    let replayed = replay_store(config, header.position).await?;
    if replayed != trailer.state {
        let text = "the restored events come to another state than the backup's";
        return Err(Failure::Failed(anyhow::anyhow!(text)));
    }
    let begun = match &signed {
        Ok(signed) => super::verify::begin_life(&signed.keys, config).await,
        Err(_) => Ok(()),
    };
    show(&(header, trailer), Some(started), format)?;
    // Also to whoever reads the rest by program: it is on the standard error stream.
    if let Err(problem) = &signed {
        tell(&format!(
            "Nobody has verified or signed for this log yet. Before the first start, put the master \
             key back, and run `proximity audit restored --note TEXT`: {problem}\n"
        ))?;
    }
    if let Ok(restoring::Signed { younger: Some(to), .. }) = &signed {
        tell(&format!(
            "The heads in {} go on to {to} and are left behind. If their log is served on, since this was only a \
             trial, it is accused of an unknown life from now on: see \"To restore\" in OPERATING.md.\n",
            heads_dir(config).display()
        ))?;
    }
    if format == Format::Table {
        let key = signed.map(|_| "The master key in place opens its secrets.").unwrap_or_default();
        tell(&format!(
            "{key}\nEverybody has to log in again. Start the server, look at `proximity backup status`, \
             and let it act again with `proximity backup confirm`.\n"
        ))?;
    }
    begun
}

fn cqrs_type(event: &Event) -> String {
    match event {
        Event::Restored(_) => "log.restored",
        Event::RestoreConfirmed { .. } => "log.restore_confirmed",
    }
    .to_owned()
}

async fn replay_store(config: &Settings, to: u64) -> Result<Digests, Failure> {
    let store = stores::open_read_only(config).await.map_err(unavailable)?;
    let mut replay = Replay::default();
    let mut reached = 0;
    while reached < to {
        let mut page = store.page(reached, 5_000).await.map_err(anyhow::Error::from)?;
        page.truncate(to);
        let Some(last) = page.last() else { break };
        reached = last;
        for event in page.iter() {
            replay.take(event).map_err(anyhow::Error::from)?;
        }
    }
    store.close().await;
    Ok(state(replay)?)
}

fn show(
    (header, trailer): &(Header, Trailer),
    started: Option<Instant>,
    format: Format,
) -> Result<(), Failure> {
    let row = json!({
        "position": header.position,
        "taken_at": rfc3339(header.taken_at),
        "incarnation": header.incarnation,
        "program": header.program,
        "log": trailer.sections.log(),
        "tables": trailer.sections.total(),
        "state": trailer.state.total(),
        "milliseconds": started.map(|started| u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)),
        "sections": trailer.sections,
        "views": trailer.state,
    });
    let columns = ["position", "taken_at", "incarnation", "log", "tables", "state"];
    print(&render(&[row], &columns, format)?)?;
    Ok(())
}

/// What differs, and what would go on, of a restored installation.
async fn status(config: &Settings, format: Format) -> Result<(), Failure> {
    let (store, views) = super::readers(config).await?;
    let found = crate::restore::status(&store, &views).await?;
    views.close().await;
    store.close().await;
    match format {
        Format::Json | Format::Ndjson => print(&render(&[found], &[], format)?)?,
        Format::Table | Format::Csv => {
            if let Some(restored) = &found.restored {
                print(&format!(
                    "restored from a backup of {} at position {}; nothing is done until `proximity \
                     backup confirm`\n",
                    restored.taken_at, restored.position
                ))?;
            } else {
                print("not restored from a backup, or confirmed already\n")?;
            }
            let rows: Vec<Value> = found.differences.iter().map(|one| json!(one)).collect();
            print(&render(&rows, &["what", "id", "detail"], format)?)?;
        }
    }
    Ok(())
}

async fn confirm(config: &Settings, format: Format) -> Result<(), Failure> {
    confirm_quietly(config).await?;
    print(&render(&[json!({ "restore": "confirmed" })], &["restore"], format)?)?;
    Ok(())
}

async fn confirm_quietly(config: &Settings) -> Result<(), Failure> {
    if let Some(answer) = control::ask(config, &Request::ConfirmRestore).await? {
        return answer.map(drop).map_err(|problem| Failure::Failed(anyhow::anyhow!(problem)));
    }
    let store = stores::open_existing(config).await.map_err(unavailable)?;
    let shell = Admin::prove(&shell::actor()).map_err(anyhow::Error::from)?;
    let confirmed = Restoration::new(store.clone()).confirm(&shell).await;
    close_sealed(config, store).await;
    Ok(confirmed.map(drop).map_err(anyhow::Error::from)?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from)??)
}

fn unavailable(error: stores::Error) -> Failure {
    Failure::Unavailable(error.to_string())
}

fn tell(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    Ok(std::io::stderr().write_all(text.as_bytes()).map_err(anyhow::Error::from)?)
}

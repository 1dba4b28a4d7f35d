//! The log as lines, page by page: however long it is, one page of it is in memory.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use proximity_eventstore::{Error as StoreError, Recorded, Search, Store};
use serde_json::Value;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, timeout};

use super::accept;
use super::events::Shown;
use super::own_acts;
use super::problem::{Problem, chain};
use super::streams::{Credential, LOOK, PATIENCE, Streams};
use crate::app::App;

/// Events read at once.
const PAGE: usize = 500;
/// Pages that wait for a reader at most.
const QUEUE: usize = 2;

/// The forms that are written line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object for each line.
    Ndjson,
    /// Comma-separated values with a head.
    Csv,
}

/// The media types that a page of the log is answered as; the first when nobody asks.
pub const FORMS: &[&str] = &["application/json", "application/x-ndjson", "text/csv"];

/// The columns of a table and of CSV, in order.
pub const COLUMNS: &[&str] = &[
    "position",
    "recorded_at",
    "actor",
    "on_behalf_of",
    "owner",
    "credential",
    "source",
    "command",
    "request",
    "correlation",
    "causation",
    "stream",
    "sequence",
    "type",
    "version",
    "payload",
];

impl Form {
    /// What the query or, when it says nothing, the `Accept` header asks for; `None` is JSON.
    pub fn wanted(format: Option<&str>, accept: Option<&str>) -> Result<Option<Self>, Problem> {
        match format {
            Some("json") => return Ok(None),
            Some("ndjson") => return Ok(Some(Self::Ndjson)),
            Some("csv") => return Ok(Some(Self::Csv)),
            Some(_) => {
                let detail = "format is json, ndjson or csv";
                return Err(Problem::new("query.malformed", detail));
            }
            None => {}
        }
        let wanted = accept.and_then(|accept| accept::best(accept, FORMS));
        Ok(wanted.and_then(|index| match FORMS[index] {
            "application/x-ndjson" => Some(Self::Ndjson),
            "text/csv" => Some(Self::Csv),
            _ => None,
        }))
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// The name of a file of it.
    pub fn file(self) -> &'static str {
        match self {
            Self::Ndjson => "events.ndjson",
            Self::Csv => "events.csv",
        }
    }

    /// What comes before all lines.
    pub fn head(self) -> Vec<u8> {
        match self {
            Self::Ndjson => Vec::new(),
            Self::Csv => (COLUMNS.join(",") + "\n").into_bytes(),
        }
    }

    /// The lines of some events.
    pub fn lines(self, events: &[Shown]) -> Result<Vec<u8>, io::Error> {
        match self {
            Self::Ndjson => events.iter().try_fold(Vec::new(), |mut lines, event| {
                serde_json::to_writer(&mut lines, event)?;
                lines.push(b'\n');
                Ok(lines)
            }),
            Self::Csv => {
                let mut writer = csv::Writer::from_writer(Vec::new());
                for event in events {
                    let row = serde_json::to_value(event)?;
                    writer.write_record(COLUMNS.iter().map(|column| cell(&row[*column])))?;
                }
                writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
            }
        }
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// All that fits up to the present end of the log, page after page.
pub struct Pages {
    store: Store,
    /// `None` when there is nothing more.
    search: Option<Search>,
    left: u64,
}

impl Pages {
    /// At most `most` events.
    pub async fn begin(store: &Store, search: &Search, most: u64) -> Result<Self, StoreError> {
        Ok(Self { store: store.clone(), search: store.pinned(search).await?, left: most })
    }

    /// The next page, which holds something; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Recorded>>, StoreError> {
        let Some(search) = self.search.as_mut().filter(|_| self.left > 0) else { return Ok(None) };
        let limit = usize::try_from(self.left).unwrap_or(PAGE).min(PAGE);
        let found = own_acts::search(&self.store, search, limit).await?;
        self.left = self.left.saturating_sub(found.events.len() as u64);
        search.after = found.next;
        if found.complete {
            self.search = None;
        }
        Ok(Some(found.events).filter(|events| !events.is_empty()))
    }
}

/// Why an export ends before its end: the connection is broken off then, so that nobody takes what
/// came for all of it.
enum Cut {
    Gone,
    Slow,
    Identity,
    Stopping,
    Failed(String),
}

impl From<StoreError> for Cut {
    fn from(error: StoreError) -> Self {
        Self::Failed(chain(&error))
    }
}

/// Opens an export of at most `most` events.
pub fn open(
    app: &Arc<App>,
    reader: Credential,
    search: Search,
    form: Form,
    most: u64,
) -> Result<Receiver<Option<Bytes>>, Problem> {
    let user = reader.actor.user();
    let user = user.ok_or_else(|| Problem::from(proximity_commands::Error::Unauthenticated))?;
    let place = Streams::enter(app, user)?;
    let (queue, receiver) = mpsc::channel(QUEUE);
    let app = Arc::clone(app);
    app.clone().spawn(async move {
        let _place = place;
        let why = match run(&app, &reader, &search, form, most, &queue).await {
            Ok(()) => return,
            Err(Cut::Gone) => "its reader is gone".to_owned(),
            Err(Cut::Slow) => {
                // Nobody else would: the connection would be kept for a client that takes nothing.
                reader.peer.hang_up();
                "its reader takes nothing".to_owned()
            }
            Err(Cut::Identity) => {
                reader.peer.hang_up();
                "its reader is not who it was".to_owned()
            }
            Err(Cut::Stopping) => "the server stops".to_owned(),
            Err(Cut::Failed(why)) => why,
        };
        tracing::warn!(%user, why, "an export of the log was broken off");
    });
    Ok(receiver)
}

async fn run(
    app: &Arc<App>,
    reader: &Credential,
    search: &Search,
    form: Form,
    most: u64,
    queue: &Sender<Option<Bytes>>,
) -> Result<(), Cut> {
    send(app, reader, queue, Some(form.head())).await?;
    let mut pages = Pages::begin(&app.store, search, most).await?;
    loop {
        still(app, reader).await?;
        let Some(events) = pages.next().await? else { break };
        let shown: Vec<Shown> =
            events.iter().map(|event| Shown::to(event, &reader.actor)).collect();
        let lines = form.lines(&shown).map_err(|error| Cut::Failed(error.to_string()))?;
        send(app, reader, queue, Some(lines)).await?;
    }
    send(app, reader, queue, None).await
}

/// What is looked for was bounded by what the reader might see at the beginning.
async fn still(app: &Arc<App>, reader: &Credential) -> Result<(), Cut> {
    match reader.now(app).await {
        Some((now, _)) if now.identity == reader.actor.identity => Ok(()),
        _ => Err(Cut::Identity),
    }
}

async fn send(
    app: &Arc<App>,
    reader: &Credential,
    queue: &Sender<Option<Bytes>>,
    lines: Option<Vec<u8>>,
) -> Result<(), Cut> {
    if lines.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    let lines = lines.map(Bytes::from);
    let began = Instant::now();
    loop {
        tokio::select! {
            free = timeout(LOOK, queue.reserve()) => match free {
                Ok(Ok(free)) => {
                    free.send(lines);
                    return Ok(());
                }
                Ok(Err(_)) => return Err(Cut::Gone),
                Err(_) if began.elapsed() >= PATIENCE => return Err(Cut::Slow),
                Err(_) if reader.peer.is_gone() => return Err(Cut::Gone),
                Err(_) => {}
            },
            () = app.stopping.cancelled() => return Err(Cut::Stopping),
        }
        still(app, reader).await?;
    }
}

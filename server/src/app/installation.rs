//! Who we are: the installation's id in the database, and this server's own as a runner.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use proximity_commands::Actor;
use proximity_eventstore::{Append, AppendError, Lane, SideWrite, Store, Value, tables};
use uuid::Uuid;

/// The key of the row that holds the id.
const ID: &str = "id";

/// The installation's id, made by whoever starts first. It stands in every container's marker.
pub async fn id(store: &Store) -> anyhow::Result<String> {
    if let Some(id) = read(store).await? {
        return Ok(id);
    }
    let text = |text: &str| Value::Text(text.to_owned());
    let row = vec![("key", text(ID)), ("value", text(&Uuid::new_v4().simple().to_string()))];
    let append = Append {
        id: Uuid::now_v7(),
        lane: Lane::Outcome,
        streams: Vec::new(),
        assertions: Vec::new(),
        side: vec![SideWrite::Insert { table: &tables::INSTALLATION, row }],
        metadata: Actor::system("start").metadata("installation.name").to_json(),
        fence: None,
        idempotency: None,
    };
    match store.append(append).await {
        Ok(_) | Err(AppendError::SideConflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    read(store).await?.context("the installation's id was not stored")
}

pub async fn read(store: &Store) -> anyhow::Result<Option<String>> {
    let filter = vec![("key", Value::Text(ID.to_owned()))];
    let rows = store.rows(&tables::INSTALLATION, filter, 1).await?;
    Ok(rows.into_iter().flatten().find_map(|(column, value)| match (column, value) {
        ("value", Value::Text(value)) => Some(value),
        _ => None,
    }))
}

/// This server's id as a runner, and the lock that says that it is in use.
pub struct RunnerId {
    pub id: Uuid,
    _lock: Option<File>,
}

impl RunnerId {
    /// The one kept in the data directory, so that a server that comes back takes its own
    /// operations up at once; a new one when another process uses that.
    pub fn take(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("runner");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot use {}", path.display()))?;
        if file.try_lock().is_err() {
            return Ok(Self { id: Uuid::new_v4(), _lock: None });
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let id = match text.trim().parse() {
            Ok(id) => id,
            Err(_) => {
                let id = Uuid::new_v4();
                file.rewind()?;
                file.set_len(0)?;
                writeln!(file, "{id}")?;
                id
            }
        };
        Ok(Self { id, _lock: Some(file) })
    }
}

//! Who we are: the installation's id in the database, and this server's own as a runner.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
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

/// Says where a data directory was when a server ran in it: a copy of it is somewhere else.
const PLACE: &str = "place";

/// Another one each time that a machine starts.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Where the directory is, and since which start of the machine: in a copy of its whole disk, the file has
/// the numbers that it had, on another machine.
fn place(data: &Path) -> std::io::Result<String> {
    let metadata = std::fs::metadata(data.join(PLACE))?;
    let boot = std::fs::read_to_string(BOOT)?;
    Ok(format!("{}:{} {}\n", metadata.dev(), metadata.ino(), boot.trim()))
}

/// Notes that a server runs in this data directory, and in no copy of it.
pub fn settle(data: &Path) -> std::io::Result<()> {
    if is_settled(data) {
        return Ok(());
    }
    let mut options = File::options();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(data.join(PLACE))?;
    file.write_all(place(data)?.as_bytes())
}

/// Whether a server ran in this very directory since the machine started.
pub fn is_settled(data: &Path) -> bool {
    let noted = std::fs::read_to_string(data.join(PLACE));
    matches!((noted, place(data)), (Ok(noted), Ok(place)) if noted == place)
}

/// This server's id as a runner, and the lock that says that it is in use.
pub struct RunnerId {
    pub id: Uuid,
    _lock: Option<File>,
}

impl RunnerId {
    /// The one that is kept, for whoever only looks.
    pub fn known(data: &Path) -> Option<Uuid> {
        std::fs::read_to_string(data.join("runner")).ok()?.trim().parse().ok()
    }

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_copy_of_a_data_directory_or_of_its_whole_disk_is_another_place() {
        let folder = tempfile::tempdir().unwrap();
        let [data, copy] = ["data", "copy"].map(|name| folder.path().join(name));
        std::fs::create_dir(&data).unwrap();
        assert!(!is_settled(&data), "no server has run in it");
        settle(&data).unwrap();
        assert!(is_settled(&data));
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(data.join(PLACE), copy.join(PLACE)).unwrap();
        assert!(!is_settled(&copy));
        // A disk that was copied block by block has the same numbers, on a machine that started by itself.
        let noted = std::fs::read_to_string(data.join(PLACE)).unwrap();
        let (numbers, boot) = noted.trim().split_once(' ').unwrap();
        let other = boot.chars().rev().collect::<String>();
        for older in [format!("{numbers} {other}\n"), format!("{numbers}\n")] {
            std::fs::write(data.join(PLACE), older).unwrap();
            assert!(!is_settled(&data));
            settle(&data).unwrap();
            assert!(is_settled(&data), "until the next server starts there");
        }
    }
}

//! Where the master keys are kept, and how the file is made on the first start.

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{KeyError, MasterKeys};

/// The file in a data directory.
const FILE_NAME: &str = "master.key";
/// How the names of its drafts begin, whatever the file itself is called.
const DRAFT: &str = ".master.key.";
/// The name of the systemd credential (`LoadCredential=proximity-master-key:…`).
const CREDENTIAL_NAME: &str = "proximity-master-key";
/// Links to the file that lead to each other, as many as Linux follows.
const MOST_LINKS: usize = 40;

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFile {
    /// A file of ours or of the operator's; made on the first start when it is missing.
    Own(PathBuf),
    /// Handed over by systemd, which sees to the permissions itself.
    Credential(PathBuf),
}

impl KeyFile {
    /// `PROXIMITY_MASTER_KEY_FILE`, else a systemd credential, else `master.key` in the data directory.
    pub fn locate(data_dir: &Path, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some(path) = set("PROXIMITY_MASTER_KEY_FILE") {
            return Self::Own(path.into());
        }
        if let Some(directory) = set("CREDENTIALS_DIRECTORY") {
            let path = Path::new(&directory).join(CREDENTIAL_NAME);
            if path.exists() {
                return Self::Credential(path);
            }
        }
        Self::Own(data_dir.join(FILE_NAME))
    }

    /// Reads the keys, or makes the first one unless the database was `sealed` already: a new key
    /// would then only hide that the old one is lost.
    ///
    /// Blocks on the file system: call it before the server starts.
    pub fn open(&self, sealed: bool) -> Result<MasterKeys, KeyError> {
        if let Some(keys) = self.open_existing(sealed)? {
            if let Err(error) = self.clear() {
                let error = crate::error::chain(&error);
                tracing::warn!(
                    error,
                    "a draft of the master key file is left over, and holds keys"
                );
            }
            return Ok(keys);
        }
        create(self.path(), &MasterKeys::generate()?)?;
        self.read()
    }

    /// The same for whoever only looks: `None` where [`open`] would make the first key.
    ///
    /// [`open`]: Self::open
    pub fn open_existing(&self, sealed: bool) -> Result<Option<MasterKeys>, KeyError> {
        let path = self.path();
        if matches!(self, Self::Credential(_)) || path.exists() {
            return self.read().map(Some);
        }
        if sealed { Err(KeyError::Missing { path: path.to_owned() }) } else { Ok(None) }
    }

    /// Writes other keys in the file's place; a crash leaves the old file or the new one whole.
    ///
    /// Blocks on the file system, and waits for others that change the file at the same time: `change`
    /// gets what is in the file now, and returns what is to be in it, or `None` when it is well as it is.
    pub(crate) fn update(
        &self,
        change: impl FnOnce(MasterKeys) -> Result<Option<MasterKeys>, KeyError>,
    ) -> Result<MasterKeys, KeyError> {
        let Self::Own(path) = self else {
            return Err(KeyError::ReadOnly { path: self.path().to_owned() });
        };
        let failed = |source| KeyError::Create { path: path.clone(), source };
        let real = resolved(path).map_err(failed)?;
        let _lock = lock(&real).map_err(failed)?;
        clear(path, &real)?;
        let held = self.read_any()?;
        let Some(keys) = change(held.clone())? else { return Ok(held) };
        replace(&real, &keys).map_err(failed)?;
        Ok(keys)
    }

    /// The same where others have decided on the change: a file that is well as it is, is only read, and
    /// one that cannot be written is left as it is, with `false` beside what it has.
    pub(super) fn follow(
        &self,
        change: impl Fn(MasterKeys) -> Result<Option<MasterKeys>, KeyError>,
    ) -> Result<(MasterKeys, bool), KeyError> {
        let given = self.read_any()?;
        if change(given.clone())?.is_none() {
            return Ok((given, true));
        }
        match self.update(change) {
            Ok(keys) => Ok((keys, true)),
            Err(error) if error.is_forbidden() => Ok((given, false)),
            Err(error) => Err(error),
        }
    }

    /// Makes the file with these keys; one that is there already is never overwritten.
    pub fn import(&self, keys: &MasterKeys) -> Result<(), KeyError> {
        let exists = || std::io::Error::from(ErrorKind::AlreadyExists);
        match self {
            Self::Own(path) if path.exists() => {
                Err(KeyError::Create { path: path.clone(), source: exists() })
            }
            Self::Own(path) => create(path, keys),
            Self::Credential(path) => Err(KeyError::ReadOnly { path: path.clone() }),
        }
    }

    /// Removes the drafts that processes left which were killed: they hold keys, and may be the last
    /// place that holds one that was destroyed. Nothing is touched when there are none.
    ///
    /// Blocks on the file system, and waits for others that change the file at the same time.
    pub fn clear(&self) -> Result<(), KeyError> {
        let Self::Own(path) = self else { return Ok(()) };
        let failed = |source| KeyError::Create { path: path.clone(), source };
        let real = resolved(path).map_err(failed)?;
        if drafts(path, &real).map_err(failed)?.is_empty() {
            return Ok(());
        }
        let _lock = lock(&real).map_err(failed)?;
        clear(path, &real)
    }

    /// Those drafts, for whoever only looks; one that is being written now is none of them.
    pub fn left(&self) -> std::io::Result<Vec<PathBuf>> {
        let Self::Own(path) = self else { return Ok(Vec::new()) };
        let real = resolved(path)?;
        let lock = match std::fs::File::open(lock_path(&real)) {
            // Nobody has changed the file yet.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            other => Some(other?),
        };
        if let Some(lock) = &lock {
            lock.lock_shared()?;
        }
        drafts(path, &real)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(path) | Self::Credential(path) => path,
        }
    }

    /// What is in the file.
    pub fn read(&self) -> Result<MasterKeys, KeyError> {
        let keys = self.read_any()?;
        let keyless = || KeyError::Keyless { path: self.path().to_owned() };
        if keys.is_empty() { Err(keyless()) } else { Ok(keys) }
    }

    /// The same for whoever can do with the remains of destroyed keys alone.
    pub(super) fn read_any(&self) -> Result<MasterKeys, KeyError> {
        let path = self.path();
        let failed = |source| KeyError::Read { path: path.to_owned(), source };
        if matches!(self, Self::Own(_)) {
            let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyError::TooOpen { path: path.to_owned(), mode });
            }
        }
        MasterKeys::parse_any(&Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?))
    }
}

/// Writes the file beside its place and links it there, so that it is never seen half written and
/// of two first starts one wins; the loser reads the winner's key.
fn create(path: &Path, keys: &MasterKeys) -> Result<(), KeyError> {
    let failed = |source| KeyError::Create { path: path.to_owned(), source };
    let real = resolved(path).map_err(failed)?;
    let _lock = lock(&real).map_err(failed)?;
    clear(path, &real)?;
    let linked = drafted(&real, keys, |draft| match std::fs::hard_link(draft, &real) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    linked.map_err(failed)
}

/// Writes the file beside its place and moves it there.
fn replace(path: &Path, keys: &MasterKeys) -> std::io::Result<()> {
    drafted(path, keys, |draft| std::fs::rename(draft, path))
}

/// Writes a draft and has it `put` in its place; what comes of it, no draft stays.
fn drafted(
    path: &Path,
    keys: &MasterKeys,
    put: impl FnOnce(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let directory = folder(path);
    let draft = directory.join(format!("{DRAFT}{}", uuid::Uuid::new_v4()));
    let written = write(&draft, keys).and_then(|()| put(&draft));
    let removed = remove(&draft);
    written.and(removed)?;
    std::fs::File::open(directory)?.sync_all()
}

/// Where the file itself lies, or is to lie, behind links to it: those stay, and it is what is replaced.
fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let mut real = path.to_owned();
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&real) {
            Ok(target) => real = folder(&real).join(target),
            // It is no link, or nothing is there yet.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => {
                return Ok(real);
            }
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::other("too many links lead from one to the next"))
}

/// Held by whoever changes the file, makes it, or clears its drafts away.
fn lock(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    let file =
        options.create(true).truncate(false).write(true).mode(0o600).open(lock_path(path))?;
    file.lock()?;
    Ok(file)
}

fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Removes all drafts; only for whoever holds the lock.
fn clear(path: &Path, real: &Path) -> Result<(), KeyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| KeyError::Left { path, source }
    };
    for draft in &drafts(path, real).map_err(failed(folder(real)))? {
        remove(draft).map_err(failed(draft))?;
        let directory = folder(draft);
        std::fs::File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed(directory))?;
        tracing::info!(draft = %draft.display(), "a draft of the master key file was removed");
    }
    Ok(())
}

/// The drafts that lie beside the file, and beside the link to it, where they lay before links were
/// followed: regular files of exactly their names.
fn drafts(path: &Path, real: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = beside(real)?;
    if folder(path) != folder(real) {
        found.extend(beside(path)?);
    }
    Ok(found)
}

fn beside(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(DRAFT));
        let is_draft = random.is_some_and(|random| {
            uuid::Uuid::try_parse(random).is_ok_and(|id| id.to_string() == random)
        });
        if is_draft && entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn folder(path: &Path) -> &Path {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    directory.unwrap_or_else(|| Path::new("."))
}

fn remove(draft: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(draft) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write(draft: &Path, keys: &MasterKeys) -> std::io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(keys.to_text().as_bytes())?;
    file.sync_all()
}

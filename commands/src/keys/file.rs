//! Where the master keys are kept, and how the file is made on the first start.

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{KeyError, MasterKeys};

/// The file in a data directory.
const FILE_NAME: &str = "master.key";
/// The name of the systemd credential (`LoadCredential=proximity-master-key:…`).
const CREDENTIAL_NAME: &str = "proximity-master-key";

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
        let lock = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.with_extension("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        let Some(keys) = change(self.read()?)? else { return self.read() };
        replace(path, &keys).map_err(failed)?;
        Ok(keys)
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

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(path) | Self::Credential(path) => path,
        }
    }

    /// What is in the file.
    pub fn read(&self) -> Result<MasterKeys, KeyError> {
        let path = self.path();
        let failed = |source| KeyError::Read { path: path.to_owned(), source };
        if matches!(self, Self::Own(_)) {
            let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyError::TooOpen { path: path.to_owned(), mode });
            }
        }
        MasterKeys::parse(&Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?))
    }
}

/// Writes the file beside its place and links it there, so that it is never seen half written and
/// of two first starts one wins; the loser reads the winner's key.
fn create(path: &Path, keys: &MasterKeys) -> Result<(), KeyError> {
    let failed = |source| KeyError::Create { path: path.to_owned(), source };
    let directory = folder(path);
    let draft = draft(directory);
    let written = (|| {
        write(&draft, keys)?;
        match std::fs::hard_link(&draft, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        std::fs::File::open(directory)?.sync_all()
    })();
    let removed = match std::fs::remove_file(&draft) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    written.and(removed).map_err(failed)
}

/// Writes the file beside its place and moves it there.
fn replace(path: &Path, keys: &MasterKeys) -> std::io::Result<()> {
    let directory = folder(path);
    let draft = draft(directory);
    write(&draft, keys)?;
    std::fs::rename(&draft, path)?;
    std::fs::File::open(directory)?.sync_all()
}

fn folder(path: &Path) -> &Path {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    directory.unwrap_or_else(|| Path::new("."))
}

fn draft(directory: &Path) -> PathBuf {
    directory.join(format!(".{FILE_NAME}.{}", uuid::Uuid::new_v4()))
}

fn write(draft: &Path, keys: &MasterKeys) -> std::io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(keys.to_text().as_bytes())?;
    file.sync_all()
}

//! The master keys of a running program: shared by all that use them, and changed while they do.

use std::sync::{Arc, PoisonError, RwLock};

use super::{DerivedKey, KeyError, KeyFile, MasterKeys, Purpose};

/// A cheap handle; all clones see a change at once.
#[derive(Clone)]
pub struct Keyring {
    inner: Arc<Inner>,
}

struct Inner {
    /// Where they are kept; a test may have them in memory only.
    file: Option<KeyFile>,
    /// Whether servers on other machines have key files of their own for the same database.
    shared: bool,
    keys: RwLock<Arc<MasterKeys>>,
}

/// Keys in memory only, for one server.
impl From<Arc<MasterKeys>> for Keyring {
    fn from(keys: Arc<MasterKeys>) -> Self {
        Self { inner: Arc::new(Inner { file: None, shared: false, keys: RwLock::new(keys) }) }
    }
}

impl Keyring {
    /// The keys of a file; `shared` when other servers use the same database.
    pub fn new(file: KeyFile, keys: MasterKeys, shared: bool) -> Self {
        let keys = RwLock::new(Arc::new(keys));
        Self { inner: Arc::new(Inner { file: Some(file), shared, keys }) }
    }

    /// The keys as they are now.
    pub fn keys(&self) -> Arc<MasterKeys> {
        Arc::clone(&self.inner.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keys for a purpose as they are now, the current one first.
    pub fn derive_all(&self, purpose: Purpose) -> Vec<DerivedKey> {
        self.keys().derive_all(purpose)
    }

    /// Whether a new key has to be handed to other servers.
    pub(crate) fn is_shared(&self) -> bool {
        self.inner.shared
    }

    /// Where the keys are kept, for people.
    pub(crate) fn place(&self) -> String {
        match &self.inner.file {
            Some(file) => file.path().display().to_string(),
            None => "in memory".to_owned(),
        }
    }

    /// Changes the keys, in the file first: what cannot be written is refused, and nothing is changed.
    pub(crate) async fn update(
        &self,
        change: impl FnOnce(MasterKeys) -> Result<Option<MasterKeys>, KeyError> + Send + 'static,
    ) -> Result<(), KeyError> {
        match self.inner.file.clone() {
            None => self.replace(change),
            Some(file) => {
                let keys = apart(move || file.update(change)).await?;
                self.replace(|_| Ok(Some(keys)))
            }
        }
    }

    /// The same for what was decided elsewhere and has to be followed: where the system hands the file
    /// over, the change is made in memory only, and the answer is `false`. A key that comes so has to be
    /// in another server's file already, or what it signs would be lost with this process.
    pub(crate) async fn follow(
        &self,
        change: impl FnOnce(MasterKeys) -> Result<Option<MasterKeys>, KeyError> + Send + 'static,
    ) -> Result<bool, KeyError> {
        let Some(file @ KeyFile::Credential(_)) = self.inner.file.clone() else {
            return self.update(change).await.map(|()| true);
        };
        // What the system hands over may be renewed; what is only in memory must not get lost.
        let given = apart(move || file.read_any()).await?;
        let mut written = true;
        self.replace(|held| {
            let joined = held.joined(&given);
            let changed = change(joined.clone())?;
            written = changed.is_none();
            Ok(Some(changed.unwrap_or(joined)))
        })?;
        Ok(written)
    }

    /// What is in the file now, where there is one.
    pub(crate) async fn in_file(&self) -> Result<Option<MasterKeys>, KeyError> {
        let Some(file) = self.inner.file.clone() else { return Ok(None) };
        apart(move || file.read_any()).await.map(Some)
    }

    /// An error where the system hands the file over: a new key would be in memory only.
    pub(crate) fn must_be_ours(&self) -> Result<(), KeyError> {
        match &self.inner.file {
            Some(KeyFile::Credential(path)) => Err(KeyError::Handed { path: path.clone() }),
            Some(KeyFile::Own(_)) | None => Ok(()),
        }
    }

    /// An error where the system hands the file over and it has the line of this key.
    pub(crate) async fn must_not_be_handed(&self, id: &str) -> Result<(), KeyError> {
        let Some(KeyFile::Credential(path)) = &self.inner.file else { return Ok(()) };
        match self.in_file().await? {
            Some(given) if given.by_id(id).is_some() => {
                Err(KeyError::StillHanded { id: id.to_owned(), path: path.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Removes what is left of changes of the file that were cut off, keys that are gone among them.
    pub(crate) async fn clear(&self) -> Result<(), KeyError> {
        let Some(file) = self.inner.file.clone() else { return Ok(()) };
        apart(move || file.clear()).await
    }

    /// Changes the keys in memory. Where nothing would be left that seals, what is held serves on: the
    /// log says which key seals, and this one is asked for nothing but what it signed.
    fn replace(
        &self,
        change: impl FnOnce(MasterKeys) -> Result<Option<MasterKeys>, KeyError>,
    ) -> Result<(), KeyError> {
        let mut keys = self.inner.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(changed) = change((**keys).clone())?.filter(|changed| !changed.is_empty()) {
            *keys = Arc::new(changed);
        }
        Ok(())
    }
}

/// Does what blocks on the file system where nothing waits for it.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(KeyError::Empty))
}

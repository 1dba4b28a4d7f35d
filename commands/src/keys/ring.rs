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

    /// The same for what was decided elsewhere and has to be followed: where the file cannot be written,
    /// since the system hands it over, say, the change is made in memory only, and the answer is `false`.
    /// A key that comes so has to be in another server's file already, or what it signs would be lost with
    /// this process. A file that is right as it is needs no writing, and may be one of those.
    pub(crate) async fn follow(
        &self,
        change: impl Fn(MasterKeys) -> Result<Option<MasterKeys>, KeyError> + Clone + Send + 'static,
    ) -> Result<bool, KeyError> {
        let Some(file) = self.inner.file.clone() else {
            return self.replace(change).map(|()| true);
        };
        let wanted = change.clone();
        let (given, written) = apart(move || file.follow(wanted)).await?;
        self.replace(|held| {
            // The file may be another one by now; what is only in memory must not get lost.
            let joined = held.joined(&given);
            Ok(Some(change(joined.clone())?.unwrap_or(joined)))
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

    /// An error where the file has the line of this key and cannot be written, since the system hands it
    /// over, say.
    pub(crate) async fn must_not_stay(&self, id: &str) -> Result<(), KeyError> {
        let Some(given) = self.in_file().await? else { return Ok(()) };
        if given.by_id(id).is_none() {
            return Ok(());
        }
        match self.inner.file.clone() {
            Some(KeyFile::Credential(path)) => {
                Err(KeyError::StillHanded { id: id.to_owned(), path })
            }
            Some(file @ KeyFile::Own(_)) => {
                // Written as it is: nothing else tells whether it can be.
                apart(move || file.update(|held| Ok(Some(held)))).await.map(drop)
            }
            None => Ok(()),
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

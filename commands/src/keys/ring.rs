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

    /// Changes the keys, in the file first. A file that cannot be written does not keep the change
    /// from this process: the caller is told, and the keys are used all the same.
    pub(crate) async fn update(
        &self,
        change: impl FnOnce(MasterKeys) -> Result<Option<MasterKeys>, KeyError> + Send + 'static,
    ) -> Result<(), KeyError> {
        let held = (*self.keys()).clone();
        let written = match self.inner.file.clone() {
            None => change(held.clone())?.map(Ok),
            Some(file @ KeyFile::Credential(_)) => {
                // What the system hands over may be renewed; what is only in memory must not get lost.
                let given = tokio::task::spawn_blocking({
                    let file = file.clone();
                    move || file.read()
                });
                let given = given.await.unwrap_or(Err(KeyError::Empty))?.led_by(&held);
                let changed = change(given.clone())?;
                let path = file.path().to_owned();
                let outcome = changed.is_none().then_some(()).ok_or(KeyError::ReadOnly { path });
                self.replace(changed.unwrap_or(given));
                return outcome;
            }
            Some(file) => {
                let updating = tokio::task::spawn_blocking(move || file.update(change));
                Some(updating.await.unwrap_or(Err(KeyError::Empty)))
            }
        };
        if let Some(keys) = written {
            self.replace(keys?);
        }
        Ok(())
    }

    /// Removes what is left of changes of the file that were cut off, keys that are gone among them.
    pub(crate) async fn clear(&self) -> Result<(), KeyError> {
        let Some(file) = self.inner.file.clone() else { return Ok(()) };
        tokio::task::spawn_blocking(move || file.clear()).await.unwrap_or(Err(KeyError::Empty))
    }

    fn replace(&self, keys: MasterKeys) {
        *self.inner.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

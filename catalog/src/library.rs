//! All applications that are offered, and the questions that are asked about them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use crate::app::CatalogApp;
use crate::load::{BrokenFile, Error, Origin};

/// The applications of one load, sorted by name in any case.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    apps: Vec<Arc<CatalogApp>>,
    broken: Vec<BrokenFile>,
}

/// Figures about a catalog, as the contract names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Stats {
    /// Applications that can be deployed.
    pub total_apps: usize,
    /// Categories they fall into.
    pub total_categories: usize,
}

impl Catalog {
    pub(crate) fn new(apps: impl Iterator<Item = CatalogApp>, broken: Vec<BrokenFile>) -> Self {
        let mut apps: Vec<_> = apps.map(Arc::new).collect();
        apps.sort_by_cached_key(|app| (app.name.to_lowercase(), app.id.clone()));
        Self { apps, broken }
    }

    /// All, sorted by name in any case.
    pub fn all(&self) -> &[Arc<CatalogApp>] {
        &self.apps
    }

    /// The files that were left out.
    pub fn broken(&self) -> &[BrokenFile] {
        &self.broken
    }

    /// The one with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<CatalogApp>> {
        self.apps.iter().find(|app| app.id == id)
    }

    /// Those of a category, in any case.
    pub fn in_category(&self, category: &str) -> Vec<Arc<CatalogApp>> {
        let wanted = category.trim().to_lowercase();
        self.filter(|app| app.category.trim().to_lowercase() == wanted)
    }

    /// Those whose name, description or a tag contains the text, in any case.
    pub fn search(&self, text: &str) -> Vec<Arc<CatalogApp>> {
        let wanted = text.trim().to_lowercase();
        let contains = |text: &str| text.to_lowercase().contains(&wanted);
        self.filter(|app| {
            contains(&app.name)
                || contains(&app.description)
                || app.tags.iter().any(|tag| contains(tag))
        })
    }

    fn filter(&self, wanted: impl Fn(&CatalogApp) -> bool) -> Vec<Arc<CatalogApp>> {
        self.apps.iter().filter(|app| wanted(app)).cloned().collect()
    }

    /// All categories, sorted; spellings that differ only in case are one (the first met).
    pub fn categories(&self) -> Vec<String> {
        let mut categories: BTreeMap<String, String> = BTreeMap::new();
        for app in &self.apps {
            let name = app.category.trim();
            categories.entry(name.to_lowercase()).or_insert_with(|| name.to_owned());
        }
        categories.into_values().collect()
    }

    /// How many applications and categories.
    pub fn stats(&self) -> Stats {
        Stats { total_apps: self.apps.len(), total_categories: self.categories().len() }
    }
}

/// The catalog in use; a reload swaps it whole, so that a reader never sees half of one.
#[derive(Debug)]
pub struct Library {
    origin: Origin,
    current: RwLock<Arc<Catalog>>,
}

impl Library {
    /// Loads for the first time.
    pub fn open(origin: Origin) -> Result<Self, Error> {
        let current = RwLock::new(Arc::new(Catalog::load(&origin)?));
        Ok(Self { origin, current })
    }

    /// The catalog as it is now; keep the `Arc` for one request.
    pub fn current(&self) -> Arc<Catalog> {
        // The lock only guards a pointer swap, so a poisoned one still holds a whole catalog.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again (blocking); when the directory cannot be read, the old catalog stays.
    pub fn reload(&self) -> Result<Arc<Catalog>, Error> {
        let fresh = Arc::new(Catalog::load(&self.origin)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }
}

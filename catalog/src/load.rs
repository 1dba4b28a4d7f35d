//! Where the files come from: the ones in the binary, or a directory that stands in their place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use serde::Serialize;

use crate::app::CatalogApp;
use crate::library::Catalog;
use crate::parse::{Invalid, parse};

/// Why no catalog could be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the catalog directory {} cannot be read", .path.display())]
    Directory { path: PathBuf, source: std::io::Error },
}

/// A file that is left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct BrokenFile {
    /// Its name, without the directory.
    pub file: String,
    /// Path of the field that is wrong.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Where a catalog was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The files in the binary.
    Embedded,
    Directory(PathBuf),
}

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/apps");

/// Larger files are no descriptions of applications.
const MAX_FILE: u64 = 1 << 20;

impl Catalog {
    /// Reads all files; what is broken stands in [`Catalog::broken`] and the rest loads.
    pub fn load(origin: &Origin) -> Result<Self, Error> {
        let files = match origin {
            Origin::Embedded => embedded(),
            Origin::Directory(path) => {
                directory(path).map_err(|source| Error::Directory { path: path.clone(), source })?
            }
        };
        Ok(Self::from_files(files))
    }

    fn from_files(files: BTreeMap<String, Result<String, Invalid>>) -> Self {
        let mut apps: BTreeMap<String, (String, CatalogApp)> = BTreeMap::new();
        let mut broken = Vec::new();
        for (file, text) in files {
            let parsed =
                text.and_then(|text| parse(&text)).and_then(|app| match apps.get(&app.id) {
                    Some((first, _)) => Err(Invalid {
                        field: "id".to_owned(),
                        reason: format!("{:?} is already the id of {first}", app.id),
                    }),
                    None => Ok(app),
                });
            match parsed {
                Ok(app) => {
                    apps.insert(app.id.clone(), (file, app));
                }
                Err(Invalid { field, reason }) => broken.push(BrokenFile { file, field, reason }),
            }
        }
        Self::new(apps.into_values().map(|(_, app)| app), broken)
    }
}

type Files = BTreeMap<String, Result<String, Invalid>>;

fn embedded() -> Files {
    EMBEDDED
        .files()
        .filter_map(|file| {
            let name = file.path().file_name()?.to_str()?.to_owned();
            let text = file.contents_utf8().map(str::to_owned).ok_or_else(not_text);
            is_application(&name).then_some((name, text))
        })
        .collect()
}

fn directory(path: &Path) -> Result<Files, std::io::Error> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        if is_application(&name) && path.is_file() {
            files.insert(name, read(&path));
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String, Invalid> {
    let unreadable = |error: std::io::Error| Invalid {
        field: "(file)".to_owned(),
        reason: format!("it cannot be read: {error}"),
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE {
        return Err(Invalid {
            field: "(file)".to_owned(),
            reason: format!("it is larger than {MAX_FILE} bytes"),
        });
    }
    String::from_utf8(std::fs::read(path).map_err(unreadable)?).map_err(|_| not_text())
}

fn not_text() -> Invalid {
    Invalid { field: "(file)".to_owned(), reason: "it is not UTF-8 text".to_owned() }
}

/// Every `*.json` but `index.json`, which the old product kept beside its applications.
fn is_application(name: &str) -> bool {
    name.ends_with(".json") && name != "index.json" && !name.starts_with('.')
}

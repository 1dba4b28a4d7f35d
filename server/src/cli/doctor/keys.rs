//! What the doctor finds in and beside the key file that should not be there any more.

use proximity_commands::keys::{KeyFile, MasterKeys};
use proximity_commands::secrets::Secrets;
use proximity_eventstore::Store;

use crate::app::key_file;
use crate::cli::Settings;
use crate::http::problem::chain;

/// Keys in the key file that the log says were destroyed, when there are any.
pub(super) async fn destroyed(
    config: &Settings,
    store: &Store,
    keys: &MasterKeys,
) -> Option<Result<String, String>> {
    let left = match Secrets::destroyed_of(store, keys).await {
        Ok(left) => left.join(", "),
        Err(error) => return Some(Err(chain(&error))),
    };
    let file = key_file(config);
    let place = file.path().display();
    let mend = match &file {
        KeyFile::Own(_) => "the next start and the next `keys destroy` take it out",
        KeyFile::Credential(_) => {
            "it is handed over by the system: run `keys destroy` with a copy of it while the server is \
             stopped, and hand that copy over instead"
        }
    };
    (!left.is_empty())
        .then(|| Err(format!("{place} still has the line of {left}, which was destroyed: {mend}")))
}

/// Drafts of the key file that were left by a change that was cut off, when there are any.
pub(super) async fn drafts(config: &Settings) -> Option<Result<String, String>> {
    let file = key_file(config);
    let left = tokio::task::spawn_blocking(move || file.left()).await.ok()?;
    let left = match left {
        Ok(left) => left,
        Err(error) => {
            return Some(Err(format!("what lies beside the key file cannot be listed: {error}")));
        }
    };
    let left: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
    (!left.is_empty()).then(|| {
        Err(format!(
            "{} was left by a change of the key file that was cut off, and holds keys, maybe destroyed ones: \
             the next start and the next `keys rotate` or `keys destroy` remove it",
            left.join(", ")
        ))
    })
}

//! The statements of restores that the database keeps, for the day on which the heads are lost.

use crate::error::Error;
use crate::heads::{HeadsDir, Life};
use crate::side::Value;
use crate::signed::{Signed, Trusted};
use crate::store::Store;
use crate::tables::INSTALLATION;
use crate::task::blocking;

/// How their names among the facts of the installation begin.
const NAME: &str = "life ";
/// More facts than any installation has.
const FACTS: usize = 10_000;

/// Those that are there, whoever signed them; what cannot be read is none.
pub(crate) async fn statements(store: &Store) -> Result<Vec<Signed<Life>>, Error> {
    let rows = store.rows(&INSTALLATION, Vec::new(), FACTS).await?;
    let read = |row: Vec<(&'static str, Value)>| match row.as_slice() {
        [(_, Value::Text(name)), (_, Value::Text(text))] if name.starts_with(NAME) => {
            serde_json::from_str(text).ok()
        }
        _ => None,
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// Keeps one, beside whatever else is said of the same life.
pub(crate) async fn keep(store: &Store, life: &Signed<Life>) -> Result<(), Error> {
    let signature = life.signature.get(..16).unwrap_or(&life.signature);
    let name = format!("{NAME}{} {signature}", life.statement.incarnation);
    let text = serde_json::to_string(life).map_err(|error| Error::malformed(error.to_string()))?;
    store.keep_fact(name, text).await
}

/// Keeps those that led to the log's present life, and that one of these keys signed.
pub(crate) async fn keep_all(store: &Store, dir: HeadsDir, keys: &Trusted) -> Result<(), Error> {
    let kept = statements(store).await?;
    let mut said = blocking(move || dir.lives()).await?.found;
    said.retain(|life| life.is_trusted(keys));
    let mut lives = vec![store.incarnation()];
    let mut next = 0;
    while let Some(incarnation) = lives.get(next).copied() {
        next += 1;
        for life in said.iter().filter(|life| life.statement.incarnation == incarnation) {
            if !lives.contains(&life.statement.from) {
                lives.push(life.statement.from);
            }
            if !kept.contains(life) {
                keep(store, life).await?;
            }
        }
    }
    Ok(())
}

//! The part of a rotation that seals each secret anew; what belongs to an application that is gone is
//! deleted instead.

use proximity_domain::application::Application;
use proximity_eventstore::{Guard, SideWrite, Value, tables};

use super::{APPLICATIONS, Secrets, bound_to};
use crate::actor::Actor;
use crate::dispatch::{Tried, Unit, load};
use crate::error::Error;
use crate::rows::{Columns, text, unreadable};

/// Secrets sealed anew in one append.
const AT_ONCE: usize = 50;

impl Secrets {
    /// Seals anew what is under other keys than the current one; returns how many.
    pub(super) async fn reseal_all(&self, actor: &Actor) -> Result<u64, Error> {
        let mut done = 0;
        for old in self.sentinel_ids().await? {
            if old == self.keys().current_id() {
                continue;
            }
            loop {
                let filter = vec![("key_id", text(&old))];
                let rows = self.store.rows(&tables::SECRETS, filter, AT_ONCE).await;
                let rows: Vec<Columns> =
                    rows.map_err(unreadable)?.into_iter().map(Columns).collect();
                if rows.is_empty() {
                    break;
                }
                match self.reseal(actor, &rows).await {
                    Ok(resealed) => done += resealed,
                    // One of them was deleted meanwhile: each by itself.
                    Err(error) if is_contended(&error) => {
                        for row in rows.chunks(1) {
                            match self.reseal(actor, row).await {
                                Ok(resealed) => done += resealed,
                                Err(error) if is_contended(&error) => {}
                                Err(error) => return Err(failed(error)),
                            }
                        }
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Ok(done)
    }

    /// Returns how many were sealed anew; the others are deleted.
    async fn reseal(&self, actor: &Actor, rows: &[Columns]) -> Result<u64, Tried> {
        let keys = self.keys();
        let mut unit = Unit::new(&self.store, actor.metadata("keys.reseal"));
        let mut resealed = 0;
        for row in rows {
            let (table, record) = (row.text("record_table")?, row.text("record_id")?);
            let (id, old) = (text(row.text("id")?), row.text("key_id")?);
            if table == APPLICATIONS && self.is_gone(record).await? {
                unit.write(SideWrite::Delete {
                    table: &tables::SECRETS,
                    filter: vec![("id", id)],
                    guard: Guard::None,
                });
                continue;
            }
            let (column, version) = (row.text("column_name")?, row.integer("version")?);
            let plain = self.unwrap(row, old, &bound_to(table, record, column, version, old))?;
            let bound = bound_to(table, record, column, version, keys.current_id());
            let (wrapped_key, ciphertext) = self.wrap(&keys, keys.current_id(), &bound, &plain)?;
            unit.write(SideWrite::Update {
                table: &tables::SECRETS,
                set: vec![
                    ("key_id", text(keys.current_id())),
                    ("wrapped_key", Value::Bytes(wrapped_key)),
                    ("ciphertext", Value::Bytes(ciphertext)),
                ],
                filter: vec![("id", id), ("key_id", text(old))],
                guard: Guard::Rows(1),
            });
            resealed += 1;
        }
        unit.commit().await?;
        Ok(resealed)
    }

    /// Whether an application has no use for its secrets any more; those of applications that ended
    /// before their end deleted them are still there.
    async fn is_gone(&self, application: &str) -> Result<bool, Error> {
        let (state, _) = load::<Application>(&self.store, application).await?;
        Ok(matches!(state, Application::Removed | Application::Failed(_)))
    }
}

fn is_contended(error: &Tried) -> bool {
    matches!(error, Tried::Failed(Error::Unavailable { code: "store.contended", .. }))
}

fn failed(error: Tried) -> Error {
    match error {
        Tried::Failed(error) => error,
        Tried::Stale(error) => error.into(),
    }
}

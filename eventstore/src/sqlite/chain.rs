//! Reads of the sealed chain, and of the events as it covers them.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row as SqlRow};

use super::read::{COLUMNS, Readers, limit_of};
use crate::append::Position;
use crate::error::Error;
use crate::seal::{Leaf, Link, Seal, Sealable, leaf};

const SEAL: &str =
    "block, first_position, last_position, leaves, hash, key_id, signature, sealed_at, incarnation";

impl Readers {
    pub async fn last_seal(&self) -> Result<Option<Seal>, Error> {
        self.read(|connection| {
            let sql = format!("select {SEAL} from seals order by block desc limit 1");
            Ok(connection.prepare_cached(&sql)?.query_row((), seal).optional()?)
        })
        .await
    }

    pub async fn seals(&self, after: u64, limit: usize) -> Result<Vec<Seal>, Error> {
        self.read(move |connection| {
            let sql = format!("select {SEAL} from seals where block > ?1 order by block limit ?2");
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map((after, limit_of(limit)), seal)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn links(&self, after: u64, limit: usize) -> Result<Vec<Link>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "select block, last_position, hash, incarnation from seals \
                 where block > ?1 order by block limit ?2",
            )?;
            let rows = statement.query_map((after, limit_of(limit)), |row| {
                Ok(Link {
                    block: row.get(0)?,
                    last: row.get(1)?,
                    hash: row.get(2)?,
                    incarnation: life(row, 3)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn sealable(&self, after: Position, limit: usize) -> Result<Vec<Sealable>, Error> {
        self.read(move |connection| {
            let sql = format!(
                "select {COLUMNS} from events where position > ?1 order by position limit ?2"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map((after, limit_of(limit)), |row| {
                Ok(Sealable {
                    position: row.get(0)?,
                    recorded_at: row.get(8).ok(),
                    leaf: leaf_of(row, row.get(0)?),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn leaf_at(
        &self,
        position: Position,
        place: Position,
    ) -> Result<Option<Leaf>, Error> {
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let sql = format!("select {COLUMNS} from events where position = ?1");
            let mut statement = connection.prepare_cached(&sql)?;
            let found = statement.query_row([position], |row| Ok(leaf_of(row, place)));
            Ok(found.optional()?.flatten())
        })
        .await
    }

    pub async fn strays(&self) -> Result<u64, Error> {
        self.read(|connection| {
            let sql = "select count(*) from events where position < 1";
            Ok(connection.prepare_cached(sql)?.query_row((), |row| row.get(0))?)
        })
        .await
    }
}

/// Over the bytes as they are stored, without reading them as anything.
fn leaf_of(row: &SqlRow<'_>, position: i64) -> Option<Leaf> {
    let text = |index| row.get_ref(index).ok()?.as_bytes().ok();
    let texts = [text(1)?, text(2)?, text(4)?, text(5)?, text(6)?, text(7)?];
    Some(leaf(position, row.get(3).ok()?, row.get(8).ok()?, texts))
}

pub(super) fn life(row: &SqlRow<'_>, index: usize) -> Result<uuid::Uuid, rusqlite::Error> {
    let text: String = row.get(index)?;
    text.parse().map_err(|error: uuid::Error| {
        rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
    })
}

fn seal(row: &SqlRow<'_>) -> Result<Seal, rusqlite::Error> {
    Ok(Seal {
        block: row.get(0)?,
        first: row.get(1)?,
        last: row.get(2)?,
        leaves: row.get(3)?,
        hash: row.get(4)?,
        key_id: row.get(5)?,
        signature: row.get(6)?,
        sealed_at: row.get(7)?,
        incarnation: life(row, 8)?,
    })
}

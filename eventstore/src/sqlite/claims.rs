//! Claims, probes, counters, seals and pruning on SQLite: single statements on the writer's connection.

use std::time::Duration;

use rusqlite::OptionalExtension as _;
use uuid::Uuid;

use super::Sqlite;
use super::batch::now_micros;
use super::chain::life;
use super::read::Readers;
use crate::claim::{Claim, lowest_id_at, micros};
use crate::error::Error;
use crate::seal::Seal;
use crate::sealer::Published;
use crate::side::Table;

const CLAIM: &str = "insert into claims (id, runner, epoch, expires_at) values (?1, ?2, 1, ?3)
  on conflict (id) do update
  set runner = excluded.runner, epoch = claims.epoch + 1, expires_at = excluded.expires_at
  where claims.expires_at <= ?4 or claims.runner = excluded.runner
  returning epoch";
const RENEW: &str =
    "update claims set expires_at = ?4 where id = ?1 and runner = ?2 and epoch = ?3";
const RELEASE: &str =
    "update claims set expires_at = 0 where id = ?1 and runner = ?2 and epoch = ?3";
const PROBE: &str = "update meta set value = ?1 where key = 'probe'";
const COUNT_FAILURE: &str =
    "insert into login_attempts (account, source, window_start, failures) values (?1, ?2, ?3, 1)
  on conflict (account, source, window_start) do update set failures = failures + 1
  returning failures";

const INSERT_SEAL: &str = "insert into seals (block, first_position, last_position, leaves, hash, \
    key_id, signature, sealed_at, incarnation) select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 \
    where exists (select 1 from meta where key = 'incarnation' and replace(value, '-', '') = ?9) \
    on conflict do nothing";

const PUBLISHED: &str = "insert into published (server, incarnation, first_block, each_from, \
    last_block, last_position) values (?1, ?2, ?3, ?4, ?5, ?6) \
    on conflict (server, incarnation) do update set last_block = excluded.last_block, \
    last_position = excluded.last_position where last_block < excluded.last_block";

const KEEP_FACT: &str = "insert into installation (key, value) values (?1, ?2) \
    on conflict (key) do update set value = excluded.value \
    where installation.value <> excluded.value";

impl Readers {
    pub async fn published(&self) -> Result<Vec<Published>, Error> {
        self.read(|connection| {
            let sql = "select server, incarnation, first_block, each_from, last_block, last_position \
                       from published order by server, incarnation";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map((), |row| {
                Ok(Published {
                    server: row.get(0)?,
                    incarnation: life(row, 1)?,
                    first_block: row.get(2)?,
                    each_from: row.get(3)?,
                    last_block: row.get(4)?,
                    last_position: row.get(5)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

impl Sqlite {
    pub async fn note_published(&self, row: Published) -> Result<(), Error> {
        self.with_writer(move |writer| {
            let life = row.incarnation.simple().to_string();
            let values = (
                row.server,
                life,
                row.first_block,
                row.each_from,
                row.last_block,
                row.last_position,
            );
            writer.connection.prepare_cached(PUBLISHED)?.execute(values).map(drop)
        })
        .await
    }

    pub async fn insert_seal(&self, seal: Seal) -> Result<bool, Error> {
        self.with_writer(move |writer| {
            let inserted = writer.connection.prepare_cached(INSERT_SEAL)?.execute((
                seal.block,
                seal.first,
                seal.last,
                seal.leaves,
                seal.hash,
                seal.key_id,
                seal.signature,
                seal.sealed_at,
                seal.incarnation.simple().to_string(),
            ))?;
            Ok(inserted == 1)
        })
        .await
    }

    pub async fn keep_fact(&self, name: String, text: String) -> Result<(), Error> {
        self.with_writer(move |writer| {
            writer.connection.prepare_cached(KEEP_FACT)?.execute((name, text)).map(drop)
        })
        .await
    }

    pub async fn set_incarnation(&self, to: Uuid) -> Result<(), Error> {
        self.with_writer(move |writer| {
            let sql = "update meta set value = ?1 where key = 'incarnation'";
            writer.connection.prepare_cached(sql)?.execute([to.simple().to_string()]).map(drop)
        })
        .await
    }

    pub async fn claim(
        &self,
        id: &str,
        runner: Uuid,
        ttl: Duration,
    ) -> Result<Option<Claim>, Error> {
        let id = id.to_owned();
        let epoch = self
            .with_writer(move |writer| {
                let now = now_micros();
                let end = now.saturating_add(micros(ttl));
                writer
                    .connection
                    .prepare_cached(CLAIM)?
                    .query_row((id, runner.to_string(), end, now), |row| row.get(0))
                    .optional()
            })
            .await?;
        Ok(epoch.map(|epoch| Claim { epoch, expires_in: ttl }))
    }

    pub async fn renew(
        &self,
        id: &str,
        runner: Uuid,
        epoch: u64,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let id = id.to_owned();
        self.with_writer(move |writer| {
            let end = now_micros().saturating_add(micros(ttl));
            let touched = writer.connection.prepare_cached(RENEW)?.execute((
                id,
                runner.to_string(),
                epoch,
                end,
            ))?;
            Ok(touched == 1)
        })
        .await
    }

    pub async fn release(&self, id: &str, runner: Uuid, epoch: u64) -> Result<bool, Error> {
        let id = id.to_owned();
        self.with_writer(move |writer| {
            let touched = writer.connection.prepare_cached(RELEASE)?.execute((
                id,
                runner.to_string(),
                epoch,
            ))?;
            Ok(touched == 1)
        })
        .await
    }

    pub async fn probe(&self) -> Result<(), Error> {
        self.with_writer(|writer| {
            writer.connection.prepare_cached(PROBE)?.execute([now_micros().to_string()]).map(drop)
        })
        .await
    }

    pub async fn count_login_failure(
        &self,
        account: &str,
        source: &str,
        window_start: i64,
    ) -> Result<u64, Error> {
        let (account, source) = (account.to_owned(), source.to_owned());
        self.with_writer(move |writer| {
            writer
                .connection
                .prepare_cached(COUNT_FAILURE)?
                .query_row((account, source, window_start), |row| row.get(0))
        })
        .await
    }

    pub async fn prune(
        &self,
        table: &'static Table,
        column: &'static str,
        before: i64,
    ) -> Result<u64, Error> {
        let sql = format!("delete from \"{}\" where \"{column}\" < ?1", table.name);
        self.with_writer(move |writer| {
            let touched = writer.connection.prepare_cached(&sql)?.execute([before])?;
            Ok(u64::try_from(touched).unwrap_or(u64::MAX))
        })
        .await
    }

    pub async fn forget_appends(&self, before: i64) -> Result<u64, Error> {
        let below = lowest_id_at(before);
        self.with_writer(move |writer| {
            let touched = writer
                .connection
                .prepare_cached("delete from appends where append_id < ?1 and recorded_at < ?2")?
                .execute((below.as_bytes().as_slice(), before))?;
            Ok(u64::try_from(touched).unwrap_or(u64::MAX))
        })
        .await
    }
}

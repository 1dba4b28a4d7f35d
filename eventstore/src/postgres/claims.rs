//! Claims, probes, counters, seals and pruning on PostgreSQL: single statements, each its own transaction.

use std::time::Duration;

use sqlx::Row as _;
use uuid::Uuid;

use super::Postgres;
use crate::claim::{Claim, lowest_id_at, micros};
use crate::error::Error;
use crate::seal::Seal;
use crate::sealer::Published;
use crate::side::Table;

const NOW: &str = "(extract(epoch from clock_timestamp()) * 1000000)::bigint";
const RELEASE: &str =
    "update claims set expires_at = 0 where id = $1 and runner = $2 and epoch = $3";
const PROBE: &str = "update meta set value = clock_timestamp()::text where key = 'probe'";
const COUNT_FAILURE: &str =
    "insert into login_attempts as l (account, source, window_start, failures) values ($1, $2, $3, 1)
  on conflict (account, source, window_start) do update set failures = l.failures + 1
  returning failures";

const INSERT_SEAL: &str = "insert into seals (block, first_position, last_position, leaves, hash, \
    key_id, signature, sealed_at, incarnation) select $1, $2, $3, $4, $5, $6, $7, $8, $9 \
    where exists (select 1 from meta where key = 'incarnation' and replace(value, '-', '') = $9) \
    on conflict do nothing";

const PUBLISHED: &str = "insert into published as p (server, incarnation, first_block, each_from, \
    last_block, last_position) values ($1, $2, $3, $4, $5, $6) \
    on conflict (server, incarnation) do update set last_block = excluded.last_block, \
    last_position = excluded.last_position where p.last_block < excluded.last_block";

const KEEP_FACT: &str = "insert into installation (key, value) values ($1, $2) \
    on conflict (key) do update set value = excluded.value \
    where installation.value <> excluded.value";

impl Postgres {
    pub async fn note_published(&self, row: &Published) -> Result<(), Error> {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        sqlx::query(PUBLISHED)
            .bind(&row.server)
            .bind(row.incarnation.simple().to_string())
            .bind(number(row.first_block))
            .bind(number(row.each_from))
            .bind(number(row.last_block))
            .bind(number(row.last_position))
            .execute(self.pool()?)
            .await?;
        Ok(())
    }

    pub async fn insert_seal(&self, seal: &Seal) -> Result<bool, Error> {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let done = sqlx::query(INSERT_SEAL)
            .bind(number(seal.block))
            .bind(number(seal.first))
            .bind(number(seal.last))
            .bind(&seal.leaves)
            .bind(&seal.hash)
            .bind(&seal.key_id)
            .bind(&seal.signature)
            .bind(seal.sealed_at)
            .bind(seal.incarnation.simple().to_string())
            .execute(self.pool()?)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    pub async fn keep_fact(&self, name: &str, text: &str) -> Result<(), Error> {
        sqlx::query(KEEP_FACT).bind(name).bind(text).execute(self.pool()?).await?;
        Ok(())
    }

    pub async fn set_incarnation(&self, to: Uuid) -> Result<(), Error> {
        let sql = "update meta set value = $1 where key = 'incarnation'";
        sqlx::query(sql).bind(to.to_string()).execute(self.pool()?).await?;
        Ok(())
    }

    fn pool(&self) -> Result<&sqlx::PgPool, Error> {
        if self.writing.is_some() { Ok(self.reader.pool()) } else { Err(Error::ReadOnly) }
    }

    pub async fn claim(
        &self,
        id: &str,
        runner: Uuid,
        ttl: Duration,
    ) -> Result<Option<Claim>, Error> {
        let sql = format!(
            "insert into claims as c (id, runner, epoch, expires_at) values ($1, $2, 1, {NOW} + $3)
             on conflict (id) do update
             set runner = excluded.runner, epoch = c.epoch + 1, expires_at = {NOW} + $3
             where c.expires_at <= {NOW} or c.runner = excluded.runner
             returning epoch"
        );
        let row = sqlx::query(&sql)
            .bind(id)
            .bind(runner.to_string())
            .bind(micros(ttl))
            .fetch_optional(self.pool()?)
            .await?;
        let epoch = row.map(|row| row.try_get::<i64, _>(0)).transpose()?;
        Ok(epoch.map(|epoch| Claim { epoch: epoch.unsigned_abs(), expires_in: ttl }))
    }

    pub async fn renew(
        &self,
        id: &str,
        runner: Uuid,
        epoch: u64,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let sql = format!(
            "update claims set expires_at = {NOW} + $4 where id = $1 and runner = $2 and epoch = $3"
        );
        let done = sqlx::query(&sql)
            .bind(id)
            .bind(runner.to_string())
            .bind(i64::try_from(epoch).unwrap_or(i64::MAX))
            .bind(micros(ttl))
            .execute(self.pool()?)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    pub async fn release(&self, id: &str, runner: Uuid, epoch: u64) -> Result<bool, Error> {
        let done = sqlx::query(RELEASE)
            .bind(id)
            .bind(runner.to_string())
            .bind(i64::try_from(epoch).unwrap_or(i64::MAX))
            .execute(self.pool()?)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    pub async fn probe(&self) -> Result<(), Error> {
        sqlx::query(PROBE).execute(self.pool()?).await?;
        Ok(())
    }

    pub async fn count_login_failure(
        &self,
        account: &str,
        source: &str,
        window_start: i64,
    ) -> Result<u64, Error> {
        let row = sqlx::query(COUNT_FAILURE)
            .bind(account)
            .bind(source)
            .bind(window_start)
            .fetch_one(self.pool()?)
            .await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    pub async fn prune(
        &self,
        table: &'static Table,
        column: &'static str,
        before: i64,
    ) -> Result<u64, Error> {
        let sql = format!("delete from \"{}\" where \"{column}\" < $1", table.name);
        Ok(sqlx::query(&sql).bind(before).execute(self.pool()?).await?.rows_affected())
    }

    pub async fn forget_appends(&self, before: i64) -> Result<u64, Error> {
        let row = sqlx::query("select proximity_forget_appends($1::uuid, $2)")
            .bind(lowest_id_at(before).to_string())
            .bind(before)
            .fetch_one(self.pool()?)
            .await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }
}

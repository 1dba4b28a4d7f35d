//! `pgbench`, where it is installed: one bare insert of an event per transaction, no lock, no checks.

use std::process::Command;
use std::time::Duration;

use crate::cell::{Cell, EVENT_TYPE, METADATA, PAYLOAD};
use crate::raw_postgres::Database;

/// Without our function nothing gives dense positions: a plain sequence does, as a stock store would.
pub fn run(database: &Database, clients: usize, time: Duration) -> Option<Cell> {
    let script = tempfile::NamedTempFile::new().unwrap();
    let sql = format!(
        "\\set id random(1, 1000000000)\n\
         insert into bench_events (aggregate_type, aggregate_id, sequence, event_type, event_version, \
         payload, metadata, recorded_at) values ('operation', :client_id || '-' || :id || '-' || \
         clock_timestamp()::text, 1, '{EVENT_TYPE}', '1', '{PAYLOAD}', '{METADATA}', 1);\n"
    );
    std::fs::write(script.path(), sql).unwrap();
    let table = "create table if not exists bench_events (like events including all); \
         create sequence if not exists bench_positions; \
         alter table bench_events alter position set default nextval('bench_positions')";
    let made = Command::new("psql")
        .args(["--quiet", "--no-psqlrc", "--command", table, &database.url()])
        .env("PGOPTIONS", "--client-min-messages=error")
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return None;
    }
    let seconds = time.as_secs().max(1);
    let output = Command::new(pgbench())
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=1"])
        .args([format!("--client={clients}"), format!("--time={seconds}")])
        .arg(format!("--file={}", script.path().display()))
        .arg(database.url())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("number of transactions actually"))?;
    let appends = line.split(|c: char| !c.is_ascii_digit()).find_map(|n| n.parse().ok())?;
    Some(Cell { appends, batches: appends, time: Duration::from_secs(seconds) })
}

/// Debian keeps it out of the path on some machines.
fn pgbench() -> std::path::PathBuf {
    let kept = (13..=18)
        .rev()
        .map(|version| format!("/usr/lib/postgresql/{version}/bin/pgbench").into())
        .find(|path: &std::path::PathBuf| path.exists());
    kept.unwrap_or_else(|| "pgbench".into())
}

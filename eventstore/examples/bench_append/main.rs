//! Appends per second through the writer, beside a raw loop over the same SQL and the same batch sizes.
//!
//! `PROXIMITY_TEST_POSTGRES` names a superuser's URL; without it only SQLite is measured. `--seconds N`
//! sets how long each cell runs (3 by default). All rows of a table come from one run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod cell;
mod pgbench;
mod raw_postgres;
mod raw_sqlite;

use std::time::Duration;

use cell::{Cell, through_the_writer};
use proximity_eventstore::{Options, Store};
use tempfile::TempDir;

const CALLERS: [usize; 3] = [1, 16, 64];

/// One measured way to append.
struct Line {
    name: &'static str,
    cells: Vec<Cell>,
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut seconds = 3.0;
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--seconds", Some(value)) => seconds = value.parse().expect("--seconds N"),
            _ => panic!("usage: bench_append [--seconds N]"),
        }
    }
    let time = Duration::from_secs_f64(seconds);
    sqlite(time).await;
    match std::env::var("PROXIMITY_TEST_POSTGRES") {
        Ok(admin) => postgres(&admin, time).await,
        Err(_) => println!("\nPostgreSQL is not measured: PROXIMITY_TEST_POSTGRES is not set."),
    }
}

async fn sqlite(time: Duration) {
    let [mut writer, mut raw, mut single, mut insert] =
        lines("one thread, one row per transaction");
    for callers in CALLERS {
        let dir = TempDir::new().unwrap();
        let store = Store::open(Options::sqlite(dir.path())).await.unwrap();
        let cell = through_the_writer(&store, callers, time).await;
        store.close().await;
        let batch = cell.batch();
        writer.cells.push(cell);
        raw.cells.push(raw_sqlite::batches(batch, time));
        single.cells.push(raw_sqlite::one_per_transaction(callers, time));
        insert.cells.push(raw_sqlite::bare_inserts(time));
    }
    print("SQLite", &[writer, raw, single, insert]);
}

async fn postgres(admin: &str, time: Duration) {
    let [mut writer, mut raw, mut single, mut insert] = lines("pgbench, one row per transaction");
    for callers in CALLERS {
        let database = raw_postgres::Database::create(admin).await;
        let store = Store::open(Options::postgres(database.url())).await.unwrap();
        let cell = through_the_writer(&store, callers, time).await;
        store.close().await;
        let batch = cell.batch();
        writer.cells.push(cell);
        raw.cells.push(raw_postgres::batches(&database, batch, time).await);
        single.cells.push(raw_postgres::one_per_transaction(&database, callers, time).await);
        if let Some(cell) = pgbench::run(&database, callers, time) {
            insert.cells.push(cell);
        }
        database.drop().await;
    }
    print("PostgreSQL", &[writer, raw, single, insert]);
}

fn lines(bare: &'static str) -> [Line; 4] {
    [
        "through the writer",
        "raw loop, same SQL, same batches",
        "one transaction per append, under the lock",
        bare,
    ]
    .map(|name| Line { name, cells: Vec::new() })
}

/// A Markdown table; the mean batch stands behind each figure where there is one.
fn print(store: &str, lines: &[Line]) {
    println!(
        "\n| {store}: appends/s at | 1 caller | 16 callers | 64 callers |\n|---|---:|---:|---:|"
    );
    for line in lines {
        let cells: Vec<String> = line.cells.iter().map(Cell::to_string).collect();
        let cells = if cells.is_empty() { "not measured".to_owned() } else { cells.join(" | ") };
        println!("| {} | {cells} |", line.name);
    }
    let ratio = |above: &Line, below: &Line| {
        let ratios = above.cells.iter().zip(&below.cells);
        ratios
            .map(|(above, below)| format!("{:.2}", above.rate() / below.rate()))
            .collect::<Vec<_>>()
            .join(" | ")
    };
    println!("| writer ÷ raw loop (goal: 0.8) | {} |", ratio(&lines[0], &lines[1]));
    println!("| writer ÷ one transaction per append | {} |", ratio(&lines[0], &lines[2]));
}

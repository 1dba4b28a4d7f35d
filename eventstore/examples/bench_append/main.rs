//! Appends per second through the writer, beside a raw loop over the same SQL and the same batch sizes.
//!
//! `PROXIMITY_TEST_POSTGRES` names a superuser's URL; without it only SQLite is measured. `--seconds N`
//! sets how long each cell runs (5 by default). All rows of a table come from one run.
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
    let mut seconds = 5.0;
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

/// The ways are measured in turns, so that a machine that grows slower does so for all of them.
const TURNS: u32 = 5;

async fn sqlite(time: Duration) {
    let mut lines = lines("one thread, one row per transaction");
    let turn = time / TURNS;
    for callers in CALLERS {
        let dir = TempDir::new().unwrap();
        let store = Store::open(Options::sqlite(dir.path())).await.unwrap();
        let mut cells = lines.each_ref().map(|_| Cell::default());
        for _ in 0..TURNS {
            let cell = through_the_writer(&store, callers, turn).await;
            let batch = cell.batch();
            cells[0] += cell;
            cells[1] += raw_sqlite::batches(batch, turn);
            cells[2] += raw_sqlite::one_per_transaction(callers, turn);
            cells[3] += raw_sqlite::bare_inserts(turn);
        }
        store.close().await;
        add(&mut lines, cells);
    }
    print("SQLite", &lines);
}

async fn postgres(admin: &str, time: Duration) {
    let mut lines = lines("pgbench, one row per transaction");
    let turn = time / TURNS;
    for callers in CALLERS {
        let database = raw_postgres::Database::create(admin).await;
        let store = Store::open(Options::postgres(database.url())).await.unwrap();
        let mut cells = lines.each_ref().map(|_| Cell::default());
        for _ in 0..TURNS {
            let cell = through_the_writer(&store, callers, turn).await;
            let batch = cell.batch();
            cells[0] += cell;
            cells[1] += raw_postgres::batches(&database, batch, turn).await;
            cells[2] += raw_postgres::one_per_transaction(&database, callers, turn).await;
        }
        store.close().await;
        if let Some(cell) = pgbench::run(&database, callers, time) {
            cells[3] = cell;
        }
        database.drop().await;
        add(&mut lines, cells);
    }
    print("PostgreSQL", &lines);
}

fn add(lines: &mut [Line; 4], cells: [Cell; 4]) {
    for (line, cell) in lines.iter_mut().zip(cells) {
        if cell.batches > 0 {
            line.cells.push(cell);
        }
    }
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

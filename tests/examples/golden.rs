//! Writes the golden logs of a version of this program that are not there yet, each once:
//! `cargo run --example golden -- v2`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proximity_tests::golden;

#[tokio::main]
async fn main() {
    let version = std::env::args().nth(1).expect("name the version, e.g. v2");
    let folder = golden::folder(&version);
    std::fs::create_dir_all(&folder).unwrap();
    for name in golden::LOGS {
        let path = folder.join(format!("{name}.ndjson.gz"));
        if !path.exists() {
            golden::write(&path, golden::happen(name).await);
        }
    }
}

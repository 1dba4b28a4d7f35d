//! Every call of the OpenAPI document, fuzzed: no server error, no answer that the document does not name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::Path;
use std::process::Command;

use proximity_tests::process;

/// Cases for each call and phase; `make fuzz` makes many more.
const EXAMPLES: &str = "12";

#[test]
fn no_call_answers_otherwise_than_the_document_says() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/fuzz");
    let output = Command::new(script)
        .arg(EXAMPLES)
        .env("PROXIMITY_BINARY", process::binary())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A run that was cut short, or a control that was not made, is no run.
    for figure in ["a fault planted in the document: found", " 0 answers outside the document"] {
        assert!(said.contains(figure), "{figure} is not said");
    }
}

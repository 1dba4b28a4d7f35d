//! That each code has one meaning and one page, and that the crates use no code without a page.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// With `PROXIMITY_WRITE_DOCS=1` the pages are written instead of compared.
#[test]
fn each_code_has_its_page_and_no_page_is_left_over() {
    let folder = root().join("docs/errors");
    let write = std::env::var_os("PROXIMITY_WRITE_DOCS").is_some();
    if write {
        std::fs::create_dir_all(&folder).unwrap();
    }
    let mut expected = BTreeSet::new();
    for entry in all() {
        let path = folder.join(format!("{}.md", entry.code));
        if write {
            std::fs::write(&path, page(entry)).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(kept, page(entry), "{}: PROXIMITY_WRITE_DOCS=1 writes it", path.display());
        assert!(expected.insert(format!("{}.md", entry.code)), "{} is there twice", entry.code);
        assert!((400..600).contains(&entry.status), "{}", entry.code);
    }
    let found: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}

/// Reads the sources for the places where codes are given; a new way of giving one belongs here.
#[test]
fn no_crate_answers_with_a_code_that_has_no_page() {
    let code = r#""([a-z_]+(?:\.[a-z_]+)+)""#;
    let places = [
        format!(r"(?:conflict|forbidden|ValueError::new|refuse|Problem::new)\(\s*{code}"),
        format!(r#"invalid\(\s*(?:"[^"]*"|[a-z_.]+),\s*{code}"#),
        format!(r"code:\s*{code}"),
        format!(r#"(?:note\(\s*(?:pointer|"/[^\n]*),|unavailable\(|Err\(\(|refuse = \|[^|]*\| \()\s*{code},"#),
        format!(r"(?:Id|\w+\(\w+\)|MAX|]),?\s*[^\n]*,\s*{code}\s*(?:,|\}})"),
    ]
    .map(|pattern| regex::Regex::new(&pattern).unwrap());
    let mut complaints = BTreeSet::new();
    let mut seen = 0;
    for krate in ["domain", "commands", "catalog", "server"] {
        let mut folders = vec![root().join(krate).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.to_string_lossy().into_owned();
                if name.ends_with("tests.rs") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                // A module of tests in the same file stands at its end; `mod tests;` stands anywhere.
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                for found in places.iter().flat_map(|place| place.captures_iter(text)) {
                    seen += 1;
                    if find(&found[1]).is_none() {
                        complaints.insert(format!("{} in {name}", &found[1]));
                    }
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} places were found: the patterns no longer fit the sources");
    assert!(complaints.is_empty(), "codes without a page: {complaints:#?}");
}

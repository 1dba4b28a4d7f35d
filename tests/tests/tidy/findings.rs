//! The findings of the audit: each has its tests, and two of them are rules about the code itself.

use std::collections::BTreeSet;

use regex::Regex;

use super::{fail_with, files, read};

const FINDINGS: u32 = 31;

/// The rows of docs/AUDIT.md: the finding's number, and the tests that it names.
fn rows() -> Vec<(u32, BTreeSet<String>)> {
    let name = Regex::new(r"`(audit_[a-z0-9_]+)`").unwrap();
    read("docs/AUDIT.md")
        .lines()
        .filter_map(|line| {
            let number = line.strip_prefix("| ")?.split(' ').next()?.parse().ok()?;
            Some((number, name.captures_iter(line).map(|found| found[1].to_owned()).collect()))
        })
        .collect()
}

/// The findings that a test is named after: `audit_25_26_…` is about two.
fn numbers(test: &str) -> Vec<u32> {
    test.split('_').skip(1).map_while(|part| part.parse().ok()).collect()
}

#[test]
fn each_finding_of_the_audit_has_a_test_and_a_line() {
    let rows = rows();
    let listed: Vec<u32> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(listed, (1..=FINDINGS).collect::<Vec<_>>(), "docs/AUDIT.md");
    let name = Regex::new(r"\b(audit_[0-9]{2}_[a-z0-9_]+)\s*\(").unwrap();
    let there: BTreeSet<String> = files(".rs")
        .iter()
        .flat_map(|path| {
            let text = read(path);
            name.captures_iter(&text).map(|found| found[1].to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let mut complaints = Vec::new();
    for (number, tests) in &rows {
        if tests.is_empty() {
            complaints.push(format!("finding {number} names no test"));
        }
        for test in tests {
            if !there.contains(test) {
                complaints.push(format!("finding {number}: there is no test {test}"));
            }
        }
    }
    for test in &there {
        for number in numbers(test) {
            let row = rows.iter().find(|row| row.0 == number);
            if !row.is_some_and(|(_, tests)| tests.contains(test)) {
                complaints.push(format!("docs/AUDIT.md does not name {test} for {number}"));
            }
        }
    }
    fail_with(&complaints);
}

/// What the compiler's lints find, `make check` refuses; what they do not see, this finds.
#[test]
fn audit_27_no_error_is_dropped_without_a_reason() {
    let mut complaints = Vec::new();
    let manifest = read("Cargo.toml");
    for lint in ["let_underscore_must_use", "unwrap_used", "expect_used"] {
        if !manifest.contains(&format!("\n{lint} = \"warn\"")) {
            complaints.push(format!("Cargo.toml: the lint {lint} is off"));
        }
    }
    for path in files("Cargo.toml").iter().filter(|path| path.contains('/')) {
        if !read(path).contains("[lints]\nworkspace = true") {
            complaints.push(format!("{path}: the workspace's lints do not apply"));
        }
    }
    for path in files(".rs").iter().filter(|path| path.contains("/src/")) {
        let text = read(path);
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let statement = line.trim_start();
            let drops = statement.starts_with("let _ = ")
                || (statement.ends_with(".ok();") && !statement.contains("let "));
            let begins = lines[..number].iter().rev().take(4);
            let said = begins.map(|line| line.trim_start()).any(|line| line.starts_with("//"));
            let bound = lines[..number].iter().rev().take(6).any(|line| line.contains("let "));
            if drops && !said && !bound {
                complaints.push(format!("{path}:{}: an error is dropped: say why", number + 1));
            }
        }
    }
    fail_with(&complaints);
}

/// Where a text only looks like a secret.
const NO_SECRETS: [(&str, &str); 3] = [
    ("changeme", "a sample compose file's"),
    ("ghost_password", "a sample compose file's"),
    ("not this one, surely", "a password that is nobody's"),
];

#[test]
fn audit_31_no_secret_stands_in_the_code() {
    let shapes = [
        // A literal where a credential is taken.
        r#"(?:Secret::(?:new|from)|sign_in|create_admin)\([^()]*"([^"{}]{6,})""#,
        // A field or variable of that name with a literal.
        r#"(?i)"?(?:[a-z_]*password[12]?|[a-z_]*secret|api_key)"?\s*(?::|=|=>)\s*"([^"{}<>. ]{6,}|[^"{}<>]{12,})""#,
    ]
    .map(|shape| Regex::new(shape).unwrap());
    let mut complaints = Vec::new();
    let mut looked = 0;
    for path in files(".rs").iter().filter(|path| !path.ends_with("/findings.rs")) {
        for (number, line) in read(path).lines().enumerate() {
            looked += 1;
            for found in shapes.iter().flat_map(|shape| shape.captures_iter(line)) {
                let text = &found[1];
                // Dotted and hyphenated names are codes and keys of ours.
                let name = text.contains('.') || text.contains("::") || text == "password";
                if !name && !NO_SECRETS.iter().any(|(known, _)| known == &text) {
                    complaints.push(format!("{path}:{}: {text:?}", number + 1));
                }
            }
        }
    }
    assert!(looked > 10_000, "only {looked} lines were looked at");
    fail_with(&complaints);
}

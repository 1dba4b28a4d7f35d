//! The patches that take protections out: each still applies, and is told of where its finding is.

use std::collections::BTreeSet;
use std::process::Command;

use super::{fail_with, files, read, root};

/// Findings for which it has to be shown that their tests fail without the protection.
const SHOWN: [&str; 14] =
    ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12", "13", "16"];

#[test]
fn each_protection_can_still_be_taken_out() {
    let mut complaints = Vec::new();
    let mut there = BTreeSet::new();
    let document = read("docs/AUDIT.md");
    for path in files(".patch").iter().filter(|path| path.starts_with("tests/protections/")) {
        let applies = Command::new("git")
            .args(["apply", "--check", path])
            .current_dir(root())
            .output()
            .expect("git is needed to see whether patches apply");
        if !applies.status.success() {
            let why = String::from_utf8_lossy(&applies.stderr).into_owned();
            complaints.push(format!("{path} does not apply any more; write it anew: {why}"));
        }
        let text = read(path);
        for head in ["Finding ", "Taken out: ", "Test: "] {
            if !text.lines().any(|line| line.starts_with(head)) {
                complaints.push(format!("{path} has no line {head}"));
            }
        }
        let number = path.rsplit('/').next().unwrap().trim_end_matches(".patch").to_owned();
        let name = text.lines().find_map(|line| line.strip_prefix("Taken out: ")).unwrap_or("?");
        if !document.contains(name) {
            complaints.push(format!("docs/AUDIT.md does not say of {number}: {name}"));
        }
        there.insert(number);
    }
    for number in SHOWN {
        if !there.contains(number) {
            complaints.push(format!("tests/protections/{number}.patch is missing"));
        }
    }
    fail_with(&complaints);
}

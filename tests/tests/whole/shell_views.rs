//! The shell and the read models: what it did to them is in the log, and nothing else is.

use proximity_tests::database::Kind;
use proximity_tests::lab::Lab;
use serde_json::{Value, json};

/// What of the shell's acts is in the log: each with what it was done to.
fn acts(lab: &Lab) -> Vec<Value> {
    let told = lab.site.run(&["audit", "log", "--type", "admin_action", "-o", "json"]);
    let events: Vec<Value> = serde_json::from_str(&told).unwrap();
    events
        .iter()
        .map(|event| event["payload"]["performed"].clone())
        .map(|act| json!([act["call"], act["path"]]))
        .collect()
}

fn tried(lab: &Lab, arguments: &[&str]) -> (i32, String) {
    let output = lab.site.command(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    (output.status.code().unwrap(), said.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_done_to_a_read_model_is_not_in_the_log() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, _) = lab.start().await;
    server.terminate();
    for arguments in [
        ["projections", "rebuild", "nosuch"],
        ["projections", "switch-back", "nosuch"],
        ["projections", "switch-back", "hosts"],
    ] {
        let (code, said) = tried(&lab, &arguments);
        assert_eq!(code, 5, "{arguments:?}: {said}");
    }
    assert_eq!(acts(&lab), Vec::<Value>::new());
    // The second has no generation to go back to: the first was switched all the same.
    lab.site.run(&["projections", "rebuild", "hosts"]);
    let (code, said) = tried(&lab, &["projections", "switch-back", "hosts", "leases"]);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("hosts") && said.contains("leases has no previous"), "{said}");
    let wanted = [["projections rebuild", "hosts"], ["projections switch-back", "hosts"]];
    assert_eq!(acts(&lab), wanted.map(|act| json!(act)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_is_named_twice_is_worked_on_once() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    let (server, _) = lab.start().await;
    server.terminate();
    for act in ["rebuild", "switch-back", "verify"] {
        let told = lab.site.run(&["projections", act, "hosts", "leases", "hosts", "-o", "json"]);
        let told: Vec<Value> = serde_json::from_str(&told).unwrap();
        let names: Vec<&Value> = told.iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["hosts", "leases"], "{act}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_by_the_name_of_the_option() {
    let lab = Lab::new(Kind::Sqlite, 1).await;
    for arguments in [["log", "--limit", "0"].as_slice(), &["trace", ""]] {
        let (code, said) = tried(&lab, &[&["audit"], arguments].concat());
        assert_eq!(code, 2, "{arguments:?}: {said}");
    }
    let diff = ["audit", "diff", "--app", "nginx-0a1b2c3d", "--from", "1", "--to", "99999999"];
    let until = ["audit", "replay", "--until", "99999999"];
    let after = ["audit", "log", "--after", "99999999"];
    for (arguments, option) in [(&diff[..], "--to"), (&until, "--until"), (&after, "--after")] {
        let (code, said) = tried(&lab, arguments);
        assert_eq!(code, 5, "{arguments:?}: {said}");
        assert!(said.contains(&format!("{option}: there is no position 99999999")), "{said}");
    }
}

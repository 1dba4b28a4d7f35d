//! What is promised about master keys, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn the_first_start_makes_a_key_that_only_its_owner_can_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::locate(directory.path(), |_| None);
    let made = file.open(false).unwrap();
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let again = file.open(true).unwrap();
    assert_eq!(made.current_id(), again.current_id());
    assert_eq!(made.by_id(made.current_id()), again.by_id(made.current_id()));
    assert_eq!(file.left().unwrap(), Vec::<std::path::PathBuf>::new(), "the draft is gone");
}

#[test]
fn what_a_change_left_that_was_killed_is_gone_with_the_next_start_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::locate(directory.path(), |_| None);
    let draft = directory.path().join(format!(".master.key.{}", uuid::Uuid::new_v4()));
    let others = [".master.key.old", ".master.key.", "master.key.copy"];
    let plant = || std::fs::write(&draft, "a key").unwrap();
    for other in others {
        std::fs::write(directory.path().join(other), "somebody's").unwrap();
    }
    plant();
    file.open(false).unwrap();
    assert!(!draft.exists(), "the first start");
    plant();
    assert_eq!(file.left().unwrap(), std::slice::from_ref(&draft));
    file.open_existing(true).unwrap();
    assert!(draft.exists(), "whoever only looks changes nothing");
    file.open(true).unwrap();
    assert!(!draft.exists(), "another start");
    plant();
    file.update(|_| Ok(None)).unwrap();
    assert!(!draft.exists(), "a change that found nothing to do");
    plant();
    file.import(&MasterKeys::generate().unwrap()).unwrap_err();
    std::fs::remove_file(file.path()).unwrap();
    file.import(&MasterKeys::generate().unwrap()).unwrap();
    assert!(!draft.exists(), "an import");
    assert!(others.iter().all(|other| directory.path().join(other).exists()));
}

#[test]
fn drafts_are_not_listed_beside_a_lock_that_cannot_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::locate(directory.path(), |_| None);
    let lock = file.path().with_extension("lock");
    std::os::unix::fs::symlink(&lock, &lock).unwrap();
    file.left().unwrap_err();
}

#[test]
fn behind_a_link_the_file_itself_is_changed_and_the_link_stays() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = KeyFile::locate(here.path(), |_| None);
    let (middle, real) = (there.path().join("middle"), there.path().join("real.key"));
    std::os::unix::fs::symlink("real.key", &middle).unwrap();
    std::os::unix::fs::symlink(&middle, file.path()).unwrap();
    let is_link = || file.path().is_symlink() && middle.is_symlink() && !real.is_symlink();
    // Also where nothing lies behind it yet.
    let old = file.open(false).unwrap();
    assert!(is_link());
    let new = MasterKeys::generate().unwrap();
    let lead = new.clone();
    file.update(move |held| Ok(Some(held.led_by(&lead)))).unwrap();
    file.update(|held| Ok(Some(held.without(&[old.current_id().to_owned()].into())))).unwrap();
    assert!(is_link());
    let found = KeyFile::Own(real.clone()).read().unwrap();
    assert_eq!((found.ids(), found.retired_ids()), (new.ids(), old.ids()));
    // Whoever names the file itself waits for the same lock, and finds the same drafts.
    assert!(real.with_extension("lock").exists() && !file.path().with_extension("lock").exists());
    let drafts = [&there, &here]
        .map(|folder| folder.path().join(format!(".master.key.{}", uuid::Uuid::new_v4())));
    for draft in &drafts {
        std::fs::write(draft, "a key").unwrap();
    }
    assert_eq!(file.left().unwrap(), drafts);
    file.clear().unwrap();
    assert!(!drafts.iter().any(|draft| draft.exists()));
}

#[test]
fn a_key_file_that_cannot_be_written_leaves_no_draft() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::locate(directory.path(), |_| None);
    file.open(false).unwrap();
    let update = file.update(|held| {
        // Nothing can be moved into the place of a directory that holds something.
        std::fs::remove_file(file.path()).unwrap();
        std::fs::create_dir_all(file.path().join("in the way")).unwrap();
        Ok(Some(held))
    });
    assert!(matches!(update.unwrap_err(), KeyError::Create { .. }));
    assert_eq!(file.left().unwrap(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn of_many_first_starts_at_once_all_end_with_the_same_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::locate(directory.path(), |_| None);
    let ids: HashSet<String> = std::thread::scope(|scope| {
        let start = || file.open(false).unwrap().current_id().to_owned();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 1);
}

#[test]
fn a_key_file_that_others_can_read_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::locate(directory.path(), |_| None);
    file.open(false).unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = file.open(true).unwrap_err();
    assert!(matches!(error, KeyError::TooOpen { mode: 0o640, .. }), "{error}");
    assert!(error.to_string().contains("chmod 600"));
}

#[test]
fn a_missing_key_is_never_replaced_when_the_database_is_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::locate(directory.path(), |_| None);
    assert!(matches!(file.open(true).unwrap_err(), KeyError::Missing { .. }));
    assert!(!file.path().exists());
}

#[test]
fn whoever_only_looks_makes_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::locate(directory.path(), |_| None);
    assert!(file.open_existing(false).unwrap().is_none());
    assert!(matches!(file.open_existing(true).unwrap_err(), KeyError::Missing { .. }));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let made = file.open(false).unwrap();
    let found = file.open_existing(true).unwrap().unwrap();
    assert_eq!(made.current_id(), found.current_id());
}

#[test]
fn the_environment_names_the_file_and_systemd_comes_second() {
    let data = tempfile::tempdir().unwrap();
    let credentials = tempfile::tempdir().unwrap();
    let directory = credentials.path().as_os_str().to_owned();
    let systemd = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.clone());
    let own = KeyFile::Own(data.path().join("master.key"));
    assert_eq!(KeyFile::locate(data.path(), systemd), own, "there is no such credential");
    let credential = credentials.path().join("proximity-master-key");
    std::fs::write(&credential, MasterKeys::generate().unwrap().to_text().as_bytes()).unwrap();
    let located = KeyFile::locate(data.path(), systemd);
    assert_eq!(located, KeyFile::Credential(credential));
    located.open(true).unwrap();
    let both = |name: &str| match name {
        "PROXIMITY_MASTER_KEY_FILE" => Some("/etc/proximity/key".into()),
        other => systemd(other),
    };
    assert_eq!(KeyFile::locate(data.path(), both), KeyFile::Own("/etc/proximity/key".into()));
}

#[test]
fn a_broken_key_file_is_refused_with_its_line_and_nothing_of_its_content() {
    let good = MasterKeys::generate().unwrap().to_text();
    let line = good.lines().last().unwrap();
    assert!(MasterKeys::parse(&good).is_ok());
    assert!(matches!(MasterKeys::parse("# nothing\n"), Err(KeyError::Empty)));
    for bad in ["a", "a b", &format!("{line}AAAA"), &format!("{line}\n{line}"), "a-b AAAA"] {
        let error = MasterKeys::parse(&format!("# comment\n{bad}")).unwrap_err();
        assert!(matches!(error, KeyError::Malformed { .. }), "{error}");
        assert!(!error.to_string().contains(&line[12..]));
    }
}

#[test]
fn derived_keys_differ_by_purpose_and_by_master_key() {
    let (one, other) = (MasterKeys::generate().unwrap(), MasterKeys::generate().unwrap());
    let all =
        [Purpose::GuestMarker, Purpose::Idempotency, Purpose::SealSigning, Purpose::UnknownNames];
    let keys: HashSet<[u8; 32]> = all
        .iter()
        .flat_map(|purpose| [one.derive(*purpose), other.derive(*purpose)])
        .map(|key| *key.bytes())
        .collect();
    assert_eq!(keys.len(), 8);
    let again = one.derive(Purpose::GuestMarker);
    assert_eq!(again.bytes(), one.derive(Purpose::GuestMarker).bytes());
}

#[test]
fn an_older_key_still_opens_and_verifies_but_no_longer_seals() {
    let (new, old) = (MasterKeys::generate().unwrap(), MasterKeys::generate().unwrap());
    let both = MasterKeys::parse(&format!("{}{}", *new.to_text(), *old.to_text())).unwrap();
    assert_eq!(both.current_id(), new.current_id());
    assert!(both.by_id(old.current_id()).is_some());
    let derived = both.derive_all(Purpose::GuestMarker);
    assert_eq!(derived[1].bytes(), old.derive(Purpose::GuestMarker).bytes());
}

#[test]
fn no_key_is_ever_printed() {
    let keys = MasterKeys::generate().unwrap();
    let text = keys.to_text();
    let encoded = text.lines().last().unwrap().split_once(' ').unwrap().1;
    let shown = format!("{keys:?} {:?}", keys.derive(Purpose::Idempotency));
    assert!(!shown.contains(encoded) && shown.contains(keys.current_id()));
}

//! What is promised about replacing the master key, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::Actor;
use crate::keys::{KeyFile, Keyring, Purpose, Recovery, RecoveryError};
use crate::marker::{Belongs, Marker, Markers};
use crate::testing::Site;
use proximity_domain::ClusterName;

use super::tests::sealed;

fn owner(record: usize) -> SecretOwner {
    SecretOwner { table: "rotation", record: record.to_string(), column: "value".into() }
}

fn ring(folder: &Path) -> Keyring {
    let file = KeyFile::locate(folder, |_| None);
    let keys = file.open(false).unwrap();
    Keyring::new(file, keys, false)
}

async fn seal(site: &Site, secrets: &Secrets, records: std::ops::Range<usize>) -> Vec<SecretId> {
    let mut ids = Vec::new();
    for record in records {
        let secret = Secret::new(format!("value {record}"));
        let (id, write) = sealed(secrets, &owner(record), 1, &secret);
        site.write(vec![write]).await;
        ids.push(id);
    }
    ids
}

async fn rotate(secrets: &Secrets) -> Rotated {
    secrets.rotate(&Actor::system("test"), Duration::ZERO).await.unwrap()
}

#[tokio::test]
async fn a_rotation_ends_with_nothing_under_the_old_key_and_every_secret_open() {
    let site = Site::open().await;
    let folder = tempfile::tempdir().unwrap();
    let secrets = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    let old = secrets.keys().current_id().to_owned();
    let ids = seal(&site, &secrets, 0..120).await;
    let rotated = rotate(&secrets).await;
    assert_eq!((rotated.resealed, rotated.left, rotated.resumed), (120, 0, false));
    assert_eq!(rotated.replaced, std::slice::from_ref(&old));
    let under = |key: &str| site.store.count(&tables::SECRETS, vec![("key_id", text(key))]);
    assert_eq!(under(&old).await.unwrap(), 0);
    assert_eq!(under(&rotated.generation).await.unwrap(), 120);
    for (record, id) in ids.iter().enumerate() {
        let opened = secrets.unseal(*id, &owner(record)).await.unwrap();
        assert_eq!(opened.expose(), format!("value {record}"));
    }
    // The file says the same as memory, and one start later it still does.
    let again = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    assert_eq!(again.keys().current_id(), rotated.generation);
    assert_eq!(again.keys().ids(), [rotated.generation.clone(), old.clone()]);
    let states: Vec<_> = again.generations().await.unwrap();
    let states: Vec<_> =
        states.iter().map(|g| (g.generation.as_str(), g.state, g.secrets)).collect();
    assert_eq!(
        states,
        [(rotated.generation.as_str(), "sealing", 120), (old.as_str(), "replaced", 0)]
    );
}

#[tokio::test]
async fn nothing_can_be_sealed_under_a_replaced_key_any_more() {
    let site = Site::open().await;
    let folder = tempfile::tempdir().unwrap();
    let secrets = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    // A server that slept through the rotation.
    let asleep = Secrets::new(site.store.clone(), secrets.keys()).await.unwrap();
    rotate(&secrets).await;
    let (_, late) = sealed(&asleep, &owner(1), 1, &Secret::new("late".into()));
    let append = |side| Append {
        id: Uuid::now_v7(),
        lane: Lane::Outcome,
        streams: vec![],
        assertions: vec![],
        side: vec![side],
        metadata: "{}".into(),
        fence: None,
        idempotency: None,
    };
    let refused = site.store.append(append(late)).await.unwrap_err();
    assert!(matches!(refused, AppendError::Invalid { .. }), "{refused}");
    let (_, well) = sealed(&secrets, &owner(1), 1, &Secret::new("well".into()));
    site.store.append(append(well)).await.unwrap();
}

/// What a command does: it seals as a part of its unit of work.
async fn seal_into(site: &Site, secrets: &Secrets, record: usize) -> (SecretId, Unit<'static>) {
    let store: &'static Store = Box::leak(Box::new(site.store.clone()));
    let mut unit = Unit::new(store, Actor::system("test").metadata("test.seal"));
    let id = SecretId(Uuid::new_v4());
    let secret = Secret::new(format!("value {record}"));
    secrets.seal_into(&mut unit, id, &owner(record), 1, &secret, 0).await.unwrap();
    (id, unit)
}

#[tokio::test]
async fn a_command_seals_whatever_moment_of_a_rotation_it_meets() {
    let site = Site::open().await;
    let folder = tempfile::tempdir().unwrap();
    let secrets = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    // The new key is in the file, and the database does not know it yet.
    let new = MasterKeys::generate().unwrap();
    let lead = new.clone();
    secrets.ring().update(move |held| Ok(Some(held.led_by(&lead)))).await.unwrap();
    let (first, unit) = seal_into(&site, &secrets, 1).await;
    unit.commit().await.unwrap();
    // A decision is overtaken by the rotation: it is to be made anew.
    let asleep = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    let (_, overtaken) = seal_into(&site, &asleep, 2).await;
    rotate(&secrets).await;
    let refused = overtaken.commit().await.unwrap_err();
    assert!(refused.is_stale(), "{refused}");
    // And a server that slept through all of it seals with the new key.
    let (last, unit) = seal_into(&site, &asleep, 3).await;
    unit.commit().await.unwrap();
    for (id, record) in [(first, 1), (last, 3)] {
        let opened = asleep.unseal(id, &owner(record)).await.unwrap();
        assert_eq!(opened.expose(), format!("value {record}"));
    }
    let under = vec![("key_id", text(new.current_id()))];
    assert_eq!(site.store.count(&tables::SECRETS, under).await.unwrap(), 2);
}

#[tokio::test]
async fn a_rotation_that_was_cut_off_is_finished_by_the_next_one() {
    let site = Site::open().await;
    let folder = tempfile::tempdir().unwrap();
    let secrets = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    seal(&site, &secrets, 0..3).await;
    // As after a crash right behind the first step: a new key in the file, and in no database.
    let new = MasterKeys::generate().unwrap();
    let lead = new.clone();
    secrets.ring().update(move |held| Ok(Some(held.led_by(&lead)))).await.unwrap();
    let rotated = rotate(&secrets).await;
    assert!(rotated.resumed);
    assert_eq!((rotated.generation.as_str(), rotated.resealed), (new.current_id(), 3));
    // And behind the second: a start registers the key, the rest is still to be done.
    let third = MasterKeys::generate().unwrap();
    let lead = third.clone();
    secrets.ring().update(move |held| Ok(Some(held.led_by(&lead)))).await.unwrap();
    let started = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    let leaving = started.generations().await.unwrap();
    assert!(leaving.iter().any(|g| g.state == "leaving" && g.secrets == 3), "{leaving:?}");
    let rotated = rotate(&started).await;
    assert!(rotated.resumed && rotated.generation == third.current_id() && rotated.resealed == 3);
}

#[tokio::test]
async fn a_key_is_only_destroyed_when_no_draft_of_the_file_is_left() {
    let site = Site::open().await;
    let folder = tempfile::tempdir().unwrap();
    let secrets = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    let (old, shell) = (secrets.keys().current_id().to_owned(), Actor::system("test"));
    let draft = folder.path().join(format!(".master.key.{}", Uuid::new_v4()));
    let plant = || std::fs::copy(folder.path().join("master.key"), &draft).unwrap();
    plant();
    rotate(&secrets).await;
    assert!(!draft.exists(), "by the rotation");
    plant();
    secrets.destroy(&shell, &old).await.unwrap();
    assert!(!draft.exists(), "by the destruction");
    plant();
    secrets.destroy(&shell, &old).await.unwrap();
    assert!(!draft.exists(), "by one that found the key gone from the file");
}

#[tokio::test]
async fn a_destroyed_key_leaves_the_file_and_still_knows_our_containers() {
    let site = Site::open().await;
    let folder = tempfile::tempdir().unwrap();
    let secrets = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    let old = secrets.keys().current_id().to_owned();
    let markers = Markers::of("i1".into(), secrets.ring().clone());
    let marker = Marker {
        application: "memos-0a1b2c3d".parse().unwrap(),
        operation: proximity_domain::OperationId(Uuid::from_u128(1)),
    };
    let (cluster, vmid) = ("lab".parse::<ClusterName>().unwrap(), 104.try_into().unwrap());
    let before = markers.describe(&marker, &cluster, vmid);
    let seal = secrets.keys().derive(Purpose::SealSigning);
    let public = ed25519_dalek::SigningKey::from_bytes(seal.bytes()).verifying_key().to_bytes();
    let shell = Actor::system("test");
    assert!(secrets.destroy(&shell, &old).await.is_err(), "it is the one that seals");
    rotate(&secrets).await;
    assert_eq!(markers.judge(Some(&before), &cluster, vmid), Belongs::Ours(marker.clone()));
    let key = |id: &str| {
        let text = std::fs::read_to_string(folder.path().join("master.key")).unwrap();
        text.lines().find(|line| line.starts_with(id)).map(str::to_owned)
    };
    let secret_half = key(&old).unwrap().split(' ').nth(1).unwrap().to_owned();
    secrets.destroy(&shell, &old).await.unwrap();
    secrets.destroy(&shell, &old).await.unwrap();
    let text = std::fs::read_to_string(folder.path().join("master.key")).unwrap();
    assert!(!text.contains(&secret_half) && text.contains(&format!("retired {old} ")));
    let started = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    let markers = Markers::of("i1".into(), started.ring().clone());
    assert_eq!(markers.judge(Some(&before), &cluster, vmid), Belongs::Ours(marker.clone()));
    let now = markers.describe(&marker, &cluster, vmid);
    assert_ne!(now, before, "new containers are marked with the new key");
    assert_eq!(started.keys().retired_seal_keys(), [public]);
    let states = started.generations().await.unwrap();
    assert_eq!(states.last().unwrap().state, "destroyed");
}

#[tokio::test]
async fn a_server_that_missed_a_rotation_says_so_and_goes_on_once_its_file_has_the_key() {
    let site = Site::open().await;
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secrets = Secrets::new(site.store.clone(), ring(folder.path())).await.unwrap();
    let old = secrets.keys().current_id().to_owned();
    let ids = seal(&site, &secrets, 0..1).await;
    // A server with a key file of its own, away until the old key is no more.
    let (ours, theirs) = (folder.path().join("master.key"), other.path().join("master.key"));
    std::fs::copy(&ours, &theirs).unwrap();
    let away = Secrets::new(site.store.clone(), ring(other.path())).await.unwrap();
    assert_eq!(away.missing().await.unwrap(), None);
    let new = rotate(&secrets).await.generation;
    secrets.destroy(&Actor::system("test"), &old).await.unwrap();
    assert_eq!(away.missing().await.unwrap(), Some(new.clone()));
    let opened = away.unseal(ids[0], &owner(0)).await.unwrap_err();
    let metadata = Actor::system("test").metadata("test.seal");
    let mut unit = Unit::new(&site.store, metadata);
    let record = 1;
    let (id, secret) = (SecretId(Uuid::new_v4()), Secret::new(format!("value {record}")));
    let sealed = away.seal_into(&mut unit, id, &owner(1), 1, &secret, 0).await.unwrap_err();
    for refused in [opened, sealed] {
        assert_eq!(refused.code(), "keys.missing");
        let text = refused.to_string();
        assert!(text.contains(&new) && !text.contains(theirs.to_str().unwrap()), "{text}");
    }
    let told = crate::error::chain(&away.followed().await.err().unwrap());
    assert!(told.contains(&new) && told.contains(theirs.to_str().unwrap()), "{told}");
    // What was destroyed is gone from its file all the same, which has nothing then that opens anything.
    let lines = std::fs::read_to_string(&theirs).unwrap();
    let lines: Vec<_> = lines.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() == 1 && lines[0].starts_with(&format!("retired {old} ")));
    assert!(away.followed().await.is_err());
    let told = KeyFile::locate(other.path(), |_| None).open(true).unwrap_err().to_string();
    assert!(told.contains(theirs.to_str().unwrap()), "{told}");
    // The operator adds the line at the end, behind what is left of that; nothing is restarted.
    let text = std::fs::read_to_string(&ours).unwrap();
    let line = text.lines().find(|line| line.starts_with(&new)).unwrap();
    let file = std::fs::read_to_string(&theirs).unwrap();
    std::fs::write(&theirs, format!("{file}{line}\n")).unwrap();
    assert_eq!(away.unseal(ids[0], &owner(0)).await.unwrap().expose(), "value 0");
    assert_eq!(away.missing().await.unwrap(), None);
    let (id, unit) = seal_into(&site, &away, 2).await;
    unit.commit().await.unwrap();
    assert_eq!(secrets.unseal(id, &owner(2)).await.unwrap().expose(), "value 2");
    let keys = away.followed().await.unwrap();
    assert_eq!((keys.ids(), keys.retired_ids()), (vec![new], vec![old]));
}

#[test]
fn a_recovery_file_opens_with_its_code_and_with_nothing_else() {
    let keys = MasterKeys::generate().unwrap();
    let code = Recovery::new_code().unwrap();
    let sealed = Recovery::seal(&keys, "i1", &code).unwrap();
    let text = serde_json::to_string(&sealed).unwrap();
    let (_, opened) = Recovery::open(&text, &code).unwrap();
    assert_eq!(*opened.to_text(), *keys.to_text());
    let spoken = Secret::new(code.expose().to_lowercase().replace('-', " "));
    assert!(Recovery::open(&text, &spoken).is_ok(), "as someone reads it aloud");
    let wrong = Recovery::new_code().unwrap();
    assert!(matches!(Recovery::open(&text, &wrong), Err(RecoveryError::DoesNotOpen)));
    let bent = text.replace("\"i1\"", "\"i2\"");
    assert!(matches!(Recovery::open(&bent, &code), Err(RecoveryError::DoesNotOpen)));
    let greedy = text.replace("\"memory_kib\":65536", "\"memory_kib\":4294967295");
    assert_ne!(greedy, text);
    assert!(matches!(Recovery::open(&greedy, &code), Err(RecoveryError::Malformed)));
    let short = Secret::new("x".repeat(9));
    assert!(matches!(Recovery::seal(&keys, "i1", &short), Err(RecoveryError::TooShort)));
    let secret = keys.to_text().split_whitespace().rev().nth(1).unwrap().to_owned();
    assert!(secret.len() > 80 && !text.contains(&secret[..40]));
}

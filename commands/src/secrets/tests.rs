//! What is promised about sealed secrets, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::error::Error as _;

use proximity_eventstore::Row;

use super::*;
use crate::testing::Site;

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn owner(record: &str) -> SecretOwner {
    SecretOwner { table: "host_connections", record: record.into(), column: "credential".into() }
}

async fn secrets(site: &Site) -> Secrets {
    let keys = Arc::new(MasterKeys::generate().unwrap());
    Secrets::new(site.store.clone(), keys).await.unwrap()
}

/// The row of one version of a secret under the key that these keys lead with.
pub(super) fn sealed(
    secrets: &Secrets,
    owner: &SecretOwner,
    version: i64,
    secret: &Secret,
) -> (SecretId, SideWrite) {
    let id = SecretId(Uuid::new_v4());
    let leading = secrets.keys().current_id().to_owned();
    (id, secrets.sealed(&leading, id, owner, version, secret, 0).unwrap())
}

async fn only_row(site: &Site) -> Row {
    site.store.rows(&tables::SECRETS, vec![], 10).await.unwrap().pop().unwrap()
}

fn update(id: SecretId, set: Row) -> SideWrite {
    let filter = vec![("id", text(id))];
    SideWrite::Update { table: &tables::SECRETS, set, filter, guard: Guard::Rows(1) }
}

/// `opens` says whether the secret still opens for the host that it was sealed for.
async fn after(site: &Site, secrets: &Secrets, id: SecretId, set: Row) -> bool {
    site.write(vec![update(id, set)]).await;
    secrets.unseal(id, &owner("1")).await.is_ok()
}

#[tokio::test]
async fn a_sealed_secret_opens_for_its_record_only() {
    let site = Site::open().await;
    let secrets = secrets(&site).await;
    let password = random();
    let (id, write) = sealed(&secrets, &owner("1"), 1, &Secret::new(password.clone()));
    site.write(vec![write]).await;
    let opened = secrets.unseal(id, &owner("1")).await.unwrap();
    assert_eq!(opened.expose(), password);
    assert!(secrets.unseal(id, &owner("2")).await.is_err());
    let column = SecretOwner { column: "other".into(), ..owner("1") };
    assert!(secrets.unseal(id, &column).await.is_err());
    let table = SecretOwner { table: "users", ..owner("1") };
    assert!(secrets.unseal(id, &table).await.is_err());
    assert!(secrets.unseal(SecretId(Uuid::new_v4()), &owner("1")).await.is_err());
    assert!(!format!("{opened:?}").contains(&password));
}

#[tokio::test]
async fn audit_07_a_ciphertext_moved_to_another_row_does_not_decrypt() {
    let site = Site::open().await;
    let secrets = secrets(&site).await;
    let (one, write_one) = sealed(&secrets, &owner("1"), 1, &Secret::new(random()));
    site.write(vec![write_one]).await;
    let row = only_row(&site).await;
    let stolen: Row = row
        .into_iter()
        .filter(|(name, _)| ["key_id", "wrapped_key", "ciphertext", "version"].contains(name))
        .collect();
    let (two, write_two) = sealed(&secrets, &owner("2"), 1, &Secret::new(random()));
    site.write(vec![write_two, update(two, stolen)]).await;
    assert!(secrets.unseal(two, &owner("2")).await.is_err());
    assert!(secrets.unseal(one, &owner("1")).await.is_ok());
}

#[tokio::test]
async fn one_changed_bit_or_another_version_does_not_open() {
    let site = Site::open().await;
    let secrets = secrets(&site).await;
    let (id, write) = sealed(&secrets, &owner("1"), 1, &Secret::new(random()));
    site.write(vec![write]).await;
    let row = Columns(only_row(&site).await);
    for column in ["ciphertext", "wrapped_key"] {
        let good = row.bytes(column).unwrap().to_vec();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bent = good.clone();
            bent[at] ^= 1;
            assert!(!after(&site, &secrets, id, vec![(column, Value::Bytes(bent))]).await);
        }
        assert!(after(&site, &secrets, id, vec![(column, Value::Bytes(good))]).await);
    }
    assert!(!after(&site, &secrets, id, vec![("version", Value::Integer(2))]).await);
    assert!(after(&site, &secrets, id, vec![("version", Value::Integer(1))]).await);
}

#[tokio::test]
async fn the_same_secret_sealed_twice_looks_different() {
    let site = Site::open().await;
    let secrets = secrets(&site).await;
    let secret = Secret::new(random());
    let ciphertext = |version| match sealed(&secrets, &owner("1"), version, &secret).1 {
        SideWrite::Insert { row, .. } => Columns(row).bytes("ciphertext").unwrap().to_vec(),
        other => panic!("{other:?}"),
    };
    assert_ne!(ciphertext(1), ciphertext(1));
}

#[tokio::test]
async fn a_sealed_secret_is_nowhere_in_the_database_files() {
    let site = Site::open().await;
    let secrets = secrets(&site).await;
    let canary = random();
    let (_, write) = sealed(&secrets, &owner("1"), 1, &Secret::new(canary.clone()));
    site.write(vec![write]).await;
    let mut files = 0;
    for entry in std::fs::read_dir(site.directory.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()));
        files += usize::from(!bytes.is_empty());
    }
    assert!(files > 0, "the database was looked into");
}

#[tokio::test]
async fn a_wrong_master_key_is_found_before_the_first_write() {
    let site = Site::open().await;
    assert!(!Secrets::is_sealed(&site.store).await.unwrap());
    let keys = Arc::new(MasterKeys::generate().unwrap());
    Secrets::new(site.store.clone(), Arc::clone(&keys)).await.unwrap();
    assert!(Secrets::is_sealed(&site.store).await.unwrap());
    Secrets::new(site.store.clone(), Arc::clone(&keys)).await.unwrap();

    let reason = |result: Result<Secrets, Error>| {
        let error = result.err().expect("the key is refused");
        error.source().expect("it has a cause").to_string()
    };
    let other = Arc::new(MasterKeys::generate().unwrap());
    let unknown = reason(Secrets::new(site.store.clone(), other).await);
    assert!(unknown.contains("which the key file does not hold"), "{unknown}");

    // The same id with other bytes: as after a mix-up of files.
    let foreign = MasterKeys::generate().unwrap();
    let forged = foreign.to_text().replace(foreign.current_id(), keys.current_id());
    let forged = Arc::new(MasterKeys::parse(&forged).unwrap());
    let wrong = reason(Secrets::new(site.store.clone(), forged).await);
    assert!(wrong.contains("is not the one"), "{wrong}");
}

#[tokio::test]
async fn two_first_starts_with_different_keys_do_not_both_win() {
    let site = Site::open().await;
    let start = || {
        let keys = Arc::new(MasterKeys::generate().unwrap());
        Secrets::new(site.store.clone(), keys)
    };
    let (one, other) = tokio::join!(start(), start());
    assert!(one.is_ok() != other.is_ok());
}

#[tokio::test]
async fn after_a_rotation_old_secrets_open_and_new_ones_use_the_new_key() {
    let site = Site::open().await;
    let old = MasterKeys::generate().unwrap();
    let before = Secrets::new(site.store.clone(), Arc::new(old.clone())).await.unwrap();
    let password = random();
    let (id, write) = sealed(&before, &owner("1"), 1, &Secret::new(password.clone()));
    site.write(vec![write]).await;
    let new = MasterKeys::generate().unwrap();
    let both = MasterKeys::parse(&format!("{}{}", *new.to_text(), *old.to_text())).unwrap();
    let after = Secrets::new(site.store.clone(), Arc::new(both)).await.unwrap();
    assert_eq!(after.unseal(id, &owner("1")).await.unwrap().expose(), password);
    let (id, write) = sealed(&after, &owner("1"), 2, &Secret::new(password));
    site.write(vec![write]).await;
    assert!(before.unseal(id, &owner("1")).await.is_err(), "the old key does not open it");
    assert_eq!(after.version(id).await.unwrap(), 2);
}

#[tokio::test]
async fn a_value_of_an_environment_opens_for_its_application_only() {
    let site = Site::open().await;
    let secrets = secrets(&site).await;
    let id = |catalog: &str| ApplicationId::new(catalog, rand::random()).unwrap();
    let (mine, other) = (id("nginx"), id("nginx"));
    let secret = Secret::new(random());
    let owner = of_application(&mine, "ADMIN_PASSWORD");
    let (id, write) = sealed(&secrets, &owner, 1, &secret);
    site.write(vec![write]).await;
    assert_eq!(secrets.open(id, &mine, &By::program()).await.unwrap().expose(), secret.expose());
    assert!(secrets.open(id, &other, &By::program()).await.is_err());
}

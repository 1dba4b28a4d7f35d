//! What is promised about rights, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use uuid::Uuid;

use super::*;
use crate::testing::{Site, a_user, an_admin};

async fn owned_by(site: &Site, owner: i64) -> ApplicationId {
    let id = ApplicationId::new("nginx", rand::random()).unwrap();
    site.write(vec![give(&id, UserId(owner))]).await;
    id
}

#[tokio::test]
async fn only_the_owner_and_an_admin_find_a_thing() {
    let site = Site::open().await;
    let id = owned_by(&site, 7).await;
    let proof = Owned::prove(&site.store, &a_user(7), id.clone()).await.unwrap();
    assert_eq!((proof.id(), proof.owner()), (&id, UserId(7)));
    let proof = Owned::prove(&site.store, &an_admin(1), id.clone()).await.unwrap();
    assert_eq!((proof.owner(), proof.actor().user()), (UserId(7), Some(UserId(1))));
    Owned::prove(&site.store, &Actor::system("test"), id).await.unwrap();
}

#[tokio::test]
async fn a_foreign_thing_and_one_that_never_was_are_the_same_to_a_stranger() {
    let site = Site::open().await;
    let foreign = owned_by(&site, 7).await;
    let never = ApplicationId::new("nginx", rand::random()).unwrap();
    for id in [foreign.as_str(), never.as_str(), "discover", "", "../../etc"] {
        let refused = Owned::<ApplicationId>::prove_text(&site.store, &a_user(8), id).await;
        assert!(matches!(refused, Err(Error::NotFound)), "{id}");
    }
    let operation = OperationId(Uuid::new_v4());
    let refused = Owned::prove(&site.store, &an_admin(1), operation).await;
    assert!(matches!(refused, Err(Error::NotFound)), "an admin does not find what is not there");
}

#[tokio::test]
async fn audit_06_without_an_identity_nothing_is_looked_up() {
    let site = Site::open().await;
    let id = owned_by(&site, 7).await;
    let nobody = Actor::anonymous(None, None);
    for id in [id.as_str(), "no id at all"] {
        let refused = Owned::<ApplicationId>::prove_text(&site.store, &nobody, id).await;
        assert!(matches!(refused, Err(Error::Unauthenticated)));
    }
    assert!(matches!(Admin::prove(&nobody), Err(Error::Unauthenticated)));
}

#[tokio::test]
async fn an_id_of_one_kind_proves_nothing_about_another() {
    let site = Site::open().await;
    let operation = OperationId(Uuid::new_v4());
    site.write(vec![give(&operation, UserId(7))]).await;
    Owned::prove(&site.store, &a_user(7), operation).await.unwrap();
    site.write(vec![take_away(&operation)]).await;
    let refused = Owned::prove(&site.store, &a_user(7), operation).await;
    assert!(matches!(refused, Err(Error::NotFound)));
}

#[test]
fn only_an_admin_is_an_admin() {
    assert_eq!(Admin::prove(&a_user(7)).unwrap_err().code(), "admin.required");
    Admin::prove(&an_admin(1)).unwrap();
    Admin::prove(&Actor::system("cli")).unwrap();
}

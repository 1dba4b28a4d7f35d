//! What is promised about the defaults of deployments, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proximity_domain::AddressMode;

use super::*;
use crate::testing::{Site, a_user, an_admin};

fn admin() -> Admin {
    Admin::prove(&an_admin(1)).unwrap()
}

#[tokio::test]
async fn the_defaults_of_the_contract_hold_until_an_admin_changes_them() {
    let site = Site::open().await;
    let store = &site.store;
    assert_eq!(resources(store).await.unwrap(), default_resources());
    assert_eq!(network(store).await.unwrap(), default_network());
    let mut wanted = ResourceDefaultsInput::from(default_resources());
    wanted.default_cpu_cores = 4;
    let (changed, position) = change_resources(store, &admin(), &wanted).await.unwrap();
    assert_eq!((changed.cores.get(), position), (4, Some(1)));
    assert_eq!(resources(store).await.unwrap(), changed);
    let (_, position) = change_resources(store, &admin(), &wanted).await.unwrap();
    assert_eq!(position, None, "already so");
    let mut wanted = NetworkSettingsInput::from(default_network());
    wanted.address_mode = AddressMode::Static;
    change_network(store, &admin(), &wanted).await.unwrap();
    assert_eq!(network(store).await.unwrap().mode(), AddressMode::Static);
    assert_eq!(resources(store).await.unwrap(), changed);
}

#[tokio::test]
async fn audit_19_a_gateway_outside_its_subnet_is_refused_and_nothing_changes() {
    let site = Site::open().await;
    for gateway in ["10.0.1.1", "10.0.0.0", "10.0.0.255", "nonsense"] {
        let mut wanted = NetworkSettingsInput::from(default_network());
        wanted.default_gateway = gateway.into();
        let refused = change_network(&site.store, &admin(), &wanted).await;
        let Err(Error::Invalid(fields)) = refused else { panic!("{gateway}: {refused:?}") };
        assert_eq!(fields[0].field, "default_gateway");
    }
    assert_eq!(site.store.head().await.unwrap(), 0);
}

#[test]
fn only_an_admin_holds_what_changing_a_setting_takes() {
    assert_eq!(Admin::prove(&a_user(7)).unwrap_err().code(), "admin.required");
}

//! The rules of the deployment defaults, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cqrs_es::test::TestFramework;

use super::*;
use crate::fixture::assert_stored_as_promised;
use crate::value::NetworkSettingsInput;

async fn given(past: Vec<Event>, command: Command) -> Vec<Event> {
    let test = TestFramework::<Settings>::with(()).given(past);
    test.when_async(command).await.inspect_result().unwrap()
}

#[tokio::test]
async fn setting_what_is_set_is_no_event() {
    let resources = default_resources();
    let changed = Event::ResourcesChanged { resources };
    let change = Command::ChangeResources { resources };
    assert_eq!(given(vec![], change.clone()).await, vec![changed.clone()]);
    assert_eq!(given(vec![changed], change).await, vec![]);
    let network = default_network();
    let changed = Event::NetworkChanged { network: network.clone() };
    let change = Command::ChangeNetwork { network };
    assert_eq!(given(vec![], change.clone()).await, vec![changed.clone()]);
    assert_eq!(given(vec![changed], change).await, vec![]);
}

#[test]
fn resource_defaults_keep_to_the_limits_of_the_contract() {
    let with = |cores, memory, disk, swap| ResourceDefaultsInput {
        default_cpu_cores: cores,
        default_memory_mb: memory,
        default_disk_gb: disk,
        default_swap_mb: swap,
    };
    assert!(with(1, 256, 1, 0).parse().is_ok());
    assert!(with(128, 524_288, 10_240, 32_768).parse().is_ok());
    let fields = |input: ResourceDefaultsInput| -> Vec<&'static str> {
        input.parse().unwrap_err().into_iter().map(|(field, _)| field).collect()
    };
    let all = ["default_cpu_cores", "default_memory_mb", "default_disk_gb", "default_swap_mb"];
    assert_eq!(fields(with(0, 255, 0, -1)), all);
    assert_eq!(fields(with(129, 524_289, 10_241, 32_769)), all);
    assert_eq!(fields(with(1, i64::MAX, 1, 0)), ["default_memory_mb"]);
}

#[test]
fn network_settings_name_every_field_that_does_not_fit() {
    let mut input = NetworkSettingsInput::from(default_network());
    input.default_gateway = "10.0.0.255".into();
    input.default_dns_primary = "nine".into();
    input.default_bridge = "1bad bridge".into();
    let wrong = NetworkSettings::parse(&input).unwrap_err();
    let codes: Vec<_> = wrong.iter().map(|(field, error)| (*field, error.code)).collect();
    let expected = [
        ("default_gateway", "gateway.outside_subnet"),
        ("default_dns_primary", "dns.invalid"),
        ("default_bridge", "bridge.invalid"),
    ];
    assert_eq!(codes, expected);
}

#[test]
fn audit_19_a_name_server_has_an_address_of_one_machine() {
    let with = |primary: &str, secondary: &str| NetworkSettingsInput {
        default_dns_primary: primary.into(),
        default_dns_secondary: Some(secondary.into()),
        ..NetworkSettingsInput::from(default_network())
    };
    for address in ["10.0.0.1", "9.9.9.9", "127.0.0.53", "::1", "2001:4860:4860::8888"] {
        assert!(NetworkSettings::parse(&with(address, address)).is_ok(), "{address}");
    }
    for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "10.0.0.255"] {
        for (input, field) in [
            (with(address, ""), "default_dns_primary"),
            (with("9.9.9.9", address), "default_dns_secondary"),
        ] {
            let wrong = NetworkSettings::parse(&input).unwrap_err();
            let told: Vec<_> = wrong.iter().map(|(field, error)| (*field, error.code)).collect();
            assert_eq!(told, [(field, "dns.invalid")], "{address}");
            // An older release stored such settings; its log is read all the same.
            assert!(NetworkSettings::try_from(input).is_ok(), "{address}");
        }
    }
}

#[test]
fn every_event_of_the_settings_is_stored_as_promised() {
    assert_stored_as_promised(&Event::ResourcesChanged { resources: default_resources() });
    assert_stored_as_promised(&Event::NetworkChanged { network: default_network() });
}

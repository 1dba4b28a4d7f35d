//! Picks against a real log: never the same twice, never a taken one, and full only when full.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeSet, HashSet};

use proximity_domain::lease::{Command, Holder, Lease};
use proximity_domain::settings::default_network;
use proximity_domain::{HostId, LeaseKey, NetworkSettings, NetworkSettingsInput, UserId};
use proximity_eventstore::{Options, Store};
use tempfile::TempDir;

use super::{PoolRanges, Pools};
use crate::actor::Actor;
use crate::dispatch::Unit;
use crate::ports::ClusterView;

async fn fresh() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(Options::sqlite(dir.path())).await.unwrap();
    (dir, store)
}

fn ranges() -> PoolRanges {
    PoolRanges { public_ports: 8100..=8104, internal_ports: 9100..=9104, vmids: 100..=102 }
}

fn cluster(guests: &[i64]) -> ClusterView {
    ClusterView {
        host: HostId(1),
        cluster: "lab".parse().unwrap(),
        is_default: true,
        version: None,
        nodes: Vec::new(),
        guests: guests.iter().map(|vmid| (*vmid).try_into().unwrap()).collect(),
    }
}

async fn apply(store: &Store, key: &str, command: Command) {
    let mut unit = Unit::new(store, Actor::system("test").metadata("test.lease"));
    unit.apply::<Lease>(key, command).await.map_err(|_| "refused").unwrap();
    unit.commit().await.unwrap();
}

fn someone() -> Holder {
    Holder::User(UserId(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_10_picks_that_are_in_flight_together_never_meet() {
    let (_dir, store) = fresh().await;
    let pools = Pools::new(store, PoolRanges { vmids: 100..=199, ..ranges() });
    let mut picked = Vec::new();
    for _ in 0..5 {
        picked.push(pools.pick(&cluster(&[]), None, None).await.unwrap());
    }
    let vmids: HashSet<_> = picked.iter().map(|p| p.vmid).collect();
    let ports: HashSet<_> = picked.iter().map(|p| p.public_port).collect();
    assert_eq!((vmids.len(), ports.len()), (5, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_exhausted_only_when_everything_in_it_is_held() {
    let (_dir, store) = fresh().await;
    let pools = Pools::new(store.clone(), ranges());
    let mut flying = Vec::new();
    for _ in 0..3 {
        flying.push(pools.pick(&cluster(&[]), None, None).await.unwrap());
    }
    // All three numbers are in flight: they may yet come back.
    let contended = pools.pick(&cluster(&[]), None, None).await.err().unwrap();
    assert_eq!(contended.code(), "pools.contended");
    drop(flying);
    pools.pick(&cluster(&[]), None, None).await.unwrap();
    for vmid in 100..=102 {
        apply(&store, &format!("vmid/lab/{vmid}"), Command::Acquire { holder: someone() }).await;
    }
    let full = pools.pick(&cluster(&[]), None, None).await.err().unwrap();
    assert_eq!(full.code(), "vmids.exhausted");
    // The same numbers are free in another cluster.
    let other = ClusterView { cluster: "other".parse().unwrap(), ..cluster(&[]) };
    pools.pick(&other, None, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_comes_back_when_it_is_released_and_not_while_it_is_quarantined() {
    let (_dir, store) = fresh().await;
    let pools = Pools::new(store.clone(), PoolRanges { vmids: 100..=100, ..ranges() });
    let key = "vmid/lab/100";
    apply(&store, key, Command::Acquire { holder: someone() }).await;
    let quarantine =
        Command::Quarantine { holder: someone(), until: 10, reason: "it was there".to_owned() };
    apply(&store, key, quarantine).await;
    assert_eq!(
        pools.pick(&cluster(&[]), None, None).await.err().unwrap().code(),
        "vmids.exhausted"
    );
    apply(&store, key, Command::Clear { now: 11 }).await;
    assert_eq!(pools.pick(&cluster(&[]), None, None).await.unwrap().vmid.get(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_a_strangers_guest_is_never_picked() {
    let (_dir, store) = fresh().await;
    let pools = Pools::new(store, ranges());
    for _ in 0..50 {
        let picked = pools.pick(&cluster(&[100, 102]), None, None).await.unwrap();
        assert_eq!(picked.vmid.get(), 101);
    }
    let full = pools.pick(&cluster(&[100, 101, 102]), None, None).await.err().unwrap();
    assert_eq!(full.code(), "vmids.exhausted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vmids_stay_in_the_lowest_window_of_free_numbers() {
    let (_dir, store) = fresh().await;
    let pools = Pools::new(store, PoolRanges::default());
    let taken: Vec<i64> = (100..3_100).collect();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        seen.insert(pools.pick(&cluster(&taken), None, None).await.unwrap().vmid.get());
    }
    assert!(*seen.first().unwrap() >= 3_100 && *seen.last().unwrap() <= 13_100, "{seen:?}");
    assert!(seen.len() > 150, "{} different numbers in 200 picks", seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_a_free_host_of_the_subnet_and_never_the_gateway() {
    let (_dir, store) = fresh().await;
    let network = NetworkSettings::parse(&NetworkSettingsInput {
        default_subnet: "10.0.0.0/29".to_owned(),
        default_gateway: "10.0.0.1".to_owned(),
        default_dns_primary: "10.0.0.2".to_owned(),
        ..default_network().into()
    })
    .unwrap();
    let pools = Pools::new(store.clone(), PoolRanges { vmids: 100..=999, ..ranges() });
    apply(&store, "address/lab/10.0.0.3", Command::Acquire { holder: someone() }).await;
    let mut flying = Vec::new();
    for _ in 0..3 {
        flying.push(pools.pick(&cluster(&[]), Some(&network), None).await.unwrap());
    }
    let addresses: BTreeSet<String> =
        flying.iter().map(|p| p.address.unwrap().to_string()).collect();
    let expected = ["10.0.0.4", "10.0.0.5", "10.0.0.6"].map(str::to_owned);
    assert_eq!(addresses, BTreeSet::from(expected));
    for address in addresses {
        let key = LeaseKey::Address("lab".parse().unwrap(), address.parse().unwrap());
        apply(&store, &key.to_string(), Command::Acquire { holder: someone() }).await;
    }
    let full = pools.pick(&cluster(&[]), Some(&network), None).await.err().unwrap();
    assert_eq!(full.code(), "addresses.exhausted");
}

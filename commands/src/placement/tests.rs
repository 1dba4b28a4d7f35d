//! The choice of a node, rule by rule.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use proximity_domain::HostId;
use proximity_domain::plan::Source;

use super::{Wish, place};
use crate::pools::Promise;
use crate::ports::{ClusterView, NodeView, Storage, Version};

const GIB: u64 = 1 << 30;

fn storage(name: &str, content: &[&str], available: u64) -> Storage {
    Storage {
        name: name.to_owned(),
        kind: "dir".to_owned(),
        content: content.iter().map(|&kind| kind.to_owned()).collect(),
        active: true,
        shared: false,
        available: Some(available),
        total: None,
        used: None,
    }
}

fn node(name: &str, free_gib: u64) -> NodeView {
    NodeView {
        name: name.parse().unwrap(),
        online: true,
        memory_free: Some(free_gib * GIB),
        storages: vec![storage("local", &["vztmpl", "rootdir"], GIB)],
    }
}

fn cluster(host: i64, nodes: Vec<NodeView>) -> ClusterView {
    ClusterView {
        host: HostId(host),
        cluster: format!("cluster-{host}").parse().unwrap(),
        is_default: host == 1,
        version: Some(Version { text: "9.1.7".to_owned(), major: 9, minor: 1 }),
        nodes,
        guests: BTreeSet::new(),
    }
}

fn template() -> Source {
    Source::Template { os: "alpine".to_owned(), version: "3.22".to_owned() }
}

fn image() -> Source {
    Source::Oci { image: "docker.io/library/nginx:1.29".to_owned(), entrypoint: None }
}

fn chosen(clusters: &[ClusterView], promises: &[Promise]) -> Result<String, &'static str> {
    place(clusters, promises, Wish::default(), &template())
        .map(|place| place.node.name.to_string())
        .map_err(|error| error.code())
}

#[test]
fn the_node_with_the_most_free_memory_is_chosen() {
    let clusters = [cluster(1, vec![node("a", 4), node("b", 8), node("c", 6)])];
    assert_eq!(chosen(&clusters, &[]), Ok("b".to_owned()));
}

#[test]
fn what_running_deployments_were_promised_is_not_free() {
    let clusters = [cluster(1, vec![node("a", 4), node("b", 8)])];
    let promise = |host| Promise { host: HostId(host), node: "b".parse().unwrap(), bytes: 5 * GIB };
    assert_eq!(chosen(&clusters, &[promise(1)]), Ok("a".to_owned()));
    // A promise on another host's node of the same name says nothing about this one.
    assert_eq!(chosen(&clusters, &[promise(2)]), Ok("b".to_owned()));
}

#[test]
fn an_offline_node_is_never_chosen() {
    let offline = NodeView { online: false, ..node("b", 8) };
    let clusters = [cluster(1, vec![node("a", 4), offline.clone()])];
    assert_eq!(chosen(&clusters, &[]), Ok("a".to_owned()));
    assert_eq!(chosen(&[cluster(1, vec![offline])], &[]), Err("nodes.none_online"));
    assert_eq!(chosen(&[], &[]), Err("nodes.none_online"));
}

#[test]
fn the_default_host_comes_first_and_another_one_only_when_it_has_no_place() {
    let clusters = [cluster(1, vec![node("a", 1)]), cluster(2, vec![node("b", 64)])];
    assert_eq!(chosen(&clusters, &[]), Ok("a".to_owned()));
    let away = [cluster(1, Vec::new()), cluster(2, vec![node("b", 64)])];
    assert_eq!(chosen(&away, &[]), Ok("b".to_owned()));
}

#[test]
fn a_named_node_is_taken_and_an_unknown_or_offline_one_refused() {
    let offline = NodeView { online: false, ..node("off", 8) };
    let clusters = [cluster(1, vec![node("a", 4), node("b", 8), offline])];
    let ask = |name: &str| {
        let name = name.parse().unwrap();
        let wish = Wish { host: None, node: Some(&name) };
        place(&clusters, &[], wish, &template())
            .map(|place| place.node.name.to_string())
            .map_err(|error| error.code())
    };
    assert_eq!(ask("a"), Ok("a".to_owned()));
    assert_eq!(ask("off"), Err("node.offline"));
    assert_eq!(ask("nowhere"), Err("node.unknown"));
}

#[test]
fn a_named_host_is_the_only_one_looked_at() {
    let clusters = [cluster(1, vec![node("a", 64)]), cluster(2, vec![node("b", 1)])];
    let ask = |host| {
        let wish = Wish { host: Some(HostId(host)), node: None };
        place(&clusters, &[], wish, &template())
            .map(|place| place.node.name.to_string())
            .map_err(|error| error.code())
    };
    assert_eq!(ask(2), Ok("b".to_owned()));
    assert_eq!(ask(3), Err("host.unknown"));
}

#[test]
fn an_image_needs_a_version_that_makes_containers_of_images() {
    let mut old = cluster(1, vec![node("a", 64)]);
    old.version = Some(Version { text: "9.0.3".to_owned(), major: 9, minor: 0 });
    let refused = place(std::slice::from_ref(&old), &[], Wish::default(), &image()).unwrap_err();
    assert_eq!(refused.code(), "catalog.needs_newer_proxmox");
    assert!(refused.to_string().contains("9.1"), "{refused}");
    place(&[old.clone()], &[], Wish::default(), &template()).unwrap();
    let clusters = [old, cluster(2, vec![node("b", 1)])];
    let place = place(&clusters, &[], Wish::default(), &image()).unwrap();
    assert_eq!(place.node.name.as_str(), "b");
}

#[test]
fn storages_are_chosen_by_what_they_may_hold_and_by_room() {
    let mut roomy = node("a", 4);
    roomy.storages = vec![
        storage("templates", &["vztmpl", "iso"], 1),
        storage("small", &["rootdir"], GIB),
        storage("large", &["rootdir", "images"], 9 * GIB),
        Storage { active: false, ..storage("broken", &["vztmpl", "rootdir"], 99 * GIB) },
    ];
    let bare = NodeView { storages: vec![storage("iso", &["iso"], GIB)], ..node("b", 64) };
    let clusters = [cluster(1, vec![roomy, bare.clone()])];
    let place = place(&clusters, &[], Wish::default(), &template()).unwrap();
    assert_eq!((place.template_storage, place.disk_storage), ("templates", "large"));
    assert_eq!(chosen(&[cluster(1, vec![bare])], &[]), Err("nodes.no_storage"));
}

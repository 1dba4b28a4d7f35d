//! What is promised about registered hosts, each as a sentence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rack;

use proximity_domain::host::{Event, Fingerprint};

use self::rack::{Rack, Racks};
use super::*;
use crate::clock::SystemClock;
use crate::keys::MasterKeys;
use crate::ports::{Credential, Hypervisors as _, Trust};
use crate::testing::{Site, an_admin};

/// Hosts on a store of their own, and machines that can be reached from it.
struct Room {
    site: Site,
    racks: Arc<Racks>,
    hosts: Hosts,
}

impl Room {
    async fn open() -> Self {
        let site = Site::open().await;
        let keys = Arc::new(MasterKeys::generate().unwrap());
        let secrets = Secrets::new(site.store.clone(), keys).await.unwrap();
        let racks = Arc::new(Racks::default());
        let connector = Arc::clone(&racks) as Arc<dyn crate::ports::Connector>;
        let directory =
            Arc::new(HostDirectory::new(site.store.clone(), secrets.clone(), connector));
        let clock = SystemClock::shared();
        let hosts = Hosts { store: site.store.clone(), secrets, directory, clock };
        Self { site, racks, hosts }
    }

    /// A machine at an address; the password that it wants.
    fn machine(&self, address: &str, cluster: &str) -> Secret {
        let password = format!("{:032x}", rand::random::<u128>());
        let fingerprint = Fingerprint::from_digest(rand::random());
        let rack = Rack { cluster: cluster.into(), fingerprint, password: password.clone() };
        self.racks.put(address, rack);
        Secret::new(password)
    }

    async fn register(&self, name: &str, address: &str, cluster: &str) -> HostId {
        let password = self.machine(address, cluster);
        self.hosts.create(&admin(), input(name, address, password)).await.unwrap().host
    }

    async fn state(&self, host: HostId) -> Registration {
        self.hosts.registered(host).await.unwrap()
    }

    fn watch(&self) -> NodeWatch {
        let directory = Arc::clone(&self.hosts.directory);
        NodeWatch::new(self.site.store.clone(), directory, SystemClock::shared())
    }
}

fn admin() -> Admin {
    Admin::prove(&an_admin(1)).unwrap()
}

fn input(name: &str, address: &str, password: Secret) -> HostInput {
    HostInput {
        name: name.into(),
        host: address.into(),
        port: 8006,
        user: "root@pam".into(),
        password: Some(password),
        token_id: None,
        token_secret: None,
        verify_ssl: false,
        fingerprint: None,
        ssh_port: 22,
        is_default: false,
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    result.unwrap_err().code()
}

#[tokio::test]
async fn without_verification_the_certificate_seen_first_is_pinned_before_a_password_is_sent() {
    let room = Room::open().await;
    let host = room.register("rack", "192.0.2.10", "one").await;
    let seen = room.racks.at("192.0.2.10").fingerprint;
    assert_eq!(room.state(host).await.connection.fingerprint, Some(seen));
    let calls = room.racks.calls();
    assert_eq!(calls[0], "probe 192.0.2.10");
    assert_eq!(calls[1], format!("connect 192.0.2.10 {:?}", Trust::Pinned(seen)));

    // Another certificate at the same address gets no password.
    room.machine("192.0.2.10", "one");
    let refused = room.hosts.test(&admin(), host).await.unwrap_err();
    assert_eq!(refused.code(), "proxmox.certificate");
}

#[tokio::test]
async fn audit_07_a_password_is_stored_sealed_and_given_to_the_adapter_only() {
    let room = Room::open().await;
    let password = room.machine("192.0.2.10", "one");
    let host = room.hosts.create(&admin(), input("rack", "192.0.2.10", password.clone())).await;
    let host = host.unwrap().host;
    room.hosts.directory.of(host).await.unwrap();
    assert!(room.hosts.test(&admin(), host).await.unwrap().contains("one"));
    assert!(!room.site.whole_log().await.contains(password.expose()));
    for entry in std::fs::read_dir(room.site.directory.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let canary = password.expose().as_bytes();
        assert!(!bytes.windows(canary.len()).any(|window| window == canary));
    }
}

#[tokio::test]
async fn a_second_record_for_a_cluster_or_a_name_is_refused_and_a_removed_one_frees_both() {
    let room = Room::open().await;
    let first = room.register("Rack", "192.0.2.10", "one").await;
    let password = room.machine("192.0.2.11", "one");
    let again = room.hosts.create(&admin(), input("other", "192.0.2.11", password.clone())).await;
    assert_eq!(code(again), "host.cluster_taken");
    let elsewhere = room.machine("192.0.2.12", "two");
    let named = room.hosts.create(&admin(), input("rACK", "192.0.2.12", elsewhere)).await;
    assert_eq!(code(named), "host.name_taken");
    room.hosts.delete(&admin(), first).await.unwrap();
    let again = room.hosts.create(&admin(), input("rack", "192.0.2.11", password)).await.unwrap();
    assert_ne!(again.host, first, "an id is never used again");
}

#[tokio::test]
async fn of_many_who_register_one_cluster_at_once_one_wins() {
    let room = Room::open().await;
    let password = room.machine("192.0.2.10", "one");
    let hosts = Arc::new(room.hosts);
    let mut racers = Vec::new();
    for number in 0..8 {
        let (hosts, password) = (Arc::clone(&hosts), password.clone());
        let input = input(&format!("rack{number}"), "192.0.2.10", password);
        racers.push(tokio::spawn(async move { hosts.create(&admin(), input).await }));
    }
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.code(), "host.cluster_taken"),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_stored_credential_is_only_sent_where_it_was_entered_for() {
    let room = Room::open().await;
    let host = room.register("rack", "192.0.2.10", "one").await;
    let stolen = room.machine("192.0.2.66", "one");
    let before = room.racks.calls().len();
    let other = "CD".repeat(32);
    let changes = [
        HostChange { host: Some("192.0.2.66".into()), ..HostChange::default() },
        HostChange { port: Some(8007), ..HostChange::default() },
        HostChange { user: Some("admin@pve".into()), ..HostChange::default() },
        HostChange { fingerprint: Some(other), ..HostChange::default() },
        HostChange { verify_ssl: Some(true), ..HostChange::default() },
        HostChange {
            host: Some("192.0.2.66".into()),
            password: Some(Secret::new(String::new())),
            ..HostChange::default()
        },
    ];
    for change in changes {
        assert_eq!(
            code(room.hosts.change(&admin(), host, change).await),
            "host.credential_required"
        );
    }
    let calls = room.racks.calls().split_off(before);
    assert!(calls.is_empty(), "it was looked at before the credential was there: {calls:?}");
    let rename = HostChange { name: Some("renamed".into()), ..HostChange::default() };
    room.hosts.change(&admin(), host, rename).await.unwrap();
    room.hosts.test(&admin(), host).await.unwrap();
    let moved = HostChange {
        host: Some("192.0.2.66".into()),
        password: Some(stolen),
        ..HostChange::default()
    };
    room.hosts.change(&admin(), host, moved).await.unwrap();
    room.hosts.test(&admin(), host).await.unwrap();
    let secrets = room.site.store.rows(&tables::SECRETS, vec![], 10).await.unwrap();
    assert_eq!(secrets.len(), 1, "the old credential is gone");
}

#[tokio::test]
async fn of_changes_at_once_each_is_made_and_none_is_lost() {
    let room = Room::open().await;
    let host = room.register("rack", "192.0.2.10", "one").await;
    let (admin, other) = (admin(), admin());
    let rename = HostChange { name: Some("renamed".into()), ..HostChange::default() };
    let shell = HostChange { ssh_port: Some(2_222), ..HostChange::default() };
    let (one, two) = tokio::join!(
        room.hosts.change(&admin, host, rename),
        room.hosts.change(&other, host, shell),
    );
    one.unwrap();
    two.unwrap();
    let now = room.state(host).await.connection;
    assert_eq!((now.name.as_str(), now.ssh_port.get()), ("renamed", 2_222));
}

#[tokio::test]
async fn of_two_changes_at_once_no_password_is_sent_to_the_address_of_the_other() {
    let room = Room::open().await;
    let host = room.register("rack", "192.0.2.10", "one").await;
    let moved_to = room.machine("192.0.2.66", "one");
    let (admin, other) = (admin(), admin());
    let password = Some(Secret::new(room.racks.at("192.0.2.10").password));
    let stays = HostChange { password, ..HostChange::default() };
    let moved = HostChange {
        host: Some("192.0.2.66".into()),
        password: Some(moved_to),
        ..HostChange::default()
    };
    let (one, two) = tokio::join!(
        room.hosts.change(&admin, host, moved),
        room.hosts.change(&other, host, stays),
    );
    // Whichever was first: the one that moves the host may come after the other, not before it.
    one.unwrap();
    if let Err(error) = two {
        assert_eq!(error.code(), "host.changed_meanwhile");
    }
    assert_eq!(room.state(host).await.connection.address, "192.0.2.66");
}

#[tokio::test]
async fn an_address_of_another_cluster_is_no_change_of_the_host() {
    let room = Room::open().await;
    let host = room.register("rack", "192.0.2.10", "one").await;
    let password = room.machine("192.0.2.20", "two");
    let moved = HostChange {
        host: Some("192.0.2.20".into()),
        password: Some(password),
        ..HostChange::default()
    };
    assert_eq!(code(room.hosts.change(&admin(), host, moved).await), "host.other_cluster");
    assert_eq!(room.state(host).await.connection.address, "192.0.2.10");
}

#[tokio::test]
async fn audit_25_a_host_with_applications_cannot_be_deleted() {
    let room = Room::open().await;
    let host = room.register("rack", "192.0.2.10", "one").await;
    let used = vec![("application", text("nginx-00000001")), ("host_id", text(host))];
    let table = &tables::HOST_USAGE;
    room.site.write(vec![SideWrite::Insert { table, row: used }]).await;
    assert_eq!(code(room.hosts.delete(&admin(), host).await), "host.in_use");
    let filter = vec![("application", text("nginx-00000001"))];
    room.site.write(vec![SideWrite::Delete { table, filter, guard: Guard::Rows(1) }]).await;
    room.hosts.delete(&admin(), host).await.unwrap();
    assert_eq!(code(room.hosts.test(&admin(), host).await), "not_found");
    for table in [&tables::HOST_CONNECTIONS, &tables::SECRETS] {
        assert!(room.site.store.rows(table, vec![], 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn there_is_one_default_host_and_another_takes_over_when_it_goes() {
    let room = Room::open().await;
    let one = room.register("one", "192.0.2.10", "one").await;
    let two = room.register("two", "192.0.2.11", "two").await;
    assert!(room.state(one).await.is_default && !room.state(two).await.is_default);
    let default = HostChange { is_default: Some(true), ..HostChange::default() };
    room.hosts.change(&admin(), two, default).await.unwrap();
    assert!(!room.state(one).await.is_default && room.state(two).await.is_default);
    room.hosts.delete(&admin(), two).await.unwrap();
    assert!(room.state(one).await.is_default);
    let off = HostChange { is_active: Some(false), ..HostChange::default() };
    assert_eq!(code(room.hosts.change(&admin(), one, off).await), "host.default_must_be_active");
}

#[tokio::test]
async fn a_host_that_answers_as_another_cluster_is_suspended_until_it_is_itself_again() {
    let room = Room::open().await;
    let host = room.register("rack", "192.0.2.10", "one").await;
    let watch = room.watch();
    watch.look().await;
    assert_eq!(watch.figures(host).nodes.len(), 1);
    room.racks.rename("192.0.2.10", "two");
    watch.look().await;
    assert!(room.state(host).await.suspended.unwrap().contains("two"));
    assert!(room.hosts.directory.of(host).await.is_err(), "nothing is sent there");
    let rename = || HostChange { name: Some("renamed".into()), ..HostChange::default() };
    let still = room.hosts.change(&admin(), host, rename()).await;
    assert_eq!(code(still), "host.other_cluster");
    room.racks.rename("192.0.2.10", "one");
    room.hosts.change(&admin(), host, rename()).await.unwrap();
    assert!(room.state(host).await.suspended.is_none());
    room.hosts.directory.of(host).await.unwrap();
}

#[tokio::test]
async fn the_same_nodes_seen_again_are_no_event() {
    let room = Room::open().await;
    let host = room.register("rack", "192.0.2.10", "one").await;
    let head = room.site.store.head().await.unwrap();
    let watch = room.watch();
    assert_eq!(watch.answered_at(host), None);
    watch.look().await;
    let answered = watch.answered_at(host).expect("it has answered");
    watch.look().await;
    assert!(watch.answered_at(host).is_some_and(|again| again >= answered));
    assert_eq!(room.hosts.sync_nodes(&admin(), host).await.unwrap(), (1, None));
    assert_eq!(room.site.store.head().await.unwrap(), head);
    let events = room.site.store.load_stream("host", &host.to_string()).await.unwrap();
    let last: Event = serde_json::from_str(&events.last().unwrap().payload).unwrap();
    assert!(matches!(last, Event::NodesObserved { nodes } if nodes.len() == 1));
}

#[tokio::test]
async fn the_adapter_is_kept_until_the_connection_changes() {
    let room = Room::open().await;
    let host = room.register("rack", "192.0.2.10", "one").await;
    let directory = &room.hosts.directory;
    let first = directory.of(host).await.unwrap();
    assert!(Arc::ptr_eq(&first, &directory.of(host).await.unwrap()));
    let password = room.machine("192.0.2.10", "one");
    let seen = room.racks.at("192.0.2.10").fingerprint;
    let change = HostChange {
        password: Some(password.clone()),
        fingerprint: Some(seen.to_string()),
        ..HostChange::default()
    };
    room.hosts.change(&admin(), host, change).await.unwrap();
    let second = directory.of(host).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    let Credential::Password(sent) = room.racks.last_credential() else { panic!("a password") };
    assert_eq!(sent.expose(), password.expose());
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_host_is_said_at_once_by_field() {
    let room = Room::open().await;
    let wrong = HostInput {
        name: String::new(),
        host: "192.0.2.10:8006/x".into(),
        port: 0,
        user: "root".into(),
        password: None,
        fingerprint: Some("AB".into()),
        ssh_port: 65_536,
        ..input("", "", Secret::new(String::new()))
    };
    let refused = room.hosts.create(&admin(), wrong).await;
    let Err(Error::Invalid(fields)) = refused else { panic!("{refused:?}") };
    let found: Vec<_> = fields.iter().map(|field| field.field.as_str()).collect();
    assert_eq!(found, ["name", "host", "port", "ssh_port", "user", "fingerprint", "password"]);
    assert!(room.racks.calls().is_empty(), "nothing was sent anywhere");
}

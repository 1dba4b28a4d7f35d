//! A simulator, and clients for it.

use std::time::Duration;

use proximity_commands::Secret;
use proximity_commands::ports::{
    ConnectionSpec, Credential, GuestAddress, Hypervisor, NewGuest, Process, TaskState, Trust, Upid,
};
use proximity_domain::{NodeName, Resources, Vmid};
use proximity_proxmox::{Limits, PveClient};
use proximity_simulator::{Simulator, SimulatorConfig, SimulatorHandle};

/// A template that the simulator offers for download.
pub const TEMPLATE: &str = "local:vztmpl/web_1.tar";

pub fn node() -> NodeName {
    "pve1".parse().unwrap()
}

pub fn vmid(number: i64) -> Vmid {
    Vmid::try_from(number).unwrap()
}

/// Limits that fit a host whose waits are short.
pub fn limits() -> Limits {
    Limits {
        read: Duration::from_secs(8),
        write: Duration::from_secs(5),
        refusal_pause: Duration::ZERO,
        ..Limits::default()
    }
}

pub fn spec(host: &SimulatorHandle, user: &str, credential: Credential) -> ConnectionSpec {
    ConnectionSpec {
        address: host.address().ip().to_string(),
        port: i64::from(host.address().port()).try_into().unwrap(),
        user: user.to_owned(),
        credential,
        trust: Trust::Pinned(host.fingerprint().parse().unwrap()),
    }
}

/// The very root.
pub fn root(host: &SimulatorHandle) -> PveClient {
    let password = Secret::new(host.root_password().to_owned());
    let spec = spec(host, "root@pam", Credential::Password(password));
    PveClient::connect(&spec, limits()).unwrap()
}

/// A client with this token, in the simulator's spelling `user!name=secret`.
pub fn with_token(host: &SimulatorHandle, token: &str) -> PveClient {
    let (user, rest) = token.split_once('!').unwrap();
    let (id, secret) = rest.split_once('=').unwrap();
    let credential =
        Credential::Token { id: id.to_owned(), secret: Secret::new(secret.to_owned()) };
    PveClient::connect(&spec(host, user, credential), limits()).unwrap()
}

/// A quick lone node with an image archive on its storage.
pub async fn host() -> SimulatorHandle {
    started(SimulatorConfig::quick()).await
}

pub async fn started(config: SimulatorConfig) -> SimulatorHandle {
    let host = Simulator::start(config).await.unwrap();
    let client = root(&host);
    let upid = client.pull_oci_image(&node(), "local", "docker.io/a/web:1", "web_1").await.unwrap();
    assert!(matches!(ended(&client, &upid).await, TaskState::Succeeded { .. }));
    host
}

/// A container to be made.
pub fn guest(number: i64) -> NewGuest {
    NewGuest {
        vmid: vmid(number),
        hostname: format!("web-{number}").parse().unwrap(),
        archive: TEMPLATE.to_owned(),
        description: format!("marker of {number}"),
        disk_storage: "local".to_owned(),
        disk: 1.try_into().unwrap(),
        resources: Resources {
            cores: 1.try_into().unwrap(),
            memory: 64.try_into().unwrap(),
            disk: 1.try_into().unwrap(),
            swap: 0.try_into().unwrap(),
        },
        bridge: "vmbr0".to_owned(),
        address: GuestAddress::Dhcp,
        dns: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
        unprivileged: true,
        features: Some("nesting=1".to_owned()),
        protection: true,
        process: Process::default(),
    }
}

/// Polls a task to its end, as an operation does; bounded by the test's patience.
pub async fn ended(client: &PveClient, upid: &Upid) -> TaskState {
    for _ in 0..500 {
        match client.task(upid).await.unwrap() {
            Some(TaskState::Running) => tokio::time::sleep(Duration::from_millis(10)).await,
            Some(state) => return state,
            None => panic!("the task {upid} was forgotten"),
        }
    }
    panic!("the task {upid} does not end");
}

/// Creates a container and waits for it.
pub async fn created(client: &PveClient, number: i64) -> NewGuest {
    let guest = guest(number);
    let upid = client.create(&node(), &guest).await.unwrap();
    assert_eq!(ended(client, &upid).await, TaskState::Succeeded { warnings: false });
    guest
}

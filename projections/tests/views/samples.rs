//! Events as deployments write them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proximity_domain::application::{Endpoint, Event as App, Requested};
use proximity_domain::host::{Auth, Connection, ObservedNode};
use proximity_domain::lease::{Event as Lease, Holder};
use proximity_domain::operation::{Direction, Event as Operation, Failure, FailureClass};
use proximity_domain::plan::{
    DeletePlan, DeployPlan, GuestRef, Health, Holdings, Plan, Probe, Source,
};
use proximity_domain::{
    ApplicationId, Cores, EnvValue, Gibibytes, HostId, Mebibytes, NetworkSettings,
    NetworkSettingsInput, OperationId, Port, Resources, SecretId, UserId, Vmid,
};
use proximity_eventstore::StreamAppend;
use uuid::Uuid;

use crate::support::stream;

/// What differs between one deployment and another.
#[derive(Debug, Clone)]
pub struct Sample {
    pub number: u32,
    pub owner: i64,
    pub name: String,
    pub hostname: String,
    pub host: i64,
    pub node: String,
}

impl Sample {
    pub fn new(number: u32) -> Self {
        Self {
            number,
            owner: 1,
            name: "Nginx".to_owned(),
            hostname: format!("web-{number}"),
            host: 1,
            node: "pve1".to_owned(),
        }
    }

    pub fn id(&self) -> String {
        format!("nginx-{:08x}", self.number)
    }

    pub fn application(&self) -> ApplicationId {
        self.id().parse().unwrap()
    }

    pub fn operation(&self) -> OperationId {
        OperationId(Uuid::from_u128(u128::from(self.number)))
    }

    pub fn vmid(&self) -> Vmid {
        Vmid::try_from(i64::from(100 + self.number)).unwrap()
    }

    pub fn guest(&self) -> GuestRef {
        GuestRef {
            host: HostId(self.host),
            cluster: "homelab".parse().unwrap(),
            node: self.node.parse().unwrap(),
            vmid: self.vmid(),
        }
    }

    pub fn holdings(&self) -> Holdings {
        Holdings {
            hostname: self.hostname.parse().unwrap(),
            public_port: Some(port(8_100 + i64::from(self.number % 10_000))),
            internal_port: Some(port(20_000 + i64::from(self.number % 40_000))),
            address: None,
        }
    }

    fn environment(&self) -> BTreeMap<String, EnvValue> {
        let secret = SecretId(Uuid::from_u128(9));
        BTreeMap::from([
            ("TITLE".to_owned(), EnvValue::Plain("Blog".to_owned())),
            ("PASSWORD".to_owned(), EnvValue::Secret(secret)),
        ])
    }

    pub fn requested(&self) -> App {
        App::Requested(Box::new(Requested {
            owner: UserId(self.owner),
            operation: self.operation(),
            catalog_id: "nginx".to_owned(),
            catalog_version: "1.29".to_owned(),
            name: self.name.clone(),
            guest: self.guest(),
            holdings: self.holdings(),
            resources: resources(),
            environment: self.environment(),
            config: self.environment(),
            endpoint: Some(Endpoint {
                port: port(8_080),
                protocol: "http".to_owned(),
                path: Some("/".to_owned()),
            }),
            health: health(),
            icon: "https://example.org/nginx.svg".to_owned(),
            category: "Web Server".to_owned(),
            description: "Web server".to_owned(),
            origin: proximity_domain::application::Origin::Deployed,
        }))
    }

    pub fn plan(&self) -> Plan {
        Plan::Deploy(Box::new(DeployPlan {
            agreed: false,
            guest: self.guest(),
            holdings: self.holdings(),
            source: Source::Oci {
                image: "docker.io/nginxinc/nginx-unprivileged:1.29-alpine".to_owned(),
                entrypoint: None,
            },
            template_storage: "local".to_owned(),
            disk_storage: "local".to_owned(),
            resources: resources(),
            network: network(),
            environment: self.environment(),
            unprivileged: true,
            features: None,
            health: health(),
        }))
    }

    pub fn planned(&self) -> Operation {
        Operation::Planned {
            application: self.application(),
            owner: UserId(self.owner),
            plan: self.plan(),
            steps: STEPS.map(str::to_owned).to_vec(),
            deadline: 2_000_000_000_000_000,
        }
    }

    /// The one append of a deployment: application, leases, operation.
    pub fn deployment(&self) -> Vec<StreamAppend> {
        let held = Lease::Acquired { holder: Holder::Application(self.application()) };
        let mut streams = vec![self.app(&[self.requested()])];
        let cluster = self.guest().cluster.clone();
        let leases = self.holdings().leases(&cluster);
        for key in leases.into_iter().chain([self.guest().vmid_lease()]) {
            streams.push(stream("lease", &key.to_string(), std::slice::from_ref(&held)));
        }
        streams.push(self.op(&[self.planned()]));
        streams
    }

    /// A deployment that ends well.
    pub fn success(&self) -> Vec<StreamAppend> {
        let mut events = Vec::new();
        for step in STEPS {
            events.push(intended(step, Direction::Act, 1));
            events.push(succeeded(step, Direction::Act, 1));
        }
        events.push(Operation::Completed);
        let (operation, address) = (self.operation(), Some(address()));
        vec![self.op(&events), self.app(&[App::Deployed { operation, address }])]
    }

    pub fn app(&self, events: &[App]) -> StreamAppend {
        stream("application", &self.id(), events)
    }

    pub fn op(&self, events: &[Operation]) -> StreamAppend {
        stream("operation", &self.operation().to_string(), events)
    }
}

pub const STEPS: [&str; 4] = ["ensure_oci_image", "create_container", "start", "wait_healthy"];

pub fn port(number: i64) -> Port {
    Port::try_from(number).unwrap()
}

pub fn address() -> IpAddr {
    "10.0.0.7".parse().unwrap()
}

pub fn resources() -> Resources {
    Resources {
        cores: Cores::try_from(1).unwrap(),
        memory: Mebibytes::try_from(512).unwrap(),
        disk: Gibibytes::try_from(8).unwrap(),
        swap: Mebibytes::try_from(0).unwrap(),
    }
}

fn health() -> Health {
    Health { probe: Probe::Tcp { port: port(8_080) }, within_s: 60 }
}

fn network() -> NetworkSettings {
    NetworkSettings::parse(&NetworkSettingsInput {
        default_subnet: "10.0.0.0/24".to_owned(),
        default_gateway: "10.0.0.1".to_owned(),
        default_dns_primary: "8.8.8.8".to_owned(),
        default_dns_secondary: None,
        default_bridge: "vmbr0".to_owned(),
        address_mode: proximity_domain::AddressMode::Dhcp,
    })
    .unwrap()
}

pub fn delete_plan(sample: &Sample) -> Plan {
    Plan::Delete(DeletePlan {
        guest: Some(sample.guest()),
        holdings: Some(sample.holdings()),
        was_running: true,
        adopted_by: None,
        replaced: false,
        detached: false,
    })
}

pub fn intended(step: &str, direction: Direction, attempt: u32) -> Operation {
    Operation::StepIntended { step: step.to_owned(), direction, attempt, stood: None, site: None }
}

pub fn succeeded(step: &str, direction: Direction, attempt: u32) -> Operation {
    Operation::StepSucceeded { step: step.to_owned(), direction, attempt, found: None }
}

pub fn failed(step: &str, direction: Direction, attempt: u32, retry_at: Option<i64>) -> Operation {
    let class = if retry_at.is_some() { FailureClass::Retryable } else { FailureClass::Permanent };
    let failure = Failure { class, message: "storage 'local' is full".to_owned() };
    Operation::StepFailed { step: step.to_owned(), direction, attempt, failure, retry_at }
}

pub fn connection(name: &str) -> Connection {
    Connection {
        name: name.to_owned(),
        address: "192.0.2.1".to_owned(),
        port: port(8_006),
        user: "root@pam".to_owned(),
        auth: Auth::Password,
        credential: SecretId(Uuid::from_u128(77)),
        verify_ssl: false,
        fingerprint: None,
        ssh_port: port(22),
    }
}

pub fn node(name: &str, online: bool) -> ObservedNode {
    ObservedNode {
        name: name.parse().unwrap(),
        online,
        version: Some("9.1.7".to_owned()),
        cores: online.then_some(8),
        memory_total: online.then_some(16 << 30),
        disk_total: None,
    }
}

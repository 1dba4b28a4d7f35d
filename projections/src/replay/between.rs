//! What has to hold between streams: who holds a lease lives and has what it stands for, what lives
//! holds its own, an operation and its application name each other, and nothing waits for what has ended.

use proximity_domain::application::{Application, Live};
use proximity_domain::host::{Host, Registration};
use proximity_domain::lease::{Holder, Lease};
use proximity_domain::operation::Operation;
use proximity_domain::plan::{GuestRef, Holdings, Plan};
use proximity_domain::user::{Account, EmailAddress, User, Username};
use proximity_domain::{HostId, LeaseKey};
use proximity_eventstore::Recorded;

use super::judge::{Judge, name_of};

impl Judge {
    /// What has to hold between streams, now that the last append is complete.
    pub fn close(&mut self) {
        self.end_append();
        let mut found = Vec::new();
        for (key, lease) in &self.leases {
            let Some(holder) = lease.holder() else { continue };
            if !self.may_hold(holder) {
                let problem = format!("{} holds it and does not live", name_of(holder));
                found.push((format!("lease/{key}"), problem));
            } else if key.parse().is_ok_and(|key| !self.is_due_to(&key, holder)) {
                let problem = format!("{} holds it and has no such thing", name_of(holder));
                found.push((format!("lease/{key}"), problem));
            }
        }
        for (id, backup) in &self.backups {
            let Some(operation) = backup.kept().and_then(|kept| kept.current) else { continue };
            if !self.operations.contains_key(&operation.to_string()) {
                let problem = format!("it is in use by operation {operation}, which has ended");
                found.push((format!("backup/{id}"), problem));
            }
        }
        for (id, application) in &self.applications {
            if let Some(current) = application.current() {
                let operation = current.operation.to_string();
                if !self.operations.contains_key(&operation) {
                    let problem =
                        format!("it is reserved for operation {operation}, which has ended");
                    found.push((format!("application/{id}"), problem));
                }
            }
            let Some(live) = application.live() else { continue };
            let (guest, holdings) = (&live.requested.guest, &live.requested.holdings);
            for key in holdings.leases(&guest.cluster).into_iter().chain([guest.vmid_lease()]) {
                found.extend(self.lacks(format!("application/{id}"), &key));
            }
        }
        for (id, user) in &self.users {
            let Some(account) = user.account() else { continue };
            for key in names_of_user(account) {
                found.extend(self.lacks(format!("user/{id}"), &key));
            }
        }
        for (id, host) in &self.hosts {
            let Some(host) = host.registration() else { continue };
            for key in names_of_host(host) {
                found.extend(self.lacks(format!("host/{id}"), &key));
            }
        }
        for (id, operation) in &self.operations {
            let Some(progress) = operation.progress() else { continue };
            let application = self.applications.get(progress.application.as_str());
            let reserved = application
                .and_then(Application::current)
                .is_some_and(|current| current.operation.to_string() == *id);
            if !reserved && !progress.plan.is_detached() {
                let problem = format!("{} is not reserved for it", progress.application);
                found.push((format!("operation/{id}"), problem));
            }
        }
        found.sort();
        for (subject, problem) in found {
            self.findings.note(None, subject, problem);
        }
    }

    /// What is wrong, if this does not hold a lease that it has for as long as it lives.
    fn lacks(&self, subject: String, key: &LeaseKey) -> Option<(String, String)> {
        let holder = self.leases.get(&key.to_string()).and_then(Lease::holder);
        let holds = holder.is_some_and(|holder| name_of(holder) == subject);
        (!holds).then(|| (subject, format!("it does not hold {key}")))
    }

    /// An application holds while it lives, or while an operation works on it or is stuck.
    fn may_hold(&self, holder: &Holder) -> bool {
        match holder {
            Holder::Application(id) => match self.applications.get(id.as_str()) {
                Some(Application::Live(_)) => true,
                Some(other) => other.current().is_some_and(|current| {
                    self.operations.contains_key(&current.operation.to_string())
                }),
                None => false,
            },
            Holder::Operation(id) => self.operations.contains_key(&id.to_string()),
            Holder::User(id) => self.users.contains_key(&id.to_string()),
            Holder::Host(id) => self.hosts.contains_key(&id.to_string()),
        }
    }

    /// Whether this is what the holder has, or what an operation on it takes or gives back.
    fn is_due_to(&self, key: &LeaseKey, holder: &Holder) -> bool {
        match holder {
            Holder::Application(id) => match self.applications.get(id.as_str()) {
                Some(Application::Live(live)) => self.leases_of(live).contains(key),
                // What it holds until the end of its operation, nothing but that says.
                Some(Application::Absent | Application::Failed(_) | Application::Removed)
                | None => true,
            },
            // No two at a time fetch one template.
            Holder::Operation(_) => matches!(key, LeaseKey::Template(..)),
            Holder::User(id) => {
                let account = self.users.get(&id.to_string()).and_then(User::account);
                account.is_some_and(|account| names_of_user(account).contains(key))
            }
            Holder::Host(id) => {
                let host = self.hosts.get(&id.to_string()).and_then(Host::registration);
                host.is_some_and(|host| names_of_host(host).contains(key))
            }
        }
    }

    fn leases_of(&self, live: &Live) -> Vec<LeaseKey> {
        let mut keys = leases(&live.requested.guest, Some(&live.requested.holdings));
        let current = live.current.as_ref().map(|current| current.operation.to_string());
        let operation = current.and_then(|operation| self.operations.get(&operation));
        let Some(progress) = operation.and_then(Operation::progress) else { return keys };
        match &progress.plan {
            Plan::Deploy(plan) => keys.extend(leases(&plan.guest, Some(&plan.holdings))),
            Plan::Clone(plan) => keys.extend(leases(&plan.guest, Some(&plan.holdings))),
            Plan::Adopt(plan) => keys.extend(leases(&plan.guest, Some(&plan.holdings))),
            Plan::Restore(plan) => {
                keys.extend([plan.guest.vmid_lease(), plan.original.vmid_lease()]);
            }
            Plan::Delete(plan) => {
                let guest = plan.guest.as_ref();
                keys.extend(guest.into_iter().flat_map(|it| leases(it, plan.holdings.as_ref())));
            }
            Plan::Start(_) | Plan::Stop(_) | Plan::Restart(_) => {}
            Plan::Backup(_) | Plan::BackupDelete(_) => {}
        }
        keys
    }

    /// A host is removed only when no application is on it.
    pub(super) fn host_is_unused(&self, event: &Recorded) -> Result<(), String> {
        if event.event_type != "host.removed" {
            return Ok(());
        }
        let is_on_it = |application: &Application| {
            let host: Option<HostId> = application.live().map(|live| live.requested.guest.host);
            host.is_some_and(|host| host.to_string() == event.aggregate_id)
        };
        match self.applications.iter().find(|(_, application)| is_on_it(application)) {
            Some((id, _)) => Err(format!("host.removed could not happen then: {id} was on it")),
            None => Ok(()),
        }
    }
}

fn leases(guest: &GuestRef, holdings: Option<&Holdings>) -> Vec<LeaseKey> {
    let mut keys = holdings.map(|held| held.leases(&guest.cluster)).unwrap_or_default();
    keys.push(guest.vmid_lease());
    keys
}

fn names_of_user(account: &Account) -> Vec<LeaseKey> {
    let name = account.username.parse().ok().map(|name: Username| name.lease());
    let email = account.email.as_deref().and_then(|email| email.parse().ok());
    name.into_iter().chain(email.map(|email: EmailAddress| email.lease())).collect()
}

fn names_of_host(host: &Registration) -> [LeaseKey; 2] {
    // As the name is folded where it is taken.
    let name = LeaseKey::HostName(host.connection.name.trim().to_lowercase());
    [name, LeaseKey::Cluster(host.cluster.clone())]
}

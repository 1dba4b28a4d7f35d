//! What has to hold between streams: who holds a lease lives, what lives holds its own, and an operation
//! and its application name each other.

use proximity_domain::LeaseKey;
use proximity_domain::application::Application;
use proximity_domain::lease::{Holder, Lease};
use proximity_domain::user::{EmailAddress, Username};

use super::judge::{Judge, name_of};

impl Judge {
    /// What has to hold between streams, now that the last append is complete.
    pub fn close(&mut self) {
        let mut found = Vec::new();
        for (key, lease) in &self.leases {
            let Some(holder) = lease.holder() else { continue };
            if !self.may_hold(holder) {
                let problem = format!("{} holds it and does not live", name_of(holder));
                found.push((format!("lease/{key}"), problem));
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
            let name = account.username.parse().ok().map(|name: Username| name.lease());
            let email = account.email.as_deref().and_then(|email| email.parse().ok());
            let email = email.map(|email: EmailAddress| email.lease());
            for key in name.into_iter().chain(email) {
                found.extend(self.lacks(format!("user/{id}"), &key));
            }
        }
        for (id, host) in &self.hosts {
            let Some(host) = host.registration() else { continue };
            // As the name is folded where it is taken.
            let name = LeaseKey::HostName(host.connection.name.trim().to_lowercase());
            for key in [name, LeaseKey::Cluster(host.cluster.clone())] {
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
}

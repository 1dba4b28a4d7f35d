//! Refusals of leases, each with the code of the thing that is held.

use proximity_domain::LeaseKey;
use proximity_domain::lease;

use crate::error::Error;

/// The refusal of a lease, by what it is and by why it cannot be had.
pub fn refused(key: &LeaseKey, why: &lease::Error) -> Error {
    let (code, what) = match key {
        LeaseKey::Hostname(name) => ("hostname.taken", format!("the hostname {name}")),
        LeaseKey::Vmid(_, vmid) => ("vmid.taken", format!("the VMID {vmid}")),
        LeaseKey::Port(_, port) => ("port.taken", format!("the port {port}")),
        LeaseKey::Address(_, address) => ("address.taken", format!("the address {address}")),
        LeaseKey::Username(name) => ("username.taken", format!("the user name {name}")),
        LeaseKey::Email(_) => ("email.taken", "this mail address".to_owned()),
        LeaseKey::HostName(name) => ("host_name.taken", format!("the host name {name}")),
        LeaseKey::Cluster(name) => ("cluster.taken", format!("the cluster {name}")),
        LeaseKey::Template(_, _, file) => ("template.taken", format!("the template {file}")),
    };
    let detail = match why {
        lease::Error::Held { .. } | lease::Error::NotHolder => format!("{what} is taken"),
        lease::Error::Quarantined { .. } => {
            format!("{what} was given back a moment ago and is kept for a while")
        }
        lease::Error::Foreign => format!("{what} belongs to something that is not managed here"),
    };
    Error::conflict(code, detail)
}

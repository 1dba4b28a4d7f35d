//! The interfaces of a copied container: none keeps an address that was entered for the original.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proximity_domain::NetworkSettings;

/// Values of `ip` and `ip6` that name no address of their own.
const NOT_STATIC: [&str; 3] = ["dhcp", "auto", "manual"];

/// The interfaces of a configuration that have to change, with their new values.
///
/// The first one gets the address that was leased for the copy, on the bridge whose subnet it is
/// from, or else asks by DHCP if it had one that was entered. Any other loses an address that was
/// entered.
pub(crate) fn readdressed(
    config: &BTreeMap<String, String>,
    leased: Option<(IpAddr, &NetworkSettings)>,
) -> BTreeMap<String, String> {
    let mut changed = BTreeMap::new();
    let mut first = true;
    for (key, value) in config.iter().filter(|(key, _)| is_interface(key)) {
        let mut members: Vec<(&str, String)> = value
            .split(',')
            .filter_map(|member| member.split_once('='))
            .map(|(name, value)| (name.trim(), value.to_owned()))
            .collect();
        let leased = leased.filter(|_| std::mem::take(&mut first));
        match leased {
            Some((address, network)) => {
                members.retain(|(name, _)| !["ip", "gw", "ip6", "gw6", "bridge"].contains(name));
                let (ip, gw) = if address.is_ipv4() { ("ip", "gw") } else { ("ip6", "gw6") };
                let prefix = network.subnet().net().prefix_len();
                members.push(("bridge", network.bridge().to_owned()));
                members.push((ip, format!("{address}/{prefix}")));
                members.push((gw, network.gateway().to_string()));
            }
            None => {
                let other = if key == "net0" { "dhcp" } else { "manual" };
                forget(&mut members, "ip", "gw", other);
                forget(&mut members, "ip6", "gw6", "manual");
            }
        }
        let text: Vec<String> =
            members.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text = text.join(",");
        if !same(&text, value) {
            changed.insert(key.clone(), text);
        }
    }
    changed
}

fn is_interface(key: &str) -> bool {
    key.strip_prefix("net")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Replaces an address that was entered, and takes its gateway away.
fn forget(members: &mut Vec<(&str, String)>, ip: &str, gateway: &str, instead: &str) {
    let Some(at) = members
        .iter()
        .position(|(name, value)| *name == ip && !NOT_STATIC.contains(&value.as_str()))
    else {
        return;
    };
    instead.clone_into(&mut members[at].1);
    members.retain(|(name, _)| *name != gateway);
}

/// Proxmox sorts the members as it likes.
fn same(a: &str, b: &str) -> bool {
    let sorted = |text: &str| {
        let mut members: Vec<String> = text.split(',').map(str::to_owned).collect();
        members.sort();
        members
    };
    sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use proximity_domain::settings::default_network;

    use super::*;

    fn config(nets: &[(&str, &str)]) -> BTreeMap<String, String> {
        nets.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_entered_address_is_never_copied() {
        let source = config(&[
            ("net0", "name=eth0,bridge=vmbr0,gw=10.0.0.1,hwaddr=BC:24:11:00:00:01,ip=10.0.0.7/24"),
            ("net1", "name=eth1,bridge=vmbr1,ip=192.168.0.7/24,ip6=fd00::7/64,gw6=fd00::1"),
            ("net2", "name=eth2,bridge=vmbr2,ip=dhcp,ip6=auto"),
            ("nets", "ip=10.0.0.7/24"),
        ]);
        let changed = readdressed(&source, None);
        let expected = config(&[
            ("net0", "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp"),
            ("net1", "name=eth1,bridge=vmbr1,ip=manual,ip6=manual"),
        ]);
        assert_eq!(changed, expected);
        assert!(readdressed(&changed, None).is_empty(), "a second time there is nothing to do");
    }

    #[test]
    fn a_leased_address_replaces_what_the_first_interface_had() {
        let network = default_network();
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        let expected = "name=eth0,hwaddr=BC:24:11:00:00:01,bridge=vmbr0,ip=10.0.0.9/24,gw=10.0.0.1";
        for had in ["ip=10.0.0.7/24,gw=10.0.0.1", "ip=dhcp,ip6=auto"] {
            let net = format!("name=eth0,bridge=vmbr7,hwaddr=BC:24:11:00:00:01,{had}");
            let changed = readdressed(&config(&[("net0", &net)]), Some((address, &network)));
            assert_eq!(changed, config(&[("net0", expected)]));
            assert!(readdressed(&changed, Some((address, &network))).is_empty());
        }
    }
}

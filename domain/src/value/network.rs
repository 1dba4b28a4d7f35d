//! The network that containers join, as one value whose parts fit each other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ValueError;

/// A subnet in CIDR notation, its host bits zero, e.g. `10.0.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr(IpNet);

impl Cidr {
    /// The parsed network.
    pub fn net(&self) -> IpNet {
        self.0
    }

    /// Whether a host may have this address: inside, and neither network nor broadcast address.
    pub fn allows_host(&self, address: IpAddr) -> bool {
        let edge = match self.0 {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                address == IpAddr::V4(net.network()) || address == IpAddr::V4(net.broadcast())
            }
            IpNet::V6(net) if net.prefix_len() < 127 => address == IpAddr::V6(net.network()),
            _ => false,
        };
        self.0.contains(&address) && !edge
    }

    /// Whether there is room for a container beside its gateway, at addresses that are one host's.
    fn is_for_hosts(&self) -> bool {
        let (first, last) = (self.0.network(), self.0.broadcast());
        let is_host = |address: IpAddr| {
            !(address.is_unspecified() || address.is_multicast() || address.is_loopback())
        };
        self.0.prefix_len() < self.0.max_prefix_len()
            && is_host(first)
            && is_host(last)
            && last != IpAddr::V4(Ipv4Addr::BROADCAST)
    }

    /// Whether a server elsewhere can be meant by this address: not by one that stands for none or for
    /// many. Loopback is left to whoever knows what runs in their containers.
    fn allows_server(&self, address: IpAddr) -> bool {
        let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
        let is_edge = self.0.contains(&address) && !self.allows_host(address);
        !(address.is_unspecified() || address.is_multicast() || is_broadcast || is_edge)
    }
}

impl FromStr for Cidr {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refuse = |why: &str| ValueError::new("subnet.invalid", why);
        let net: IpNet =
            text.parse().map_err(|_| refuse("a subnet is written like 10.0.0.0/24"))?;
        if net.addr() != net.network() {
            return Err(refuse("a subnet starts at its network address, like 10.0.0.0/24"));
        }
        Ok(Self(net))
    }
}

impl TryFrom<String> for Cidr {
    type Error = ValueError;
    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How containers get their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressMode {
    /// From the network's own DHCP server.
    Dhcp,
    /// Leased from the subnet by us.
    Static,
}

/// The fields as a person sends them, before they are held against each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSettingsInput {
    pub default_subnet: String,
    pub default_gateway: String,
    pub default_dns_primary: String,
    pub default_dns_secondary: Option<String>,
    pub default_bridge: String,
    pub address_mode: AddressMode,
}

/// Network settings in which everything fits: made only from [`NetworkSettingsInput`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NetworkSettingsInput", into = "NetworkSettingsInput")]
pub struct NetworkSettings {
    subnet: Cidr,
    gateway: IpAddr,
    dns_primary: IpAddr,
    dns_secondary: Option<IpAddr>,
    bridge: String,
    mode: AddressMode,
}

impl NetworkSettings {
    pub fn subnet(&self) -> Cidr {
        self.subnet
    }
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }
    pub fn dns_primary(&self) -> IpAddr {
        self.dns_primary
    }
    pub fn dns_secondary(&self) -> Option<IpAddr> {
        self.dns_secondary
    }
    pub fn bridge(&self) -> &str {
        &self.bridge
    }
    pub fn mode(&self) -> AddressMode {
        self.mode
    }

    /// Parses all fields and reports every field that is wrong, by its name in the contract.
    pub fn parse(input: &NetworkSettingsInput) -> Result<Self, Vec<(&'static str, ValueError)>> {
        let mut wrong = Vec::new();
        let settings = match Self::read(input) {
            Ok(settings) => Some(settings),
            Err(found) => {
                wrong = found;
                None
            }
        };
        let subnet = input.default_subnet.parse::<Cidr>().ok();
        if let Some(subnet) = subnet
            && !subnet.is_for_hosts()
        {
            let text = format!("{subnet} is no network that containers can be in");
            wrong.push(("default_subnet", ValueError::new("subnet.invalid", text)));
        }
        let servers = [
            ("default_dns_primary", Some(&*input.default_dns_primary)),
            ("default_dns_secondary", input.default_dns_secondary.as_deref()),
        ];
        for (field, text) in servers {
            let address = text.and_then(|text| text.parse::<IpAddr>().ok());
            if let (Some(address), Some(subnet)) = (address, subnet)
                && !subnet.allows_server(address)
            {
                let text = format!("{address} is the address of no name server");
                wrong.push((field, ValueError::new("dns.invalid", text)));
            }
        }
        settings.filter(|_| wrong.is_empty()).ok_or(wrong)
    }

    /// As it was stored: what was accepted once stays readable, whatever is asked of new settings.
    fn read(input: &NetworkSettingsInput) -> Result<Self, Vec<(&'static str, ValueError)>> {
        let mut wrong = Vec::new();
        let address = |text: &str, code| {
            text.parse::<IpAddr>().map_err(|_| {
                ValueError::new(code, format!("{text:?} is not an IP address, like 10.0.0.1"))
            })
        };
        let subnet = note(&mut wrong, "default_subnet", input.default_subnet.parse::<Cidr>());
        let gateway = note(
            &mut wrong,
            "default_gateway",
            address(&input.default_gateway, "gateway.invalid").and_then(|gateway| match subnet {
                Some(subnet) if !subnet.allows_host(gateway) => Err(ValueError::new(
                    "gateway.outside_subnet",
                    format!("the gateway must be a host address inside {subnet}"),
                )),
                _ => Ok(gateway),
            }),
        );
        let dns_primary = note(
            &mut wrong,
            "default_dns_primary",
            address(&input.default_dns_primary, "dns.invalid"),
        );
        let dns_secondary = note(
            &mut wrong,
            "default_dns_secondary",
            match input.default_dns_secondary.as_deref() {
                None | Some("") => Ok(None),
                Some(text) => address(text, "dns.invalid").map(Some),
            },
        );
        let bridge = note(&mut wrong, "default_bridge", parse_bridge(&input.default_bridge));
        match (subnet, gateway, dns_primary, dns_secondary, bridge) {
            (Some(subnet), Some(gateway), Some(dns_primary), Some(dns_secondary), Some(bridge)) => {
                let mode = input.address_mode;
                Ok(Self { subnet, gateway, dns_primary, dns_secondary, bridge, mode })
            }
            _ => Err(wrong),
        }
    }
}

fn note<T>(
    wrong: &mut Vec<(&'static str, ValueError)>,
    field: &'static str,
    parsed: Result<T, ValueError>,
) -> Option<T> {
    parsed.map_err(|error| wrong.push((field, error))).ok()
}

/// A Linux bridge: 1 to 50 characters by the contract, of those Proxmox allows in an interface name.
fn parse_bridge(text: &str) -> Result<String, ValueError> {
    let mut bytes = text.bytes();
    let valid = text.len() <= 50
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if valid {
        Ok(text.to_owned())
    } else {
        Err(ValueError::new(
            "bridge.invalid",
            "a bridge has 1 to 50 letters, digits, '_', '-' or '.', and starts with a letter",
        ))
    }
}

impl TryFrom<NetworkSettingsInput> for NetworkSettings {
    type Error = ValueError;
    fn try_from(input: NetworkSettingsInput) -> Result<Self, ValueError> {
        Self::read(&input).map_err(|mut wrong| {
            wrong.pop().map_or_else(
                || ValueError::new("network.invalid", "the network settings do not fit"),
                |(_, error)| error,
            )
        })
    }
}

impl From<NetworkSettings> for NetworkSettingsInput {
    fn from(settings: NetworkSettings) -> Self {
        Self {
            default_subnet: settings.subnet.to_string(),
            default_gateway: settings.gateway.to_string(),
            default_dns_primary: settings.dns_primary.to_string(),
            default_dns_secondary: settings.dns_secondary.map(|address| address.to_string()),
            default_bridge: settings.bridge,
            address_mode: settings.mode,
        }
    }
}

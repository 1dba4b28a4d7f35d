//! Settings as a person sends them, the limits they are held against, and the built-in defaults.

use serde::{Deserialize, Serialize};

use crate::value::{
    AddressMode, Cores, Gibibytes, Mebibytes, NetworkSettings, NetworkSettingsInput, Resources,
    ValueError,
};

/// The resource defaults by their names in the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceDefaultsInput {
    /// 1 to 128.
    pub default_cpu_cores: i64,
    /// MiB, 256 to 524,288.
    pub default_memory_mb: i64,
    /// GiB, 1 to 10,240.
    pub default_disk_gb: i64,
    /// MiB, 0 to 32,768.
    pub default_swap_mb: i64,
}

impl ResourceDefaultsInput {
    /// Parses all fields and reports every field that is wrong, by its name in the contract.
    pub fn parse(&self) -> Result<Resources, Vec<(&'static str, ValueError)>> {
        let mut wrong = Vec::new();
        let mut note = |field, error| wrong.push((field, error));
        let cores = Cores::try_from(self.default_cpu_cores)
            .map_err(|error| note("default_cpu_cores", error));
        let memory = mebibytes(self.default_memory_mb, 256, 524_288)
            .map_err(|error| note("default_memory_mb", error));
        let disk = Gibibytes::try_from(self.default_disk_gb)
            .map_err(|error| note("default_disk_gb", error));
        let swap = mebibytes(self.default_swap_mb, 0, 32_768)
            .map_err(|error| note("default_swap_mb", error));
        match (cores, memory, disk, swap) {
            (Ok(cores), Ok(memory), Ok(disk), Ok(swap)) => {
                Ok(Resources { cores, memory, disk, swap })
            }
            _ => Err(wrong),
        }
    }
}

impl From<Resources> for ResourceDefaultsInput {
    fn from(resources: Resources) -> Self {
        Self {
            default_cpu_cores: resources.cores.into(),
            default_memory_mb: resources.memory.into(),
            default_disk_gb: resources.disk.into(),
            default_swap_mb: resources.swap.into(),
        }
    }
}

/// A default may be narrower than what a container can have at all.
fn mebibytes(number: i64, min: i64, max: i64) -> Result<Mebibytes, ValueError> {
    if (min..=max).contains(&number) {
        Mebibytes::try_from(number)
    } else {
        Err(ValueError::new(
            "mebibytes.invalid",
            format!("this amount in MiB lies between {min} and {max}, not {number}"),
        ))
    }
}

/// 2 cores, 2048 MiB, 20 GiB, 512 MiB swap (contract).
pub fn default_resources() -> Resources {
    let built_in = ResourceDefaultsInput {
        default_cpu_cores: 2,
        default_memory_mb: 2048,
        default_disk_gb: 20,
        default_swap_mb: 512,
    };
    built_in.parse().unwrap_or_else(|_| unreachable!("the built-in resources are within limits"))
}

/// 10.0.0.0/24 behind 10.0.0.1 on vmbr0, Google's name servers, DHCP (contract).
pub fn default_network() -> NetworkSettings {
    let built_in = NetworkSettingsInput {
        default_subnet: "10.0.0.0/24".into(),
        default_gateway: "10.0.0.1".into(),
        default_dns_primary: "8.8.8.8".into(),
        default_dns_secondary: Some("8.8.4.4".into()),
        default_bridge: "vmbr0".into(),
        address_mode: AddressMode::Dhcp,
    };
    NetworkSettings::parse(&built_in)
        .unwrap_or_else(|_| unreachable!("the built-in network fits together"))
}

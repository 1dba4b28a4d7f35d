//! Numbers with limits: VMIDs, ports, cores and amounts of memory and disk.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ValueError;

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident($inner:ty), $min:literal..=$max:literal, $code:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "i64", into = "i64")]
        pub struct $name($inner);

        impl $name {
            /// The smallest one allowed.
            pub const MIN: Self = Self($min);
            /// The largest one allowed.
            pub const MAX: Self = Self($max);

            /// The plain number.
            pub fn get(self) -> $inner {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = ValueError;
            fn try_from(number: i64) -> Result<Self, ValueError> {
                match <$inner>::try_from(number) {
                    Ok(n) if ($min..=$max).contains(&n) => Ok(Self(n)),
                    _ => Err(ValueError::new($code, format!(concat!($what, " lies between {} and {}, not {}"), $min, $max, number))),
                }
            }
        }

        impl From<$name> for i64 {
            fn from(number: $name) -> i64 {
                i64::from(number.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                match text.parse::<i64>() {
                    Ok(number) => Self::try_from(number),
                    Err(_) => Err(ValueError::new($code, concat!($what, " is a whole number"))),
                }
            }
        }
    };
}

number_type! {
    /// A guest's number in a cluster: 100 to 999,999,999 (schema format `pve-vmid`).
    Vmid(u32), 100..=999_999_999, "vmid.invalid", "a VMID"
}
number_type! {
    /// A TCP or UDP port, 1 to 65535.
    Port(u16), 1..=65_535, "port.invalid", "a port"
}
number_type! {
    /// CPU cores of a container, 1 to 128 (contract: `default_cpu_cores`).
    Cores(u16), 1..=128, "cores.invalid", "the number of cores"
}
number_type! {
    /// An amount of memory or swap in MiB, 0 to 524,288 (contract: `default_memory_mb`).
    Mebibytes(u32), 0..=524_288, "mebibytes.invalid", "an amount in MiB"
}
number_type! {
    /// An amount of disk in GiB, 1 to 10,240 (contract: `default_disk_gb`).
    Gibibytes(u32), 1..=10_240, "gibibytes.invalid", "an amount in GiB"
}

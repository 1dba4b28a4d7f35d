//! What a guest has used over time, as Proxmox's round-robin archives keep it.

use serde::{Deserialize, Serialize};

/// How far back is looked; Proxmox keeps about sixty samples of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// The average of one stretch of time; `None` is what Proxmox has no sample of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct UsageSample {
    /// Seconds since 1970.
    pub time: i64,
    /// Share of the given cores, 0 to 1.
    pub cpu: Option<f64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes.
    pub disk_used: Option<u64>,
    /// Bytes.
    pub disk_total: Option<u64>,
    /// Bytes per second.
    pub net_in: Option<f64>,
    /// Bytes per second.
    pub net_out: Option<f64>,
    /// Bytes per second.
    pub disk_read: Option<f64>,
    /// Bytes per second.
    pub disk_write: Option<f64>,
}

//! The data volumes of a container, and which of them a backup does not hold.

use std::fmt;

use crate::ports::{ArchivedConfig, GuestConfig};

/// A volume that goes with its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataVolume {
    /// Its key in the configuration: `mp0`, or `unused0` when nothing mounts it.
    key: String,
    volume: String,
    /// Where the container sees it.
    path: Option<String>,
}

impl fmt::Display for DataVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{} ({} at {path})", self.key, self.volume),
            None => write!(f, "{} ({})", self.key, self.volume),
        }
    }
}

/// Every volume beside the root disk. Directories and devices of the node are none: they stay.
pub(crate) fn of(config: &GuestConfig) -> Vec<DataVolume> {
    let volume = |(key, value): (&String, &String)| {
        let is_mounted = is_numbered(key, "mp");
        if !is_mounted && !is_numbered(key, "unused") {
            return None;
        }
        // The volume stands first, without a name or with its own.
        let volume = value.split(',').find_map(|part| match part.split_once('=') {
            None => Some(part),
            Some(("volume", volume)) => Some(volume),
            Some(_) => None,
        })?;
        if volume.starts_with('/') {
            return None;
        }
        let path = value.split(',').find_map(|part| part.strip_prefix("mp="));
        Some(DataVolume {
            key: key.clone(),
            volume: volume.to_owned(),
            path: path.map(str::to_owned).filter(|_| is_mounted),
        })
    };
    config.rest.iter().filter_map(volume).collect()
}

/// Those whose contents a restore of the archive does not bring back: what was not marked for backups
/// when it was made, what came later, and what is mounted nowhere.
pub(crate) fn not_held(config: &GuestConfig, archived: &ArchivedConfig) -> Vec<DataVolume> {
    let mut volumes = of(config);
    volumes.retain(|volume| !volume.path.as_ref().is_some_and(|path| archived.holds(path)));
    volumes
}

/// Their names in a sentence.
pub(crate) fn listed(volumes: &[DataVolume]) -> String {
    volumes.iter().map(DataVolume::to_string).collect::<Vec<_>>().join(", ")
}

fn is_numbered(key: &str, word: &str) -> bool {
    key.strip_prefix(word).is_some_and(|rest| rest.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rest: &[(&str, &str)]) -> GuestConfig {
        GuestConfig {
            digest: String::new(),
            description: None,
            hostname: None,
            lock: None,
            protection: true,
            unprivileged: true,
            rest: rest.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn what_the_archive_does_not_hold_is_named_and_nothing_of_the_node() {
        let config = config(&[
            ("rootfs", "local:104/vm-104-disk-0.raw,size=8G"),
            ("mp0", "local:104/vm-104-disk-1.raw,mp=/data,size=1G"),
            ("mp1", "volume=local:104/vm-104-disk-2.raw,mp=/kept/,backup=1,size=1G"),
            ("mp2", "/srv,mp=/srv"),
            ("mp3", "/dev/sdb1,mp=/device"),
            // Marked since the backup was made.
            ("mp4", "local:104/vm-104-disk-3.raw,backup=1,mp=/later,size=1G"),
            ("unused0", "local:104/vm-104-disk-4.raw"),
            ("mptcp", "local:1"),
        ]);
        let held = ArchivedConfig { held: ["/kept".to_owned()].into(), ..Default::default() };
        assert_eq!(
            listed(&not_held(&config, &held)),
            "mp0 (local:104/vm-104-disk-1.raw at /data), \
             mp4 (local:104/vm-104-disk-3.raw at /later), unused0 (local:104/vm-104-disk-4.raw)"
        );
        assert_eq!(of(&config).len(), 4);
    }
}

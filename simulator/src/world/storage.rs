//! Storages and the volumes on them: disks, templates, backups.

use std::collections::BTreeMap;

use crate::config::{StorageConfig, StorageKind};
use crate::world::container::{Config, Container};
use crate::world::retention::Retention;

/// A storage as one node sees it.
pub(crate) struct Store {
    pub(crate) config: StorageConfig,
    pub(crate) volumes: BTreeMap<String, Volume>,
    /// `prune-backups` of its configuration.
    pub(crate) retention: Option<Retention>,
    /// Whether all nodes are said to see the same contents.
    pub(crate) shared: bool,
    /// Whether it tells when a disk was made: ZFS and Ceph do not.
    pub(crate) tells_times: bool,
}

/// One volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    /// `rootdir`, `vztmpl`, `backup` or `iso`.
    pub(crate) content: &'static str,
    pub(crate) format: String,
    pub(crate) size: u64,
    pub(crate) used: u64,
    pub(crate) ctime: i64,
    pub(crate) vmid: Option<u32>,
    pub(crate) notes: Option<String>,
    pub(crate) protected: bool,
    /// What a backup holds.
    pub(crate) archive: Option<Box<Archive>>,
}

/// The contents of a backup that matter to a restore.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    pub(crate) config: Config,
    pub(crate) image: String,
    pub(crate) disk_size: u64,
}

impl Archive {
    /// Of a container as it is.
    pub(crate) fn of(container: &Container) -> Self {
        Self {
            config: container.config.clone(),
            image: container.image.clone(),
            disk_size: container.disk_size(),
        }
    }
}

/// A template that the appliance index offers.
pub(crate) struct Appliance {
    pub(crate) file: &'static str,
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) os: &'static str,
    pub(crate) headline: &'static str,
    pub(crate) size: u64,
}

impl Appliance {
    /// `system` are plain systems, `turnkeylinux` applications on one of them.
    pub(crate) fn section(&self) -> &'static str {
        if self.package.contains("-turnkey-") { "turnkeylinux" } else { "system" }
    }

    /// Where it is downloaded from.
    pub(crate) fn url(&self) -> String {
        let (source, section) = match self.section() {
            "turnkeylinux" => ("https://releases.turnkeylinux.org/pve", "lxc"),
            section => ("http://download.proxmox.com/images", section),
        };
        format!("{source}/{section}/{}", self.file)
    }
}

/// What `GET /nodes/{node}/aplinfo` lists.
pub(crate) const APPLIANCES: &[Appliance] = &[
    Appliance {
        file: "alpine-3.22-default_20250617_amd64.tar.xz",
        package: "alpine-3.22-default",
        version: "20250617",
        os: "alpine",
        headline: "LXC default image for alpine 3.22 (20250617)",
        size: 3_216_104,
    },
    Appliance {
        file: "debian-12-standard_12.12-1_amd64.tar.zst",
        package: "debian-12-standard",
        version: "12.12-1",
        os: "debian-12",
        headline: "Debian 12 Bookworm (standard)",
        size: 126_515_062,
    },
    Appliance {
        file: "debian-13-standard_13.1-2_amd64.tar.zst",
        package: "debian-13-standard",
        version: "13.1-2",
        os: "debian-13",
        headline: "Debian 13 Trixie (standard)",
        size: 129_710_398,
    },
    Appliance {
        file: "ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
        package: "ubuntu-24.04-standard",
        version: "24.04-2",
        os: "ubuntu-24.04",
        headline: "Ubuntu 24.04 Noble (standard)",
        size: 141_589_318,
    },
    Appliance {
        file: "debian-12-turnkey-core_18.1-1_amd64.tar.gz",
        package: "debian-12-turnkey-core",
        version: "18.1-1",
        os: "debian-12",
        headline: "TurnKey Core",
        size: 221_216_904,
    },
    Appliance {
        file: "debian-12-turnkey-wordpress_18.2-1_amd64.tar.gz",
        package: "debian-12-turnkey-wordpress",
        version: "18.2-1",
        os: "debian-12",
        headline: "TurnKey WordPress",
        size: 367_005_696,
    },
];

impl Store {
    /// A storage; one that takes templates holds the Alpine one already.
    pub(crate) fn new(config: StorageConfig, now: i64) -> Self {
        let mut volumes = BTreeMap::new();
        if config.content.iter().any(|kind| kind == "vztmpl") {
            let alpine = &APPLIANCES[0];
            let volid = format!("{}:vztmpl/{}", config.name, alpine.file);
            volumes.insert(volid, Volume::template(alpine.file, alpine.size, now - 86_400));
        }
        Self { config, volumes, retention: None, shared: false, tells_times: true }
    }

    pub(crate) fn takes(&self, content: &str) -> bool {
        self.config.content.iter().any(|kind| kind == content)
    }

    /// Bytes in use: a tenth of the storage is the host's own.
    pub(crate) fn used(&self) -> u64 {
        self.config.total / 10 + self.of_volumes()
    }

    fn of_volumes(&self) -> u64 {
        self.volumes.values().map(|volume| volume.used).sum()
    }

    /// Changes its size so that about this many bytes are free.
    pub(crate) fn resize_to_leave(&mut self, bytes: u64) {
        self.config.total = self.of_volumes().saturating_add(bytes) / 9 * 10;
    }

    pub(crate) fn avail(&self) -> u64 {
        self.config.total.saturating_sub(self.used())
    }

    /// A new disk. Raw images and datasets take what is written to them, a logical volume all of itself.
    pub(crate) fn disk(&self, vmid: u32, size: u64, now: i64) -> Volume {
        let used = if self.config.kind == StorageKind::Lvm { size } else { size / 32 };
        Volume {
            content: "rootdir",
            format: "raw".to_owned(),
            size,
            used,
            ctime: now,
            vmid: Some(vmid),
            notes: None,
            protected: false,
            archive: None,
        }
    }

    /// A free volume id for a disk of `vmid`.
    pub(crate) fn free_disk(&self, vmid: u32) -> String {
        (0u32..)
            .map(|index| self.disk_volid(vmid, &format!("vm-{vmid}-disk-{index}")))
            .find(|volid| !self.volumes.contains_key(volid))
            .unwrap_or_default()
    }

    pub(crate) fn disk_volid(&self, vmid: u32, name: &str) -> String {
        let storage = &self.config.name;
        match self.config.kind {
            StorageKind::ZfsPool => format!("{storage}:{}", name.replace("vm-", "subvol-")),
            StorageKind::Lvm => format!("{storage}:{name}"),
            StorageKind::Dir | StorageKind::Btrfs => format!("{storage}:{vmid}/{name}.raw"),
        }
    }
}

impl Volume {
    pub(crate) fn template(file: &str, size: u64, now: i64) -> Self {
        Self {
            content: "vztmpl",
            format: template_format(file).to_owned(),
            size,
            used: size,
            ctime: now,
            vmid: None,
            notes: None,
            protected: false,
            archive: None,
        }
    }

    pub(crate) fn backup(vmid: u32, format: &str, now: i64, archive: Archive) -> Self {
        let size = 1_088_283 + u64::from(vmid);
        Self {
            content: "backup",
            format: format.to_owned(),
            size,
            used: size,
            ctime: now,
            vmid: Some(vmid),
            notes: None,
            protected: false,
            archive: Some(Box::new(archive)),
        }
    }
}

/// The short name that template listings use: `tzst`, `txz`, `tgz`, `tar`.
pub(crate) fn template_format(file: &str) -> &'static str {
    match file {
        f if f.ends_with(".tar.zst") => "tzst",
        f if f.ends_with(".tar.xz") => "txz",
        f if f.ends_with(".tar.gz") || f.ends_with(".tgz") => "tgz",
        _ => "tar",
    }
}

/// Splits `storage:rest`.
pub(crate) fn split_volid(volid: &str) -> Option<(&str, &str)> {
    volid.split_once(':').filter(|(storage, rest)| !storage.is_empty() && !rest.is_empty())
}

/// The file of a volume on a directory storage, as log lines name it.
pub(crate) fn file_path(volid: &str) -> String {
    let rest = split_volid(volid).map_or(volid, |(_, rest)| rest);
    match rest.split_once('/') {
        Some(("vztmpl", file)) => format!("/var/lib/vz/template/cache/{file}"),
        Some(("backup", file)) => format!("/var/lib/vz/dump/{file}"),
        Some(("iso", file)) => format!("/var/lib/vz/template/iso/{file}"),
        _ => format!("/var/lib/vz/images/{rest}"),
    }
}

/// Bytes of a size such as `8G`, `102M`, `4` (GiB by default when `unit` says so).
pub(crate) fn parse_size(text: &str, default_unit: u64) -> Option<u64> {
    let (digits, unit) = match text.bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1u64 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        b'T' => (&text[..text.len() - 1], 1 << 40),
        _ => (text, default_unit),
    };
    let number = digits.parse::<f64>().ok().filter(|n| *n >= 0.0 && n.is_finite())?;
    // Whole mebibytes, as images are allocated; sizes here stay far below 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let bytes = (number * unit as f64) as u64;
    Some(bytes)
}

/// A size as configurations show it: the largest unit that divides it.
pub(crate) fn print_size(bytes: u64) -> String {
    let units = [(1u64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    units
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

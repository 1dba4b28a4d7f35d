//! Looking through everything that a guest's configuration says, for the name of a volume that may be its.

use std::collections::BTreeSet;

use proximity_commands::ports::{Guest, HypervisorError};
use serde_json::Value;

use crate::client::PveClient;
use crate::copy::snapshot_names;
use crate::request::{Request, call};
use crate::row::Row;

/// The same calls for a virtual machine, which the API description at hand leaves out: its parameters
/// and answers are those of a container, as far as they are used here.
const MACHINE_CONFIG: &str = "GET /nodes/{node}/qemu/{vmid}/config";
const MACHINE_SNAPSHOTS: &str = "GET /nodes/{node}/qemu/{vmid}/snapshot";

impl PveClient {
    /// What waits for the next start, what is in force until then, and every snapshot.
    pub(crate) async fn look_through(
        &self,
        guest: &Guest,
        words: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, HypervisorError> {
        let mut said = BTreeSet::new();
        for request in [config(guest), config(guest).with_flag("current", true)] {
            said.extend(says(request.call, &self.read(&request).await?, words)?);
        }
        if said.len() == words.len() {
            return Ok(said);
        }
        for name in snapshot_names(&self.read(&snapshots(guest)).await?)? {
            let request = config_in(guest, &name);
            said.extend(says(request.call, &self.read(&request).await?, words)?);
        }
        Ok(said)
    }
}

fn at(guest: &Guest, container: &'static str, machine: &'static str) -> Request {
    let call = if guest.is_container { container } else { machine };
    Request::new(call, &[guest.node.as_str(), &guest.vmid.to_string()])
}

fn config(guest: &Guest) -> Request {
    at(guest, call::CONFIG, MACHINE_CONFIG)
}

pub(crate) fn config_in(guest: &Guest, snapshot: &str) -> Request {
    config(guest).with("snapshot", snapshot)
}

fn snapshots(guest: &Guest) -> Request {
    at(guest, call::SNAPSHOTS, MACHINE_SNAPSHOTS)
}

/// Which names any setting holds, in whatever part of it. Notes are a person's words, and give no guest
/// a volume.
fn says(
    call: &'static str,
    data: &Value,
    words: &BTreeSet<String>,
) -> Result<BTreeSet<String>, HypervisorError> {
    Row::of(call, data)?;
    let settings = data.as_object().into_iter().flatten();
    let texts: Vec<String> = settings
        .filter(|(key, _)| *key != "description")
        .map(|(_, value)| value.to_string())
        .collect();
    let is_said = |word: &&String| texts.iter().any(|text| holds(text, word));
    Ok(words.iter().filter(is_said).cloned().collect())
}

/// Whether a volume's name stands in a text in any of its spellings: Btrfs has a directory of the name
/// without its ending, and the device mapper doubles each `-`.
fn holds(text: &str, name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let spellings = [name.to_owned(), stem.to_owned(), stem.replace('-', "--")];
    spellings.iter().any(|spelling| ends_in(text, spelling))
}

/// Whether a name stands in a text and ends there: `vm-9-disk-1` is not in `vm-9-disk-10`. A partition is
/// of its disk.
fn ends_in(text: &str, name: &str) -> bool {
    let goes_on = |next: char| next.is_alphanumeric() || "-_.".contains(next);
    text.match_indices(name).any(|(at, _)| {
        let rest = &text[at + name.len()..];
        let part = rest
            .strip_prefix("-part")
            .filter(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        let rest = part.map_or(rest, |part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
        !rest.starts_with(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_is_found_wherever_a_setting_names_it() {
        let data = json!({
            "digest": "3cc9",
            "scsi0": "local:104/vm-104-disk-0.qcow2,size=8G",
            "unused1": "lvm:vm-9-disk-1",
            "mp0": "zfs:basevol-9-disk-3/subvol-9-disk-4",
            "description": "vm-104-disk-2 was its first\n",
            "lxc": [["lxc.mount.entry", "/mnt/vm-9-disk-7.raw mnt none bind 0 0"]],
            "memory": 512,
        });
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let has = ["104/vm-104-disk-0.qcow2", "vm-9-disk-1", "basevol-9-disk-3", "subvol-9-disk-4"];
        let said: BTreeSet<String> = words(&[&has[..], &["vm-9-disk-7.raw"]].concat());
        let others: BTreeSet<String> =
            words(&["vm-104-disk-2", "vm-104-disk-0", "vm-9-disk-", "subvol-9-disk-40"]);
        let sought = said.union(&others).cloned().collect();
        assert_eq!(says("x", &data, &sought).unwrap(), said);
        assert!(says("x", &Value::Null, &sought).is_err(), "no answer says nothing");
    }

    #[test]
    fn a_volume_is_found_by_the_path_of_its_device_as_well() {
        for (text, name) in [
            ("/dev/zvol/rpool/data/vm-5220-disk-0-part1", "vm-5220-disk-0"),
            ("/dev/mapper/pve-vm--5220--disk--0", "vm-5220-disk-0"),
            ("/dev/mapper/pve-vm--5220--disk--0-part2,mp=/data", "vm-5220-disk-0"),
            ("/var/lib/pve/btr/images/5220/vm-5220-disk-0/disk.raw", "vm-5220-disk-0.raw"),
        ] {
            assert!(holds(text, name), "{text}");
        }
        for text in [
            "/dev/zvol/rpool/data/vm-5220-disk-0-part",
            "/dev/zvol/rpool/data/vm-5220-disk-01-part1",
            "/dev/zvol/rpool/data/vm-5220-disk-0-part1a",
            "/dev/mapper/pve-vm--5220--disk--01",
            "/var/lib/pve/btr/images/5220/vm-5220-disk-01/disk.raw",
        ] {
            assert!(!holds(text, "vm-5220-disk-0.raw"), "{text}");
        }
    }

    #[test]
    fn each_kind_of_guest_is_asked_for_at_its_own_place() {
        let guest = |is_container| Guest {
            vmid: 204.try_into().unwrap(),
            node: "pve1".parse().unwrap(),
            is_container,
            name: None,
            running: None,
            template: false,
            cpu: None,
            memory_used: None,
            memory_total: None,
            disk_used: None,
            disk_total: None,
            uptime: None,
            cpus: None,
            pool: None,
        };
        assert_eq!(config(&guest(true)).path, "/nodes/pve1/lxc/204/config");
        assert_eq!(config(&guest(false)).path, "/nodes/pve1/qemu/204/config");
        assert_eq!(snapshots(&guest(false)).path, "/nodes/pve1/qemu/204/snapshot");
        assert_eq!(config_in(&guest(false), "s1").encoded_params(), "snapshot=s1");
    }
}

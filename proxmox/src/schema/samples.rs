//! One request or more of each call, with everything that can vary in it at its edges.

use std::collections::BTreeMap;

use proximity_commands::ports::{
    GuestAddress, GuestConfig, NewBackup, NewCopy, NewGuest, NewRestored, Process, Span, Upid,
};
use proximity_domain::backup::{Compression, Mode};
use proximity_domain::{Cores, Gibibytes, Mebibytes, NodeName, Resources, Vmid};

use crate::request::{self, Request};
use crate::{archived, copy, create, oci, rights, usage};

/// A request, and the values of its path's placeholders.
type Sample = (Request, Vec<String>);

/// A container with nothing special about it.
pub(crate) fn guest(vmid: Vmid) -> NewGuest {
    NewGuest {
        vmid,
        hostname: "web-01".parse().unwrap(),
        archive: "local:vztmpl/alpine-3.22-default_20250617_amd64.tar.xz".to_owned(),
        description: "a line\nproximity: marker é\n".to_owned(),
        disk_storage: "local-zfs".to_owned(),
        disk: Gibibytes::MIN,
        resources: Resources {
            cores: Cores::MIN,
            memory: Mebibytes::try_from(16).unwrap(),
            disk: Gibibytes::MIN,
            swap: Mebibytes::MIN,
        },
        bridge: "vmbr0".to_owned(),
        address: GuestAddress::Dhcp,
        dns: Vec::new(),
        unprivileged: true,
        features: None,
        protection: true,
        process: Process::default(),
    }
}

fn guests() -> Vec<NewGuest> {
    let plain = guest(Vmid::MIN);
    let mut full = guest(Vmid::MAX);
    full.hostname = "a".repeat(63).parse().unwrap();
    full.description = "x".repeat(8192);
    full.disk = Gibibytes::MAX;
    full.resources = Resources {
        cores: Cores::MAX,
        memory: Mebibytes::MAX,
        disk: Gibibytes::MAX,
        swap: Mebibytes::MAX,
    };
    full.address = GuestAddress::Static {
        address: "10.0.0.5".parse().unwrap(),
        subnet: "10.0.0.0/24".parse().unwrap(),
        gateway: "10.0.0.1".parse().unwrap(),
    };
    full.dns = vec!["10.0.0.1".parse().unwrap(), "2001:db8::53".parse().unwrap()];
    full.unprivileged = false;
    full.features = Some("nesting=1,keyctl=1".to_owned());
    full.protection = false;
    let mut image = guest(Vmid::MIN);
    image.archive = "local:vztmpl/nginx_1.29.tar".to_owned();
    image.process.entrypoint = Some("/docker-entrypoint.sh nginx -g 'daemon off;'".to_owned());
    image.process.environment = BTreeMap::from([
        ("A".to_owned(), String::new()),
        ("B_2".to_owned(), "two words, a comma = and\ta tab é".to_owned()),
    ]);
    image.address = GuestAddress::Static {
        address: "2001:db8::5".parse().unwrap(),
        subnet: "2001:db8::/64".parse().unwrap(),
        gateway: "2001:db8::1".parse().unwrap(),
    };
    vec![plain, full, image]
}

fn a_copy(snapshot: Option<&str>) -> NewCopy {
    NewCopy {
        vmid: Vmid::MAX,
        hostname: "a".repeat(63).parse().unwrap(),
        description: "a line\nproximity: marker é\n".to_owned(),
        snapshot: snapshot.map(str::to_owned),
    }
}

fn restored(vmid: Vmid, overwrite: bool) -> NewRestored {
    NewRestored {
        vmid,
        archive: "local:backup/vzdump-lxc-101-2026_11_23-20_24_34.tar.zst".to_owned(),
        storage: "local-zfs".to_owned(),
        description: "a line\nproximity: marker é\n".to_owned(),
        // One that is overwritten stays in its own.
        pool: (!overwrite).then(|| "customers/acme".to_owned()),
        overwrite,
    }
}

/// Everything that the client can send.
pub(super) fn all() -> Vec<Sample> {
    let node: NodeName = "pve-1".parse().unwrap();
    let upid = Upid("UPID:pve-1:00000271:0005EA12:6B049FDA:vzcreate:100:a@pve!t:".to_owned());
    let none = Vec::new;
    let at_node = || vec![node.to_string()];
    let digest = "3cc90e0522d43edf60daf7c9b53ad40691dc05d5";
    // As long as one for an operation is.
    let snapshot = "px0198f2a17c4b7d3e8a90b1c2d3e4f506";
    let at_snapshot = |vmid: Vmid| vec![node.to_string(), vmid.to_string(), snapshot.to_owned()];
    let nets = BTreeMap::from([
        ("net0".to_owned(), "name=eth0,bridge=vmbr0,ip=10.0.0.5/24,gw=10.0.0.1".to_owned()),
        ("net31".to_owned(), "name=eth31,bridge=vmbr1,ip=manual".to_owned()),
    ]);
    let mut samples = vec![
        (request::ticket("root@pam", "x"), none()),
        (request::version(), none()),
        (request::cluster_status(), none()),
        (request::nodes(), none()),
        (request::guests(), none()),
        (rights::permissions("/vms"), none()),
        (request::storages(&node), at_node()),
        (request::appliances(&node), at_node()),
        (request::download(&node, "local", "alpine-3.22_amd64.tar.xz"), at_node()),
    ];
    for vmid in [Vmid::MIN, Vmid::MAX] {
        let at = || vec![node.to_string(), vmid.to_string()];
        samples.extend([
            (request::nextid(vmid), none()),
            (request::config(&node, vmid), at()),
            (request::current_config(&node, vmid), at()),
            (request::config(&node, vmid).with("snapshot", snapshot), at()),
            (request::status(&node, vmid), at()),
            (request::interfaces(&node, vmid), at()),
            (usage::request(&node, vmid, Span::Hour), at()),
            (usage::request(&node, vmid, Span::Year), at()),
            (request::start(&node, vmid), at()),
            (request::stop(&node, vmid), at()),
            (request::shutdown(&node, vmid, 0), at()),
            (request::shutdown(&node, vmid, u32::MAX), at()),
            (request::reboot(&node, vmid, 60), at()),
            (request::set_protection(&node, vmid, true, digest), at()),
            (request::set_protection(&node, vmid, false, digest), at()),
            (request::set_description(&node, vmid, "a\nb", digest), at()),
            (request::set_description(&node, vmid, "", digest), at()),
            (copy::feature(&node, vmid), at()),
            (copy::snapshots(&node, vmid), at()),
            (copy::create_snapshot(&node, vmid, snapshot), at()),
            (copy::delete_snapshot(&node, vmid, snapshot), at_snapshot(vmid)),
            (copy::copy(&node, vmid, &a_copy(None)), at()),
            (copy::copy(&node, vmid, &a_copy(Some(snapshot))), at()),
            (copy::set_networks(&node, vmid, &nets, digest).unwrap(), at()),
            (create::restore(&node, &restored(vmid, false)).unwrap(), at_node()),
            (create::restore(&node, &restored(vmid, true)).unwrap(), at_node()),
            (request::destroy(&node, vmid), at()),
            (request::tasks(&node, vmid, "active", 0, 500), at_node()),
            (request::tasks(&node, vmid, "archive", 500, 500), at_node()),
        ]);
    }
    for (mode, compression) in [
        (Mode::Snapshot, Compression::Zstd),
        (Mode::Suspend, Compression::Gzip),
        (Mode::Stop, Compression::Lzo),
    ] {
        let backup = NewBackup {
            vmid: Vmid::MAX,
            storage: "local".to_owned(),
            mode,
            compression,
            notes: format!("proximity backup=1 operation={}", "0".repeat(36)),
        };
        samples.push((request::back_up(&node, &backup), at_node()));
    }
    let volume = "local:backup/vzdump-lxc-104-2026_11_23-20_24_34.tar.zst";
    samples.push((
        request::delete_volume(&node, "local", volume),
        vec![node.to_string(), "local".to_owned(), volume.to_owned()],
    ));
    samples.push((archived::request(&node, volume), at_node()));
    let at_task = || vec![node.to_string(), upid.0.clone()];
    samples.extend([
        (request::task(&node, &upid), at_task()),
        (request::abort_task(&node, &upid), at_task()),
        (request::task_log(&node, &upid, 0, 50), at_task()),
    ]);
    for storage in ["local", "Nas_2.x-y"] {
        let at = || vec![node.to_string(), storage.to_owned()];
        for content in ["vztmpl", "backup"] {
            samples.push((request::volumes(&node, storage, content), at()));
        }
        samples.push((request::backup_defaults(&node, storage), at_node()));
        for reference in ["docker.io/library/nginx:1.29", "ghcr.io/a/b-c_d:v1.0-x", "alpine:3"] {
            samples.push((oci::pull(&node, storage, reference, "image_1"), at()));
        }
    }
    let created = GuestConfig {
        digest: digest.to_owned(),
        description: None,
        hostname: None,
        lock: None,
        protection: true,
        unprivileged: true,
        rest: BTreeMap::from([("env".to_owned(), "PATH=/bin:/usr/bin\0LANG=C".to_owned())]),
    };
    for guest in guests() {
        samples.push((create::request(&node, &guest).unwrap(), at_node()));
        if let Some(request) = oci::process(&node, guest.vmid, &guest.process, &created).unwrap() {
            samples.push((request, vec![node.to_string(), guest.vmid.to_string()]));
        }
    }
    samples
}

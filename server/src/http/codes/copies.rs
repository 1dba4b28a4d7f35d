//! Codes of clones, discoveries and adoptions.

use super::{Code, code};

pub(super) const CODES: &[Code] = &[
    code(
        409,
        "clone.needs_downtime",
        "The copy needs a downtime",
        "The application runs, and its storage has no snapshots. Stop it first, or send `allow_downtime: true`: it is then stopped, copied, and started again. Nothing has happened yet.",
    ),
    code(
        409,
        "application.container_missing",
        "The application's container is not there",
        "Its container was not found where it should be. If it was moved by hand, wait for the next look at the hosts, a minute at most; if it is gone, restore a backup or delete the application. Nothing has happened.",
    ),
    code(
        409,
        "vmid.taken",
        "The VMID is taken",
        "An application holds this number, or gave it back a moment ago. Try again later.",
    ),
    code(
        422,
        "container.unknown",
        "There is no such container",
        "The node has no container of this number (virtual machines cannot be adopted). `GET /api/apps/discover` lists those that can.",
    ),
    code(
        409,
        "container.managed",
        "The container is an application's already",
        "Its notes carry the marker of an application of this installation. It cannot be adopted a second time. Where that application is gone or has another container, `detail` says so: then take the line that starts with `proximity/` out of its notes.",
    ),
    code(
        409,
        "container.managed_elsewhere",
        "Another installation manages the container",
        "Its notes carry the marker of another installation of Proximity. Release it there; or, if that installation is gone, take the line that starts with `proximity/` out of its notes.",
    ),
    code(
        409,
        "container.template",
        "The container is a template",
        "A template cannot be started. Make a container of it in Proxmox, and adopt that one.",
    ),
    code(
        409,
        "container.locked",
        "The container is locked",
        "A backup, a migration or another task works on it. Try again when that has ended.",
    ),
    code(
        409,
        "container.notes_too_long",
        "The container's notes are too long",
        "They leave no room for the marker. Shorten them to the length that the detail names.",
    ),
    code(
        409,
        "container.unreadable",
        "The container's configuration cannot be captured",
        "The detail names what it does not say. Nothing has happened; set the missing value in Proxmox, then adopt it again.",
    ),
    code(422, "suggested_type.invalid", "The type is not valid", "Send a catalog id, or `custom`."),
    code(
        422,
        "node.ambiguous",
        "Several hosts have a node of this name",
        "Send the `host_id` of the one that is meant.",
    ),
    code(
        503,
        "hosts.unreachable",
        "A host does not answer",
        "No host that answers has a node of this name, and at least one does not answer: it may have it. Try again later.",
    ),
    code(
        502,
        "proxmox.incomplete",
        "Proxmox does not show all containers",
        "The host's credential lacks `VM.Audit` on `/vms`, so Proxmox leaves containers out of its lists and says nothing. Grant it to the user or token of the host record.",
    ),
];

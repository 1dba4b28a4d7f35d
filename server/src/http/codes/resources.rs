//! Codes of applications, operations, hosts and the catalog.

use super::{Code, code};

pub(super) const CODES: &[Code] = &[
    code(
        409,
        "hostname.taken",
        "The hostname is taken",
        "Another application has this hostname, in whatever case it was written. Choose another one, or delete that application first.",
    ),
    code(
        422,
        "catalog.install_unsupported",
        "This application cannot be installed yet",
        "Its catalog entry needs a way of installing that this version does not have (commands in the container, or Docker Compose). The detail names it.",
    ),
    code(
        502,
        "proxmox.unreachable",
        "Proxmox did not answer",
        "The Proxmox host could not be reached or did not answer in time (504 then). Check address, port and network of the host, then try again.",
    ),
    code(
        502,
        "proxmox.unauthorized",
        "Proxmox refuses the credential",
        "User, password or token of the host record are not accepted, or have too few rights. Correct them with `PUT /api/proxmox/hosts/{id}`.",
    ),
    code(
        502,
        "proxmox.certificate",
        "The certificate is not the expected one",
        "The host showed another certificate than the one that was pinned, or one that no known authority signed. No credential was sent. If it was changed on purpose, set the new `fingerprint` and enter the credential again.",
    ),
    code(
        502,
        "proxmox.malformed",
        "Proxmox answered something unexpected",
        "The answer does not have the form that Proxmox promises. Check that the address is a Proxmox VE of version 8 or 9 and not a proxy or another program.",
    ),
    code(
        502,
        "proxmox.refused",
        "Proxmox refused the request",
        "Proxmox understood the request and refused it. The detail names the call; the host's own log says more.",
    ),
];

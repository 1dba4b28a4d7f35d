//! Codes of values that do not parse: each comes with 422 and a pointer to the value.

use super::{Code, code};

pub(super) const CODES: &[Code] = &[
    code(
        422,
        "hostname.invalid",
        "The hostname is not valid",
        "A hostname is one label of RFC 1123: 1 to 63 letters, digits and hyphens, neither first nor last a hyphen. Upper case is folded.",
    ),
    code(
        422,
        "vmid.invalid",
        "The VMID is not valid",
        "A VMID is a whole number from 100 to 999999999.",
    ),
    code(422, "port.invalid", "The port is not valid", "A port is a whole number from 1 to 65535."),
    code(
        422,
        "cores.invalid",
        "The number of cores is not valid",
        "It is a whole number from 1 to 128.",
    ),
    code(
        422,
        "mebibytes.invalid",
        "The amount of memory is not valid",
        "It is a whole number of MiB within the limits that the detail names.",
    ),
    code(
        422,
        "gibibytes.invalid",
        "The amount of disk is not valid",
        "It is a whole number of GiB from 1 to 10240.",
    ),
    code(
        422,
        "node.invalid",
        "The node's name is not valid",
        "A node's name is a hostname: letters, digits and hyphens, at most 63 characters.",
    ),
    code(
        422,
        "subnet.invalid",
        "The subnet is not valid",
        "A subnet is written like 10.0.0.0/24 and starts at its network address.",
    ),
    code(
        422,
        "gateway.invalid",
        "The gateway is not valid",
        "The gateway is an IP address, like 10.0.0.1.",
    ),
    code(
        422,
        "gateway.outside_subnet",
        "The gateway lies outside the subnet",
        "The gateway is a host address inside the subnet, and neither its network nor its broadcast address.",
    ),
    code(
        422,
        "dns.invalid",
        "The DNS server is not valid",
        "A DNS server is given as an IP address.",
    ),
    code(
        422,
        "bridge.invalid",
        "The bridge's name is not valid",
        "A bridge has 1 to 50 letters, digits, `_`, `-` or `.`, and starts with a letter.",
    ),
    code(
        422,
        "network.invalid",
        "The network settings do not fit",
        "The parts of the network settings contradict each other. `errors` lists them.",
    ),
    code(
        422,
        "username.invalid",
        "The user name is not valid",
        "The detail says which characters and which length are allowed.",
    ),
    code(
        422,
        "name.invalid",
        "The name is not valid",
        "The detail says which characters and which length are allowed.",
    ),
    code(
        422,
        "email.invalid",
        "The e-mail address is not valid",
        "It is written like somebody@example.org, with at most 254 characters.",
    ),
    code(
        422,
        "fingerprint.invalid",
        "The fingerprint is not valid",
        "It is the SHA-256 fingerprint of a certificate: 64 hexadecimal digits, with or without colons.",
    ),
    code(
        422,
        "lease.key_invalid",
        "The name of the lease is not valid",
        "A lease is named by what it holds, e.g. `hostname/web-01` or `port/public/8100`.",
    ),
    code(
        422,
        "application.id_invalid",
        "This is not the id of an application",
        "Send the id as an answer of this server gave it.",
    ),
    code(
        422,
        "backup.id_invalid",
        "This is not the id of a backup",
        "Send the id as an answer of this server gave it.",
    ),
    code(
        422,
        "host.id_invalid",
        "This is not the id of a host",
        "Send the id as an answer of this server gave it.",
    ),
    code(
        422,
        "operation.id_invalid",
        "This is not the id of an operation",
        "Send the id as an answer of this server gave it.",
    ),
    code(
        422,
        "secret.id_invalid",
        "This is not the id of a secret",
        "Send the id as an answer of this server gave it.",
    ),
    code(
        422,
        "session.id_invalid",
        "This is not the id of a session",
        "Send the id as an answer of this server gave it.",
    ),
    code(
        422,
        "user.id_invalid",
        "This is not the id of a user",
        "Send the id as an answer of this server gave it.",
    ),
];

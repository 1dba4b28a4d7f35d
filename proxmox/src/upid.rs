//! The parts of a task's id.
//!
//! `UPID:{node}:{pid}:{pstart}:{starttime}:{type}:{id}:{user[!token]}:` — the numbers in hexadecimal,
//! the id possibly empty, no part with a colon (Proxmox's `PVE::UPID`).

use proximity_commands::ports::Upid;
use proximity_domain::NodeName;

/// A task id whose shape was checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub node: NodeName,
    /// Seconds since 1970.
    pub started: i64,
    pub kind: &'a str,
    pub id: &'a str,
    pub user: &'a str,
}

/// Parses a task id; `None` when it is none.
pub(crate) fn parse(upid: &Upid) -> Option<Parts<'_>> {
    let parts: Vec<&str> = upid.0.split(':').collect();
    let ["UPID", node, pid, pstart, started, kind, id, user, ""] = parts[..] else {
        return None;
    };
    let hex = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if !hex(pid, 8..=8) || !hex(pstart, 8..=9) || !hex(started, 8..=8) {
        return None;
    }
    if kind.is_empty() || user.is_empty() || upid.0.contains(char::is_whitespace) {
        return None;
    }
    let started = i64::from_str_radix(started, 16).ok()?;
    Some(Parts { node: node.parse().ok()?, started, kind, id, user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_as_proxmox_writes_them_are_understood() {
        let upid = Upid("UPID:pve1:00000271:0005EA12:6B049FDA:vzsnapshot:100:root@pam:".to_owned());
        let parts = parse(&upid).unwrap();
        assert_eq!((parts.kind, parts.id, parts.user), ("vzsnapshot", "100", "root@pam"));
        assert_eq!(parts.started, 1_795_465_178);
        for odd in [
            "UPID:pve1:000002C7:1007B6000:6B04A473:imgdel:101@local:root@pam:",
            "UPID:pve-2:000000CA:00081AF6:6B04A575:vzcreate::root@pam!rt:",
        ] {
            assert!(parse(&Upid(odd.to_owned())).is_some(), "{odd}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in [
            "",
            "OK",
            "UPID:pve1:00000271:0005EA12:6B049FDA:vzsnapshot:100:root@pam",
            "UPID:../..:00000271:0005EA12:6B049FDA:vzsnapshot:100:root@pam:",
            "UPID:pve1:271:0005EA12:6B049FDA:vzsnapshot:100:root@pam:",
            "UPID:pve1:0000027G:0005EA12:6B049FDA:vzsnapshot:100:root@pam:",
            "UPID:pve1:00000271:0005EA12:6B049FDA:vz snapshot:100:root@pam:",
            "UPID:pve1:00000271:0005EA12:6B049FDA:vzsnapshot:100:root@pam:x",
        ] {
            assert_eq!(parse(&Upid(wrong.to_owned())), None, "{wrong}");
        }
    }
}

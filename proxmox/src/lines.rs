//! What goes into a container's configuration is one line each: the last look before it is sent.
//!
//! Proxmox VE 9.1 writes a variable of the environment as a line of the container's configuration and
//! lets line breaks pass. What stands behind one would be a line of its own: an option of LXC that
//! only root may set.

use proximity_commands::ports::HypervisorError;

use crate::request::{Request, call};

/// Parameters that may have several lines: Proxmox stores them encoded, each line as a comment.
const LINES: &[&str] = &["description"];
/// Separates variables with NULs.
const ENVIRONMENT: &str = "env";

/// Whether a text can stand in a line: no control character is in it but tabs.
pub(crate) fn is_one_line(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t')
}

/// Refuses a write of which a parameter is not one line. Never repeats the value.
pub(crate) fn check(request: &Request) -> Result<(), HypervisorError> {
    // A password may be anything, and goes into no configuration.
    if !request.is_write() || request.call == call::TICKET {
        return Ok(());
    }
    for (name, value) in &request.params {
        let fits = match *name {
            name if LINES.contains(&name) => true,
            ENVIRONMENT => value.split('\0').all(is_one_line),
            _ => is_one_line(value),
        };
        if !fits {
            let reason = format!("`{name}` holds a line break or another control character");
            return Err(HypervisorError::Permanent { call: request.call, reason: reason.into() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request;

    #[test]
    fn nothing_but_a_description_has_line_breaks() {
        let node = "pve1".parse().unwrap();
        let vmid = 100.try_into().unwrap();
        let with = |name: &'static str, value: &str| {
            check(&request::set_config(&node, vmid, "d1").with(name, value))
        };
        for (name, value) in
            [("description", "a\nb"), ("env", "A=1\0B=two\twords"), ("entrypoint", "/run 'a b'")]
        {
            assert_eq!(with(name, value), Ok(()), "{name}");
        }
        let names = ["env", "entrypoint", "hostname", "nameserver", "features", "net0", "tags"];
        for name in names {
            for bad in ["x\nlxc.mount.entry: /etc etc none bind", "x\r", "x\u{b}", "x\u{85}"] {
                let refused = with(name, bad).unwrap_err();
                assert!(matches!(refused, HypervisorError::Permanent { .. }));
                let told = refused.to_string();
                assert!(told.contains(name) && !told.contains("lxc."), "{told}");
            }
        }
        assert!(with("hostname", "a\0b").is_err());
        assert_eq!(check(&request::ticket("root@pam", "a\nb")), Ok(()));
    }
}

//! Who is at the shell, for the log: two people who may open one are told apart.

use std::sync::OnceLock;

use proximity_commands::{Actor, Shell};
use uuid::Uuid;

/// The longest name that is taken from the environment or the system's files.
const LONGEST: usize = 64;

/// Whoever has started this process; all that it does is one request.
pub fn here() -> &'static Shell {
    static HERE: OnceLock<Shell> = OnceLock::new();
    HERE.get_or_init(|| Shell {
        account: account(rustix::process::getuid().as_raw(), std::env::var("SUDO_USER").ok()),
        host: host(),
        request: Uuid::new_v4().to_string(),
    })
}

/// The same as the actor of a command.
pub fn actor() -> Actor {
    Actor::shell(here().clone())
}

/// `root`, or `root/alice` when she says that she has become root by `sudo`; a number where it has no name.
fn account(uid: u32, by: Option<String>) -> String {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let own = name_of(uid, &accounts).unwrap_or_else(|| uid.to_string());
    match by.map(|by| plain(&by)).filter(|by| !by.is_empty() && *by != own) {
        Some(by) => format!("{own}/{by}"),
        None => own,
    }
}

/// An account's name in the form of `/etc/passwd`.
fn name_of(uid: u32, accounts: &str) -> Option<String> {
    let is_its = |line: &&str| line.split(':').nth(2) == Some(&*uid.to_string());
    let name = accounts.lines().find(is_its)?.split(':').next()?;
    Some(plain(name)).filter(|name| !name.is_empty())
}

fn host() -> String {
    plain(&std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default())
}

/// What can stand in the log as a name.
fn plain(text: &str) -> String {
    text.chars().filter(|one| one.is_ascii_graphic() && *one != '/').take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str =
        "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/sh\n";

    #[test]
    fn an_account_is_named_as_the_system_names_it() {
        assert_eq!(name_of(1000, ACCOUNTS).as_deref(), Some("alice"));
        assert_eq!(name_of(100, ACCOUNTS), None);
        assert_eq!(account(4_000_000_000, None), "4000000000");
        assert_eq!(account(4_000_000_000, Some("bob\n/x".to_owned())), "4000000000/bobx");
    }

    #[test]
    fn one_process_is_one_request() {
        assert_eq!(here(), here());
        let stored = actor().metadata("keys.rotate").to_json();
        let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
        let text = |field: &str| stored[field].as_str().unwrap().to_owned();
        assert_eq!(text("actor"), "system/cli");
        assert_eq!(text("credential"), format!("shell/{}", here().account));
        assert_eq!(text("source"), here().host);
        assert_eq!(text("request"), here().request);
        assert_eq!(text("correlation"), here().request);
        assert_eq!(text("causation"), format!("request/{}", here().request));
    }
}

//! Text that is not ours, without what looks like a secret: what Proxmox and the tools that it runs say
//! goes through here before any of it is stored, since an event cannot be taken back.

/// Names after which a value is taken for a secret.
const NAMES: [&str; 8] =
    ["password", "passwd", "secret", "token", "apikey", "api_key", "credential", "authorization"];

/// How a variable of a container stands in its configuration, and in the log of a restore that leaves
/// it out. Its name says nothing about its value.
const VARIABLE: &str = "lxc.environment";

const HIDDEN: &str = "[redacted]";

/// The text without what looks like a secret; once more changes nothing.
pub fn without_secrets(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(without_variable).collect();
    let text = lines.join("\n");
    let mut kept = String::with_capacity(text.len());
    // After a name that stood alone (`password: x`, `Authorization: Bearer x`), the words that follow.
    let mut hide = 0_usize;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        let space = &word[bare.len()..];
        let lower = bare.to_lowercase();
        let named = NAMES.iter().any(|name| lower.contains(name));
        let value = bare.find(['=', ':']).filter(|place| place + 1 < bare.len());
        if hide > 0 && !bare.is_empty() {
            // `Bearer` and its like say how the next word is to be taken.
            hide = usize::from(matches!(lower.as_str(), "bearer" | "basic" | "=" | ":"));
            kept.push_str(HIDDEN);
        } else if let Some(place) = credentials_in_url(bare) {
            kept.push_str(&bare[..place.start]);
            kept.push_str(HIDDEN);
            kept.push_str(&bare[place.end..]);
        } else if let (true, Some(place)) = (named, value) {
            kept.push_str(&bare[..=place]);
            kept.push_str(HIDDEN);
        } else {
            // `password:`, or an option whose value is the next word.
            hide = usize::from(named && (bare.ends_with([':', '=']) || bare.starts_with("--")));
            kept.push_str(bare);
        }
        kept.push_str(space);
    }
    kept
}

/// The line without the value of a container's variable.
fn without_variable(line: &str) -> String {
    let value = line.find(VARIABLE).and_then(|place| Some(place + line[place..].find('=')? + 1));
    match value {
        Some(value) => format!("{}{HIDDEN}", &line[..value]),
        None => line.to_owned(),
    }
}

/// Where `user:password` stands in `scheme://user:password@host`.
fn credentials_in_url(word: &str) -> Option<std::ops::Range<usize>> {
    let start = word.find("://")? + 3;
    let rest = &word[start..];
    let authority = &rest[..rest.find('/').unwrap_or(rest.len())];
    let end = authority.rfind('@')?;
    authority[..end].contains(':').then_some(start..start + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_taken_out_and_the_rest_stays() {
        for (line, kept) in [
            ("extracting archive '/mnt/a.tar.zst'", "extracting archive '/mnt/a.tar.zst'"),
            ("run --password=hunter2 --force", "run --password=[redacted] --force"),
            ("run --password hunter2 --force", "run --password [redacted] --force"),
            ("Password: hunter2 set", "Password: [redacted] set"),
            ("Authorization: Bearer abc", "Authorization: [redacted] [redacted]"),
            ("PVEAPIToken=root@pam!x=0f-1", "PVEAPIToken=[redacted]"),
            ("pull https://bob:pw@ghcr.io/x:1", "pull https://[redacted]@ghcr.io/x:1"),
            ("pull https://ghcr.io/x@sha256:12", "pull https://ghcr.io/x@sha256:12"),
            ("ADMIN_TOKEN:abc", "ADMIN_TOKEN:[redacted]"),
            ("lxc.environment.runtime: A=b c", "lxc.environment.runtime: A=[redacted]"),
            ("lxc.environment = A=b", "lxc.environment =[redacted]"),
            ("x\nlxc.environment: A=b\ny", "x\nlxc.environment: A=[redacted]\ny"),
            ("lxc.init.cwd: /srv", "lxc.init.cwd: /srv"),
            ("start: proxmox refuses the credential", "start: proxmox refuses the credential"),
        ] {
            assert_eq!(without_secrets(line), kept);
            assert_eq!(without_secrets(kept), kept, "once more changes nothing");
        }
    }
}
